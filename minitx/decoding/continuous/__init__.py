"""Continuous batching: many prompts through a fixed number of rows, each row refilled when it has ended."""
