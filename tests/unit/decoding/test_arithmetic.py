"""Arithmetic sampling: each sample is a draw from the model, and the samples of a prompt are spread out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minitx.decoding.generate import generate
from minitx.decoding.samplers.arithmetic import (
    ArithmeticCode,
    ArithmeticSample,
    spread,
)
from minitx.decoding.samplers.base import Sampler
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.chi_square import ALPHA, fit, independence
from tests.unit.decoding.searches import EOS, PROMPT, all_texts, tiny, tokens

# A first-order model of three tokens: what follows each of them, and in the last row what begins.
SHARES = torch.tensor(
    [[0.6, 0.3, 0.1], [0.0, 0.5, 0.5], [0.2, 0.1, 0.7], [0.35, 0.25, 0.4]], dtype=torch.float64
)
LOGITS = SHARES.log().float()
VOCAB = 3
PROMPTS = 20_000


def generated(sampler: Sampler, rows: int, length: int) -> Tensor:
    """(rows, length) tokens of the model."""
    last = torch.full((rows,), VOCAB)
    tokens = []
    for position in range(length):
        last = sampler(LOGITS[last], position)
        tokens.append(last)
    return torch.stack(tokens, dim=1)


def numbered(tokens: Tensor) -> Tensor:
    """(rows, length) tokens -> (rows,): which of all texts of that length."""
    places = VOCAB ** torch.arange(tokens.shape[1] - 1, -1, -1)
    return (tokens * places).sum(dim=1)


def law(length: int) -> Tensor:
    """(V ** length,): the probability of each text."""
    found = []
    for text in itertools.product(range(VOCAB), repeat=length):
        p, last = 1.0, VOCAB
        for token in text:
            p, last = p * float(SHARES[last, token]), token
        found.append(p)
    return torch.tensor(found, dtype=torch.float64)


def by_seed(prompts: int, samples: int) -> ArithmeticCode:
    return ArithmeticCode.from_seed(5, [[number] for number in range(prompts)], samples)


def by_generator(prompts: int, samples: int) -> ArithmeticCode:
    return ArithmeticCode.from_generator(torch.Generator().manual_seed(5), prompts, samples)


MAKERS = [by_seed, by_generator]


# Each sample alone


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("sample", range(3))
def test_each_sample_is_a_draw(make: Callable[[int, int], ArithmeticCode], sample: int) -> None:
    texts = numbered(generated(make(PROMPTS, 3), PROMPTS * 3, 4)).view(PROMPTS, 3)
    assert fit(texts[:, sample], law(4)) > ALPHA


@pytest.mark.parametrize("make", MAKERS)
def test_draws_stay_draws_in_long_texts(make: Callable[[int, int], ArithmeticCode]) -> None:
    """Sixty tokens take about 80 bits, of which a float64 has 53."""
    tokens = generated(make(PROMPTS, 1), PROMPTS, 61)
    for position in (35, 45, 60):
        marginal = SHARES[VOCAB] @ torch.linalg.matrix_power(SHARES[:VOCAB], position)
        assert fit(tokens[:, position], marginal) > ALPHA
        for token in range(VOCAB):
            after = tokens[tokens[:, position - 1] == token, position]
            assert fit(after, SHARES[token]) > ALPHA
    assert independence(tokens[:, 30], tokens[:, 60], VOCAB) > ALPHA
    assert len(tokens.unique(dim=0)) > 0.999 * PROMPTS


def test_a_fair_coin_stays_fair() -> None:
    """With N = 4, two tosses have their row's code, and the others fresh ones."""
    fair, coin = torch.zeros(PROMPTS, 2), torch.tensor([0.5, 0.5])

    def tosses(sampler: Sampler) -> Tensor:
        return torch.stack([sampler(fair, position) for position in range(70)])

    for all_samples in (tosses(by_seed(PROMPTS // 4, 4)), tosses(by_generator(PROMPTS // 4, 4))):
        for tossed in (all_samples[:, ::4], all_samples[:, 3::4]):
            assert all(fit(tossed[position], coin) > ALPHA for position in (0, 1, 2, 3, 40, 69))
            for first, second in ((0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (10, 65)):
                assert independence(tossed[first], tossed[second], 2) > ALPHA
    codes = torch.rand(PROMPTS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    stale = tosses(ArithmeticCode(codes, 1, lambda _: codes))  # the control: not fresh
    assert independence(stale[0], stale[1], 2) < ALPHA


def test_control_codes_that_stay_in_their_part() -> None:
    """(n + u) / N would be spread out just the same, but no sample alone a draw."""
    source = torch.Generator().manual_seed(5)
    shift = torch.rand(PROMPTS, generator=source, dtype=torch.float64)
    codes = ((torch.arange(3) + shift[:, None]) / 3).flatten()
    sampler = ArithmeticCode(
        codes, 3, lambda _: torch.rand(PROMPTS * 3, generator=source, dtype=torch.float64)
    )
    texts = numbered(generated(sampler, PROMPTS * 3, 2)).view(PROMPTS, 3)
    assert fit(texts.flatten()[torch.arange(0, PROMPTS * 3, 4)], law(2)) > ALPHA  # all together
    assert fit(texts[:, 1], law(2)) < ALPHA


# The samples of a prompt together


def rounded(counts: Tensor, expected: Tensor) -> bool:
    """Whether counts are what was expected, rounded up or down."""
    return bool(((counts - expected).abs() < 1 + 1e-9).all())


def counts(texts: Tensor, size: int) -> Tensor:
    """(prompts, N) -> (prompts, size): how often each text is there."""
    return torch.nn.functional.one_hot(texts, size).sum(dim=1)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("samples", [2, 7, 32])
def test_every_beginning_comes_as_often_as_it_should(
    make: Callable[[int, int], ArithmeticCode], samples: int
) -> None:
    tokens = generated(make(50, samples), 50 * samples, 4)
    for length in range(1, 5):
        texts = numbered(tokens[:, :length]).view(50, samples)
        assert rounded(counts(texts, VOCAB**length), samples * law(length))


def test_control_independent_samples_are_not_spread() -> None:
    noise = CounterGumbel(row_keys(5, [[number] for number in range(50)], 32))
    texts = numbered(generated(noise, 50 * 32, 2)).view(50, 32)
    assert not rounded(counts(texts, VOCAB**2), 32 * law(2))


def test_averages_vary_less_and_samples_differ_more() -> None:
    """How often a token comes, averaged over the samples of a prompt; and how many texts there are."""
    samples, prompts = 16, 2000
    keys = row_keys(3, [[number] for number in range(prompts)], samples)
    spread_out = generated(by_seed(prompts, samples), prompts * samples, 4)
    independent = generated(CounterGumbel(keys), prompts * samples, 4)
    averages = [(t == 0).double().sum(1).view(prompts, samples).mean(1) for t in (spread_out, independent)]
    assert abs(float(averages[0].mean() - averages[1].mean())) < 0.02
    assert averages[0].var() < 0.35 * averages[1].var()
    texts = [numbered(t).view(prompts, samples) for t in (spread_out, independent)]
    different = [float(torch.tensor([len(row.unique()) for row in t]).double().mean()) for t in texts]
    assert different[0] > different[1] + 1


# Codes


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
    st.lists(st.floats(-30, 5) | st.just(-torch.inf), min_size=1, max_size=9),
)
def test_no_token_that_is_banned_is_taken(codes: list[float], logits: list[float]) -> None:
    z = torch.tensor(logits).expand(len(codes), -1)
    if bool((z == -torch.inf).all()):
        return
    sampler = ArithmeticCode(
        torch.tensor(codes, dtype=torch.float64), 1, lambda _: torch.tensor(codes, dtype=torch.float64)
    )
    for position in range(40):
        token = sampler(z, position)
        assert (z.gather(1, token[:, None]) > -torch.inf).all()


def test_the_ends_of_the_interval() -> None:
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    z = torch.tensor([-torch.inf, 0.3, -1.0, 0.1, -torch.inf]).expand(2, -1)
    sampler = ArithmeticCode(ends, 1, lambda _: ends)
    assert [sampler(z, position).tolist() for position in range(30)] == [[1, 3]] * 30


def test_spread() -> None:
    codes = spread(torch.tensor([0.0, 0.9], dtype=torch.float64), 4)
    torch.testing.assert_close(codes, torch.tensor([0, 0.25, 0.5, 0.75, 0.9, 0.15, 0.4, 0.65]).double())


def test_a_selector_begins_anew() -> None:
    """And takes rows at positions of their own."""
    sampler = by_seed(3, 2)
    once = generated(sampler, 6, 5)
    assert generated(sampler, 6, 5).equal(once)
    sampler(LOGITS[torch.full((6,), VOCAB)], torch.zeros(6, dtype=torch.long))
    assert sampler(LOGITS[once[:, 0]], torch.ones(6, dtype=torch.long)).equal(once[:, 1])


def test_a_prompt_draws_the_same_in_any_batch() -> None:
    three = [[1, 2], [3], [1, 2]]
    together = generated(ArithmeticCode.from_seed(9, three, 4), 12, 6).view(3, 4, 6)
    assert generated(ArithmeticCode.from_seed(9, [[3]], 4), 4, 6).equal(together[1])
    assert generated(ArithmeticCode.from_seed(9, [[1, 2]], 4), 4, 6).equal(together[0])
    assert not together[0].equal(together[2])
    assert not generated(ArithmeticCode.from_seed(8, [[3]], 4), 4, 6).equal(together[1])


def test_fields_are_those_of_sample() -> None:
    with pytest.raises(ValueError, match=r"top_p=1\.2"):
        ArithmeticSample(top_p=1.2)
    assert repr(ArithmeticSample(top_k=3).build()) == "Chain(TopK(top_k=3))"


# In generate


@pytest.mark.parametrize("by_generator", [False, True])
def test_the_texts_of_a_model_are_spread(by_generator: bool) -> None:
    """Each text, and each beginning, as often as it should come, rounded up or down."""
    texts, samples = all_texts(3, temperature=1.5), 40
    source = {"generator": torch.Generator().manual_seed(3)} if by_generator else {"seed": 3}
    strategy = ArithmeticSample(temperature=1.5)
    result = generate(
        tiny(),
        [list(PROMPT)] * 6,
        strategy,
        num_samples=samples,
        max_new_tokens=3,
        stop=Stop(eos=EOS),
        **source,
    )
    rows = tokens(result)
    for length in (1, 2, 3):
        expected: dict[Any, float] = {}
        for text, logp in texts.items():
            expected[text[:length]] = expected.get(text[:length], 0.0) + math.exp(logp)
        for prompt in range(6):
            mine = [text[:length] for text in rows[prompt * samples : (prompt + 1) * samples]]
            assert all(abs(mine.count(text) - samples * p) < 1 + 1e-4 for text, p in expected.items())
    assert rows[:samples] != rows[samples : 2 * samples]  # equal prompts draw on their own


def test_a_row_alone_in_a_batch_and_with_processors() -> None:
    strategy = ArithmeticSample(top_k=3, repetition_penalty=1.2)
    prompts = [[1, 2, 3], [4], [2, 2]]
    batch = tokens(generate(tiny(), prompts, strategy, num_samples=4, max_new_tokens=9, seed=7))
    for number, prompt in enumerate(prompts):
        alone = tokens(generate(tiny(), [prompt], strategy, num_samples=4, max_new_tokens=9, seed=7))
        assert alone == batch[number * 4 : number * 4 + 4]


def test_what_is_rounded_otherwise_beside_other_rows_changes_nothing() -> None:
    """A code that went on for ever would make the last bits of the logits as large as itself."""
    prompts = [[number] for number in range(24)]
    noise = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(16, 24 * 4, 50, generator=noise)
    exact, rounded = ArithmeticCode.from_seed(3, prompts, 4), ArithmeticCode.from_seed(3, prompts, 4)
    for position, once in enumerate(logits):
        again = once + 1e-6 * torch.randn(once.shape, generator=noise)
        assert rounded(again, position).equal(exact(once, position))
    model = tiny(50, seed=2)
    options: dict[str, Any] = {"num_samples": 4, "max_new_tokens": 16, "seed": 3, "stop": Stop(eos=())}
    batch = tokens(generate(model, prompts, ArithmeticSample(), **options))
    for number, prompt in enumerate(prompts):
        alone = tokens(generate(model, [prompt], ArithmeticSample(), **options))
        assert alone == batch[number * 4 : number * 4 + 4]


def test_rounding_does_not_decide_when_a_code_is_fresh() -> None:
    """After a token of four that are alike, N q is 1 but for rounding errors."""
    noise = torch.Generator().manual_seed(0)
    prompts = [[number] for number in range(25)]
    then = torch.randn(100, 50, generator=noise)
    found = []
    for _ in range(2):
        sampler = ArithmeticCode.from_seed(3, prompts, 4)
        sampler(1e-6 * torch.randn(100, 4, generator=noise), 0)
        found.append(sampler(then, 1))
    assert found[0].equal(found[1])


def test_two_sources() -> None:
    with pytest.raises(ValueError, match="two sources of randomness"):
        generate(tiny(), [[1]], ArithmeticSample(), max_new_tokens=1, seed=1, generator=torch.Generator())
