"""Checkpoints that torchao quantised, against its own dequantised weights (make_torchao_fixtures.py)."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import minitx
from minitx.checkpoint.formats.source import open_weights
from minitx.cli.app import main

FIXTURES = Path(__file__).parent / "fixtures" / "torchao"
WAYS = ("int8", "int8-tensor", "int8-dynamic", "int4", "int2")
NAME = "model.layers.0.mlp.up_proj.weight"
IDS = torch.arange(12).view(1, 12)


def load(folder: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the inputs of "int8-dynamic"
        return minitx.load(folder, **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:.*inputs of the projections")
def test_weights_are_those_of_dequantize(way: str) -> None:
    expected = load_file(FIXTURES / way / "dequantized.safetensors")
    tensors = open_weights(FIXTURES / way)
    assert len(expected) == 7
    for name, weight in expected.items():
        assert tensors.shapes[name].dtype == weight.dtype
        assert torch.equal(tensors.read(name), weight)
    assert not any("_weight_" in name for name in tensors.shapes)


@pytest.mark.parametrize("way", WAYS)
def test_a_saved_model_is_a_plain_checkpoint_for_transformers(way: str, tmp_path: Path) -> None:
    model = load(FIXTURES / way)
    minitx.save(model, tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        logits, expected = model.float()(IDS).logits, reference(IDS).logits
    assert torch.allclose(logits, expected, rtol=0, atol=1e-6)


def test_a_dtype_can_be_asked_for() -> None:
    wide = minitx.load(FIXTURES / "int8", dtype="float32", mmap=False)
    weight = load_file(FIXTURES / "int8" / "dequantized.safetensors")[NAME]
    assert torch.equal(wide.get_parameter("decoder.layers.0.intermediate.dense.weight"), weight.float())


def test_unquantised_inputs_are_stated() -> None:
    with pytest.warns(UserWarning, match="inputs of the projections"):
        minitx.load(FIXTURES / "int8-dynamic")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minitx.load(FIXTURES / "int8")


def test_commands_read_a_quantised_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(FIXTURES / "int8")]) == 0
    assert "bfloat16" in capsys.readouterr().out
    assert main(["convert", str(FIXTURES / "int8"), str(tmp_path / "plain")]) == 0
    assert "quantization_config" not in (tmp_path / "plain" / "config.json").read_text()


# --- what is refused ---------------------------------------------------------------------------------


def test_float8_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="F8_E4M3"):
        minitx.load(FIXTURES / "float8")


def _changed(folder: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> Path:
    """Returns a copy of "int4" in which the entry of one weight, or the tensors, are changed."""
    shutil.copytree(FIXTURES / "int4", folder)
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    entry, tensors = json.loads(metadata[NAME]), load_file(path)
    change(entry, tensors)
    save_file(tensors, path, metadata | {NAME: json.dumps(entry)})
    return folder


STEM = NAME.removesuffix("weight") + "_weight_"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry, _: entry.update(_type="Int4TilePackedTo4dTensor"), "Int4TilePackedTo4dTensor"),
        (lambda entry, _: entry.update(_type="Int4Tensor"), "Int4Tensor of torchao"),
        (lambda entry, _: entry["_tensor_data_names"].append("act_pre_scale"), "act_pre_scale"),
        (lambda entry, _: entry["_data"].update(block_size=[1, 7]), "block_size"),
        (lambda entry, _: entry["_data"].update(block_size=[1, 0]), "block_size"),
        (lambda entry, _: entry["_data"].update(block_size="all"), "block_size"),
        (lambda entry, _: entry["_data"].update(block_size=[1, 32]), "48 scales"),
        (lambda entry, _: entry["_data"].update(dtype={"_data": "float64"}), "float64"),
        (lambda entry, _: entry.update(_data=None), "damaged"),
        (lambda entry, _: entry.update(_tensor_data_names=["qdata"]), "damaged"),
        (lambda _, tensors: tensors.pop(f"{STEM}scale"), "no .*_weight_scale"),
        (lambda _, tensors: tensors.update({f"{STEM}qdata": tensors[f"{STEM}qdata"].int()}), "int8"),
    ],
    ids="tile plain4 prescale blocks zero text count dtype data names part integers".split(),  # noqa: SIM905
)
def test_a_damaged_or_unknown_entry_is_refused(
    change: Callable[..., Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        minitx.load(_changed(tmp_path / "changed", change))
    assert NAME in str(caught.value)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", None])
def test_another_method_is_refused_by_name(method: str | None, tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "int8", tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["quant_method"] = method
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"quantization_config of method {method!r}"):
        minitx.load(folder)
