"""Checkpoints to models and back: names, operations, files, Hub."""
