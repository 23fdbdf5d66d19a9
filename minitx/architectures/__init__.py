"""Architectures: how each family of checkpoints is configured, and the names of its tensors."""

from minitx.architectures.registry import REGISTRY, architecture

__all__ = ["REGISTRY", "architecture"]
