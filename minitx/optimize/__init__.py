"""Explicit passes over a model that change how its outputs are computed, and not the outputs."""

from minitx.optimize.few_rows import few_rows, undo_few_rows

__all__ = ["few_rows", "undo_few_rows"]
