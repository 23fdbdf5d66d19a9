"""Tensors that a file has beside a complete model: computed ones in silence, custom heads with a warning."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import minitx
from minitx.architectures import architecture
from tests.unit.test_save_load import CONFIGS, EVERY_HEAD, ids, outputs, rewrite, round_trip, stored, written

LAST_HEADS = list(dict(EVERY_HEAD).items())
COMPUTED = {
    "rotary_emb.inv_freq": torch.ones(4),
    "rotary_emb_local.inv_freq": torch.ones(4),
    "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    "layers.0.self_attn.rotary_emb.cos_cached": torch.ones(1, 1, 8, 4),
    "layers.0.self_attn.rotary_emb.sin_cached": torch.ones(1, 1, 8, 4),
    "layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
    "layers.0.attention.masked_bias": torch.tensor(-1e9),
    "h.0.attn.embed_positions": torch.ones(8, 4),
    "embeddings.position_ids": torch.arange(8)[None],
    "embeddings.token_type_ids": torch.zeros(1, 8, dtype=torch.int64),
}


def prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = architecture(CONFIGS[name]["model_type"]).prefix
    return {prefix + key: tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(("name", "head"), LAST_HEADS)
def test_computed_tensors_are_left_out_and_written_back(tmp_path: Path, name: str, head: str) -> None:
    folder = written(tmp_path / "one", head, CONFIGS[name])
    expected = outputs(minitx.load(folder))
    rewrite(folder, {**stored(folder), **prefixed(name, COMPUTED)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = round_trip(folder, tmp_path / "two")
    for a, b in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("name", "head"), LAST_HEADS)
def test_a_custom_head_beside_a_complete_model(tmp_path: Path, name: str, head: str) -> None:
    folder = written(tmp_path / "one", head, CONFIGS[name])
    expected = outputs(minitx.load(folder))
    rewrite(
        folder, {**stored(folder), "cls.species.weight": torch.ones(6, 8), "cls.species.bias": torch.ones(6)}
    )
    with pytest.warns(
        UserWarning, match=r"does not use: cls\.species\.bias, cls\.species\.weight\.$"
    ) as caught:
        model = round_trip(folder, tmp_path / "two")
    assert len([w for w in caught if "does not use" in str(w.message)]) == 1
    for a, b in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_class_of_a_custom_head_is_unknown(tmp_path: Path) -> None:
    """As in AntiBERTy, whose config.json names a class of its own."""
    folder = written(tmp_path / "one")
    rewrite(folder, {**stored(folder), "cls.species.weight": torch.ones(6, 8)}, architectures=["AntiBERTy"])
    with pytest.warns(UserWarning, match="does not use: cls.species.weight"):
        model = minitx.load(folder)
    assert model.task == "masked-lm"
    assert model(ids()).logits is not None


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.3.output.dense.bias",  # a layer more than the config has
        "bert.embeddings.projection.weight",  # a part of the network
        "cls.predictions.transform.dense.scale",  # of a module in use
        "stranger",
    ],
)
def test_what_could_change_the_outputs_is_refused(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path / "one")
    rewrite(folder, {**stored(folder), name: torch.ones(2)})
    with pytest.raises(ValueError, match="has 1 tensors that the model of this config"):
        minitx.load(folder)


def test_a_bias_of_the_head_that_the_config_lacks(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "causal-lm", CONFIGS["llama"])
    rewrite(folder, {**stored(folder), "lm_head.bias": torch.ones(99)})
    with pytest.raises(ValueError, match=r"lm_head\.bias"):
        minitx.load(folder)
