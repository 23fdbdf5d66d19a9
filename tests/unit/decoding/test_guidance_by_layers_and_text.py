"""DoLa, FSD and score functions against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx.decoding import FSD, DoLa, ScoreFunction
from minitx.decoding.guidance.dola import candidate_layers
from minitx.pipelines import generate_batches
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.guided import GPT2, LLAMA, NO_END, T5, Definition, check, logits_after, model_of
from tests.unit.decoding.histories import history

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
DEEP = model_of({**LLAMA, "num_hidden_layers": 6})
TIED = model_of({**GPT2, "n_layer": 6})
MODEL = model_of(LLAMA)


def js(p: Tensor, q: Tensor) -> float:
    """The halves KL(mean || p) and KL(mean || q), as the authors' code and transformers compute them."""
    mean = (p.exp() + q.exp()) / 2
    return float(sum((mean * (mean.log() - each)).sum() for each in (p, q)))


def of_layers(model: Any, layers: tuple[int, ...], share: float = 0.1) -> Definition:
    def definition(number: int, output: list[int]) -> Tensor:
        with torch.no_grad():
            out = model(torch.tensor([[*PROMPTS[number], *output]]), output_hidden_states=True)
            last = out.logits[0, -1].double().log_softmax(-1)
            weight = model.head.projection.weight
            early = [(weight @ out.hidden_states[i][0, -1]).double().log_softmax(-1) for i in layers]
        chosen = max(early, key=lambda table: js(last, table))
        return torch.where(last.exp() >= share * last.exp().max(), last - chosen, -torch.inf)

    return definition


@pytest.mark.parametrize(
    ("model", "guidance", "layers"),
    [
        (DEEP, DoLa("low"), (0, 2)),
        (DEEP, DoLa("high"), (3, 5)),
        (DEEP, DoLa([0, 1, 2, 3, 4, 5]), (0, 1, 2, 3, 4, 5)),
        (DEEP, DoLa([4], relative_top=0.01), (4,)),
        (TIED, DoLa(), (2,)),
        (TIED, DoLa("high"), (3, 5)),
    ],
)
def test_dola(model: Any, guidance: DoLa, layers: tuple[int, ...]) -> None:
    """Each row of a batch has its own layer."""
    check(model, PROMPTS, guidance, of_layers(model, layers, guidance.relative_top))


def test_rows_choose_different_layers() -> None:
    last = of_layers(DEEP, (0, 1, 2, 3, 4, 5))
    alone = {layer: of_layers(DEEP, (layer,)) for layer in range(6)}
    chosen = {
        next(layer for layer, one in alone.items() if torch.equal(one(n, []), last(n, []))) for n in range(3)
    }
    assert len(chosen) > 1


def test_candidate_layers() -> None:
    assert candidate_layers("low", 32, tied=False) == tuple(range(0, 16, 2))
    assert candidate_layers("low", 32, tied=True) == tuple(range(2, 16, 2))
    assert candidate_layers("high", 32, tied=True) == tuple(range(16, 32, 2))
    assert candidate_layers("low", 80, tied=False) == tuple(range(0, 20, 2))
    assert candidate_layers("high", 80, tied=False) == tuple(range(60, 80, 2))
    assert [candidate_layers("low", count, tied=True) for count in (1, 2, 3, 4)] == [(0,), (1,), (2,), (2,)]
    assert [candidate_layers("low", count, tied=False) for count in (1, 2, 3, 4)] == [(0,), (0,), (0,), (0,)]


def repeated(text: list[int], token: int, n: int, smoothing: float) -> float:
    """The smoothed n-gram model of the text: lists of what followed each context."""
    if len(text) < n - 1:
        return 0.0
    q, left = 0.0, 1.0
    for size in range(n - 1, -1, -1):
        context = text[len(text) - size :]
        followers = [text[i] for i in range(size, len(text)) if text[i - size : i] == context]
        if token in followers:
            count, total = followers.count(token), len(followers)
            q += left * (smoothing * count / (total + 1) if size else count / total)
            left -= left * smoothing
    return q


@given(
    rows=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=3),
    n=st.integers(1, 4),
    smoothing=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_n_gram_model(rows: list[list[int]], n: int, smoothing: float) -> None:
    context = history(rows, [1] * len(rows))
    ids = torch.arange(4).expand(len(rows), 4)
    ours = FSD(0.5, n, smoothing=smoothing).repetition(ids, context)
    expected = [[repeated(row, token, n, smoothing) for token in range(4)] for row in rows]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("guidance", [FSD(), FSD(0.7, 3, 6, smoothing=0.5), FSD(alpha=0.0), FSD(0.6, 1, 100)])
def test_fsd(guidance: FSD) -> None:
    def definition(number: int, output: list[int]) -> Tensor:
        text = [*PROMPTS[number], *output]
        p = logits_after(MODEL, text).softmax(-1)
        scores = torch.full_like(p, -torch.inf)
        for token in p.topk(min(guidance.k, 40)).indices.tolist():
            q = repeated(text, token, guidance.n, guidance.smoothing)
            scores[token] = (1 - guidance.alpha) * p[token] - guidance.alpha * q
        return scores

    check(MODEL, PROMPTS, guidance, definition, steps=12)


