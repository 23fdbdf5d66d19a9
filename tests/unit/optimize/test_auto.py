"""`minitx.optimize(model)`: what is applied, what is reported, what is refused, and that it is undone."""

from __future__ import annotations

import copy
import inspect
import pydoc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minitx
from minitx.cli.source import Source
from minitx.optimize import (
    auto,
    bfloat16_is_faster,
    bfloat16_weights,
    fuse_projections,
    mixed_dtypes,
    report,
    undo_bfloat16_weights,
    undo_fast_linear,
    undo_optimize,
)
from minitx.optimize.bfloat16 import Bfloat16Linear, PackedBfloat16
from minitx.optimize.packed import has_packed
from minitx.optimize.quantize import int8_dynamic
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.fake_cuda import fake_cuda, on_cuda
from tests.unit.optimize import configs
from tests.unit.test_save_load import files, random

BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 300,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
IDS = torch.arange(4, 16).reshape(2, 6)


def refused(call: Callable[[], Any]) -> bool:
    """Whether the processor has no products in bfloat16; the call is then refused by that name."""
    if has_packed(torch.bfloat16):
        return False
    with pytest.raises(ArgumentValueError, match="processor"):
        call()
    return True


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return random(configs.gpt2(), "causal-lm").eval()


@pytest.fixture(autouse=True)
def everything_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("packed_is_faster", "bfloat16_is_faster", "int8_is_faster"):
        monkeypatch.setattr(auto, name, lambda *dtype: True)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(IDS).logits
    return output


def applied(model: Any) -> list[str]:
    found = report(model)
    return [] if found is None else [step.name for step in found.applied]


def classes(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def test_decoder(gpt2: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model = copy.deepcopy(gpt2)
    assert minitx.optimize(model) is model
    assert applied(model) == ["fuse_projections", "pack_weights"]
    torch.testing.assert_close(logits(model), logits(gpt2), rtol=1e-4, atol=1e-4)
    for strategy in (minitx.Greedy(), minitx.Beam(num_beams=2)):
        a, b = (minitx.generate(m, [[5, 6]], max_new_tokens=4, strategy=strategy) for m in (model, gpt2))
        assert a.sequences[0].tolist() == b.sequences[0].tolist()
    assert capfd.readouterr().err == ""  # no terminal
    minitx.optimize(model, verbose=True)  # again: not applied twice
    assert applied(model) == ["fuse_projections", "pack_weights"]
    assert capfd.readouterr().err == f"{report(model)}\n"
    assert undo_optimize(model) is model
    assert report(model) is None
    assert classes(model) == classes(gpt2)
    assert set(vars(model)) == set(vars(gpt2))
    assert torch.equal(logits(model), logits(gpt2))
    assert undo_optimize(model) is model


def test_encoder_without_padding() -> None:
    plain = random(BERT, "none").eval()
    model = minitx.optimize(copy.deepcopy(plain), verbose=False)
    assert applied(model) == ["fuse_projections", "unpadded", "pack_weights"]
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6])
    with torch.no_grad():
        a, b = (m(IDS, attention_mask=mask).last_hidden_state for m in (model, plain))
    torch.testing.assert_close(a[mask.bool()], b[mask.bool()], rtol=1e-4, atol=1e-4)
    assert classes(undo_optimize(model)) == classes(plain)


def test_cuda_graphs_are_chosen_for_decoders_on_a_gpu(gpt2: Any) -> None:
    bert = random(BERT, "none").eval()
    for model, reason in (
        (copy.deepcopy(gpt2), "the model is not on a CUDA device"),
        (nn.Sequential(), "the model is not on a CUDA device"),
    ):
        assert report(minitx.optimize(model, verbose=False)).left_out["cuda_graphs"] == reason  # type: ignore[union-attr]
    with fake_cuda():
        model = on_cuda(copy.deepcopy(gpt2))
        plain = type(model)
        minitx.optimize(model, verbose=False)
        assert "cuda_graphs" in applied(model)
        step = report(model).applied[-1]  # type: ignore[union-attr]
        package, _, name = step.undo.rpartition(".")
        assert callable(getattr(sys.modules[package], name))
        assert hasattr(model, "graph_steps")
        assert type(undo_optimize(model)) is plain
        left = report(minitx.optimize(on_cuda(bert), verbose=False)).left_out  # type: ignore[union-attr]
        assert left["cuda_graphs"] == "the model is not a decoder with a language model head"


