"""The rows of a running generation: their tokens."""
