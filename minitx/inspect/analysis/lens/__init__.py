"""The logit lens and the tuned lens."""
