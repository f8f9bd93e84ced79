"""Kinds of columns: what each learns from the training rows, and how it turns values into features."""