def test_report(gpt2: Any) -> None:
    model = minitx.optimize(copy.deepcopy(gpt2), verbose=False)
    text = str(report(model))
    assert max(map(len, text.splitlines())) <= 80
    for word in ("DecoderModel", "pack_weights", "equal up to rounding", "int8_dynamic", "undo_optimize"):
        assert word in text
    for step in report(model).applied:  # type: ignore[union-attr]
        package, _, name = step.undo.rpartition(".")
        assert callable(getattr(sys.modules[package], name))
    assert report(copy.deepcopy(model)) == report(model)
    assert repr(report(model)) == text
    nothing = minitx.optimize(model, passes=())
    assert "nothing was applied" in str(report(nothing))


def test_files_stay(gpt2: Any, tmp_path: Path) -> None:
    minitx.save(gpt2, tmp_path / "plain")
    for options in ({}, {"dtype": torch.bfloat16}, {"int8": True}):
        model = minitx.optimize(copy.deepcopy(gpt2), verbose=False, **options)
        minitx.save(model, tmp_path / "optimised")
        for file in files(tmp_path / "plain"):
            assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "optimised" / file).read_bytes()


def test_int8(gpt2: Any) -> None:
    model = minitx.optimize(copy.deepcopy(gpt2), int8=True, verbose=False)
    assert "int8_dynamic" in applied(model)
    assert "pack_weights" not in applied(model)
    assert 0 < (logits(model) - logits(gpt2)).abs().max() < 0.2 * logits(gpt2).abs().max()
    assert torch.equal(logits(undo_optimize(model)), logits(gpt2))


def test_listed_passes(gpt2: Any) -> None:
    model = minitx.optimize(copy.deepcopy(gpt2), passes=["pack_weights", "fuse_projections"], verbose=False)
    assert applied(model) == ["fuse_projections", "pack_weights"]
    minitx.optimize(model, passes=["fuse_projections"], verbose=False)
    assert applied(model) == ["fuse_projections"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float16}, "dtype=torch.float16"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16'"),
        ({"dtype": torch.bfloat16, "int8": True}, "int8=True"),
        ({"int8": "yes"}, "int8='yes'"),
        ({"verbose": 1}, "verbose=1"),
        ({"passes": "pack_weights"}, "passes='pack_weights'"),
        ({"passes": ["packed"]}, "passes='packed'"),
        ({"passes": [], "int8": True}, "int8=True"),
        (
            {"passes": ["pack_weights", "int8_dynamic"]},
            "must be a list with one of pack_weights and int8_dynamic",
        ),
        ({"passes": ["unpadded", "fuse_projections", "int8_dynamic"], "model": nn.Sequential()}, "model"),
        ({"model": [1]}, "model"),
    ],
    ids=str,
)
def test_refused(gpt2: Any, options: dict[str, Any], message: str) -> None:
    model = options.pop("model", gpt2)
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        minitx.optimize(model, **options)
    assert not isinstance(model, nn.Module) or report(model) is None


