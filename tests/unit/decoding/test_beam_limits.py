"""The limits of beams: how many there may be, and how little filters may leave them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from minitx.decoding import (
    Beam,
    BeamSample,
    Chain,
    DiverseBeam,
    LexicalBeam,
    Sample,
    StochasticBeam,
    Strategy,
    TopK,
)
from minitx.decoding.arguments import resolve
from minitx.decoding.generate import generate
from minitx.decoding.request import GenerationOptions
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.searches import tiny, tokens

MODEL = tiny(vocab_size=12, seed=3)
PROMPTS = [[3, 4, 1], [2], [3, 4, 1, 1, 2]]
FILTERS = {
    "top_k": 1,
    "top_p": 0.01,
    "min_p": 1.0,
    "typical_p": 0.01,
    "epsilon_cutoff": 0.99,
    "eta_cutoff": 0.99,
    "top_h": 0.01,
    "top_n_sigma": 0.01,
    "top_a": 1.0,
    "tfs": 0.01,
    "p_less": 1.0,
    "entmax_alpha": 10.0,
    "mirostat": (0.01, 0.1),
    "mirostat_v1": (0.01, 0.1),
}
SHAPES = {"averaged_xtc", "dynamic_temperature", "entropy_temperature", "smoothing", "skew"}
REFUSED = {"xtc", "adaptive_p"}


def test_the_list_of_filters_is_whole() -> None:
    everyones = {field.name for field in dataclasses.fields(Strategy)}
    own = {field.name for field in dataclasses.fields(Sample)} - everyones
    assert own == {*FILTERS, *SHAPES, *REFUSED, "temperature", "order"}


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_leaves_beams_a_way_to_go_on(name: str) -> None:
    """However much ends a text, and however little the filter would keep."""
    strategy = BeamSample(num_beams=4, **{name: FILTERS[name]})  # type: ignore[arg-type]
    stop = Stop(eos=(1, 2), tokens=(3, 4, 5))
    bias: dict[str, Any] = {"logit_bias": dict.fromkeys(range(1, 6), 60.0)}
    for given in (strategy, dataclasses.replace(strategy, **bias)):
        result = generate(MODEL, PROMPTS, given, max_new_tokens=6, num_samples=4, seed=1, stop=stop)
        for tree in result.beams or []:
            assert any(node.step == 0 and not node.finished for node in tree)


@pytest.mark.parametrize("kind", [Beam, BeamSample, DiverseBeam, LexicalBeam, StochasticBeam])
def test_no_more_beams_than_can_be_run(kind: Any) -> None:
    more = {LexicalBeam: {"force_words_ids": [[1]]}, DiverseBeam: {"num_beam_groups": 1}}.get(kind, {})
    with pytest.raises(ValueError, match="num_beams=999999999 must be from 1 to 4096"):
        kind(num_beams=999_999_999, **more)
    strategy = kind(num_beams=9, **more)  # more than there are tokens
    options: dict[str, Any] = {"seed": 1} if isinstance(strategy, Sample) else {}
    result = generate(tiny(4), [[1]], strategy, max_new_tokens=4, num_samples=5, **options)
    assert len({tuple(row) for row in tokens(result)}) == 5


@pytest.mark.parametrize("kind", [Beam, BeamSample, DiverseBeam, LexicalBeam, StochasticBeam])
def test_trees_show_no_beams_that_do_not_exist(kind: Any) -> None:
    """When the last beams of a prompt end, what a search goes on with is nothing."""
    more = {"force_words_ids": [[1]]} if kind is LexicalBeam else {}
    bans = {"allowed_token_ids": [0, 1, 2, 5]}
    for early in (True, False):
        if kind is not StochasticBeam:
            more["early_stopping"] = early
        strategy = kind(num_beams=6, **bans, **more)
        options: dict[str, Any] = {"seed": 1} if isinstance(strategy, Sample) else {}
        stop = Stop(eos=0, tokens=(2, 5))
        result = generate(MODEL, PROMPTS, strategy, max_new_tokens=3, num_samples=2, stop=stop, **options)
        for tree in result.beams or []:
            assert len(tree) > 2
            assert all(math.isfinite(node.score) and math.isfinite(node.logprob) for node in tree)


def test_a_pool_has_an_end() -> None:
    with pytest.raises(ValueError, match=r"patience=1000000000.0 must be at most 16384 with num_beams=4"):
        Beam(patience=1e9)


def test_torch_draws_from_so_many_continuations_at_most() -> None:
    model, options = tiny(4097), {"max_new_tokens": 2, "generator": torch.Generator()}
    with pytest.raises(ValueError, match="num_beams=4096 must be at most 4095 with generator="):
        generate(model, [[1]], BeamSample(num_beams=4096), **options)
    assert len(generate(model, [[1]], BeamSample(num_beams=2), **options)) == 1


@pytest.mark.parametrize("keep", [1, 5])
@pytest.mark.parametrize("name", ["processors", "chain"])
def test_drawing_beams_widen_custom_filters(keep: int, name: str) -> None:
    """Each filter keeps enough tokens for a beam to continue, and never fewer than its own number."""
    filters: Any = Chain(TopK(1, min_tokens_to_keep=keep))
    strategy = BeamSample(**{name: filters if name == "chain" else filters.processors})
    options: GenerationOptions = {"max_new_tokens": 2, "stop": Stop(eos=[0, 1]), "seed": 0}
    _, request = resolve(MODEL, [[5]], strategy, options)
    assert request.chain.processors == (TopK(1, min_tokens_to_keep=max(keep, 3)),)
