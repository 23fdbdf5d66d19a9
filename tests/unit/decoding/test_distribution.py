"""Draws of whole strategies follow the distribution that the definitions give, in float64.

100,000 rows with the same logits are drawn in one call. Every test could fail: the controls at the end
make the mistakes that it is there to find.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minitx.decoding import Chain, Context, CounterGumbel, MultinomialSampler, Sample, Temperature, TopK, TopP
from tests.unit.decoding import definitions as d
from tests.unit.decoding.chi_square import ALPHA, DRAWS, fit, independence

SIZE = 10
Z = np.random.default_rng(5).normal(size=SIZE) * 1.5
PROMPT = [1, 4, 4]
OUTPUT = [2, 2, 7]


def context() -> Context:
    """The same history in every row."""
    tokens = torch.tensor([PROMPT + OUTPUT]).expand(DRAWS, -1)
    return Context(tokens, torch.full((DRAWS,), 6), torch.full((DRAWS,), 3), eos=(0,), max_new_tokens=9)


def draws(chain: Chain, z: d.Array = Z, seed: int = 0) -> Tensor:
    logits = torch.tensor(z, dtype=torch.float32).expand(DRAWS, -1)
    return MultinomialSampler(torch.Generator().manual_seed(seed))(chain(logits, context()), 3)


def p_value(chain: Chain, expected: d.Array, z: d.Array = Z) -> float:
    """How probable draws like these are, if the logits `expected` are right."""
    return fit(draws(chain, z), torch.tensor(d.softmax(expected)))


CASES: dict[str, tuple[dict[str, Any], Callable[[d.Array], d.Array]]] = {
    "plain": ({}, lambda z: z),
    "cold": ({"temperature": 0.5}, lambda z: d.temperature(z, 0.5)),
    "hot": ({"temperature": 3}, lambda z: d.temperature(z, 3)),
    "top_k": ({"top_k": 4}, lambda z: d.top_k(z, 4)),
    "top_p": ({"top_p": 0.8}, lambda z: d.top_p(z, 0.8)),
    "min_p": ({"min_p": 0.2}, lambda z: d.min_p(z, 0.2)),
    "typical_p": ({"typical_p": 0.6}, lambda z: d.typical_p(z, 0.6)),
    "epsilon_cutoff": ({"epsilon_cutoff": 0.05}, lambda z: d.epsilon_cutoff(z, 0.05)),
    "eta_cutoff": ({"eta_cutoff": 0.2}, lambda z: d.eta_cutoff(z, 0.2)),
    "top_h": ({"top_h": 0.7}, lambda z: d.top_h(z, 0.7)),
    "penalties": (
        {"repetition_penalty": 1.4, "frequency_penalty": 0.5, "presence_penalty": 0.3},
        lambda z: d.openai_penalties(d.repetition_penalty(z, 1.4, PROMPT + OUTPUT), 0.5, 0.3, OUTPUT),
    ),
    "logit_bias": ({"logit_bias": {3: 2.0, 5: -1.0}}, lambda z: d.logit_bias(z, {3: 2.0, 5: -1.0})),
    "transformers": (
        {"temperature": 1.5, "top_k": 7, "top_p": 0.9, "min_p": 0.25},
        lambda z: d.min_p(d.top_p(d.top_k(d.temperature(z, 1.5), 7), 0.9), 0.25),
    ),
    "vllm": (
        {"order": "vllm", "temperature": 1.5, "top_k": 5, "top_p": 0.8, "min_p": 0.12},
        lambda z: d.top_p(d.top_k(d.min_p(d.temperature(z, 1.5), 0.12), 5), 0.8),
    ),
    "llama.cpp": (
        {"order": "llama.cpp", "temperature": 1.5, "top_k": 7, "top_p": 0.9, "min_p": 0.2},
        lambda z: d.temperature(d.min_p(d.top_p(d.top_k(z, 7), 0.9), 0.2), 1.5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_definition(name: str) -> None:
    fields, definition = CASES[name]
    expected = definition(Z)
    drawn = draws(Sample(**fields).build())
    probabilities = torch.tensor(d.softmax(expected))
    assert fit(drawn, probabilities) > ALPHA
    counts = torch.bincount(drawn, minlength=SIZE)
    assert (counts[probabilities == 0] == 0).all(), "a token that was cut was drawn"
    assert (counts[probabilities * DRAWS >= 20] > 0).all(), "a token that was kept was never drawn"


def test_survivors_of_top_k_are_drawn_by_the_definition() -> None:
    """Among 100 tokens the chain goes on with the survivors alone."""
    z = np.random.default_rng(6).normal(size=100) * 2
    expected = d.temperature(d.top_p(d.top_k(z, 12), 0.9), 1.3)
    chain = Sample(order="llama.cpp", top_k=12, top_p=0.9, temperature=1.3).build()
    assert p_value(chain, expected, z) > ALPHA


def test_different_temperatures_in_one_batch() -> None:
    """The first half of the rows is drawn at 0.5, the second at 2, the last row is greedy."""
    half = DRAWS // 2
    temperature = torch.cat([torch.full((half,), 0.5), torch.full((DRAWS - half,), 2.0)])
    temperature[-1] = 0.0
    drawn = draws(Sample(temperature=temperature).build())
    assert fit(drawn[:half], torch.tensor(d.softmax(Z / 0.5))) > ALPHA
    assert fit(drawn[half:-1], torch.tensor(d.softmax(Z / 2))) > ALPHA
    assert drawn[-1] == Z.argmax()


def noise(position: int) -> Tensor:
    chain, keys = Sample(temperature=2.0).build(), torch.arange(DRAWS)
    logits = torch.tensor(Z, dtype=torch.float32).expand(DRAWS, -1)
    return CounterGumbel(keys)(chain(logits, context()), position)


def test_positions_are_independent() -> None:
    assert independence(noise(0), noise(1), SIZE) > ALPHA


# --- controls: each must be found out ------------------------------------------------------------------


def test_control_temperature_twice() -> None:
    chain = Chain(Temperature(0.9), Temperature(0.9))
    assert p_value(chain, d.temperature(Z, 0.9)) < ALPHA


def test_control_nucleus_without_the_token_that_crosses() -> None:
    def one_less(logits: Tensor, context: Context) -> Tensor:
        cut = TopP(0.8)(logits, context)
        return cut.masked_fill(
            cut == cut.masked_fill(cut == -torch.inf, torch.inf).amin(-1, keepdim=True), -torch.inf
        )

    assert p_value(Chain(one_less), d.top_p(Z, 0.8)) < ALPHA


def test_control_nucleus_with_one_token_more() -> None:
    kept = int((d.top_p(Z, 0.8) > -np.inf).sum())
    chain = Chain(TopK(kept + 1))
    assert p_value(chain, d.top_p(Z, 0.8)) < ALPHA


def test_control_top_k_50_left_on() -> None:
    """What transformers does by default."""
    z = np.random.default_rng(7).normal(size=100)
    assert p_value(Sample().build(), z, z) > ALPHA
    assert p_value(Sample(top_k=50).build(), z, z) < ALPHA


def test_control_order() -> None:
    """The nucleus at the wrong temperature."""
    fields, definition = CASES["llama.cpp"]
    chain = Sample(**{**fields, "order": "transformers"}).build()
    assert p_value(chain, definition(Z)) < ALPHA


def test_control_noise_used_again() -> None:
    assert independence(noise(3), noise(3), SIZE) < ALPHA
