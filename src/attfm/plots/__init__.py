"""Pictures of effects and of predictions, with matplotlib."""
