"""Checkpoints whose tensors have several dtypes: they run, near the same in float32, and come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import minitx
import minitx.optimize
from tests.unit.calls import run
from tests.unit.test_save_load import (
    CONFIGS,
    EVERY_HEAD,
    ids,
    outputs,
    random,
    rewrite,
    round_trip,
    stored,
    written,
)

HALF = [torch.bfloat16, torch.float16]
LAST_HEADS = list(dict(EVERY_HEAD).items())


def mixed(tensors: dict[str, Tensor], first: int = 0) -> dict[str, Tensor]:
    """Every other tensor in float32 and the others in bfloat16, all with values that both hold."""
    rounded = {name: tensors[name].bfloat16() for name in sorted(tensors)}
    return {n: t if i % 2 == first else t.float() for i, (n, t) in enumerate(rounded.items())}


@pytest.mark.parametrize(
    ("name", "head", "first"), [(*case, 0) for case in EVERY_HEAD] + [(*case, 1) for case in LAST_HEADS]
)
def test_every_architecture_and_head(tmp_path: Path, name: str, head: str, first: int) -> None:
    folder = written(tmp_path / "one", head, CONFIGS[name])
    rewrite(folder, mixed(stored(folder), first), dtype="bfloat16")
    wide = minitx.load(folder, dtype=torch.float32)
    for attention in ("sdpa", "eager"):
        model = minitx.load(folder, attention=attention)
        assert len({p.dtype for p in model.parameters()}) == 2
        for a, b in zip(outputs(model), outputs(wide), strict=True):
            assert torch.isfinite(a).all()
            assert b.abs().max() > 0
            assert (a.float() - b).abs().max() <= 0.1 * b.abs().max()
    if head in ("causal-lm", "seq2seq-lm"):
        for strategy in (minitx.Sample(), minitx.Beam(num_beams=2)):
            assert minitx.generate(model, ids(), max_new_tokens=3, strategy=strategy)
    round_trip(folder, tmp_path / "two")


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize(
    "part",
    [
        "embeddings",
        "LayerNorm",
        "bias",
        "attention.self.query",
        "attention.self.value",
        "output.dense",
        "cls",
    ],
)
def test_one_part_of_bert(tmp_path: Path, part: str, half: torch.dtype) -> None:
    folder = written(tmp_path / "one")
    tensors = {n: t.float() if part in n else t.to(half) for n, t in stored(folder).items()}
    rewrite(folder, tensors, dtype=str(half).removeprefix("torch."))
    wide = minitx.load(folder, dtype=torch.float32)
    model = round_trip(folder, tmp_path / "two")  # config.json keeps its dtype
    for a, b in zip(outputs(model), outputs(wide), strict=True):
        assert (a.float() - b).abs().max() <= 0.05 * b.abs().max()


def test_the_printout_and_the_layout_stay(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    plain = minitx.load(folder)
    rewrite(folder, mixed(stored(folder)))
    assert repr(minitx.load(folder)) == repr(plain).replace("float32,", "bfloat16 and float32,", 1)


def test_one_dtype_has_no_conversions(tmp_path: Path) -> None:
    model = minitx.load(written(tmp_path / "one"), dtype=torch.bfloat16)
    assert not any(type(module).__name__.startswith("Mixed") for module in model.modules())


def test_a_mixed_model_is_converted_whole(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    rewrite(folder, mixed(stored(folder)))
    model, wide = minitx.load(folder).float(), minitx.load(folder, dtype=torch.float32)
    for a, b in zip(outputs(model), outputs(wide), strict=True):
        torch.testing.assert_close(a, b)


# --- float16 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "head"), EVERY_HEAD)
def test_every_architecture_in_float16(tmp_path: Path, name: str, head: str, attention: str) -> None:
    """Within 2 % of float32, as a share of the largest output."""
    folder = written(tmp_path / "one", head, CONFIGS[name])
    wide = minitx.load(folder)
    model = minitx.load(folder, dtype="float16", attention=attention)
    for a, b in zip(outputs(model), outputs(wide), strict=True):
        assert (a.float() - b).abs().max() <= 0.02 * b.abs().max()


@pytest.mark.parametrize("name", ["t5", "t5-gated", "mt5", "umt5"])
@pytest.mark.parametrize("how", ["load", "file", "half", "from_config"])
def test_t5_beyond_the_numbers_of_float16(tmp_path: Path, name: str, how: str) -> None:
    """The feed-forward networks of trained T5s give numbers above 65,504."""
    wide = random(CONFIGS[name], "seq2seq-lm")
    with torch.no_grad():
        for path, parameter in wide.named_parameters():
            if ".output.dense." in path:
                parameter.mul_(1e5)
    minitx.save(wide, tmp_path / "wide")
    model = minitx.load(tmp_path / "wide", dtype=torch.float16)
    if how == "file":
        tensors = {n: t.half() for n, t in stored(tmp_path / "wide").items()}
        model = round_trip(rewrite(tmp_path / "wide", tensors, dtype="float16"), tmp_path / "again")
    elif how == "half":
        model = minitx.load(tmp_path / "wide").half()
    elif how == "from_config":
        model = minitx.from_config(CONFIGS[name], head="seq2seq-lm", dtype=torch.float16).eval()
        model.load_state_dict(wide.state_dict())
    kinds = {path: p.dtype for path, p in model.named_parameters()}
    assert {d for path, d in kinds.items() if ".output.dense." in path} == {torch.float32}
    assert {d for path, d in kinds.items() if ".output.dense." not in path} == {torch.float16}
    a, b = run(model, ids(CONFIGS[name])).logits, run(wide, ids(CONFIGS[name])).logits
    assert (a.float() - b).abs().max() <= 0.04 * b.abs().max()


@pytest.mark.parametrize("name", ["gpt-neo", "gptj", "gpt2", "bert", "opt"])
@pytest.mark.filterwarnings("ignore:config.json")
def test_eager_scores_beyond_the_numbers_of_float16(tmp_path: Path, name: str) -> None:
    head = "masked-lm" if name == "bert" else "causal-lm"
    wide = random(CONFIGS[name], head)
    with torch.no_grad():
        for path, parameter in wide.named_parameters():
            if ".Q.weight" in path or ".K.weight" in path:
                parameter.mul_(2000)
    minitx.save(wide, tmp_path / "wide")
    model = minitx.load(tmp_path / "wide", dtype=torch.float16, attention="eager")
    assert torch.isfinite(run(model, ids(CONFIGS[name])).logits).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_stays_in_float32_keeps_numbers_beyond_float16(tmp_path: Path, dtype: torch.dtype) -> None:
    """`load(...).half()` gives the numbers of `load(..., dtype="float16")`."""
    wide = random(CONFIGS["t5"], "seq2seq-lm")
    for path, parameter in wide.named_parameters():
        if ".output.dense." in path:
            torch.nn.init.constant_(parameter, 1e5)
    minitx.save(wide, tmp_path)
    half = minitx.load(tmp_path, dtype=dtype)
    half.encoder.layers[0].output.dense.weight.grad = torch.full((1,), 1e5, dtype=dtype).expand(
        half.encoder.layers[0].output.dense.weight.shape
    )
    for name, parameter in half.half().named_parameters():
        loaded = minitx.load(tmp_path, dtype="float16").get_parameter(name)
        assert parameter.dtype == loaded.dtype
        assert torch.isfinite(parameter).all()
        if dtype == torch.float32:
            assert torch.equal(parameter, loaded)
    assert half.encoder.layers[0].output.dense.weight.grad.dtype == torch.float32
    back = half.float()
    assert {p.dtype for p in back.parameters()} == {torch.float32}


def test_the_pass_after_a_conversion_of_one_part(tmp_path: Path) -> None:
    model = minitx.load(written(tmp_path / "one"))
    wide = outputs(model)
    model.head.double()
    for a, b in zip(outputs(minitx.optimize.mixed_dtypes(model)), wide, strict=True):
        torch.testing.assert_close(a.float(), b)


def test_a_conversion_walks_no_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "one")
    rewrite(folder, mixed(stored(folder)))
    model = minitx.load(folder)
    monkeypatch.setattr(torch.nn.Module, "parameters", lambda *_: pytest.fail("walks the parameters"))
    outputs(model)
