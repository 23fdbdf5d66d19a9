"""Greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass

from minitx.decoding.strategy import Strategy


@dataclass(frozen=True, kw_only=True, repr=False)
class Greedy(Strategy):
    """Takes the most probable token of each row; of equal ones the lowest id on a CPU.

    Its fields are those of every strategy: help(minitx.decoding.Strategy) documents them.
    """
