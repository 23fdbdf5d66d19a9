"""Decoding steps of fixed shapes, which a CUDA graph can record once and replay for every token."""

from minitx.optimize.graphs.model import cuda_graphs, undo_cuda_graphs

__all__ = ["cuda_graphs", "undo_cuda_graphs"]
