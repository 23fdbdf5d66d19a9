"""Diverse and constrained beam search against fixtures that transformers 4.53 made, the last to have them.

`scripts/make_beam_fixtures.py` makes them; constrained cases in which 4.53 goes wrong are not among them.

Constrained search is compared with num_return_sequences=num_beams. If fewer than num_beams hypotheses contain
all words at the end, 4.53 adds hypotheses that lack a word, or fails: so its best sequence depends on the
number that is returned. LexicalBeam fills those places with further sequences that contain all words,
whatever the number. So the cases with fewer sequences than beams are equal where 4.53 has num_beams complete
sequences, and elsewhere its sequences are among those of LexicalBeam, whose scores are at least as good.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import minitx
from minitx.decoding.search.base import Search
from minitx.decoding.search.constrained import LexicalBeam
from minitx.decoding.search.diverse import DiverseBeam
from minitx.models import Model
from tests.parity.formula import weights
from tests.unit.decoding.searches import search
from tests.unit.decoding.test_lexical import holds

FOLDER = Path(__file__).parent / "fixtures"
MODELS = {"gpt2": "causal-lm", "llama": "causal-lm", "t5": "seq2seq-lm", "bart": "seq2seq-lm"}
SHARED = ("num_beams", "length_penalty", "early_stopping", "repetition_penalty", "suppress_tokens")


@cache
def fixture(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def cases(name: str, model: str) -> list[Any]:
    return [case for case in fixture(name)["cases"] if case["model"] == model]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    found = {}
    for name, head in MODELS.items():
        folder, made = tmp_path_factory.mktemp(name), fixture("diverse")["models"][name]
        (folder / "config.json").write_text(json.dumps(made["config"]), encoding="utf-8")
        save_file(weights(made["shapes"]), folder / "model.safetensors", metadata={"format": "pt"})
        found[name] = minitx.load(folder, head=head)
    return found


def shared(case: Any) -> dict[str, Any]:
    arguments = case["arguments"]
    bias = {tuple(ids): value for ids, value in arguments["sequence_bias"]}
    return {name: arguments[name] for name in SHARED} | {"sequence_bias": bias}


def diverse(case: Any, **more: Any) -> Search:
    names = ("num_beam_groups", "diversity_penalty", "no_repeat_ngram_size")
    return DiverseBeam(**(shared(case) | {name: case["arguments"][name] for name in names} | more))


def constrained(case: Any, **more: Any) -> Search:
    words = {"force_words_ids": case["arguments"]["force_words_ids"]}
    return LexicalBeam(**(shared(case) | words | {"push_progress": case.get("push_progress", False)} | more))


def outcome(
    model: Any, case: Any, strategy: Search, number: int | None = None
) -> tuple[list[list[int]], list[float]]:
    """Tokens and scores of so many sequences. 4.53 writes its first end token for any of them."""
    arguments = case["arguments"]
    result = search(
        strategy,
        case["prompts"],
        model=model,
        max_new_tokens=arguments["max_new_tokens"],
        min_new_tokens=min(arguments["min_new_tokens"], arguments["max_new_tokens"]),
        num_samples=number or arguments["num_return_sequences"],
        eos=arguments["eos_token_id"],
    )
    first, *others = arguments["eos_token_id"]
    found = [[first if token in others else token for token in row.tolist()] for row in result.sequences]
    return found, result.scores


def equal(model: Any, case: Any, strategy: Search) -> bool:
    """Tokens, and scores to the last digits of their summands: a bias may cancel a log-probability."""
    tokens, scores = outcome(model, case, strategy)
    return tokens == case["sequences"] and scores == pytest.approx(case["scores"], rel=1e-5, abs=2e-6)


def all_of(model: Any, case: Any) -> list[list[tuple[list[int], float]]]:
    """Every hypothesis of LexicalBeam and its score, per prompt: as many sequences as it can return."""
    for number in range(case["arguments"]["num_beams"], 0, -1):
        try:
            pairs = list(zip(*outcome(model, case, constrained(case), number), strict=True))
        except ValueError as error:
            if "hypotheses contain all phrases" not in str(error):
                raise
        else:
            return [pairs[first : first + number] for first in range(0, len(pairs), number)]
    raise AssertionError("4.53 has a sequence with all words")


SEARCHES = {"diverse": diverse, "constrained": constrained}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", SEARCHES)
def test_tokens_and_scores_are_equal(name: str, model: str, models: dict[str, Any]) -> None:
    found = cases(name, model)
    assert len(found) >= 32
    for case in found:
        assert equal(models[model], case, SEARCHES[name](case)), case


@pytest.mark.parametrize("model", MODELS)
def test_constrained_with_fewer_sequences_than_beams(model: str, models: dict[str, Any]) -> None:
    found = cases("constrained_fewer", model)
    complete = [case for case in found if case["complete"]]
    assert len(complete) >= 8
    for case in complete:
        assert equal(models[model], case, constrained(case)), case
    for case in found:
        number = case["arguments"]["num_return_sequences"]
        if case["complete"]:
            continue
        mine = all_of(models[model], case)
        theirs = list(zip(case["sequences"], case["scores"], strict=True))
        tokens, scores = outcome(models[model], case, constrained(case))
        assert all(holds(case["arguments"]["force_words_ids"], text) for text in tokens)
        for place, (text, score) in enumerate(theirs):
            pairs = mine[place // number]
            assert any(t == text and s == pytest.approx(score, rel=1e-5) for t, s in pairs), case
            assert scores[place] >= score - 1e-5 * abs(score), case


CONTROLS: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "a smaller penalty": (
        "diverse",
        lambda case: {"diversity_penalty": case["arguments"]["diversity_penalty"] * 0.8},
    ),
    "fewer groups": ("diverse", lambda case: {"num_beam_groups": 1}),
    "stops otherwise": (
        "diverse",
        lambda case: {"early_stopping": "never" if case["arguments"]["early_stopping"] is True else True},
    ),
    "scores by length": ("constrained", lambda case: {"length_penalty": 0.8}),
    "without what is complete": (
        "constrained",
        lambda case: {"push_progress": not case.get("push_progress", False)},
    ),
    "another word": (
        "constrained",
        lambda case: {"force_words_ids": [*case["arguments"]["force_words_ids"][1:], [9]]},
    ),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_control(control: str, models: dict[str, Any]) -> None:
    """The fixtures tell a small change of the search."""
    name, change = CONTROLS[control]
    different = 0
    for case in cases(name, "llama"):
        try:
            different += not equal(models["llama"], case, SEARCHES[name](case, **change(case)))
        except ValueError as error:  # without what is complete there are fewer hypotheses
            different += "hypotheses contain all phrases" in str(error)
    assert different >= 3
