"""Synthetic tasks by name."""
