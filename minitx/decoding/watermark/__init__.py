"""Watermarks: text whose origin a test finds out, with the key alone and without the model."""
