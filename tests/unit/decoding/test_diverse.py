"""Diverse beam search: groups that keep away from each other. Tokens and scores: tests/parity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minitx.decoding import Context
from minitx.decoding.search.diverse import DiverseBeam
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.searches import EOS, PROMPT, all_texts, search, tiny, tokens

PROMPTS = [[3, 4, 1], [2], [3, 4, 1, 1, 2], [3, 4, 1]]
MODEL = tiny(vocab_size=12, seed=3)


def test_without_a_penalty_all_groups_find_the_same() -> None:
    strategy = DiverseBeam(num_beams=6, num_beam_groups=3, diversity_penalty=0)
    found = tokens(search(strategy, [PROMPT], model=MODEL, num_samples=6, max_new_tokens=6))
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4] == found[5]
    assert found[0] != found[3]


def test_one_group_that_is_wide_finds_the_best_texts() -> None:
    """With room for all texts beam search is exhaustive."""
    strategy = DiverseBeam(num_beams=90, num_beam_groups=1, length_penalty=0.0, early_stopping="never")
    result = search(strategy, [PROMPT], num_samples=10)
    texts = sorted(all_texts().items(), key=lambda item: -item[1])[:10]
    assert tokens(result) == [text for text, _ in texts]
    assert result.scores == pytest.approx([logp for _, logp in texts], abs=1e-5)


def test_a_large_penalty_makes_groups_begin_differently() -> None:
    strategy = DiverseBeam(num_beams=4, num_beam_groups=4, diversity_penalty=50.0)
    found = tokens(search(strategy, [PROMPT], model=MODEL, num_samples=4, eos=(), max_new_tokens=6))
    for column in zip(*found, strict=True):
        assert len(set(column)) == 4


def test_more_penalty_more_different_tokens() -> None:
    counts = []
    for penalty in (0.0, 0.5, 4.0):
        strategy = DiverseBeam(num_beams=4, num_beam_groups=4, diversity_penalty=penalty)
        found = tokens(search(strategy, PROMPTS, model=MODEL, num_samples=4, max_new_tokens=6))
        places = {(n // 4, place, token) for n, text in enumerate(found) for place, token in enumerate(text)}
        counts.append(len(places))
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_batch_is_its_prompts(early_stopping: Any) -> None:
    strategy = DiverseBeam(
        num_beams=4, early_stopping=early_stopping, repetition_penalty=[1.2, 1.0, 1.5, 1.2]
    )
    options: dict[str, Any] = {"model": MODEL, "num_samples": 3, "max_new_tokens": 8, "min_new_tokens": 2}
    batch = search(strategy, PROMPTS, **options)
    assert tokens(batch)[:3] == tokens(batch)[9:]
    for number, penalty in enumerate((1.2, 1.0, 1.5)):
        one = DiverseBeam(num_beams=4, early_stopping=early_stopping, repetition_penalty=penalty)
        alone = search(one, [PROMPTS[number]], **options)
        assert tokens(alone) == tokens(batch)[number * 3 : number * 3 + 3]
        assert alone.scores == pytest.approx(batch.scores[number * 3 : number * 3 + 3], rel=1e-5)


def test_a_processor_with_a_state_goes_with_its_beam() -> None:
    """One that forbids the token before last, by a state, and one that does it by the history."""
    plain = DiverseBeam(num_beams=4, processors=[_ban_last_but_one])
    stateful = DiverseBeam(num_beams=4, processors=[_Remembers()])
    options: dict[str, Any] = {"model": MODEL, "num_samples": 4, "max_new_tokens": 8}
    expected = search(plain, PROMPTS, **options)
    result = search(stateful, PROMPTS, **options)
    assert tokens(result) == tokens(expected)
    assert result.scores == expected.scores
    assert tokens(search(DiverseBeam(num_beams=4), PROMPTS, **options)) != tokens(expected)


def _ban_last_but_one(logits: Tensor, context: Context) -> Tensor:
    before = context.last(2)[:, :1]
    out = logits.scatter(1, before.clamp(min=0), -torch.inf)
    return torch.where((context.generated >= 2)[:, None], out, logits)


class _Remembers:
    def init(self, context: Context) -> Any:
        return (torch.full_like(context.length, -1), torch.full_like(context.length, -1))

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        return (state[1], token)

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        before = state[0][:, None]
        return torch.where(before >= 0, logits.scatter(1, before.clamp(min=0), -torch.inf), logits)


def test_prefix_functions_get_the_prompt() -> None:
    seen = set()

    def allowed(prompt: int, history: Tensor) -> list[int]:
        seen.add((prompt, len(history)))
        return [prompt + 1, prompt + 2, EOS]

    strategy = DiverseBeam(num_beams=4, prefix_allowed_tokens_fn=allowed)
    result = search(strategy, PROMPTS, model=MODEL, num_samples=2, max_new_tokens=4)
    for number, text in enumerate(tokens(result)):
        assert set(text) <= {number // 2 + 1, number // 2 + 2, EOS}
    assert {prompt for prompt, _ in seen} == {0, 1, 2, 3}


def test_what_is_reported() -> None:
    strategy = DiverseBeam(num_beams=4, length_penalty=0.7, diversity_penalty=0.0)
    stop = Stop(eos=EOS, tokens=5)
    result = search(
        strategy, PROMPTS, model=MODEL, num_samples=4, max_new_tokens=6, stop=stop, logprobs="processed"
    )
    for text, reason, logprobs, score in zip(
        tokens(result), result.finish_reasons, result.logprobs, result.scores, strict=True
    ):
        assert reason == {EOS: "eos", 5: "stop"}.get(text[-1], "length")
        assert float(logprobs.sum()) / len(text) ** 0.7 == pytest.approx(score, rel=1e-5)
    tree = result.beams[0]
    assert sorted(node.rank for node in tree if node.rank is not None)[0] == 0
    assert "[returned #1]" in str(tree)


def test_no_token_and_one() -> None:
    assert tokens(search(DiverseBeam(), [PROMPT], max_new_tokens=0)) == [()]
    found = tokens(search(DiverseBeam(num_beams=4, num_beam_groups=4), [PROMPT], max_new_tokens=1))
    assert found[0][0] == max(all_texts(1).items(), key=lambda item: item[1])[0][0]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"num_beams": 4, "num_beam_groups": 3},
            ValueError,
            "num_beam_groups=3 must be a divisor of",
        ),
        ({"num_beam_groups": 0}, ValueError, "num_beam_groups=0 must be at least 1"),
        ({"num_beam_groups": [2, 2]}, TypeError, "must be an integer"),
        ({"diversity_penalty": -0.5}, ValueError, r"diversity_penalty=-0.5 must be in \[0, inf\)"),
        ({"diversity_penalty": [0.5]}, TypeError, "must be a number in"),
        ({"length_penalty": 99}, ValueError, "length_penalty=99 must be in"),
        ({"early_stopping": "exact"}, ValueError, "must be one of True, False, 'never'"),
        ({"temperature": 0.5}, TypeError, "has no field 'temperature'"),
    ],
)
def test_fields(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DiverseBeam(**fields)


def test_calls_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="num_samples=5 must be at most num_beams=4"):
        search(DiverseBeam(), [PROMPT], num_samples=5)
    with pytest.raises(ValueError, match="left no token"):
        search(DiverseBeam(suppress_tokens=list(range(5))), [PROMPT])
    with pytest.raises(ValueError, match="Prompt 0: 2 of the num_samples=3 hypotheses were found"):
        search(DiverseBeam(allowed_token_ids=[EOS]), [PROMPT], num_samples=3)
