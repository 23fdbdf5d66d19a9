"""Explicit passes over a model that change how its outputs are computed, and not the outputs."""

from minitx.optimize.few_rows import few_rows, undo_few_rows
from minitx.optimize.mixed_dtypes import mixed_dtypes

__all__ = ["few_rows", "mixed_dtypes", "undo_few_rows"]
