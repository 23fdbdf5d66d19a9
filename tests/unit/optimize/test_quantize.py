"""Quantised models: exact integer products, weights that are never stale, and an inverse."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import minitx
from minitx.inspect import record
from minitx.layers.experts import ExpertsLinear
from minitx.optimize import fast_linear, fuse_projections, pack_weights, undo_fuse_projections
from minitx.optimize.packed import PackedLinear
from minitx.optimize.quantize import (
    apply,
    int4_weights,
    int8_dynamic,
    int8_is_faster,
    int8_weights,
    passes,
    products,
    quantization_report,
    schemes,
    undo_quantization,
    weight_only,
)
from minitx.optimize.quantize.layers import Int8Linear, Quantized
from minitx.training import add_lora, merge_lora
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.optimize.configs import gpt2, mixtral

GPT2, MIXTRAL = gpt2(width=128), mixtral(width=128)
MISTRAL = {
    "model_type": "mistral",
    "vocab_size": 600,
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
PASSES: dict[str, Callable[..., Any]] = {
    "int8_dynamic": int8_dynamic,
    "int8_weights": int8_weights,
    "int4_weights": int4_weights,
}
# distance of the logits from float32, relative to their largest magnitude
DISTANCES = {"int8_dynamic": 0.03, "int8_weights": 0.03, "int4_weights": 0.3}
IDS = torch.tensor([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]])


@pytest.fixture(autouse=True)
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the kernels of whatever processor the tests run on, fast or not."""
    monkeypatch.setattr(passes, "int8_weights_are_slow", lambda: False)
    monkeypatch.setattr(passes, "int4_weights_are_slow", lambda: False)


@pytest.fixture(params=PASSES)
def quantize(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return PASSES[request.param]


@pytest.fixture(params=[GPT2, MIXTRAL], ids=["gpt2", "mixtral"])
def model(request: pytest.FixtureRequest) -> Any:
    return minitx.from_config(request.param, head="causal-lm", seed=0).eval()


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.inference_mode():
        output: Tensor = model(ids).logits
    return output


def linear(outputs: int, inputs: int, bias: bool = True, **options: Any) -> nn.Sequential:
    torch.manual_seed(outputs + inputs)
    return nn.Sequential(nn.Linear(inputs, outputs, bias=bias, **options))


# --- products ------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(2, 70), st.booleans(), st.integers(0, 2**31))
@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_a_batch(
    rows: int, outputs: int, inputs: int, bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator) * torch.logspace(-20, 10, rows)[:, None]
    weight = torch.randn(outputs, inputs, generator=generator)
    b = torch.randn(outputs, generator=generator) if bias else None
    integers, scale, _ = products.quantize_rows(weight, 127)
    arguments = (integers.t(), scale, b, torch.float32)
    together = products.int8_linear(x, *arguments)
    assert torch.equal(together, torch.cat([products.int8_linear(row, *arguments) for row in x.split(1)]))
    assert torch.equal(together, products.int8_linear(x[None, :, None], *arguments)[0, :, 0])
    step = x.abs().amax(1, keepdim=True).double() / 127
    exact = (x / step).round() @ integers.double().t() * step * scale.double() + (0 if b is None else b)
    half = step * weight.abs().max() * inputs / 10  # a half may be rounded up or down
    assert ((together - exact).abs() <= half + 1e-5 * exact.abs() + 1e-30).all()


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 33])
@pytest.mark.parametrize("row_by_row", [True, False])
def test_products_of_single_rows_are_the_same(
    rows: int, row_by_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_ROW_BY_ROW", {})
    monkeypatch.setattr(products, "_row_by_row_is_faster", lambda *_: row_by_row)
    x = torch.randint(-127, 128, (rows, 70), dtype=torch.int8)
    weight = torch.randint(-127, 128, (50, 70), dtype=torch.int8).t()
    assert torch.equal(products.int_product(x, weight).double(), x.double() @ weight.double())


def test_the_faster_of_both_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "_ROW_BY_ROW", {})
    measured: list[bool] = []
    real = products._row_by_row_is_faster

    def count(x: Tensor, weight: Tensor) -> bool:
        measured.append(True)
        return real(x, weight)

    monkeypatch.setattr(products, "_row_by_row_is_faster", count)
    weight = torch.ones(50, 70, dtype=torch.int8).t()
    for _ in range(3):
        products.int_product(torch.ones(4, 70, dtype=torch.int8), weight)
    assert len(measured) == 1


