"""Selectors draw from the distribution they are given, and nothing else decides what they draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minitx.decoding.samplers import counter_rng
from minitx.decoding.samplers.base import Argmax, Sampler
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.samplers.sample import MultinomialSampler
from tests.unit.decoding.chi_square import ALPHA, DRAWS, fit, independence

INF = float("inf")
# One token in ten thousand, one banned, two equal, the rest spread over two orders of magnitude.
SHARES = torch.tensor([1.0, 0.03, 0.5, 0.0, 0.5, 0.0003, 0.1, 0.02, 0.6, 0.25], dtype=torch.float64)
P = SHARES / SHARES.sum()
LOGITS = P.log().float()
KEYS = torch.arange(DRAWS)


def rows(logits: Tensor, count: int = DRAWS) -> Tensor:
    return logits.expand(count, -1)


def race(logits: Tensor) -> Tensor:
    return MultinomialSampler(torch.Generator().manual_seed(1))(rows(logits), 0)


def neighbouring_keys(logits: Tensor) -> Tensor:
    return CounterGumbel(KEYS)(rows(logits), 0)


def neighbouring_positions(logits: Tensor) -> Tensor:
    return CounterGumbel(torch.zeros_like(KEYS))(rows(logits), KEYS)


def samples_of_a_prompt(logits: Tensor) -> Tensor:
    return CounterGumbel(row_keys(7, [[1, 2, 3]], num_samples=DRAWS))(rows(logits), 5)


SAMPLERS = [race, neighbouring_keys, neighbouring_positions, samples_of_a_prompt]


# The law


@pytest.mark.parametrize("draw", SAMPLERS)
def test_draws_follow_the_distribution(draw: Sampler) -> None:
    draws = draw(LOGITS)  # type: ignore[call-arg]
    assert fit(draws, P) > ALPHA
    assert set(draws.tolist()) == set(P.nonzero().flatten().tolist())  # all that are possible, no other


@pytest.mark.parametrize("draw", SAMPLERS)
def test_a_shift_of_the_logits_changes_nothing(draw: Sampler) -> None:
    assert fit(draw(LOGITS + 30), P) > ALPHA  # type: ignore[call-arg]


@pytest.mark.parametrize("draw", SAMPLERS)
def test_draws_follow_the_distribution_among_few_survivors(draw: Sampler) -> None:
    """Noise is then computed for the survivors alone."""
    logits = torch.full((100,), -INF)
    logits[torch.arange(0, 100, 10)] = LOGITS
    draws = draw(logits)  # type: ignore[call-arg]
    assert (draws % 10 == 0).all()
    assert fit(draws // 10, P) > ALPHA


@pytest.mark.parametrize("draw", [race, neighbouring_keys])
def test_a_wrong_law_is_found(draw: Sampler) -> None:
    """The test has power: 0.012 more of one token and less of another are enough."""
    wrong = P.clone()
    wrong[0] += 0.012
    wrong[8] -= 0.012
    assert fit(draw(LOGITS), wrong) < ALPHA  # type: ignore[call-arg]


def test_multiplying_by_the_noise_is_found() -> None:
    times = torch.empty(DRAWS, len(P)).exponential_(generator=torch.Generator().manual_seed(1))
    assert fit((P / times).argmax(-1), P) > ALPHA
    assert fit((P * times).argmax(-1), P) < ALPHA


@pytest.mark.parametrize(
    "draw", [MultinomialSampler(torch.Generator().manual_seed(2)), CounterGumbel(torch.arange(10**6))]
)
def test_rare_tokens_are_as_rare_as_they_should_be(draw: Sampler) -> None:
    """Of a million draws, 100 are due to a token of 1e-4; twelve decimal places down nothing is due."""
    p = torch.tensor([0.5, 1e-4, 0.5 - 1e-4 - 1e-12, 1e-12], dtype=torch.float64)
    draws = draw(rows(p.log().float(), 10**6), 3)
    assert abs(int((draws == 1).sum()) - 100) < 4.9 * 10  # z = 4.9 is alpha = 1e-6
    assert not (draws == 3).any()


def test_no_part_of_a_large_vocabulary_is_preferred() -> None:
    size, count, buckets = 128_000, 1280, 64
    logits = torch.linspace(0.0, 0.1, size)
    p = logits.double().softmax(-1)
    keys = torch.arange(count)
    draws = torch.cat([CounterGumbel(part)(rows(logits, len(part)), 9) for part in keys.split(32)])
    uniform = torch.arange(size)
    for bucket in (uniform * buckets // size, uniform % buckets, uniform * 2654435761 % 2**32 >> 26):
        shares = torch.zeros(buckets, dtype=torch.float64).index_add_(0, bucket, p)
        assert fit(bucket[draws], shares) > ALPHA
    assert len(draws.unique()) > 0.97 * count  # a few meet by chance


# Independence


def test_rows_and_positions_are_independent() -> None:
    draws = neighbouring_keys(LOGITS)
    assert independence(draws[:-1:2], draws[1::2], 10) > ALPHA
    assert independence(draws, CounterGumbel(KEYS)(rows(LOGITS), 1), 10) > ALPHA
    assert independence(draws, CounterGumbel(KEYS)(rows(LOGITS.flip(0)), 2**31 - 1), 10) > ALPHA
    draws = neighbouring_positions(LOGITS)
    assert independence(draws[:-1], draws[1:], 10) > ALPHA
    draws = samples_of_a_prompt(LOGITS)
    assert independence(draws[:-1:2], draws[1::2], 10) > ALPHA
    other = CounterGumbel(row_keys(8, [[1, 2, 3]], num_samples=DRAWS))(rows(LOGITS), 5)
    assert independence(draws, other, 10) > ALPHA


@pytest.mark.parametrize("bit", [0, 1, 31, 32, 33, 62])
def test_every_bit_of_a_key_counts(bit: int) -> None:
    draws = [CounterGumbel(keys)(rows(LOGITS), 0) for keys in (KEYS << 20, (KEYS << 20) ^ (1 << bit))]
    assert independence(*draws, 10) > ALPHA


def test_noise_that_is_used_twice_is_found() -> None:
    draws = neighbouring_keys(LOGITS)
    again = CounterGumbel(KEYS)(rows(LOGITS.roll(1)), 0)  # another distribution, the same noise
    assert independence(draws, again, 10) < ALPHA


# Identity with torch.multinomial


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 33), (1, 50_257), (8, 1000)])
def test_race_equals_multinomial(shape: tuple[int, int], dtype: torch.dtype) -> None:
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    chooses = MultinomialSampler(ours)
    for step in range(20):
        logits = 4 * torch.randn(shape, dtype=dtype)
        logits[:, 1:][torch.rand(shape)[:, 1:] < 0.3] = -INF
        expected = torch.multinomial(torch.softmax(logits, -1), 1, generator=theirs).squeeze(1)
        assert torch.equal(chooses(logits, step), expected)
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_race_without_a_generator_takes_the_global_one() -> None:
    logits = torch.randn(64, 20)
    torch.manual_seed(5)
    expected = torch.multinomial(torch.softmax(logits, -1), 1).squeeze(1)
    torch.manual_seed(5)
    assert torch.equal(MultinomialSampler()(logits, 0), expected)


# Invariance


@pytest.mark.parametrize("left", [500, 20])  # dense, and few enough to look at the survivors alone
def test_a_row_draws_the_same_alone_in_a_batch_and_in_another_slot(left: int) -> None:
    logits = torch.randn(6, 500).topk(left)
    logits = torch.full((6, 500), -INF).scatter_(1, logits.indices, logits.values)
    keys = torch.tensor([3, -(2**63), 2**63 - 1, 0, 99, 3 << 32])
    positions = torch.tensor([0, 1, 2, 3, 1000, 2**31])
    together = CounterGumbel(keys)(logits, positions)
    for row in range(6):
        alone = CounterGumbel(keys[row : row + 1])(logits[row : row + 1], int(positions[row]))
        assert alone.item() == together[row]
    slots = torch.tensor([5, 0, 3, 3, 1])
    assert torch.equal(CounterGumbel(keys[slots])(logits[slots], positions[slots]), together[slots])


def test_what_others_lost_does_not_change_a_row() -> None:
    """The noise of a token is the same when all tokens, or only a few, get some."""
    logits = torch.randn(200, 300)
    dense = CounterGumbel(torch.arange(200))(logits, 4)
    few = torch.full_like(logits, -INF)
    for token in (dense, dense - 1, dense - 7):  # the winner of each row and two losers
        few.scatter_(1, token[:, None] % 300, logits.gather(1, token[:, None] % 300))
    assert torch.equal(CounterGumbel(torch.arange(200))(few, 4), dense)


def test_nothing_else_matters() -> None:
    logits = torch.randn(4, 50)
    noise = CounterGumbel(torch.arange(4))
    first = noise(logits, 0)
    noise(logits, 1)
    torch.manual_seed(123)
    assert torch.equal(noise(logits, 0), first)


def test_the_same_tokens_in_every_version() -> None:
    """Whoever wrote a seed down gets the same text: these numbers must not change."""
    keys = row_keys([0, 0, 1, -5], [[1, 2], [1, 2], [1, 2], []], num_samples=2)
    logits = torch.arange(1000.0).sin()[None].expand(8, -1)
    assert keys.tolist() == PINNED_KEYS
    assert [CounterGumbel(keys)(logits, position).tolist() for position in (0, 1, 77)] == PINNED_TOKENS


PINNED_KEYS = [
    2193850553614551167,
    -6976951869896918660,
    2412305634278163892,
    8039201830801555756,
    5210293612535240771,
    2145246869434120167,
    1299308796811778836,
    5869914129802058170,
]
PINNED_TOKENS = [
    [566, 511, 686, 737, 655, 297, 733, 783],
    [342, 573, 356, 778, 776, 189, 385, 20],
    [32, 907, 815, 938, 122, 393, 64, 787],
]


# Edges


def test_a_token_of_no_probability_is_never_drawn() -> None:
    for banned in (0.5, 0.99):
        logits = torch.randn(DRAWS, 50)
        logits[:, :-1][torch.rand(DRAWS, 49) < banned] = -INF
        for draws in (
            MultinomialSampler(torch.Generator().manual_seed(4))(logits, 0),
            CounterGumbel(KEYS)(logits, 0),
            Argmax()(logits, 0),
        ):
            assert (logits.gather(1, draws[:, None]) > -INF).all()


def test_the_only_token_left_is_drawn() -> None:
    for scale in (-1e4, 0.0, 1e4):
        logits = torch.full((3, 12), -INF)
        logits[torch.arange(3), torch.tensor([0, 11, 5])] = scale
        for sampler in (Argmax(), MultinomialSampler(), CounterGumbel(torch.arange(3))):
            assert sampler(logits, 0).tolist() == [0, 11, 5]
            assert sampler(torch.full((3, 1), scale), 0).tolist() == [0, 0, 0]


def test_noise_is_finite_at_both_ends() -> None:
    """The hash is a bijection, so both 0 and 2^32 - 1 come out of it; neither may be sure to win or lose."""
    ends = torch.tensor([unmixed(0), unmixed(2**32 - 1)])
    assert counter_rng.mixed(ends).tolist() == [0, 2**32 - 1]
    noise = counter_rng._gumbel(ends)
    assert noise[0].item() == pytest.approx(22.87, abs=0.01)  # -ln 2^-33
    assert noise[1].item() == pytest.approx(-2.81, abs=0.01)  # -ln ln 2^24


def unmixed(number: int) -> int:
    """The inverse of the hash: its steps, undone from the last to the first."""
    for shift, factor in ((15, 0x735A2D97), (15, 0x21F0AAAD), (16, 1)):
        mixed = number
        for _ in range(2):  # each round restores `shift` more bits, from the top down
            number = mixed ^ number >> shift
        number = number * pow(factor, -1, 2**32) % 2**32
    return number


def test_argmax_takes_the_first_of_equals() -> None:
    assert Argmax()(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, -INF]]), 0).tolist() == [1, 0]


# Keys


def test_a_key_depends_on_seed_prompt_and_occurrence_alone() -> None:
    alone = row_keys(1, [[4, 5]]).item()
    batch = row_keys(1, [[4], [4, 5], [4, 5, 6], [4, 5]])
    assert batch[1] == alone
    assert len(set(batch.tolist())) == 4  # the second [4, 5] is another row
    assert row_keys([9, 1], [[4, 5], [4, 5]])[1] == alone  # each seed counts its own
    assert torch.equal(row_keys(torch.tensor([1, 1]), [[4, 5], [4, 5]]), row_keys(1, [[4, 5], [4, 5]]))
    assert torch.equal(row_keys(torch.tensor(1), [[4, 5]]), row_keys(1, [[4, 5]]))
    assert torch.equal(row_keys([np.int64(1)], [[4, 5]]), row_keys(1, [[4, 5]]))
    assert torch.equal(row_keys(np.uint8(1), [[4, 5]]), row_keys(1, [[4, 5]]))
    samples = row_keys(1, [[4, 5], [6], [4, 5]], num_samples=3)
    assert samples.shape == (9,)
    assert len(set(samples.tolist())) == 9
    assert samples[:3].tolist() == row_keys(1, [[4, 5]] * 3).tolist()
    assert row_keys(1, [[45]]) != alone
    assert row_keys(14, [[5]]) != row_keys(1, [[4, 5]])
    assert row_keys(2**100, [[5]]) != row_keys(-(2**100), [[5]])


def test_seeds_that_are_none() -> None:
    with pytest.raises(
        ValueError, match=r"seed=\[1, 2, 3\] must be an integer, or one for each of the 2 prompts"
    ):
        row_keys([1, 2, 3], [[4], [5]])
    for seed in ([True], [1.0]):
        with pytest.raises(TypeError, match="must be an integer"):
            row_keys(seed, [[4]])  # type: ignore[arg-type]
    for seed in (True, 1.0, torch.tensor(1.0)):
        with pytest.raises(TypeError, match="must be an integer"):
            row_keys(seed, [[4]])  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [torch.zeros(2, 1, dtype=torch.long), torch.zeros(2)])
def test_keys_that_are_none(keys: Tensor) -> None:
    with pytest.raises(ValueError, match=r"keys=.* must be one torch.long per row"):
        CounterGumbel(keys)
