"""Preprocessing that tasks share: inputs to what a model takes."""
