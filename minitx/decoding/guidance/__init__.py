"""Guidance: the logits of a step are combined with those of other prompts, models or layers."""
