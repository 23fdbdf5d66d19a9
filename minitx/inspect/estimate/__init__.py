"""Parameters, memory and operations of a model, from its config alone."""

from minitx.inspect.estimate.report import Estimate, estimate

__all__ = ["Estimate", "estimate"]
