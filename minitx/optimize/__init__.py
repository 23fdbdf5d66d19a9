"""Explicit passes over a model that change how its outputs are computed, and not the outputs."""

from minitx.optimize.linear import fast_linear, undo_fast_linear
from minitx.optimize.mixed_dtypes import mixed_dtypes

__all__ = ["fast_linear", "mixed_dtypes", "undo_fast_linear"]
