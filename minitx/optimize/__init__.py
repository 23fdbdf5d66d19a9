"""Passes over a model, which then computes the same outputs faster, or with less memory.

The outputs are equal up to rounding; those of the passes in bfloat16 and int8 are rounded further. The
package can be called: `minitx.optimize(model)` applies the passes that pay on this machine.
"""

from __future__ import annotations

import sys

import minitx.optimize.operator  # noqa: F401  registers minitx::linear
from minitx.optimize.auto import report, undo_optimize
from minitx.optimize.bfloat16 import bfloat16_is_faster, bfloat16_weights, undo_bfloat16_weights
from minitx.optimize.door import CallablePackage, with_call
from minitx.optimize.fuse import fuse_projections, undo_fuse_projections
from minitx.optimize.graphs.compiled import compiled_steps, undo_compiled_steps
from minitx.optimize.graphs.model import cuda_graphs, undo_cuda_graphs
from minitx.optimize.linear import fast_linear, undo_fast_linear
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.optimize.packed import pack_weights, packed_is_faster, undo_pack_weights
from minitx.optimize.recompute import recompute_layers, undo_recompute_layers
from minitx.optimize.screen import screen_head, undo_screen_head
from minitx.optimize.shortlist import (
    ShortlistTable,
    shortlisted,
    undo_vocabulary_shortlist,
    vocabulary_shortlist,
)
from minitx.optimize.unpadded import undo_unpadded, unpadded

__all__ = [
    "ShortlistTable",
    "bfloat16_is_faster",
    "bfloat16_weights",
    "compiled_steps",
    "cuda_graphs",
    "fast_linear",
    "fuse_projections",
    "mixed_dtypes",
    "pack_weights",
    "packed_is_faster",
    "recompute_layers",
    "report",
    "screen_head",
    "shortlisted",
    "undo_bfloat16_weights",
    "undo_compiled_steps",
    "undo_cuda_graphs",
    "undo_fast_linear",
    "undo_fuse_projections",
    "undo_optimize",
    "undo_pack_weights",
    "undo_recompute_layers",
    "undo_screen_head",
    "undo_unpadded",
    "undo_vocabulary_shortlist",
    "unpadded",
    "vocabulary_shortlist",
]

__doc__ = with_call(__doc__)
sys.modules[__name__].__class__ = CallablePackage
