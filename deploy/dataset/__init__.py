"""Data sets: the episodes of a replay window as files that others can read, and back."""
