"""Commands that show the inside of a model."""
