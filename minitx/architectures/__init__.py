"""Architectures: how each family of checkpoints is configured, and what its tensors are called."""

from minitx.architectures.registry import REGISTRY, architecture, register

__all__ = ["REGISTRY", "architecture", "register"]
