"""Encoder architectures."""
