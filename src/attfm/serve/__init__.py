"""Trained models at work: scoring by lookup, without torch or Arrow, and ranking items for a context."""
