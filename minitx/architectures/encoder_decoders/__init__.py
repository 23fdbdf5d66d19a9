"""Encoder-decoder architectures."""
