"""A trained model at work: ranking items for a context."""
