"""Layer-by-layer comparison with transformers."""
