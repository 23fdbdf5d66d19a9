"""The order of examples, and the random numbers of batches."""

from __future__ import annotations

import pytest
import torch

from minitx.training import Sampler
from minitx.training.data.randomness import batch_generator, global_states, mix, seeded_states
from minitx.validation import ArgumentValueError


def test_every_epoch_has_all_examples_in_another_order() -> None:
    sampler = Sampler(10, seed=3)
    epochs = [sampler.take(10) for _ in range(4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert epochs != [Sampler(10, seed=4).take(10) for _ in range(4)]
    assert (sampler.epoch, sampler.position) == (4, 0)


@pytest.mark.parametrize("count", [1, 3, 7, 10, 23])
def test_batches_of_any_size_have_the_same_order(count: int) -> None:
    whole, parts = Sampler(10, seed=0), Sampler(10, seed=0)
    taken = [index for _ in range(10) for index in parts.take(count)]
    assert len(taken) == 10 * count
    assert taken == whole.take(10 * count)
    assert parts.state() == whole.state()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 5])
def test_shares_of_processes(world: int, count: int) -> None:
    """Together they are the order of one process, so a run continues with another number of processes."""
    alone = Sampler(7, seed=1)
    shares = [Sampler(7, seed=1, rank=rank, world_size=world) for rank in range(world)]
    for _ in range(9):
        assert [index for share in shares for index in share.take(count)] == alone.take(count * world)
        assert all(share.state() == alone.state() for share in shares)


def test_it_continues_in_the_middle_of_an_epoch() -> None:
    sampler, other = Sampler(10, seed=0), Sampler(10, seed=0)
    sampler.take(14)
    other.load_state(sampler.state())
    assert other.take(20) == sampler.take(20)


def test_the_order_of_the_dataset() -> None:
    assert Sampler(4, seed=0, shuffle=False).take(6) == [0, 1, 2, 3, 0, 1]


def test_errors() -> None:
    with pytest.raises(ArgumentValueError, match="the dataset has no examples"):
        Sampler(0, seed=0)
    with pytest.raises(ArgumentValueError, match="rank=2 must be from 0 to 1"):
        Sampler(5, seed=0, rank=2, world_size=2)
    with pytest.raises(ArgumentValueError, match="the dataset of the checkpoint, with 4 examples"):
        Sampler(5, seed=0).load_state(Sampler(4, seed=0).state())
    with pytest.raises(ArgumentValueError, match="seed"):
        Sampler(4, seed=1).load_state(Sampler(4, seed=0).state())


def test_seeds_are_mixed() -> None:
    """The same on every machine and in every version; neighbours have nothing in common."""
    assert mix(0) == 16294208416658607535  # the first output of SplitMix64 with the seed 0
    assert len({mix(a, b, c) for a in range(10) for b in range(10) for c in range(10)}) == 1000
    draws = [torch.rand(3, generator=batch_generator(0, number)) for number in range(3)]
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[2], torch.rand(3, generator=batch_generator(0, 2)))
    assert not torch.equal(draws[0], torch.rand(3, generator=batch_generator(0, 0, stream=9)))


def test_states_of_the_global_generator() -> None:
    cpu = torch.device("cpu")
    states, before = seeded_states(0, cpu), torch.get_rng_state()
    with global_states(states, cpu):
        first = torch.rand(3)
    with global_states(states, cpu):
        second = torch.rand(3)
    assert not torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    kept = states["cpu"].clone()
    with pytest.raises(TypeError), global_states(states, cpu):
        torch.rand("fails")  # type: ignore[call-overload]
    assert torch.equal(states["cpu"], kept)
    with global_states(seeded_states(0, cpu), cpu):
        assert torch.equal(first, torch.rand(3))
