"""LoRA adapters without PEFT: the formula, the base model, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import minitx
from minitx.checkpoint.convert import convert
from tests.unit.test_hub import hub  # noqa: F401 - a fixture
from tests.unit.test_save_load import CONFIGS, ids, stored, written

QUERY = "model.layers.0.self_attn.q_proj"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "layers_to_transform": [0],
    "lora_dropout": 0.1,
    "inference_mode": True,
}


def adapter(
    folder: Path, base: Path | None, tensors: dict[str, Tensor] | None = None, **changes: Any
) -> Path:
    """Writes an adapter of one projection."""
    folder.mkdir(exist_ok=True, parents=True)
    generator = torch.Generator().manual_seed(0)
    if tensors is None:
        tensors = {
            f"base_model.model.{QUERY}.lora_A.weight": torch.randn(2, 24, generator=generator),
            f"base_model.model.{QUERY}.lora_B.weight": torch.randn(24, 2, generator=generator),
        }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {**CONFIG, "base_model_name_or_path": None if base is None else str(base), **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return written(tmp_path / "base", "causal-lm", CONFIGS["llama"])


def merged_query(model: Any) -> Tensor:
    weight: Tensor = model.decoder.layers[0].attention.self_attention.Q.weight
    return weight.detach()


def by_formula(base: Path, folder: Path, scale: float) -> Tensor:
    a, b = (
        load_file(folder / "adapter_model.safetensors")[f"base_model.model.{QUERY}.lora_{part}.weight"]
        for part in "AB"
    )
    return stored(base)[f"{QUERY}.weight"] + scale * b @ a


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"alpha_pattern": {"q_proj": 6}}, 3.0),
        ({"r": 8, "rank_pattern": {"layers.0.self_attn.q_proj": 2}}, 2.0),
        ({"target_modules": r".*\.0\..*\.q_proj"}, 2.0),
    ],
)
def test_the_formula(tmp_path: Path, base: Path, changes: dict[str, Any], scale: float) -> None:
    folder = adapter(tmp_path / "adapter", base, **changes)
    model = minitx.load(folder)
    torch.testing.assert_close(merged_query(model), by_formula(base, folder, scale))
    assert model.checkpoint is not None
    assert model.checkpoint.folder == base


def test_the_dtype_of_the_base_model_stays(tmp_path: Path, base: Path) -> None:
    minitx.save(minitx.load(base, dtype="bfloat16"), tmp_path / "half")
    model = minitx.load(adapter(tmp_path / "adapter", tmp_path / "half"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not torch.equal(merged_query(model), merged_query(minitx.load(tmp_path / "half")))


def test_beside_the_base_model_and_converted(tmp_path: Path, base: Path) -> None:
    adapter(base, None)
    model = minitx.load(base)
    expected = by_formula(base, base, 2.0)
    torch.testing.assert_close(merged_query(model), expected)
    convert(base, tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("adapter*"))
    torch.testing.assert_close(merged_query(minitx.load(tmp_path / "plain")), expected)
    with pytest.raises(FileExistsError, match=r"adapter_config\.json"):  # it would be merged twice
        minitx.save(model, base)


def test_a_base_model_in_a_folder_beside(tmp_path: Path, base: Path) -> None:
    folder = adapter(tmp_path / "adapter", Path("../base"))
    torch.testing.assert_close(merged_query(minitx.load(folder)), by_formula(base, folder, 2.0))


def test_from_the_hub(hub: Any, tmp_path: Path, base: Path) -> None:  # noqa: F811
    folder = adapter(tmp_path / "adapter", Path("someone/base"))
    hub.push("someone/base", {path.name: path.read_bytes() for path in base.iterdir()})
    hub.push("someone/adapter", {path.name: path.read_bytes() for path in folder.iterdir()})
    torch.testing.assert_close(merged_query(minitx.load("someone/adapter")), by_formula(base, folder, 2.0))


def test_a_classifier_of_other_labels(tmp_path: Path) -> None:
    base = written(tmp_path / "base", "next-sentence", CONFIGS["bert"])  # with a pooler
    head = {
        "base_model.model.classifier.weight": torch.ones(5, 24),
        "base_model.model.classifier.bias": torch.ones(5),
    }
    model = minitx.load(
        adapter(tmp_path / "adapter", base, head, task_type="SEQ_CLS", modules_to_save=["classifier"])
    )
    assert model.task == "sequence-classification"
    assert model(ids(CONFIGS["bert"])).logits.shape == (2, 5)
    minitx.save(model, tmp_path / "plain")
    assert minitx.load(tmp_path / "plain")(ids(CONFIGS["bert"])).logits.shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3' must be LORA"),
        ({"layer_replication": [[0, 1]]}, "layer_replication=.* is not merged by minitx; merge it with PEFT"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters="),
        ({"trainable_token_indices": [1]}, "trainable_token_indices="),
        ({"use_qalora": True}, "use_qalora=True"),
        ({"new_method_of_tomorrow": 3}, "new_method_of_tomorrow=3"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changes the base weights"),
        ({"r": 3}, "rank of model.layers.0.self_attn.q_proj must be 2"),
        ({"use_dora": True}, "use_dora=True does not fit the weights"),
        ({"target_modules": ["k_proj"]}, "target_modules must name model.layers.0.self_attn.q_proj"),
        ({"exclude_modules": ["q_proj"]}, "target_modules must name"),
        ({"layers_to_transform": [1]}, "target_modules must name"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path=None must name the base model"),
    ],
)
def test_refused_by_name(tmp_path: Path, base: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minitx.load(adapter(tmp_path / "adapter", base, **changes))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"base_model.model.other.lora_A.weight": torch.ones(2, 24)}, "no matrices A and B for other"),
        ({f"{QUERY}.lora_A.weight": torch.ones(2, 9), f"{QUERY}.lora_B.weight": torch.ones(24, 2)}, "shape"),
        (
            {"x.q_proj.lora_A.weight": torch.ones(2, 24), "x.q_proj.lora_B.weight": torch.ones(24, 2)},
            "the base model has no such weights: x.q_proj",
        ),
    ],
)
def test_weights_that_do_not_fit(
    tmp_path: Path, base: Path, tensors: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        minitx.load(adapter(tmp_path / "adapter", base, tensors, layers_to_transform=None))


def test_a_tied_embedding_is_refused(tmp_path: Path) -> None:
    base = written(tmp_path / "base", "causal-lm", CONFIGS["gpt2"])
    rows = CONFIGS["gpt2"]["vocab_size"]
    tensors = {
        "base_model.model.transformer.wte.lora_embedding_A": torch.ones(2, rows),
        "base_model.model.transformer.wte.lora_embedding_B": torch.ones(24, 2),
    }
    with pytest.raises(ValueError, match=r"the adapter changes transformer\.wte\.weight, which .*tie_word"):
        minitx.load(
            adapter(tmp_path / "adapter", base, tensors, target_modules=["wte"], layers_to_transform=None)
        )


def test_no_weights_of_the_adapter(tmp_path: Path, base: Path) -> None:
    folder = adapter(tmp_path / "adapter", base)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has adapter_config\.json without"):
        minitx.load(folder)
