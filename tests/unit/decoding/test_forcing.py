"""The thinking budget against a scan of the history, the prefix bias against its formula; in strategies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx.decoding import Beam, Chain, Context, Greedy, PrefixBias, Sample, SuppressTokens, ThinkingBudget
from minitx.decoding.generate import generate
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding import definitions as d
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.searches import VOCAB, search, tiny
from tests.unit.decoding.searches import tokens as ids_of

SIZE = 6


def forced_token(row: list[int], tokens: int, begin: tuple[int, ...], end: tuple[int, ...]) -> int | None:
    """The definition: reads the row from left to right; the end tag of a block that is full, or its rest."""
    block: list[int] | None = None
    for place in range(1, len(row) + 1):
        block = None if block is None else [*block, row[place - 1]]
        if tuple(row[max(0, place - len(end)) : place]) == end:
            block = None
        elif block is None and tuple(row[max(0, place - len(begin)) : place]) == begin:
            block = []
    if block is None or len(block) < tokens:
        return None
    sizes = range(min(len(end) - 1, len(block)), 0, -1)
    return end[next((n for n in sizes if tuple(block[-n:]) == end[:n]), 0)]


tags = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=4), tags, tags)
@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_the_end_tag_follows_when_the_budget_is_spent(
    tokens: int, rows: list[list[int]], begin: tuple[int, ...], end: tuple[int, ...]
) -> None:
    if begin == end:
        return
    budget = ThinkingBudget(tokens=tokens, begin=begin, end=end)
    logits = logits_of("holes", len(rows), SIZE, 1)
    left = budget(logits, history(rows))
    for row, before, after in zip(rows, logits, left, strict=True):
        token = forced_token(row, tokens, begin, end)
        if token is None:
            assert torch.equal(after, before)
        else:
            assert (after > -torch.inf).nonzero().flatten().tolist() == [token]
            assert after[token] == 0


def counting(logits: Tensor, context: Context) -> Tensor:
    """Makes each row count: the next token is the last one plus 1, from 10 to 19."""
    following = 10 + (context.last(1) - 9).clamp(min=0) % 10
    return torch.full_like(logits, -torch.inf).scatter_(1, following, 0.0)


def model_of(vocab_size: int = 24) -> Any:
    return tiny(vocab_size)


def test_a_block_of_prompt_and_output_has_its_tokens_and_ends() -> None:
    """Prompts of different lengths: without a block, with an open one, with one that is full or closed."""
    budget = ThinkingBudget(tokens=3, begin=[5, 6], end=[7, 8])
    prompts = [[1, 2], [5, 6], [1, 5, 6, 10], [5, 6, 11, 12, 13, 14], [5, 6, 10, 7, 8, 9], [5, 6, 3, 7]]
    strategy = Greedy(processors=[counting], thinking_budget=budget)
    options: dict[str, Any] = {"max_new_tokens": 7, "stop": Stop(eos=())}
    result = ids_of(generate(model_of(), prompts, strategy, **options))
    assert result == [
        (10, 11, 12, 13, 14, 15, 16),
        (10, 11, 12, 7, 8, 10, 11),
        (11, 12, 7, 8, 10, 11, 12),
        (7, 8, 10, 11, 12, 13, 14),
        (10, 11, 12, 13, 14, 15, 16),
        (10, 7, 8, 10, 11, 12, 13),
    ]
    for prompt, row in zip(prompts, result, strict=True):
        assert ids_of(generate(model_of(), [prompt], strategy, **options)) == [row]


def test_the_tag_comes_though_it_is_banned_before_and_not_where_it_is_banned_after() -> None:
    budget = ThinkingBudget(tokens=1, begin=5, end=7)
    options: dict[str, Any] = {"max_new_tokens": 3, "stop": Stop(eos=())}
    strategy = Greedy(processors=[counting], thinking_budget=budget, suppress_tokens=[7])
    assert ids_of(generate(model_of(), [[5]], strategy, **options)) == [(10, 7, 10)]
    after = Greedy(chain=Chain(budget, SuppressTokens([7])))
    with pytest.raises(ValueError, match="SuppressTokens left no token"):
        generate(model_of(), [[5, 1]], after, **options)


@pytest.mark.parametrize("strategy", [Beam, Sample])
def test_a_budget_in_beams_and_samples(strategy: Any) -> None:
    """Whatever is thought, and however beams change places, every block ends in time."""
    budget = ThinkingBudget(tokens=2, begin=[3], end=[1, 2])
    given = {"num_beams": 5} if strategy is Beam else {}
    options: dict[str, Any] = {"num_samples": 5, "max_new_tokens": 6, "stop": Stop(eos=())}
    options |= {} if strategy is Beam else {"seed": 2}
    prompts = [[4, 3], [2], [3, 1]]
    result = generate(tiny(), prompts, strategy(thinking_budget=budget, **given), **options)
    blocks = 0
    for number, row in enumerate(ids_of(result)):
        prompt = prompts[number // 5]
        for size in range(len(row)):
            token = forced_token([*prompt, *row[:size]], 2, (3,), (1, 2))
            assert token in (None, row[size])
            blocks += token is not None
    assert blocks > 10


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"tokens": -1}, ValueError, r"ThinkingBudget\(tokens=...\)=-1 must be"),
        ({"tokens": 1.5}, TypeError, r"ThinkingBudget\(tokens=...\)=1.5 must be"),
        (
            {"begin": "<think>"},
            TypeError,
            r"ThinkingBudget\(begin=...\)='<think>' must be token ids, not text",
        ),
        ({"begin": []}, ValueError, r"ThinkingBudget\(begin=...\)=\(\) must be at least one token id"),
        ({"end": [2.5]}, TypeError, r"ThinkingBudget\(end=...\)\[0\]=2.5 must be an integer"),
        ({"end": 1}, ValueError, r"ThinkingBudget\(end=...\)=\(1,\) must be another tag than begin"),
    ],
)
def test_what_is_no_budget(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ThinkingBudget(**{"tokens": 3, "begin": 1, "end": 2, **given})


def test_a_budget_is_a_value_of_its_field() -> None:
    budget = ThinkingBudget(tokens=3, begin=torch.tensor([1]), end=[2])
    assert budget == ThinkingBudget(tokens=np.int64(3), begin=1, end=(2,))
    assert len({Greedy(thinking_budget=budget), Greedy(thinking_budget=budget)}) == 1
    with pytest.raises(TypeError, match="thinking_budget=3 must be a ThinkingBudget such as"):
        Greedy(thinking_budget=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ThinkingBudget(3, 1, 2)  # type: ignore[misc]


# Prefix


def mixed(z: d.Array, output: list[int], ids: list[int], beta: float) -> d.Array:
    """The definition, as logarithms of probabilities."""
    p = d.softmax(z)
    if output == ids[: len(output)] and len(output) < len(ids) and p[ids[len(output)]] > 0:
        onehot = np.eye(len(z))[ids[len(output)]]
        p = (1 - beta) * p + beta * onehot
    return p


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
    st.sampled_from([0.0, 1e-6, 0.3, 0.999, 1.0]),
    st.sampled_from(["random", "holes", "one-hot"]),
    st.integers(0, 1000),
)
def test_the_prefix_is_mixed_in(
    outputs: list[list[int]], ids: list[int], beta: float, kind: str, seed: int
) -> None:
    logits = logits_of(kind, len(outputs), SIZE, seed).double()
    prompts = [[2, 1, 0][: n % 3] for n in range(1, len(outputs) + 1)]
    context = history([p + o for p, o in zip(prompts, outputs, strict=True)], [*map(len, prompts)])
    ours = PrefixBias(ids, beta)(logits, context)
    for z, output, left in zip(logits.numpy(), outputs, ours, strict=True):
        np.testing.assert_allclose(
            left.softmax(-1).numpy(), mixed(z, output, ids, beta), rtol=1e-9, atol=1e-15
        )
    torch.testing.assert_close(ours.logsumexp(-1), logits.logsumexp(-1), rtol=0, atol=1e-9)
    if beta == 0:
        assert torch.equal(ours, logits)


@pytest.mark.parametrize("strategy", [Greedy, Sample, Beam])
def test_beta_1_forces_the_prefix_and_beta_0_nothing(strategy: Any) -> None:
    given = {"num_beams": 4} if strategy is Beam else {}
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": Stop(eos=())}
    options |= {"seed": 1} if strategy is Sample else {}
    prompts, ids = [[3, 4], [1], [2, 2, 2]], [1, 4, 2]
    forced = generate(tiny(), prompts, strategy(prefix_bias=(ids, 1), **given), **options)
    assert [row[:3] for row in ids_of(forced)] == [(1, 4, 2)] * 3
    plain = generate(tiny(), prompts, strategy(**given), **options)
    for other in (strategy(prefix_bias=(ids, 0), **given), strategy(prefix_bias=([0], 0.0), **given)):
        assert ids_of(generate(tiny(), prompts, other, **options)) == ids_of(plain)
    # What follows a forced prefix is what follows it as a part of the prompt.
    if strategy is Greedy:
        after = generate(
            tiny(), [[*p, *ids] for p in prompts], strategy(), **(options | {"max_new_tokens": 2})
        )
        assert [row[3:] for row in ids_of(forced)] == ids_of(after)


@pytest.mark.parametrize("beta", [0.2, 0.7])
def test_beams_find_the_best_sequence_of_the_mixture(beta: float) -> None:
    """A wide beam is exhaustive: all sequences of 3 tokens, scored by the definition."""
    ids, prompt = [1, 4], [3, 4]
    scores = {}
    for sequence in itertools.product(range(VOCAB), repeat=3):
        with torch.no_grad():
            logits = tiny()(torch.tensor([[*prompt, *sequence]])).logits[0].double()
        steps = zip(range(3), logits[1:4].numpy(), strict=True)
        logs = [np.log(mixed(z, list(sequence[:n]), ids, beta)[sequence[n]]) for n, z in steps]
        scores[sequence] = float(sum(logs))
    best = sorted(scores, key=lambda sequence: -scores[sequence])[:4]
    strategy = Beam(num_beams=25, length_penalty=0.0, early_stopping="exact", prefix_bias=(ids, beta))
    result = search(strategy, [prompt], stop=Stop(eos=()), num_samples=4)
    assert ids_of(result) == best
    np.testing.assert_allclose(result.scores, [scores[sequence] for sequence in best], atol=1e-4)


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        (3, TypeError, r"prefix_bias=3 must be a list of token ids and a number, \(ids, beta\)"),
        (([1], 0.5, 2), TypeError, r"must be a list of token ids and a number"),
        (([], 0.5), ValueError, r"prefix_bias\[0\]=\(\) must be at least one token id"),
        (("ab", 0.5), TypeError, r"prefix_bias\[0\]='ab' must be a list of token ids"),
        (([1], 1.5), ValueError, r"prefix_bias\[1\]=1.5 must be in \[0, 1\]; 0 changes nothing"),
        (([1], "a"), TypeError, r"prefix_bias\[1\]='a' must be"),
    ],
)
def test_what_is_no_prefix_bias(pair: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Sample(prefix_bias=pair)


def test_explain_shows_both() -> None:
    strategy = Sample(prefix_bias=([1], 0.5), thinking_budget=ThinkingBudget(tokens=0, begin=3, end=2))
    shown = minitx.explain(tiny(), [4, 3], strategy, seed=0)
    assert [step.name for step in shown.positions[0].steps] == ["model", "PrefixBias", "ThinkingBudget"]
    assert shown.positions[0].drawn.token == 2
