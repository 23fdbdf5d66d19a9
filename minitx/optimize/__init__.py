"""Explicit passes over a model that change how it is computed, not what."""

from minitx.optimize.few_rows import few_rows, undo_few_rows

__all__ = ["few_rows", "undo_few_rows"]
