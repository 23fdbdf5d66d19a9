"""Jacobi and lookahead decoding give the tokens of greedy decoding with fewer forwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import Context, Greedy, Jacobi, Lookahead, Strategy
from minitx.decoding.processors.base import StatefulProcessor
from minitx.decoding.trees.lookahead import RowGuesses, merge
from minitx.decoding.trees.session import TreeSession
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.test_tree_forward import PROMPTS, model_of

STRATEGIES: list[type[Strategy]] = [Jacobi, Lookahead]
SIZES: list[Strategy] = [
    Jacobi(tokens=2),
    Jacobi(tokens=8),
    Lookahead(),
    Lookahead(window=1, ngram=2, guesses=1),
    Lookahead(window=6, ngram=5, guesses=7),
]


class Parity(StatefulProcessor):
    """Bans the even ids after an odd number of odd tokens: its state must follow the accepted tokens."""

    def init(self, context: Context) -> Tensor:
        return torch.zeros_like(context.length)

    def update(self, state: Tensor, context: Context, token: Tensor, logits: Tensor) -> Tensor:
        return state + token % 2

    def __call__(self, logits: Tensor, context: Context, state: Tensor | None = None) -> Tensor:
        assert state is not None
        even = torch.arange(logits.shape[1]) % 2 == 0
        return logits.masked_fill(even & (state % 2 == 1)[:, None], -torch.inf)


def rows_of(result: Any) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    run = TreeSession.run

    def _counted(self: TreeSession, tree: Any) -> None:
        counts.append(tree.tokens.shape[1])
        run(self, tree)

    monkeypatch.setattr(TreeSession, "run", _counted)
    return counts


@pytest.mark.parametrize("strategy", SIZES, ids=repr)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "sliding", "t5", "bloom"])
def test_tokens_are_those_of_greedy(kind: str, strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind)
    counts = forwards(monkeypatch)
    for stop in (minitx.Stop(eos=()), minitx.Stop(eos=(3, 4, 5, 6), tokens=(7, 8))):
        options: Any = {"max_new_tokens": 40, "stop": stop, "min_new_tokens": 3}
        greedy = minitx.generate(model, PROMPTS, Greedy(), **options)
        counts.clear()
        found = minitx.generate(model, PROMPTS, strategy, **options)
        assert rows_of(found) == rows_of(greedy)
        assert found.finish_reasons == greedy.finish_reasons
        assert len(counts) <= max(map(len, greedy.sequences)) - 1
    # The parallel guesses of these small models soon repeat what greedy decoding repeats.
    assert kind != "t5" or len(counts) < max(map(len, greedy.sequences)) - 1


@pytest.mark.parametrize("kind", STRATEGIES)
def test_processors_see_the_accepted_history(kind: type[Strategy]) -> None:
    model = model_of("llama")
    fields: dict[str, Any] = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "processors": [Parity()]}
    options: Any = {"max_new_tokens": 25, "logprobs": "processed", "top_logprobs": 2}
    greedy = minitx.generate(model, PROMPTS, Greedy(**fields), **options)
    found = minitx.generate(model, PROMPTS, kind(**fields), **options)
    assert rows_of(found) == rows_of(greedy)
    assert found.logprobs is not None
    assert greedy.logprobs is not None
    for one, other in zip(found.logprobs, greedy.logprobs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_batch_is_its_rows(kind: type[Strategy]) -> None:
    model = model_of("gpt2")
    options: Any = {"max_new_tokens": 30, "stop": minitx.Stop(eos=(3, 9))}
    together = rows_of(minitx.generate(model, PROMPTS, kind(), **options))
    alone = [rows_of(minitx.generate(model, [prompt], kind(), **options))[0] for prompt in PROMPTS]
    assert together == alone


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_table_of_positions_may_end_within_a_block(kind: type[Strategy]) -> None:
    model = model_of("gpt2")
    room = 64 - len(PROMPTS[1]) + 1
    options: Any = {"max_new_tokens": room, "stop": minitx.Stop(eos=())}
    found = minitx.generate(model, PROMPTS, kind(), **options)
    assert rows_of(found) == rows_of(minitx.generate(model, PROMPTS, Greedy(), **options))
    assert len(found.sequences[0]) == room


@pytest.mark.parametrize("kind", STRATEGIES)
def test_streams_and_explanations(kind: type[Strategy]) -> None:
    model = model_of("llama")
    options: Any = {"max_new_tokens": 12}
    events = list(minitx.stream(model, PROMPTS, kind(), **options))
    greedy = rows_of(minitx.generate(model, PROMPTS, Greedy(), **options))
    assert [[e.token for e in events if e.row == row] for row in range(3)] == greedy
    explained = minitx.explain(model, PROMPTS[0], kind(repetition_penalty=1.2), **options)
    expected = minitx.explain(model, PROMPTS[0], Greedy(repetition_penalty=1.2), **options)
    assert str(explained) == str(expected)
    assert len(explained.positions) == 12
    assert rows_of(minitx.generate(model, PROMPTS, kind(), max_new_tokens=0)) == [[], [], []]
    assert rows_of(minitx.generate(model, PROMPTS, kind(), max_new_tokens=1)) == [row[:1] for row in greedy]


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_row_without_tokens_is_named(kind: type[Strategy]) -> None:
    with pytest.raises(ValueError, match="Row 0, step 0"):
        minitx.generate(
            model_of("llama"), PROMPTS, kind(processors=[lambda z, c: z * torch.inf]), max_new_tokens=4
        )


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_grammar_holds_and_a_guidance_is_refused(kind: type[Strategy]) -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    model = minitx.load("minitx/tiny-decoder", dtype="float32")
    options: Any = {"max_new_tokens": 12, "tokenizer": tokenizer}
    grammar = minitx.decoding.Regex("[0-9]{3}( and [a-z]{2,4}){2}")
    expected = minitx.generate(model, "It was in", Greedy(), grammar=grammar, **options)
    assert minitx.generate(model, "It was in", kind(), grammar=grammar, **options).texts == expected.texts
    guidance = minitx.decoding.ClassifierFree(scale=2.0)
    with pytest.raises(ArgumentValueError, match="guidance"):
        minitx.generate(model, "It was in", kind(), guidance=guidance, **options)


def test_sizes_are_checked() -> None:
    for make, name in (
        (lambda: Jacobi(tokens=1), "tokens"),
        (lambda: Lookahead(window=0), "window"),
        (lambda: Lookahead(ngram=1), "ngram"),
        (lambda: Lookahead(guesses=0), "guesses"),
    ):
        with pytest.raises(ArgumentValueError, match=name):
            make()
    with pytest.raises(ArgumentTypeError, match="tokens"):
        Jacobi(tokens=2.5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="seed"):
        minitx.generate(model_of("llama"), PROMPTS, Jacobi(), max_new_tokens=4, seed=1)
    assert repr(Lookahead(window=3)) == "Lookahead(window=3)"


def test_the_window_collects_ngrams_along_its_diagonals() -> None:
    row = RowGuesses([1, 2, 3], window=3, levels=2, guesses=2)
    assert row.levels == [[3, 2, 1], [2, 1, 3]]
    row.advance([7, 8, 9], count=1)
    assert row.pool == {3: [(2, 7)], 2: [(1, 8)], 1: [(3, 9)]}
    assert row.levels == [[2, 1, 3], [7, 8, 9]]
    row.advance([4, 5, 6], count=2)  # the window moves one place further
    assert row.pool == {3: [(2, 7), (9, 6)], 2: [(1, 8), (7, 4)], 1: [(3, 9), (8, 5)]}
    assert row.levels == [[8, 9, 9], [5, 6, 6]]
    row.levels = [[3, 3, 3], [2, 9, 4]]
    row.advance([7, 6, 1], count=9)  # known ones become the latest; the oldest leave
    assert row.pool[3] == [(9, 6), (4, 1)]
    assert row.levels == [[4, 4, 4], [1, 1, 1]]


def test_common_beginnings_of_ngrams_are_one_path() -> None:
    tokens, parents = merge(5, [(1, 2), (1, 3), (4, 2)])
    assert tokens == [5, 4, 2, 1, 3, 2]
    assert parents == [-1, 0, 1, 0, 3, 3]
