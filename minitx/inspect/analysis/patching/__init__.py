"""Activation patching, its estimate by gradients, and path patching."""
