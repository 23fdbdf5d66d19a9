"""Decoding steps of fixed shapes, which a CUDA graph can record once and replay for every token."""
