"""The arithmetic."""
