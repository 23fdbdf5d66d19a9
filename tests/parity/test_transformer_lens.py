"""Lens, attribution, patching and head scores against TransformerLens 2.18 on a random GPT-2.

`scripts/make_lens_fixture.py` writes the results; the weights are by a formula, all numbers in float64.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import minitx
from minitx.inspect import (
    direct_logit_attribution,
    head_scores,
    logit_difference,
    logit_lens,
    patching_grid,
)
from tests.parity.formula import weights

PATH = Path(__file__).parent / "fixtures" / "transformer_lens.json"
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@cache
def fixture() -> Any:
    return json.loads(PATH.read_text(encoding="utf-8"))


def tensor(name: str) -> torch.Tensor:
    return torch.tensor(fixture()[name], dtype=torch.float64)


def ids(name: str) -> torch.Tensor:
    return torch.tensor(fixture()[name])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("gpt2")
    config = {"model_type": "gpt2", **fixture()["config"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights(fixture()["shapes"]), folder / "model.safetensors", metadata={"format": "pt"})
    return minitx.load(folder, head="causal-lm", dtype="float64")


def test_the_logits_are_equal(model: Any) -> None:
    torch.testing.assert_close(model(ids("clean")).logits.detach(), tensor("logits"), **CLOSE)


def test_the_logit_lens(model: Any) -> None:
    lens = logit_lens(model, ids("clean"), positions=[-1])
    torch.testing.assert_close(lens.logits[:, :, 0], tensor("lens"), **CLOSE)


def test_direct_logit_attribution(model: Any) -> None:
    """Every head and network; the embedding is the sum of the two that TransformerLens separates."""
    expected = {
        name: torch.tensor(values, dtype=torch.float64) for name, values in fixture()["attribution"].items()
    }
    parts = direct_logit_attribution(model, ids("clean"), fixture()["tokens"], fixture()["against"])
    embedding = expected["embed"] + expected["pos_embed"]
    torch.testing.assert_close(parts["embedding"], embedding, **CLOSE)
    for layer in range(2):
        for head in range(4):
            torch.testing.assert_close(parts[f"{layer}.head.{head}"], expected[f"L{layer}H{head}"], **CLOSE)
        torch.testing.assert_close(parts[f"{layer}.feed_forward"], expected[f"{layer}_mlp_out"], **CLOSE)


@pytest.mark.parametrize(
    ("name", "places", "by"),
    [
        ("residual", None, "position"),
        ("heads", "**.mixed", "head"),
        ("networks", "**.layers.*.output.dense", "position"),
    ],
)
def test_patching_grids(model: Any, name: str, places: str | None, by: Any) -> None:
    metric = logit_difference(fixture()["tokens"], fixture()["against"])
    grid = patching_grid(model, ids("clean"), ids("corrupted"), metric, places, by=by)
    torch.testing.assert_close(grid.values, tensor(name), **CLOSE)


def test_head_scores(model: Any) -> None:
    """Theirs is the share of all attention: the sum of the weights by the number of queries, 16."""
    once = ids("once")
    scores = head_scores(model, tokens=once)
    queries = {"induction": 8, "duplicate_token": 8, "previous_token": 15}
    for name, values in fixture()["scores"].items():
        expected = torch.tensor(values, dtype=torch.float64) * 16 / queries[name]
        torch.testing.assert_close(getattr(scores, name), expected, **CLOSE)
