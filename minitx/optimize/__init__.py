"""Explicit passes over a model that change how its outputs are computed, and not the outputs."""

from minitx.optimize.graphs.model import cuda_graphs, undo_cuda_graphs
from minitx.optimize.linear import fast_linear, undo_fast_linear
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.optimize.recompute import recompute_layers, undo_recompute_layers

__all__ = [
    "cuda_graphs",
    "fast_linear",
    "mixed_dtypes",
    "recompute_layers",
    "undo_cuda_graphs",
    "undo_fast_linear",
    "undo_recompute_layers",
]
