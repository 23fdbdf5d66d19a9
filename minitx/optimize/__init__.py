"""Explicit passes over a model that change how its outputs are computed, and not the outputs."""

from minitx.optimize.fuse import fuse_projections, unfuse_projections
from minitx.optimize.graphs.model import cuda_graphs, undo_cuda_graphs
from minitx.optimize.linear import fast_linear, undo_fast_linear
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.optimize.packed import pack_weights, packed_is_faster, unpack_weights
from minitx.optimize.recompute import recompute_layers, undo_recompute_layers
from minitx.optimize.shortlist import (
    ShortlistTable,
    shortlisted,
    undo_vocabulary_shortlist,
    vocabulary_shortlist,
)
from minitx.optimize.unpadded import undo_unpadded, unpadded

__all__ = [
    "ShortlistTable",
    "cuda_graphs",
    "fast_linear",
    "fuse_projections",
    "mixed_dtypes",
    "pack_weights",
    "packed_is_faster",
    "recompute_layers",
    "shortlisted",
    "undo_cuda_graphs",
    "undo_fast_linear",
    "undo_recompute_layers",
    "undo_unpadded",
    "undo_vocabulary_shortlist",
    "unfuse_projections",
    "unpack_weights",
    "unpadded",
    "vocabulary_shortlist",
]
