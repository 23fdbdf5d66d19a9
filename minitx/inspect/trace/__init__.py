"""Every step from text to answer: names, equations, shapes, costs and values."""

from minitx.inspect.trace.run import trace
from minitx.inspect.trace.step import Entry, Step, Trace

__all__ = ["Entry", "Step", "Trace", "trace"]
