"""Random numbers of a run as functions of its seed: a run that resumes needs no history.

The order of an epoch depends on (seed, epoch), and the random numbers of a batch on (seed, number of the
batch). Dropout draws from PyTorch's global generators; the run has its own states of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

ORDER, BATCH, EVALUATION, DROPOUT = 1, 2, 3, 4  # streams of random numbers that have nothing in common
_MASK = 2**64 - 1


def mix(*numbers: int) -> int:
    """Returns a seed from several numbers, in [0, 2^64).

    Each number is added to the state, which then takes one step of SplitMix64 (Steele, Lea and Flood 2014,
    "Fast splittable pseudorandom number generators", figure 17, with the constants of variant 13).
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def batch_generator(seed: int, number: int, stream: int = BATCH) -> torch.Generator:
    """Returns the source of randomness of one batch.

    Args:
        seed: of the run.
        number: of the batch, from 0.
        stream: BATCH, or another purpose.
    """
    return torch.Generator().manual_seed(mix(seed, stream, number))


def seeded_states(seed: int, device: torch.device, rank: int = 0) -> dict[str, Tensor]:
    """Returns states of the global generators of the CPU and of a device, by its type.

    Args:
        seed: of the run.
        device: where the model lies.
        rank: number of the process; each has random numbers of its own.
    """
    seed = mix(seed, DROPOUT, rank) if rank else mix(seed, DROPOUT)
    types = {"cpu": torch.device("cpu"), device.type: device}
    return {kind: torch.Generator(place).manual_seed(seed).get_state() for kind, place in types.items()}


@contextmanager
def global_states(states: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """Gives the global generators these states; afterwards they have their own again.

    Args:
        states: by type of the device; if the body succeeds, those at its end.
        device: where the model lies.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(states["cpu"])
        for place in devices:
            torch.cuda.set_rng_state(states["cuda"], place)
        yield
        states["cpu"] = torch.get_rng_state()
        for place in devices:
            states["cuda"] = torch.cuda.get_rng_state(place)
