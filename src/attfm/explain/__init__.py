"""Exact, signed accounts of predictions; it needs the model alone and no training code."""
