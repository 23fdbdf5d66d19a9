"""Benchmarks: engines side by side on the same work, whose answers are compared before a speed is shown."""
