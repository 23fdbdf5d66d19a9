"""Module-by-module comparison with transformers."""