@torch.no_grad()
def test_zeros_and_values_that_are_not_finite() -> None:
    weight = torch.randn(5, 8)
    integers, scale, _ = products.quantize_rows(weight, 127)
    x, bias = torch.zeros(4, 8), torch.arange(5.0)
    x[1, 3], x[2, 3], x[3, 3] = float("nan"), float("inf"), 1e-42
    y = products.int8_linear(x, integers.t(), scale, bias, torch.float32)
    assert torch.equal(y[0], bias)
    assert torch.equal(y[3], bias)
    assert y[1].isnan().all()
    assert not y[2].isfinite().any()


def saturating(x: Tensor, weight: Tensor) -> Tensor:
    """The product of a processor without VNNI: pairs are added in 16 bits, with the input shifted by 128."""
    pairs = ((x.long() + 128)[:, :, None] * weight.long()[None]).unflatten(1, (-1, 2)).sum(2)
    cut = pairs.clamp(-(2**15), 2**15 - 1).sum(1)
    return (cut - 128 * weight.long().sum(0)).int()


def test_sums_that_overflow_in_16_bits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert products.sums_are_exact(saturating, 64)
    assert not products.sums_are_exact(saturating, 127)
    assert products.sums_are_exact(lambda x, weight: (x.long() @ weight.long()).int(), 127)
    monkeypatch.setattr(products, "_weight_levels", lambda: None)
    with pytest.raises(ArgumentValueError, match="products of int8 are exact"):
        int8_dynamic(linear(64, 64))