def even(texts: list[list[int]]) -> list[float]:
    """The share of even ids."""
    return [sum(token % 2 == 0 for token in text) / len(text) for text in texts]


@pytest.mark.parametrize("guidance", [ScoreFunction(even, 5, 20.0), ScoreFunction(even, k=100, weight=-3.0)])
def test_score_function(guidance: ScoreFunction) -> None:
    def definition(number: int, output: list[int]) -> Tensor:
        text = [*PROMPTS[number], *output]
        table = logits_after(MODEL, text).log_softmax(-1)
        scores = torch.full_like(table, -torch.inf)
        for token in table.topk(min(guidance.k, 40)).indices.tolist():
            scores[token] = table[token] + guidance.weight * even([[*text, token]])[0]
        return scores

    check(MODEL, PROMPTS, guidance, definition, steps=6)


def test_a_function_can_ban_candidates_and_return_tensors() -> None:
    def short(texts: list[list[int]]) -> Tensor:
        return torch.tensor([0.0 if text[-1] < 20 else -torch.inf for text in texts])

    for strategy in (minitx.Greedy(), minitx.Sample(), minitx.Beam(num_beams=2)):
        result = minitx.generate(
            MODEL, PROMPTS, strategy, max_new_tokens=5, stop=NO_END, guidance=ScoreFunction(short, k=40)
        )
        assert all(int(row.max()) < 20 for row in result.sequences)


@pytest.mark.parametrize(
    "guidance",
    [DoLa("high"), ScoreFunction(even, 5, 2.0)],
    ids=lambda guidance: type(guidance).__name__,
)
def test_batches_and_samples(guidance: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END, "num_samples": 2, "guidance": guidance}
    result = minitx.generate(DEEP, PROMPTS, minitx.Sample(), seed=3, prefill_chunk=2, **options)
    together = [row.tolist() for row in result.sequences]
    batches = generate_batches(DEEP, PROMPTS, minitx.Sample(), seed=3, batch_size=1, **options)
    assert [row.tolist() for batch in batches for row in batch.sequences] == together


def test_scores_that_are_no_logits_are_for_greedy_alone() -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END, "guidance": FSD()}
    together = [row.tolist() for row in minitx.generate(DEEP, PROMPTS, minitx.Greedy(), **options).sequences]
    for prompt, row in zip(PROMPTS, together, strict=True):
        single = minitx.generate(DEEP, [prompt], minitx.Greedy(), **options)
        assert single.sequences[0].tolist() == row
    for strategy in (minitx.Sample(), minitx.Beam(num_beams=2)):
        with pytest.raises(ValueError, match=r"must be Greedy\(...\) with FSD"):
            minitx.generate(DEEP, PROMPTS, strategy, **options)


def returns(value: Any) -> Any:
    return lambda texts: value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoLa("middle"), 'layers=\'middle\' must be "low", "high" or a list'),
        (lambda: DoLa([]), r"layers=\(\) must be \"low\""),
        (lambda: DoLa(3), 'layers=3 must be "low"'),
        (lambda: DoLa([-1]), r"layers\[0\]=-1 must be at least 0"),
        (lambda: DoLa([True]), r"layers\[0\]=True must be an integer"),
        (lambda: DoLa(relative_top=0), r"relative_top=0 must be in \(0, 1\]"),
        (lambda: FSD(1.5), r"alpha=1.5 must be in \[0, 1\]"),
        (lambda: FSD(n=0), "n=0 must be at least 1"),
        (lambda: FSD(k=0), "k=0 must be at least 1"),
        (lambda: FSD(smoothing=-0.1), "smoothing=-0.1 must be in"),
        (lambda: ScoreFunction(3), "function=3 must be a function"),
        (lambda: ScoreFunction(even, 0), "k=0 must be at least 1"),
        (lambda: ScoreFunction(even, weight=torch.nan), "weight=nan must be in"),
    ],
)
def test_values_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("model", "guidance", "message"),
    [
        (MODEL, DoLa([0, 2]), "layers=2 must be at most 1; the model has 2 layers"),
        (model_of(T5), DoLa(), "guidance=DoLa.* must be another one for a model with an encoder"),
        (MODEL, ScoreFunction(returns([1.0, 2.0]), 3), "function=.* must be one that returns 9 numbers"),
        (MODEL, ScoreFunction(returns(1.0), 1), "function=.* must be one that returns 3 numbers"),
        (MODEL, ScoreFunction(returns("good"), 3), "function='good' must be one that returns a number per"),
        (MODEL, ScoreFunction(returns([torch.nan] * 3), 1), "must be one that returns no NaN and no inf"),
    ],
)
def test_calls_that_are_refused(model: Any, guidance: Any, message: str) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        minitx.generate(model, PROMPTS, minitx.Greedy(), max_new_tokens=2, stop=NO_END, guidance=guidance)