def test_what_does_not_pay_is_refused_or_left_out(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("packed_is_faster", "bfloat16_is_faster", "int8_is_faster"):
        monkeypatch.setattr(auto, name, lambda *dtype: False)
    for options in ({"int8": True}, {"dtype": torch.bfloat16}):
        with pytest.raises(ArgumentValueError, match="not faster on this processor"):
            minitx.optimize(gpt2, **options)
    model = minitx.optimize(copy.deepcopy(gpt2), verbose=False)
    assert applied(model) == ["fuse_projections"]
    assert report(model).left_out["pack_weights"] == "not faster on this processor"  # type: ignore[union-attr]
    double = minitx.optimize(copy.deepcopy(gpt2).double(), verbose=False)
    assert report(double).left_out["pack_weights"] == "the model is in torch.float64"  # type: ignore[union-attr]


def test_a_pass_that_fails_leaves_the_model_as_it_was(gpt2: Any) -> None:
    model = copy.deepcopy(gpt2)
    with torch.no_grad():
        model.decoder.layers[1].output.dense.weight[0, 0] = torch.inf
    with pytest.raises(ArgumentValueError, match="finite"):
        minitx.optimize(model, int8=True)
    assert classes(model) == classes(gpt2)
    assert report(model) is None


def test_bfloat16_weights(gpt2: Any) -> None:
    if refused(lambda: bfloat16_weights(copy.deepcopy(gpt2))):
        return
    model = minitx.optimize(copy.deepcopy(gpt2), dtype=torch.bfloat16, verbose=False)
    assert applied(model) == ["fuse_projections", "bfloat16_weights"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    rounded = (logits(model) - logits(gpt2)).abs().max() / logits(gpt2).abs().max()
    assert 1e-5 < rounded < 0.03
    assert logits(model).dtype == torch.float32
    other = bfloat16_weights(copy.deepcopy(gpt2))
    torch.testing.assert_close(logits(fuse_projections(copy.deepcopy(other))), logits(model))
    before, plain = logits(other), copy.deepcopy(gpt2)
    for each in (other, plain):
        with torch.no_grad():
            each.decoder.layers[1].output.dense.weight.mul_(-3.0)
    assert (logits(other) - logits(plain)).abs().max() < 0.1 * (before - logits(plain)).abs().max()
    other.train()(IDS, labels=IDS).loss.backward()  # in float32
    assert classes(undo_bfloat16_weights(model.eval())) != classes(gpt2)  # fused still
    assert torch.equal(logits(undo_optimize(model)), logits(gpt2))


def test_bfloat16_weights_refuse(gpt2: Any) -> None:
    reason = "model" if has_packed(torch.bfloat16) else "processor"
    for model in (nn.Linear(2, 2), copy.deepcopy(gpt2).double()):
        before = classes(model)
        with pytest.raises(ArgumentValueError, match=reason):
            bfloat16_weights(model)
        assert classes(model) == before
    assert Bfloat16Linear not in classes(gpt2)


def test_bfloat16_weights_convert_all_or_none(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[Tensor] = []

    def pack(self: PackedBfloat16, weight: Tensor) -> Tensor:
        packed.append(weight)
        if len(packed) == 3:
            raise RuntimeError("not enough memory")
        return weight

    monkeypatch.setattr(PackedBfloat16, "pack", pack)
    monkeypatch.setattr("minitx.optimize.bfloat16.has_packed", lambda dtype: True)
    model = copy.deepcopy(gpt2)
    with pytest.raises(RuntimeError, match="memory"):
        bfloat16_weights(model)
    assert classes(model) == classes(gpt2)
    assert all("_packed" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("passes", [["fuse_projections", "pack_weights"], ["bfloat16_weights"]])
def test_a_part_that_is_converted_afterwards(gpt2: Any, passes: list[str]) -> None:
    if "bfloat16_weights" in passes and refused(lambda: bfloat16_weights(copy.deepcopy(gpt2))):
        return
    model = minitx.optimize(copy.deepcopy(gpt2), passes=passes, verbose=False)
    model.head.double()
    mixed_dtypes(model)
    assert logits(model).dtype == torch.float64
    torch.testing.assert_close(logits(model).float(), logits(gpt2), rtol=1e-4, atol=1e-4)


def test_a_head_that_is_converted_beside_quantised_projections(gpt2: Any) -> None:
    model = int8_dynamic(copy.deepcopy(gpt2), head=False)
    expected = logits(model)
    model.head.double()
    torch.testing.assert_close(logits(mixed_dtypes(model)).float(), expected, rtol=1e-4, atol=1e-4)


def test_probe_is_remembered() -> None:
    assert bfloat16_is_faster() is bfloat16_is_faster()


def test_the_package_stays_a_package() -> None:
    assert callable(minitx.optimize)
    assert minitx.optimize is sys.modules["minitx.optimize"]
    assert minitx.optimize.fuse_projections is fuse_projections
    assert "optimize" in dir(minitx)


def test_projections_of_other_classes_are_left_unpacked(gpt2: Any) -> None:
    """Those of several dtypes, and quantised ones."""
    mixed = copy.deepcopy(gpt2).bfloat16()
    mixed.head.float()
    for model in (mixed_dtypes(mixed), int8_dynamic(copy.deepcopy(gpt2))):
        minitx.optimize(model, verbose=False)
        assert "pack_weights" not in applied(model)
        assert report(model).left_out["pack_weights"] == "the model has no large weights"  # type: ignore[union-attr]


def test_the_choice_is_that_for_the_model_without_earlier_passes(gpt2: Any) -> None:
    model = copy.deepcopy(gpt2)
    for options, name in (({"int8": True}, "int8_dynamic"), ({}, "pack_weights")):
        assert name in applied(minitx.optimize(model, verbose=False, **options))


def test_a_call_that_fails_keeps_the_earlier_passes(gpt2: Any) -> None:
    model = minitx.optimize(copy.deepcopy(gpt2), verbose=False)
    with torch.no_grad():
        model.decoder.layers[1].output.dense.weight[0, 0] = torch.inf
    before, earlier = classes(model), report(model)
    for options, message in (({"int8": True}, "finite"), ({"passes": ["packed"]}, "packed")):
        with pytest.raises(ArgumentValueError, match=message):
            minitx.optimize(model, **options)
        assert (classes(model), report(model)) == (before, earlier)


def test_what_undoing_does_not_restore(gpt2: Any) -> None:
    """As the docstring states."""
    plain = undo_fast_linear(fuse_projections(copy.deepcopy(gpt2)))
    undo_optimize(minitx.optimize(plain, verbose=False))
    layers = (plain.decoder.layers[0].attention, gpt2.decoder.layers[0].attention)
    assert classes(layers[0]) == classes(layers[1])
    cost = auto.PASSES["fuse_projections"].cost
    assert "mapped" in cost


def test_small_models_are_left_unpacked() -> None:
    small = random(configs.gpt2(width=32) | {"vocab_size": 50}, "causal-lm").eval()
    model = minitx.optimize(small, verbose=False)
    assert applied(model) == ["fuse_projections"]
    assert report(model).left_out["pack_weights"] == "the model has no large weights"  # type: ignore[union-attr]


def test_command_line(gpt2: Any, tmp_path: Path) -> None:
    minitx.save(gpt2, tmp_path)
    source = Source(str(tmp_path), optimize="int8", quiet=True)
    assert "int8_dynamic" in applied(source.model(tmp_path, None))
    assert applied(Source(str(tmp_path), optimize="exact").model(tmp_path, None)) == [
        "fuse_projections",
        "pack_weights",
    ]
    assert report(Source(str(tmp_path)).model(tmp_path, None)) is None
    with pytest.raises(ArgumentValueError, match="optimize='bfloat16' must be left out: the model is in"):
        Source(str(tmp_path), optimize="bfloat16", dtype="float64").model(tmp_path, None)


def test_products_in_bfloat16_of_a_model_in_bfloat16(gpt2: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(gpt2).bfloat16()
    with pytest.raises(
        ArgumentValueError, match=r"in torch.bfloat16; model.float\(\) converts it to float32"
    ):
        minitx.optimize(model, dtype=torch.bfloat16)
    minitx.save(model, tmp_path)
    with pytest.raises(ArgumentValueError, match="choose exact, or load it with --dtype float32"):
        Source(str(tmp_path), optimize="bfloat16").model(tmp_path, None)


def test_the_command_line_shows_one_line_at_a_terminal(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for quiet, shown in ((False, "optimized: fuse_projections, pack_weights\n"), (True, "")):
        auto.optimize_as(copy.deepcopy(gpt2), "exact", compile=False, quiet=quiet)
        assert capsys.readouterr().err == shown


def test_the_call_of_the_package_is_described() -> None:
    assert [*inspect.signature(minitx.optimize).parameters] == [
        *inspect.signature(auto.optimize).parameters,
    ]
    shown = pydoc.plain(pydoc.render_doc(minitx.optimize))
    for word in ("minitx.optimize(model", "passes: names of the passes", "verbose: ", "compile: "):
        assert word in shown


@pytest.mark.parametrize("name", ["fuse_projections", "pack_weights", "int8_dynamic", "compiled_steps"])
def test_a_pass_undone_by_its_own_function_leaves_the_report(
    gpt2: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.optimize.graphs.compiled.check_compiler", lambda: None)
    names = dict.fromkeys(["fuse_projections", name])
    model = minitx.optimize(copy.deepcopy(gpt2), passes=[*names], verbose=False)
    auto.PASSES[name].undo(model)
    noted = report(model)
    assert noted is not None
    assert [step.name for step in noted.applied] == [other for other in names if other != name]
    assert noted.left_out[name] == "undone since"
    assert torch.equal(logits(undo_optimize(model)), logits(gpt2))
