"""Columns in, ids out."""
