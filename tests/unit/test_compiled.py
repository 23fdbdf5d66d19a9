"""Models of torch.compile: compiled in place they run and are saved; wrappers get an error that tells how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import minitx
from minitx.inspect.compare.verify import verify
from minitx.inspect.explain import explain
from minitx.inspect.summary import summarize
from minitx.layers.attention import sdpa

GPT2 = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 20}
IDS = [[3, 4, 5], [6, 7]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    minitx.save(minitx.from_config(GPT2, head="causal-lm", seed=0), tmp_path / "plain")
    return tmp_path / "plain"


def compiled(function: Any) -> Any:
    return torch.compile(function, backend="eager")


def in_place(module: Any) -> None:
    module.compile(backend="eager")


def wrap_layer(model: Any) -> None:
    model.decoder.layers[1] = compiled(model.decoder.layers[1])


def wrap_stack(model: Any) -> None:
    model.decoder = compiled(model.decoder)


def wrap_forward(model: Any) -> None:
    model.forward = compiled(model.forward)


def wrap_forward_of_a_layer(model: Any) -> None:
    model.decoder.layers[0].forward = compiled(model.decoder.layers[0].forward)


def everything(model: Any) -> None:
    for module in model.modules():
        in_place(module)


def without_compiler(model: Any) -> None:
    model.compile(disable=True)


IN_PLACE: list[Callable[[Any], Any]] = [
    in_place,
    lambda model: in_place(model.decoder),
    lambda model: in_place(model.decoder.layers[0]),
    lambda model: in_place(model.head),
    everything,
    without_compiler,
]
WRAPPERS = {
    wrap_layer: r"model\.decoder\.layers\.1=",
    wrap_stack: r"model\.decoder=",
    wrap_forward: r"model\.forward=",
    wrap_forward_of_a_layer: r"model\.decoder\.layers\.0\.forward=",
}


@pytest.mark.parametrize("change", [in_place, everything, wrap_layer, wrap_stack, wrap_forward])
def test_all_of_them_run(folder: Path, change: Callable[[Any], Any]) -> None:
    torch._dynamo.reset()
    plain, model = minitx.load(folder), minitx.load(folder)
    change(model)
    for strategy in (minitx.Greedy(), minitx.Beam(num_beams=2)):
        results = [
            minitx.generate(each, IDS, strategy, max_new_tokens=4).sequences for each in (plain, model)
        ]
        assert [row.tolist() for row in results[0]] == [row.tolist() for row in results[1]]
    totals = [minitx.score(each, IDS).totals for each in (plain, model)]
    assert torch.allclose(*totals, atol=1e-5)
    assert len(explain(model, IDS[0], minitx.Greedy(), max_new_tokens=2).positions) == 2
    assert len(list(minitx.stream(model, IDS[:1], minitx.Greedy(), max_new_tokens=2)))


@pytest.mark.parametrize("change", IN_PLACE)
def test_compiled_in_place_it_is_saved(folder: Path, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    model = minitx.load(folder)
    change(model)
    minitx.save(model, tmp_path / "saved")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert str(summarize(model, folder))


@pytest.mark.parametrize("change", WRAPPERS)
def test_wrappers_are_not_saved(folder: Path, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    model = minitx.load(folder)
    change(model)
    message = rf"{WRAPPERS[change]}.*not what torch\.compile returns; compile a module in place"
    with pytest.raises(TypeError, match=message):
        minitx.save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(TypeError, match=message):
        verify(folder, model=model)


def test_a_wrapped_model_gets_one_error_everywhere(folder: Path, tmp_path: Path) -> None:
    model: Any = compiled(minitx.load(folder))
    calls: list[Callable[[], Any]] = [
        lambda: minitx.save(model, tmp_path / "saved"),
        lambda: minitx.embed(model, ["a"], tokenizer=len),  # type: ignore[arg-type]
        lambda: minitx.generate(model, IDS),
        lambda: minitx.stream(model, IDS),
        lambda: minitx.score(model, IDS),
        lambda: explain(model, IDS[0]),
        lambda: verify(folder, model=model),
        lambda: summarize(model),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"pass model\._orig_mod, or compile it in place"):
            call()


@pytest.mark.parametrize("compiles", [False, True])
def test_a_call_set_by_hand_is_not_saved(folder: Path, tmp_path: Path, compiles: bool) -> None:
    """It can compute anything, here zeros."""
    model: Any = minitx.load(folder)
    layer = model.decoder.layers[0]

    def zeros(*args: Any, **options: Any) -> torch.Tensor:
        return layer._call_impl(*args, **options) * 0

    layer._compiled_call_impl = compiled(zeros) if compiles else zeros
    name = "zeros, compiled" if compiles else "zeros"
    with pytest.raises(
        ValueError, match=rf"layers\.0\._compiled_call_impl is {name}, but by its config not set"
    ):
        minitx.save(model, tmp_path / "saved")


def test_a_compiled_attention_is_named_as_such(folder: Path, tmp_path: Path) -> None:
    model = minitx.load(folder).set_attention(compiled(sdpa))
    with pytest.raises(ValueError, match=r"backend is sdpa, compiled, but by its config sdpa"):
        minitx.save(model, tmp_path / "saved")


def test_other_wrappers_are_no_models(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"model=DataParallel\(\.\.\.\) must be a model;"):
        minitx.embed(torch.nn.DataParallel(minitx.load(folder)), ["a"], tokenizer=len)  # type: ignore[arg-type]
