"""Record and change the values inside a model while it runs."""

from minitx.inspect.taps.ablate import ablate
from minitx.inspect.taps.edit import freeze, patch, steer, tap
from minitx.inspect.taps.record import Record, record
from minitx.inspect.taps.select import Selection

__all__ = ["Record", "Selection", "ablate", "freeze", "patch", "record", "steer", "tap"]