def test_a_processor_without_vnni_gets_smaller_weights() -> None:
    """oneDNN takes AVX2 alone if it is told to, as on an older processor; x86-64 only has that name."""
    code = (
        "import torch; from minitx.optimize.quantize import products, int8_dynamic\n"
        "q = torch.nn.Sequential(torch.nn.Linear(96, 64)); x = torch.full((3, 96), 1.0)\n"
        "exact = q(x).detach(); q = int8_dynamic(q)\n"
        "with torch.no_grad(): print(products.weight_levels(), float((q(x) - exact).abs().max()) < 0.05)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.stdout.split() in (["64", "True"], ["127", "True"]), run.stderr


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("outputs", [16, 50])
@torch.no_grad()
def test_int4_weights_are_those_that_the_kernel_multiplies(group_size: int, outputs: int) -> None:
    weight, x = torch.randn(outputs, 256), torch.randn(3, 5, 256)
    integers, scales, zeros, errors = weight_only.quantize_int4(weight, group_size)
    groups = integers.view(outputs, -1, group_size).float()
    restored = ((groups - 8) * scales[..., None].float() + zeros[..., None].float()).view(weight.shape)
    assert torch.allclose((restored - weight).square().sum(1), errors, rtol=1e-3)
    packed = weight_only.pack_int4(integers, scales, zeros)
    bias = torch.randn(outputs)
    y = weight_only.int4_weight_linear(x, *packed, bias, torch.float32, outputs)
    exact = x.bfloat16().float() @ restored.t() + bias
    assert (y - exact).abs().max() < 0.01 * exact.abs().max()


@torch.no_grad()
def test_the_range_of_an_int4_group_is_fitted() -> None:
    weight = torch.randn(64, 128)
    fitted = weight_only.quantize_int4(weight, 32)[-1].sum()
    low, high = weight.view(64, 4, 32).aminmax(dim=-1, keepdim=True)
    step = (high - low) / 15
    plain = (((weight.view(64, 4, 32) - low) / step).round() * step + low).view(64, 128)
    assert fitted < (plain - weight).square().sum()


# --- models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_near_its_original(
    model: Any, quantize: Callable[..., Any], dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    exact = logits(model)
    names, model = dict(model.named_parameters()), model.to(dtype)
    printed = repr(model)
    assert quantize(model) is model
    distance = ((logits(model) - exact).abs().max() / exact.abs().max()).item()
    assert 0 < distance < DISTANCES[quantize.__name__]
    assert logits(model).dtype == dtype
    assert repr(model) == printed
    assert dict(model.named_parameters()).keys() == names.keys()
    assert isinstance(model.head.projection, Quantized)
    assert model.head.projection.weight is model.get_parameter("head.projection.weight")


def test_undoing_restores_the_model(model: Any, quantize: Callable[..., Any]) -> None:
    before, state = logits(model), {name: id(value) for name, value in model.named_parameters()}
    classes = [type(module) for module in model.modules()]
    assert undo_quantization(quantize(model)) is model
    assert torch.equal(logits(model), before)
    assert {name: id(value) for name, value in model.named_parameters()} == state
    assert [type(module) for module in model.modules()] == classes
    assert not dict(model.named_buffers()).keys() & {"head.projection.quantized_weight"}
    assert not quantization_report(model).layers


def test_packed_weights_are_dropped_and_made_again(model: Any) -> None:
    pack_weights(model)
    before, kinds = logits(model), [type(module) for module in model.modules()]
    int8_dynamic(model)
    assert "_packed" not in vars(model.head.projection)
    logits(model)
    undo_quantization(model)
    assert [type(module) for module in model.modules()] == kinds
    assert isinstance(model.head.projection, PackedLinear)
    assert torch.equal(logits(model), before)


def test_state_dict_and_files_are_those_of_the_model(
    model: Any, quantize: Callable[..., Any], tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize(model)
    assert model.state_dict().keys() == before.keys()
    minitx.save(model, tmp_path)
    loaded = minitx.load(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


def test_copies_and_pickles(model: Any, quantize: Callable[..., Any]) -> None:
    expected = logits(quantize(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(logits(other), expected)
        assert not isinstance(undo_quantization(other).head.projection, Quantized)


def test_integers_of_another_processor_are_refused(
    quantize: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor without VNNI cuts off sums of magnitudes above 64."""
    monkeypatch.setattr(products, "_weight_levels", lambda: 127)
    pickled = pickle.dumps(quantize(linear(64, 64)))
    monkeypatch.setattr(products, "_weight_levels", lambda: 64)
    if quantize is not int8_dynamic:
        pickle.loads(pickled)
        return
    with pytest.raises(ArgumentValueError, match="levels=127 must be at most 64 on this processor"):
        pickle.loads(pickled)
    pickled = pickle.dumps(quantize(linear(64, 64)))
    monkeypatch.setattr(products, "_weight_levels", lambda: 127)
    pickle.loads(pickled)


def change_in_place(model: Any) -> None:
    with torch.no_grad():
        model.head.projection.weight.mul_(2)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": change_in_place,
    "load_state_dict": lambda m: m.load_state_dict(copy.deepcopy(m.state_dict())),
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "data": lambda m: setattr(m.head.projection.weight, "data", m.head.projection.weight.data.clone()),
    "replaced": lambda m: setattr(m.head.projection, "weight", nn.Parameter(torch.zeros(600, 128))),
}


def test_weights_made_in_inference_mode_are_refused(quantize: Callable[..., Any]) -> None:
    with torch.inference_mode():
        unseen = linear(80, 64)
    with pytest.raises(ArgumentValueError, match=r"0\.weight.*inference mode"):
        quantize(unseen)
    assert type(unseen[0]) is nn.Linear
    layer = linear(80, 64)
    with torch.inference_mode():
        quantize(layer, keep_weights=False)(torch.randn(3, 64))


def test_a_new_weight_at_the_old_address_is_refused() -> None:
    layer: Any = linear(80, 64)
    values = layer[0].weight.detach().numpy()
    layer[0].weight = nn.Parameter(torch.from_numpy(values))
    int8_dynamic(layer)
    values *= 2
    layer[0].weight = nn.Parameter(torch.from_numpy(values))
    with torch.no_grad(), pytest.raises(ArgumentValueError, match="weight"):
        layer(torch.randn(3, 64))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("copied", [False, True])
def test_a_stale_weight_is_not_used(change: str, copied: bool) -> None:
    model = minitx.from_config(GPT2, head="causal-lm", seed=0).eval()
    int8_dynamic(model)
    CHANGES[change](model)
    model = copy.deepcopy(model) if copied else model
    with pytest.raises(ArgumentValueError, match=r"weight=.* must be the one that was quantised"):
        logits(model)
    undo_quantization(model)
    if change not in ("double", "half"):
        fresh = logits(int8_dynamic(model))
        assert fresh.isfinite().all()


def test_conversions_to_where_it_is_change_nothing(model: Any, quantize: Callable[..., Any]) -> None:
    expected = logits(quantize(model))
    model.float().to("cpu").eval()
    assert torch.equal(logits(model), expected)


def test_gradients_are_refused(model: Any, quantize: Callable[..., Any]) -> None:
    quantize(model)
    with pytest.raises(ArgumentValueError, match="where gradients are recorded"):
        model(IDS)
    with torch.no_grad():
        model(IDS)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(IDS)


def test_batches_seeds_beams_and_caches(quantize: Callable[..., Any]) -> None:
    model = minitx.from_config(GPT2, head="causal-lm", seed=3).eval()
    quantize(model)
    prompts = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16, 17]]
    for strategy in (minitx.Greedy(), minitx.Beam(num_beams=3)):
        together = minitx.generate(model, prompts, strategy, max_new_tokens=6)
        apart = [minitx.generate(model, [prompt], strategy, max_new_tokens=6) for prompt in prompts]
        rows = [row.tolist() for row in together.sequences]
        assert rows == [one.sequences[0].tolist() for one in apart]
    sampled = [
        minitx.generate(model, prompts, minitx.Sample(), max_new_tokens=6, seed=1).sequences for _ in range(2)
    ]
    assert all(map(torch.equal, *sampled))


def test_equal_lengths_give_the_same_logits_in_a_batch() -> None:
    model = int8_dynamic(minitx.from_config(GPT2, head="causal-lm", seed=3).eval())
    hidden = torch.randn(4, 3, 128)
    with torch.inference_mode():
        together = model.head.projection(hidden)
        assert all(torch.equal(together[i], model.head.projection(hidden[i])) for i in range(4))


def test_hooks_and_taps(model: Any, quantize: Callable[..., Any]) -> None:
    quantize(model)
    calls: list[str] = []
    handle = model.head.projection.register_forward_hook(lambda *_: calls.append("hook"))
    expected = logits(model)
    handle.remove()
    assert calls == ["hook"]
    with record(model, "logits") as taps, torch.inference_mode():
        model(IDS)
    assert torch.equal(taps["logits"], expected)


def test_compiled_in_place(quantize: Callable[..., Any]) -> None:
    model = minitx.from_config(GPT2, head="causal-lm", seed=3).eval()
    expected = logits(quantize(model))
    torch._dynamo.reset()
    model.compile(backend="eager", dynamic=True)
    assert torch.equal(logits(model), expected)
    assert torch.allclose(logits(model, IDS[:1, :3]), expected[:1, :3], atol=1e-4)


def test_lora_is_trained_beside_and_merged(tmp_path: Path) -> None:
    model = minitx.from_config(GPT2, head="causal-lm", seed=3).eval()
    before = logits(model)
    int8_dynamic(model)
    add_lora(model, rank=2, targets="all-linear")
    assert torch.equal(logits(model)[..., :5].isfinite(), torch.ones(2, 5, 5, dtype=torch.bool))
    merge_lora(model)
    undo_quantization(model)
    assert torch.allclose(logits(model), before, atol=1e-5)


# --- one product of several projections -----------------------------------------------------------------


@pytest.fixture(params=[GPT2, MISTRAL], ids=["gpt2", "mistral"])
def fused(request: pytest.FixtureRequest) -> Any:
    return fuse_projections(minitx.from_config(request.param, head="causal-lm", seed=0).eval())


def attention(model: Any) -> Any:
    return model.decoder.layers[0].attention.self_attention


def test_one_product_is_quantised_with_its_parts(fused: Any, quantize: Callable[..., Any]) -> None:
    apart = logits(quantize(undo_fuse_projections(copy.deepcopy(fused))))
    quantize(fused)
    attend, calls = attention(fused), []
    assert isinstance(attend.fused, Quantized)
    assert torch.equal(logits(fused), apart)  # each output has the same scale in both
    attend.fused.register_forward_hook(lambda *_: calls.append("fused"))
    attend.Q.register_forward_hook(lambda *_: calls.append("Q"))
    assert torch.equal(logits(fused), apart)
    assert calls == ["Q"]
    own, whole = (module.quantized_weight for module in (attend.Q, attend.fused))
    if quantize is not int4_weights:
        assert own.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()  # no second copy


def test_copies_conversions_and_inverses_of_one_product(
    fused: Any, quantize: Callable[..., Any], tmp_path: Path
) -> None:
    plain = logits(fused)
    expected = logits(quantize(fused))
    other = copy.deepcopy(pickle.loads(pickle.dumps(fused)))
    assert torch.equal(logits(other.float().to("cpu")), expected)
    assert isinstance(attention(other).fused, Quantized)
    handle = attention(other).Q.register_forward_hook(lambda *_: None)
    assert torch.equal(logits(other), expected)  # the parts follow too
    handle.remove()
    assert torch.equal(logits(undo_fuse_projections(other)), expected)
    assert torch.equal(logits(undo_quantization(fused)), plain)
    assert type(attention(fused).fused) is type(attention(fused).Q)
    minitx.save(quantize(fused), tmp_path)
    assert torch.allclose(logits(minitx.load(tmp_path)), plain, atol=1e-5)


@pytest.mark.parametrize("copied", [False, True])
def test_a_stale_part_is_not_used(fused: Any, copied: bool) -> None:
    int8_dynamic(fused)
    logits(fused)
    with torch.no_grad():
        attention(fused).K.weight.mul_(2)
    fused = copy.deepcopy(fused) if copied else fused
    with pytest.raises(ArgumentValueError, match=r"weight=.* must be the one that was quantised"):
        logits(fused)
    with pytest.raises(ArgumentValueError, match=r"weight=.* must be the one that was quantised"):
        logits(undo_fuse_projections(fused))
    assert logits(int8_dynamic(undo_quantization(fused))).isfinite().all()


def test_weights_of_one_product_can_be_dropped(fused: Any, quantize: Callable[..., Any]) -> None:
    expected = logits(quantize(copy.deepcopy(fused)))
    quantize(fused, keep_weights=False)
    calls: list[str] = []
    attention(fused).fused.register_forward_hook(lambda *_: calls.append("fused"))
    assert attention(fused).fused.weight.is_meta
    for model in (fused, copy.deepcopy(fused), fused.float()):
        assert torch.equal(logits(model), expected)
    assert calls


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("names", [("Q", "K", "V"), ("K",)], ids=len)
def test_a_weight_that_is_assigned_after_it_was_dropped_is_seen(
    fused: Any, names: tuple[str, ...], copied: bool
) -> None:
    state = {
        f"{prefix}.{name}.weight": value * 2
        for prefix, module in fused.named_modules()
        for name in names
        if (value := dict(module.named_parameters()).get(f"{name}.weight")) is not None
    }
    assert state
    int8_dynamic(fused, keep_weights=False)
    model = copy.deepcopy(fused) if copied else fused
    logits(model)
    model.load_state_dict(state, strict=False, assign=True)
    with pytest.raises(ArgumentValueError, match=r"weight=.* must be the one that was quantised"):
        logits(model)


def test_a_projection_of_one_product_can_be_skipped(fused: Any) -> None:
    int8_dynamic(fused, skip=["**.Q"])
    assert not isinstance(attention(fused).fused, Quantized)
    assert isinstance(attention(fused).K, Quantized)
    assert logits(fused).isfinite().all()


# --- choice, report, errors ----------------------------------------------------------------------------


def test_what_is_quantised_can_be_chosen(model: Any) -> None:
    int8_dynamic(model, head=False, skip=["decoder.layers.0.attention.**"])
    assert not isinstance(model.head.projection, Quantized)
    names = {layer.name for layer in quantization_report(model).layers}
    assert names
    assert not any("attention" in name for name in names if "layers.0" in name)
    assert quantization_report(model).left["head.projection"] == "head=False"
    int4_weights(model, skip=[])  # the rest
    schemes_used = {layer.name: layer.scheme for layer in quantization_report(model).layers}
    assert schemes_used["head.projection"] == "int4_weights"
    assert names <= {name for name, scheme in schemes_used.items() if scheme == "int8_dynamic"}


def test_routers_stay_by_default() -> None:
    config = {**MIXTRAL, "hidden_size": 1024, "num_attention_heads": 8}
    model = int8_dynamic(minitx.from_config(config, head="causal-lm", seed=0).eval())
    report = quantization_report(model)
    assert [name for name in report.left if name.endswith("router")]
    assert not [layer for layer in report.layers if layer.name.endswith("router")]
    assert [module for module in model.modules() if isinstance(module, ExpertsLinear)]


def test_the_report_states_sizes_errors_and_reasons() -> None:
    shapes = {"a": (64, 128), "b": (64, 96), "c": (4, 4), "d": (64, 72), "e": (5000, 1)}
    model = nn.ModuleDict({name: nn.Linear(inputs, outputs) for name, (outputs, inputs) in shapes.items()})
    report = quantization_report(int4_weights(model, group_size=64))
    assert [layer.name for layer in report.layers] == ["a"]
    assert report.bytes_before == 128 * 64 * 4
    assert report.bytes_after == 128 * 64 // 2 + 2 * 64 * 2 * 2
    assert 0.05 < report.layers[0].error < 0.12
    assert dict(report.left) == {
        "b": "96 inputs, not a multiple of 64",
        "c": "fewer than 4096 weights",
        "d": "72 inputs, not a multiple of 64",
        "e": "a single input, for which PyTorch's products of int8 are wrong",
    }
    assert str(report).splitlines()[0] == "int4_weights: 1 projections, 0.0 -> 0.0 MB"
    assert "as before: b (96 inputs" in str(report)
    assert str(quantization_report(nn.Linear(2, 2))) == "no projection is quantised"


def test_weights_can_be_dropped(model: Any, quantize: Callable[..., Any], tmp_path: Path) -> None:
    expected = logits(quantize(copy.deepcopy(model)))
    quantize(model, keep_weights=False)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(copy.deepcopy(model)), expected)
    dropped = [name for name, value in model.named_parameters() if value.is_meta]
    tied = model.head.projection.weight is model.embedder.word_emb.weight
    assert ("head.projection.weight" in dropped) != tied  # the embedding still needs it
    assert any("attention" in name for name in dropped)
    for refused in (lambda: minitx.save(model, tmp_path / "a"), lambda: undo_quantization(model)):
        with pytest.raises(ArgumentValueError, match=r"must be a weight with values; load the model"):
            refused()
    assert not (tmp_path / "a").exists()
    assert torch.equal(logits(model), expected)
    model.half()
    with pytest.raises(ArgumentValueError, match="must be the one that was quantised"):
        logits(model)


def test_all_or_nothing(model: Any, quantize: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before, calls = logits(model), []

    def fail(*arguments: Any) -> Any:
        calls.append(True)
        if len(calls) == 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory")
        return schemes.quantized(*arguments)

    monkeypatch.setattr(apply, "quantized", fail)
    with pytest.raises(MemoryError, match="the model is as before"):
        quantize(model, keep_weights=False)
    assert not any(isinstance(module, Quantized) for module in model.modules())
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(quantize: Callable[..., Any], value: float) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[1].weight[3, 4] = value
    with pytest.raises(ArgumentValueError, match=r"1\.weight=.* must be finite"):
        quantize(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes(quantize: Callable[..., Any], dtype: torch.dtype) -> None:
    with pytest.raises(ArgumentValueError, match=r"0\.weight=torch\.float.* must be float32 or bfloat16"):
        quantize(linear(64, 64, dtype=dtype))


def test_other_devices_and_arguments(quantize: Callable[..., Any]) -> None:
    with pytest.raises(ArgumentValueError, match="must be on the CPU"):
        quantize(linear(64, 64, device="meta"))
    with pytest.raises(ArgumentTypeError, match="model="):
        quantize("gpt2")
    with pytest.raises(ArgumentValueError, match=r"can be quantised; it has no nn\.Linear"):
        quantize(nn.Sequential(nn.ReLU()))
    with pytest.raises(ArgumentValueError, match="projections that can be quantised; 0: fewer than"):
        quantize(linear(4, 4))
    with pytest.raises(ArgumentValueError, match=r"skip='head' must be a pattern that matches"):
        quantize(linear(64, 64), skip=["head"])
    for names in ("head", [3], None):
        with pytest.raises(ArgumentTypeError, match="skip="):
            quantize(linear(64, 64), skip=names)
    with pytest.raises(ArgumentTypeError, match="head="):
        quantize(linear(64, 64), head="no")
    with pytest.raises(ArgumentTypeError, match="model="):
        undo_quantization(3)  # type: ignore[type-var]


def test_group_sizes() -> None:
    with pytest.raises(ArgumentValueError, match="group_size=48 must be"):
        int4_weights(linear(64, 96), group_size=48)


@pytest.mark.parametrize("name", ["int8_weights", "int4_weights"])
def test_a_slow_kernel_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, f"{name}_are_slow", lambda: True)
    with pytest.raises(ArgumentValueError, match=f"fast kernel of {name}; here float32 is faster"):
        PASSES[name](linear(64, 64))


def test_speeds_are_measured() -> None:
    assert type(int8_is_faster()) is bool
    assert type(weight_only.int8_weights_are_slow()) is bool
    assert type(weight_only.int4_weights_are_slow()) is bool


def test_other_passes_leave_quantised_projections(model: Any) -> None:
    int8_dynamic(model)
    fast_linear(model)
    assert isinstance(model.head.projection, Int8Linear)


@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64), (64,)])
@torch.no_grad()
def test_shapes_of_inputs(quantize: Callable[..., Any], shape: tuple[int, ...]) -> None:
    layer = linear(80, 64)
    x = torch.randn(shape)
    expected = layer(x)
    y = quantize(layer)(x)
    assert y.shape == expected.shape
    assert torch.allclose(y, expected, atol=0.3)


def test_a_model_that_is_quantised_already() -> None:
    model = int8_dynamic(minitx.from_config(GPT2, head="causal-lm").eval())
    with pytest.raises(ArgumentValueError, match=r"quantised already: undo_quantization\(model\) first"):
        int8_dynamic(model)
