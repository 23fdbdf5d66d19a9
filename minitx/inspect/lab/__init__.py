"""The page of `minitx.inspect.view` with the live model: type, switch heads off, and all views follow."""

from minitx.inspect.lab.lab import Lab as Lab
from minitx.inspect.lab.lab import lab as lab
