"""Data of a run: examples, and the order in which they are drawn."""
