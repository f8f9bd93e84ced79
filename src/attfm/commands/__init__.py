"""What the commands of the command line do; their options are in `attfm.cli`."""
