"""All products of a linear projection are equal, and a pass over the model chooses the fastest."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import minitx
from minitx.layers.experts import ExpertsLinear
from minitx.optimize import fast_linear, undo_fast_linear
from minitx.optimize.linear import FastExpertsLinear, FastLinear, divisor, linear, onednn_is_faster

module = sys.modules[linear.__module__]
SIZES = [(512, 256), (50257 // 29, 64), (1031, 128), (29 * 331, 16)]  # 1031 is prime, and has no equal parts


@pytest.fixture(params=[True, False])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether oneDNN counts as faster, on whatever machine the tests run."""
    chosen: bool = request.param
    monkeypatch.setattr(module, "onednn_is_faster", lambda: chosen)
    return chosen


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("rows", [(), (1,), (2,), (4, 1), (1, 5), (2, 8), (64,), (5, 13), (0, 4)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
@torch.no_grad()
def test_every_number_of_rows(
    outputs: int,
    inputs: int,
    rows: tuple[int, ...],
    bias: bool,
    onednn: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "onednn_is_faster", lambda: onednn)
    weight, x = torch.randn(outputs, inputs), torch.randn(*rows, inputs)
    b = torch.randn(outputs) if bias else None
    exact = F.linear(x.double(), weight.double(), None if b is None else b.double())
    for stored in (weight, weight.t().contiguous().t()):
        found = linear(x, stored, b)
        assert found.shape == exact.shape
        assert torch.allclose(found.double(), exact, rtol=0, atol=2e-4)
        assert found.is_contiguous()  # else sums and norms stay so, and the next product is slow


@torch.no_grad()
def test_the_other_products_are_in_use(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare torch with itself."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    calls: list[tuple[str, int]] = []

    def note(product: str, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def noted(x: torch.Tensor, *args: Any) -> torch.Tensor:
            calls.append((product, x.numel() // x.shape[-1]))
            return function(x, *args)

        return noted

    weight = torch.randn(512, 256)
    monkeypatch.setattr(module, "_in_parts", note("parts", module._in_parts))
    monkeypatch.setattr(module, "onednn", note("oneDNN", module.onednn))
    monkeypatch.setattr(module, "F", type("F", (), {"linear": staticmethod(note("MKL", F.linear))}))
    for rows in (1, 4, 5, 64, 65):
        linear(torch.randn(rows, 256), weight, None)
    few, many = ("oneDNN", "oneDNN") if onednn else ("parts", "MKL")
    assert calls == [("parts", 1), ("parts", 4), (few, 5), (few, 64), (many, 65)]
    calls.clear()
    linear(
        torch.randn(4, 512), weight.t().contiguous(), None
    )  # sums over more numbers than there are outputs
    assert calls == [("oneDNN" if onednn else "parts", 4)]
    calls.clear()
    with torch.enable_grad():
        linear(torch.randn(3, 256), weight.clone().requires_grad_(), None)
    assert calls == [("oneDNN" if onednn else "MKL", 3)]
    calls.clear()
    with torch.autocast("cpu"):
        assert linear(torch.randn(3, 256), weight, None).dtype == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a flag for other devices
        with torch.backends.mkldnn.flags(enabled=False):
            linear(torch.randn(65, 256), weight, None)
    linear(torch.randn(1, 256), weight[:64], None)  # small
    linear(torch.randn(1, 256).double(), weight.double(), None)
    linear(torch.randn(1, 512), weight.t(), None)  # lies the other way in memory
    assert {product for product, _ in calls} == {"MKL"}


@torch.no_grad()
def test_one_thread_multiplies_a_vocabulary_alone_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    calls: list[str] = []
    for name in ("_in_parts", "onednn"):
        monkeypatch.setattr(module, name, lambda x, *_, name=name: calls.append(name) or x)
    row, weight = torch.randn(1, 1024), torch.randn(8192, 1024)
    assert torch.equal(linear(row, weight[:768], None), F.linear(row, weight[:768]))
    assert not module.takes_onednn(row, weight[:768], None)
    linear(row.expand(4, -1), weight[:768], None)
    linear(row, weight, None)
    assert calls == ["onednn", "_in_parts"]


def measure_again() -> None:
    module._onednn_is_faster.cache_clear()


def test_the_choice_is_measured_once() -> None:
    measure_again()
    with torch.no_grad():
        for _ in range(3):
            linear(torch.randn(65, 256), torch.randn(512, 256), None)
    assert module._onednn_is_faster.cache_info().misses == 1


def test_threads_that_choose_at_once_keep_their_number() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    measure_again()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(lambda _: onednn_is_faster(), range(8)))) == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_another_default_dtype_or_device_does_not_change_the_choice(dtype: torch.dtype) -> None:
    x, weight, choice = torch.randn(65, 256), torch.randn(512, 256), onednn_is_faster()
    measure_again()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = linear(x, weight, None)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.allclose(found, F.linear(x, weight), atol=1e-4)
    assert onednn_is_faster() == choice


@pytest.mark.usefixtures("onednn")
@pytest.mark.filterwarnings("ignore:.*jit.script", "ignore:Sparse CSR")  # PyTorch's own
@torch.no_grad()
def test_transforms_modes_and_other_tensors_take_pytorchs_own_product() -> None:
    x, weight, tangent = torch.randn(65, 256), torch.randn(512, 256), torch.randn(65, 256)
    expected = F.linear(x, weight)
    with forward_ad.dual_level():
        dual = linear(forward_ad.make_dual(x, tangent), weight, None)
        assert torch.equal(forward_ad.unpack_dual(dual).tangent, F.linear(tangent, weight))
    mapped = torch.func.vmap(lambda row: linear(row, weight, None))(x[:, None])
    assert torch.allclose(mapped[:, 0], expected, atol=1e-4)
    sparse = linear(x, weight.to_sparse_csr(), None)
    assert torch.allclose(sparse, expected, atol=1e-4)
    with FlopCounterMode(display=False) as counter:
        measure_again()
        linear(x, weight, None)
    assert counter.get_total_flops() == 2 * 65 * 256 * 512

    class Marked(torch.Tensor):
        """A subclass, such as a DTensor."""

    assert type(linear(x.as_subclass(Marked), weight, None)) is Marked


@torch.no_grad()
def test_wrong_shapes_and_dtypes_raise_pytorchs_own_errors() -> None:
    x, weight = torch.randn(70, 256), torch.randn(512, 256)
    for wrong in (torch.randn(70, 255), x.double()):
        with pytest.raises(RuntimeError, match=r"mat1 and mat2|same dtype"):
            linear(wrong, weight, None)


def test_it_prints_and_compiles_as_torchs_own() -> None:
    layer = fast_linear(nn.Linear(256, 512))
    assert type(layer) is FastLinear
    assert repr(layer) == repr(nn.Linear(256, 512))
    x = torch.randn(1, 256)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), F.linear(x, layer.weight, layer.bias))


def test_equal_parts() -> None:
    assert [divisor(n, 2, 2) for n in (768, 50257, 151936, 1031)] == [2, 29, 2, None]
    assert divisor(768, 5, 5) == 6
    assert divisor(128256, 2, 32) == 32
    assert divisor(50257, 2, 32) == 29  # none from there up to 64
    assert divisor(50257, 30, 32) is None


MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 48,
}


def test_a_loaded_model_has_the_pass_and_it_can_be_undone() -> None:
    model = minitx.from_config(MIXTRAL, head="causal-lm", seed=0).eval()
    kinds = {type(module) for module in model.modules()}
    assert {FastLinear, FastExpertsLinear} <= kinds
    assert not {nn.Linear, ExpertsLinear} & kinds
    plain = undo_fast_linear(copy.deepcopy(model))
    assert not {FastLinear, FastExpertsLinear} & {type(module) for module in plain.modules()}
    assert repr(plain) == repr(model)
    assert plain.state_dict().keys() == model.state_dict().keys()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain(ids).logits, model(ids).logits)  # too small for the other product
    assert fast_linear(plain) is plain
    assert {type(module) for module in plain.modules()} == kinds


