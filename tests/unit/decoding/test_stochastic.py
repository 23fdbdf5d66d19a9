"""Stochastic beam search: texts drawn without replacement, against all texts of a tiny model."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minitx.decoding import TopK
from minitx.decoding.search.stochastic import StochasticBeam, conditioned
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.chi_square import ALPHA, fit
from tests.unit.decoding.searches import EOS, PROMPT, all_texts, search, tokens

PROMPTS, SAMPLES = 2000, 3
TEXTS = all_texts(3, temperature=0.8)
NUMBERS = {text: number for number, text in enumerate(TEXTS)}
P = torch.tensor([math.exp(logp) for logp in TEXTS.values()], dtype=torch.float64)


@cache
def drawn(by_generator: bool = False) -> Any:
    generator = torch.Generator().manual_seed(0) if by_generator else None
    strategy = StochasticBeam(num_beams=SAMPLES + 1, temperature=0.8)
    return search(strategy, [PROMPT] * PROMPTS, num_samples=SAMPLES, generator=generator)


def numbers(by_generator: bool = False) -> Tensor:
    """(PROMPTS, SAMPLES): which texts were drawn."""
    return torch.tensor([NUMBERS[text] for text in tokens(drawn(by_generator))]).view(PROMPTS, SAMPLES)


def pairs() -> Tensor:
    """The probability of each first and second text: p_i p_j / (1 - p_i)."""
    joint = P[:, None] * P / (1 - P)[:, None]
    return joint.fill_diagonal_(0).flatten()


def inclusion(samples: int) -> Tensor:
    """The probability of each text to be among so many drawn without replacement."""
    found = torch.zeros_like(P)
    for order in itertools.permutations(range(len(P)), samples):
        p, left = 1.0, 1.0
        for text in order:
            p, left = p * float(P[text]) / left, left - float(P[text])
        for text in order:
            found[text] += p
    return found


@pytest.mark.parametrize("by_generator", [False, True])
def test_texts_are_drawn_one_after_the_other_without_replacement(by_generator: bool) -> None:
    texts = numbers(by_generator)
    assert all(len(row.unique()) == SAMPLES for row in texts)
    assert fit(texts[:, 0], P) > ALPHA
    assert fit(texts[:, 0] * len(P) + texts[:, 1], pairs()) > ALPHA


def test_inclusion_probabilities() -> None:
    expected, times = inclusion(2), torch.bincount(numbers()[:, :2].flatten(), minlength=len(P))
    deviation = (PROMPTS * expected * (1 - expected)).sqrt()
    assert ((times - PROMPTS * expected).abs() < 5 * deviation + 1).all()
    assert ((times - PROMPTS * 2 * P).abs() > 5 * deviation + 1).any()  # the control: with replacement


def test_control_draws_with_replacement_are_found() -> None:
    first = numbers()[:, 0]
    independent = first * len(P) + first.roll(1)
    assert fit(independent, pairs()) < ALPHA


def test_control_noise_without_condition_is_found() -> None:
    """Children whose largest is not their parent's number: what plain Gumbel noise at each step would do."""
    strategy = _Unconditioned(num_beams=SAMPLES + 1, temperature=0.8)
    result = search(strategy, [PROMPT] * PROMPTS, num_samples=SAMPLES)
    texts = torch.tensor([NUMBERS[text] for text in tokens(result)]).view(PROMPTS, SAMPLES)
    assert fit(texts[:, 0] * len(P) + texts[:, 1], pairs()) < ALPHA


