"""Contrastive search against its definition: the model runs over the whole text for every candidate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx import ContrastiveSearch
from minitx.decoding import ClassifierFree, Context, DoLa
from minitx.pipelines import generate_batches
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.guided import GPT2, LLAMA, NO_END, logits_after, model_of
from tests.unit.decoding.test_session import CONFIGS
from tests.unit.decoding.test_session import model_of as model_of_kind

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
MODEL = model_of(LLAMA)


@torch.no_grad()
def search(
    model: Any, prompt: list[int], alpha: float, k: int, steps: int, source: list[int] | None = None
) -> list[int]:
    """Plain and slow, float64 where the library has float32."""
    text = list(prompt)
    for _ in range(steps):
        p = logits_after(model, text, source).softmax(-1)
        scores = {}
        for token in p.topk(min(k, len(p))).indices.tolist():
            ids = torch.tensor([[*text, token]])
            if source is None:
                states = model(ids).last_hidden_state[0].double()
            else:
                states = model(torch.tensor([source]), decoder_input_ids=ids).last_hidden_state[0].double()
            cosines = [float(torch.cosine_similarity(state, states[-1], dim=0)) for state in states[:-1]]
            scores[token] = (1 - alpha) * float(p[token]) - alpha * max(cosines)
        text.append(max(scores, key=lambda token: scores[token]))
    return text[len(prompt) :]


@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.3, 2), (0.9, 8), (0.0, 5), (1.0, 3), (0.6, 1)])
def test_definition(alpha: float, k: int) -> None:
    """A ragged batch, in which padding is no context."""
    strategy = ContrastiveSearch(penalty_alpha=alpha, top_k=k)
    result = minitx.generate(MODEL, PROMPTS, strategy, max_new_tokens=8, stop=NO_END, prefill_chunk=2)
    assert [row.tolist() for row in result.sequences] == [search(MODEL, row, alpha, k, 8) for row in PROMPTS]


@pytest.mark.parametrize("kind", CONFIGS)
def test_kinds_of_models(kind: str) -> None:
    """LongRoPE runs all tokens anew, a ring buffer forgets keys, an encoder has its own cache."""
    model = model_of_kind(kind)
    result = minitx.generate(model, PROMPTS, ContrastiveSearch(), max_new_tokens=9, stop=NO_END)
    if kind == "t5":
        expected = [search(model, [0], 0.6, 4, 9, source=row) for row in PROMPTS]
    else:
        expected = [search(model, row, 0.6, 4, 9) for row in PROMPTS]
    assert [row.tolist() for row in result.sequences] == expected


def test_without_alpha_or_choice_it_is_greedy() -> None:
    options: dict[str, Any] = {"max_new_tokens": 8, "stop": NO_END, "logprobs": "raw", "top_logprobs": 3}
    greedy = minitx.generate(MODEL, PROMPTS, minitx.Greedy(), **options)
    for strategy in (ContrastiveSearch(penalty_alpha=0), ContrastiveSearch(top_k=1)):
        result = minitx.generate(MODEL, PROMPTS, strategy, **options)
        for ours, theirs in zip(result.sequences, greedy.sequences, strict=True):
            assert torch.equal(ours, theirs)
        assert result.logprobs is not None
        assert greedy.logprobs is not None
        for ours, theirs in zip(result.logprobs, greedy.logprobs, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


def test_rows_end_and_batches_do_not_matter() -> None:
    stop = minitx.Stop(eos=(*range(10, 20),))
    options: dict[str, Any] = {"max_new_tokens": 12, "stop": stop, "min_new_tokens": 2}
    prompts = [*PROMPTS, [21, 22], [30, 2, 3]]
    strategy = ContrastiveSearch(repetition_penalty=1.2, no_repeat_ngram_size=2)
    result = minitx.generate(MODEL, prompts, strategy, **options)
    together = [row.tolist() for row in result.sequences]
    assert len({*map(len, together)}) > 1
    batches = generate_batches(MODEL, prompts, strategy, batch_size=2, **options)
    assert [row.tolist() for batch in batches for row in batch.sequences] == together
    streamed: list[list[int]] = [[] for _ in prompts]
    for event in minitx.stream(MODEL, prompts, strategy, **options):
        streamed[event.row].append(event.token)
    assert streamed == together


def test_banned_tokens_are_no_candidates() -> None:
    """Not even where fewer than top_k are left, whose similarity may be larger."""
    strategy = ContrastiveSearch(penalty_alpha=1.0, top_k=20, allowed_token_ids=[3, 4, 5])
    result = minitx.generate(MODEL, PROMPTS, strategy, max_new_tokens=8, stop=NO_END)
    assert {token for row in result.sequences for token in row.tolist()} <= {3, 4, 5}
    with pytest.raises(ValueError, match="Row 0, step 0: SuppressTokens left no token"):
        minitx.generate(MODEL, PROMPTS, ContrastiveSearch(suppress_tokens=range(40)), max_new_tokens=2)


class Count:
    """A stateful processor that bans the tokens of the last two steps."""

    def init(self, context: Context) -> Any:
        return torch.full((len(context.length), 2), 40)

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        return torch.cat((state[:, 1:], token[:, None]), dim=1)

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        wider = torch.nn.functional.pad(logits, (0, 1))
        return wider.scatter(1, state, -torch.inf)[:, :-1]


def test_states_follow_the_chosen_candidate() -> None:
    strategy = ContrastiveSearch(processors=[Count()], top_k=3)
    result = minitx.generate(MODEL, PROMPTS, strategy, max_new_tokens=10, stop=NO_END)
    for row in result.sequences:
        assert all(a not in row.tolist()[max(0, i - 2) : i] for i, a in enumerate(row.tolist()))
    strategy = ContrastiveSearch(processors=[Count()], repetition_penalty=[1.0, 1.1, 1.2])
    with pytest.raises(ArgumentValueError, match=r"processors=.* without values per row beside a processor"):
        minitx.generate(MODEL, PROMPTS, strategy, max_new_tokens=10)


def test_values_per_row() -> None:
    strategy = ContrastiveSearch(repetition_penalty=[1.0, 1.5, 2.0])
    result = minitx.generate(MODEL, PROMPTS, strategy, max_new_tokens=6, stop=NO_END)
    for row, (prompt, value) in enumerate(zip(PROMPTS, (1.0, 1.5, 2.0), strict=True)):
        alone = ContrastiveSearch(repetition_penalty=value)
        expected = minitx.generate(MODEL, [prompt], alone, max_new_tokens=6, stop=NO_END)
        assert result.sequences[row].tolist() == expected.sequences[0].tolist()


@pytest.mark.parametrize("guidance", [ClassifierFree(1.5, [[3, 4]]), DoLa([0, 1])], ids=repr)
def test_guided_candidates(guidance: Any) -> None:
    """A step over the candidates keeps companions and layers with their rows: as greedy without alpha."""
    options: dict[str, Any] = {"max_new_tokens": 8, "stop": NO_END, "guidance": guidance}
    greedy = minitx.generate(MODEL, PROMPTS, minitx.Greedy(), **options)
    result = minitx.generate(MODEL, PROMPTS, ContrastiveSearch(penalty_alpha=0.0), **options)
    for ours, theirs in zip(result.sequences, greedy.sequences, strict=True):
        assert torch.equal(ours, theirs)


def test_explain() -> None:
    strategy = ContrastiveSearch(penalty_alpha=0.8, repetition_penalty=1.3)
    found = minitx.explain(MODEL, PROMPTS[0], strategy, max_new_tokens=4, stop=NO_END)
    tokens = minitx.generate(MODEL, PROMPTS[:1], strategy, max_new_tokens=4, stop=NO_END).sequences[0]
    assert [position.drawn.token for position in found.positions] == tokens.tolist()
    assert [position.length for position in found.positions] == [3, 4, 5, 6]
    assert found.positions[0].steps[0].top[0].token == int(logits_after(MODEL, PROMPTS[0]).argmax())


def test_refusals() -> None:
    for options, message in (
        ({"penalty_alpha": 1.5}, r"penalty_alpha=1.5 must be in \[0, 1\]"),
        ({"penalty_alpha": "0.6"}, "penalty_alpha='0.6' must be a number"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_k": 2.0}, "top_k=2.0 must be an integer"),
    ):
        with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
            ContrastiveSearch(**options)
    for options, message in (
        ({"seed": 1}, "seed=1 must be left out"),
        ({"num_samples": 2}, "num_samples=2 must be left out"),
    ):
        with pytest.raises(ArgumentValueError, match=message):
            minitx.generate(MODEL, PROMPTS, ContrastiveSearch(), max_new_tokens=2, **options)
    short = model_of({**GPT2, "n_positions": 8})
    assert len(minitx.generate(short, [[5, 6]], ContrastiveSearch(), max_new_tokens=6).sequences[0]) <= 6
    for call in (minitx.generate, minitx.stream):
        with pytest.raises(ArgumentValueError, match=r"max_new_tokens=7 must be at most 6; .* 8 positions"):
            call(short, [[5, 6]], ContrastiveSearch(), max_new_tokens=7)
    assert minitx.generate(MODEL, PROMPTS, ContrastiveSearch(), max_new_tokens=0).sequences[0].numel() == 0