def test_subclasses_of_linear_stay_as_they_are() -> None:
    class Custom(nn.Linear):
        pass

    assert type(fast_linear(nn.Sequential(Custom(2, 3)))[0]) is Custom


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_dynamic_quantization_takes_the_layers_after_the_pass_is_undone() -> None:
    model = nn.Sequential(nn.Linear(64, 32))
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    fast = fast_linear(copy.deepcopy(model))
    untouched = torch.ao.quantization.quantize_dynamic(fast, {nn.Linear}, dtype=torch.qint8)
    assert type(untouched[0]) is FastLinear
    undone = torch.ao.quantization.quantize_dynamic(undo_fast_linear(fast), {nn.Linear}, dtype=torch.qint8)
    assert type(undone[0]) is type(quantized[0])
    x = torch.randn(3, 64)
    assert torch.equal(undone(x), quantized(x))


def test_a_layer_in_shards(onednn: bool) -> None:
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model = fast_linear(nn.Sequential(nn.Linear(256, 512)))
        x = torch.randn(64, 256)
        expected = F.linear(x, model[0].weight, model[0].bias)
        parallelize_module(model, mesh, {"0": ColwiseParallel()})
        assert type(model[0].weight.data) is DTensor
        torch.testing.assert_close(model(x), expected)
        model(x).sum().backward()
        assert type(model[0].weight.grad) is DTensor
    finally:
        distributed.destroy_process_group()


# --- gradients -------------------------------------------------------------------------------------


def strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout in memory."""
    if layout == "transposed":
        return x.movedim(-1, 0).contiguous().movedim(0, -1)
    return torch.stack([x, x], -1)[..., 0] if layout == "sparse" else x


@pytest.mark.parametrize("layout", ["dense", "transposed", "sparse"])
@pytest.mark.parametrize("rows", [(), (1,), (5, 13), (70,), (2, 3, 4)])
@pytest.mark.parametrize("needed", ["x weight bias", "x", "weight", "bias", "weight bias"])
@pytest.mark.parametrize("outputs", [512, 256])
def test_gradients(
    layout: str, rows: tuple[int, ...], needed: str, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64; a frozen weight gets none, as under LoRA."""
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    weight, bias = torch.randn(outputs, 256), torch.randn(outputs)
    tensors = {"x": torch.randn(*rows, 256), "weight": weight, "bias": bias}
    grad = strided(torch.randn(*rows, outputs), layout)
    ours = {
        name: (strided(t, layout) if name == "x" else t).detach().requires_grad_(name in needed.split())
        for name, t in tensors.items()
    }
    exact = {name: t.double().detach().requires_grad_(name in needed.split()) for name, t in tensors.items()}
    y = linear(*ours.values())
    assert type(y.grad_fn).__name__ == "_RecordedBackward"
    y.backward(grad)
    F.linear(*exact.values()).backward(grad.double())
    for name, tensor in exact.items():
        found = ours[name].grad
        assert (found is None) == (tensor.grad is None)
        if found is not None:
            assert found.shape == tensor.shape
            assert torch.allclose(found.double(), tensor.grad, rtol=0, atol=3e-4)


@pytest.mark.parametrize(("rows", "chosen"), [(1023, False), (1024, True)])
def test_a_small_weight_and_many_rows(rows: int, chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    x, weight = torch.randn(rows, 64), torch.randn(64, 64, requires_grad=True)
    y = linear(x, weight, None)
    assert (type(y.grad_fn).__name__ == "_RecordedBackward") == chosen
    assert torch.allclose(y, F.linear(x, weight), atol=1e-4)


def test_gradients_of_an_expanded_gradient() -> None:
    """As of a sum: one number in memory."""
    x, weight = torch.randn(70, 256, requires_grad=True), torch.randn(512, 256, requires_grad=True)
    found = torch.autograd.grad(linear(x, weight, None).sum(), (x, weight))
    expected = torch.autograd.grad(F.linear(x, weight).sum(), (x, weight))
    for left, right in zip(found, expected, strict=True):
        assert torch.allclose(left, right, rtol=0, atol=3e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # of torch's forward mode
def test_transforms_and_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    weight = (torch.randn(512, 256) / 16).requires_grad_()
    bias, x = torch.randn(512, requires_grad=True), torch.randn(9, 256, requires_grad=True)

    def penalty(product: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        y = product(x, weight, bias).tanh().sum()
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), (x, weight, bias))

    def transformed(product: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        def loss(weight: torch.Tensor) -> torch.Tensor:
            return product(x, weight, bias).pow(2).sum()

        y = product(x, weight, bias)
        tangent = torch.ones_like(x)
        return (
            torch.func.vmap(lambda row: product(row, weight, bias))(x),
            torch.func.grad(loss)(weight),
            torch.func.jvp(lambda x: product(x, weight, bias), (x,), (tangent,))[1],
            torch.func.vmap(torch.func.grad(lambda row: product(row, weight, bias).pow(2).sum()))(x),
            torch.autograd.functional.jacobian(lambda x: product(x, weight, bias), x[:1], vectorize=True),
            torch.autograd.grad(y, x, torch.stack([y, y]).detach(), is_grads_batched=True)[0],
        )

    with torch.no_grad():
        rows = torch.func.vmap(lambda row: linear(row, weight, bias))(x)
        assert torch.allclose(rows, F.linear(x, weight, bias), atol=1e-4)
    for run in (penalty, transformed):
        for found, expected in zip(run(linear), run(F.linear), strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(linear(dual, weight, bias)).tangent
    assert torch.allclose(tangent, weight.sum(1).expand(9, -1), atol=1e-3)


def test_other_tensors_take_torchs_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)

    class Other(torch.Tensor):
        __torch_function__ = torch._C._disabled_torch_function_impl

    x, weight = torch.randn(70, 256), torch.randn(512, 256, requires_grad=True)
    y = linear(x.as_subclass(Other), weight, None)
    assert type(y.grad_fn).__name__ != "_RecordedBackward"
    with torch.autocast("cpu"):
        assert type(linear(x, weight, None).grad_fn).__name__ != "_RecordedBackward"
    compiled = torch.compile(lambda x: linear(x, weight, None), fullgraph=True, backend="eager")
    assert type(compiled(x).grad_fn).__name__ != "_RecordedBackward"


def test_gradients_through_recomputed_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    x, weight = torch.randn(70, 256, requires_grad=True), torch.randn(256, 256, requires_grad=True)

    def block(x: torch.Tensor) -> torch.Tensor:
        return linear(linear(x, weight, None).tanh(), weight, None)

    found = torch.autograd.grad(
        torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False).sum(), (x, weight)
    )
    for left, right in zip(found, torch.autograd.grad(block(x).sum(), (x, weight)), strict=True):
        assert torch.equal(left, right)
