"""Architectures: how each family of checkpoints is configured, and the names of its tensors."""

from minitx.architectures.registry import REGISTRY, architecture, register

__all__ = ["REGISTRY", "architecture", "register"]
