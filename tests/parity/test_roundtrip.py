"""Design, section 7, point 5: what transformers saved comes back byte for byte, and loads there again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

import minitx
from minitx.architectures import architecture
from tests.parity.cases import BY_NAME
from tests.parity.reference import CASES_AND_HEADS, complete, logits_of, pair, text


def tensors(folder: Path) -> dict[str, tuple[str, torch.dtype, bytes, torch.Size]]:
    """Name -> file, dtype, bytes and shape of every tensor in a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118
                value = handle.get_tensor(name).contiguous()
                raw = value.reshape(-1).view(torch.uint8).numpy().tobytes()
                found[name] = (path.name, value.dtype, raw, value.shape)
    return found


def load_in_transformers(name: str, task: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    found, kind = architecture(BY_NAME[name].model_type), BY_NAME[name].model_type
    cls = getattr(transformers, found.class_name(kind, task))
    model, report = cls.from_pretrained(folder, output_loading_info=True)
    model.config._experts_implementation = "eager"
    model.set_attn_implementation(BY_NAME[name].reference)
    return complete(model.eval(), task), report


# Shards are a matter of files: every head of one case of each architecture, and one head of each case.
FIRST = {case.model_type: case.name for case in reversed(BY_NAME.values())}
ROUND_TRIPS = [(name, task, False) for name, task in CASES_AND_HEADS]
ROUND_TRIPS += [
    (name, task, True)
    for name, task in CASES_AND_HEADS
    if name in FIRST.values() or task in ("masked-lm", "causal-lm", "seq2seq-lm")
]


@pytest.mark.parametrize(("name", "task", "sharded"), ROUND_TRIPS)
def test_there_and_back(name: str, task: str, sharded: bool, root: Path, tmp_path: Path) -> None:
    case = BY_NAME[name]
    reference, _ = pair(name, task, torch.float32, root)
    source, saved = tmp_path / "source", tmp_path / "saved"
    reference.save_pretrained(source, max_shard_size="2KB" if sharded else "1GB")
    model = minitx.load(source)
    minitx.save(model, saved)

    assert (len(list(saved.glob("*.safetensors"))) > 1) == sharded
    assert tensors(saved) == tensors(source)
    before, after = (json.loads((f / "config.json").read_text()) for f in (source, saved))
    assert before == after
    again, report = load_in_transformers(name, task, saved)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert without_records(reference.config.to_dict()) == without_records(again.config.to_dict())
    inputs = text(case, 2, 9, task)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        expected, found = reference(**inputs), again(**inputs)
    for a, b in zip(logits_of(expected), logits_of(found), strict=True):
        # The bytes are equal (above); a product with one row may still be summed in another order where
        # the file happens to lie differently in memory.
        assert torch.allclose(a, b, atol=1e-6)


# What the reference has for no use, or fills by itself: a pooler inside an encoder-decoder, sinusoids.
NOT_USED = ("encoder.pooler.", "encoder.embed_positions.", "decoder.embed_positions.")


def without_records(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what says how it came about, in its halves too."""
    recorded = {"_name_or_path", "architectures", "dtype", "transformers_version"}
    return {
        key: without_records(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in recorded
    }


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_a_fresh_model_saves_as_the_reference_would(name: str, task: str, root: Path, tmp_path: Path) -> None:
    """`from_config` -> `save`: transformers finds every tensor, and computes the same."""
    reference, _ = pair(name, task, torch.float32, root)
    config = json.loads(reference.config.to_json_string(use_diff=False))
    if task == "question-answering":
        config["num_labels"] = 2
    model = minitx.from_config(config, head=task, seed=1).eval()
    minitx.save(model, tmp_path)
    again, report = load_in_transformers(name, task, tmp_path)
    assert {key for key in report["missing_keys"] if not key.startswith(NOT_USED)} == set()
    assert not any(report[key] for key in ("unexpected_keys", "mismatched_keys"))
    inputs = text(BY_NAME[name], 2, 9, task)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        expected, found = again(**inputs), model(**inputs)
    if task in ("none", "encoder"):
        assert torch.allclose(expected.last_hidden_state, found.last_hidden_state, atol=1e-5)
    for a, b in zip(logits_of(expected), logits_of(found), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