class _Unconditioned(StochasticBeam):
    def search(self, call: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            name = "minitx.decoding.search.stochastic.conditioned"
            patch.setattr(name, lambda numbers, largest: numbers.where(largest > -torch.inf, -torch.inf))
            return super().search(call)


def estimates(values: Tensor) -> Tensor:
    """(PROMPTS,): each prompt's estimate of the mean of `values` over all texts."""
    weights = torch.tensor(drawn().log_weights, dtype=torch.float64).exp().view(PROMPTS, SAMPLES)
    return (weights * values[numbers()]).sum(dim=1)


@pytest.mark.parametrize("token", range(3))
def test_estimates_have_no_bias(token: int) -> None:
    values = torch.tensor([text.count(token) for text in TEXTS], dtype=torch.float64)
    found = estimates(values)
    assert abs(found.mean() - (P * values).sum()) < 5 * found.std() / PROMPTS**0.5


def test_control_the_plain_mean_over_the_sample_has_a_bias() -> None:
    """Improbable texts come too often. The mean of a text's own probability shows it."""
    plain, found = P[numbers()].mean(dim=1), estimates(P)
    assert abs(found.mean() - (P * P).sum()) < 5 * found.std() / PROMPTS**0.5
    assert abs(plain.mean() - (P * P).sum()) > 5 * plain.std() / PROMPTS**0.5


def test_weights_sum_to_one_on_average() -> None:
    found = estimates(torch.ones_like(P))
    assert abs(found.mean() - 1) < 5 * found.std() / PROMPTS**0.5


def test_all_texts_that_there_are() -> None:
    """Then the sample is no sample: weights are probabilities, and there is no threshold."""
    result = search(StochasticBeam(num_beams=90, temperature=0.8), [PROMPT], num_samples=len(P))
    assert set(tokens(result)) == set(TEXTS)
    for text, weight in zip(tokens(result), result.log_weights, strict=True):
        assert weight == pytest.approx(TEXTS[text], abs=1e-5)
    assert result.scores == sorted(result.scores, reverse=True)
    with pytest.raises(ValueError, match="Prompt 0: 85 of the num_samples=86 hypotheses were found"):
        search(StochasticBeam(num_beams=90), [PROMPT], num_samples=86)


def test_a_prompt_draws_the_same_in_any_batch() -> None:
    strategy = StochasticBeam(num_beams=4, top_k=4, repetition_penalty=1.2)
    prompts = [[3, 4, 1], [2], [3, 4, 1]]
    batch = search(strategy, prompts, num_samples=2, max_new_tokens=6)
    alone = [search(strategy, [prompt], num_samples=2, max_new_tokens=6) for prompt in prompts[:2]]
    assert tokens(batch)[:4] == tokens(alone[0]) + tokens(alone[1])
    assert tokens(batch)[4:] != tokens(batch)[:2]
    assert tokens(search(strategy, prompts, num_samples=2, max_new_tokens=6, seed=1)) != tokens(batch)


def test_more_beams_than_needed_change_nothing_but_the_noise() -> None:
    """A text is drawn by the same law; here just the first one is looked at."""
    strategy = StochasticBeam(num_beams=7, temperature=0.8)
    result = search(strategy, [PROMPT] * 2000, num_samples=1)
    assert fit(torch.tensor([NUMBERS[text] for text in tokens(result)]), P) > ALPHA


def test_processors_make_the_distribution() -> None:
    strategy = StochasticBeam(num_beams=5, suppress_tokens=[2], processors=[TopK(3)])
    result = search(strategy, [PROMPT] * 50, num_samples=4, min_new_tokens=2, logprobs="processed")
    assert all(2 not in text and EOS not in text[:1] for text in tokens(result))
    sums = [float(row.sum()) for row in result.logprobs]
    assert max(sums) < 0
    assert all(weight >= logp - 1e-5 for weight, logp in zip(result.log_weights, sums, strict=True))


def test_the_tree_shows_by_what_texts_were_drawn() -> None:
    result = search(StochasticBeam(num_beams=4), [PROMPT], num_samples=3, seed=1)
    shown = {node.rank: node.score for node in result.beams[0] if node.rank is not None}
    assert [shown[rank] for rank in range(3)] == result.scores


def test_stop_tokens_and_reasons() -> None:
    result = search(StochasticBeam(num_beams=9), [PROMPT], num_samples=8, stop=Stop(eos=EOS, tokens=2))
    for text, reason in zip(tokens(result), result.finish_reasons, strict=True):
        assert reason == {EOS: "eos", 2: "stop"}.get(text[-1], "length")
        assert not {EOS, 2} & set(text[:-1])


def test_errors() -> None:
    with pytest.raises(ValueError, match="num_beams=4 must be at least 5 for num_samples=4"):
        search(StochasticBeam(num_beams=4), [PROMPT], num_samples=4)
    with pytest.raises(ValueError, match="left no token"):
        search(StochasticBeam(suppress_tokens=list(range(5))), [PROMPT])


def test_no_tokens() -> None:
    """There is one text then, the empty one; an estimate of a mean is its value."""
    result = search(StochasticBeam(), [PROMPT, PROMPT], max_new_tokens=0, num_samples=2)
    assert tokens(result) == [()] * 4
    assert result.log_weights == pytest.approx([math.log(0.5)] * 4)
    assert result[3].log_weight == result.log_weights[3]


@given(
    st.lists(st.floats(-300, 40), min_size=1, max_size=6),
    st.floats(-300, 40),
)
def test_conditioned(values: list[float], largest: float) -> None:
    """The largest becomes the given one, order is kept, and the formula holds where it can be computed."""
    numbers = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    found = conditioned(numbers, torch.tensor([largest], dtype=torch.float64))
    assert float(found[0]) == pytest.approx(largest)
    assert (found[1:] <= found[:-1] + 1e-9).all()
    if max(map(abs, [*values, largest])) < 20:
        plain = -(torch.exp(torch.tensor(-largest)) - torch.exp(-numbers[0]) + torch.exp(-numbers)).log()
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


def test_what_does_not_exist_stays_so() -> None:
    none = -torch.inf
    numbers = torch.tensor([[1.0, 0.5, none], [none, none, none], [1.0, 0.0, none]]).double()
    found = conditioned(numbers, torch.tensor([[0.3], [0.2], [none]]).double())
    assert (found == none).tolist() == [[False, False, True], [True] * 3, [True] * 3]
