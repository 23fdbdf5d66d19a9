"""Packed weights: the same outputs, copies that follow their parameters, and models that save as loaded."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import minitx
from minitx.layers.experts import ExpertsLinear
from minitx.optimize import (
    fast_linear,
    fuse_projections,
    pack_weights,
    packed_is_faster,
    undo_fuse_projections,
    undo_pack_weights,
)
from minitx.optimize import packed as module
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import Packed, PackedLinear
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.optimize.configs import gpt2, mixtral


@pytest.fixture(params=[gpt2(), mixtral()], ids=["gpt2", "mixtral"])
def model(request: pytest.FixtureRequest) -> minitx.DecoderModel:
    built = minitx.from_config(request.param, head="causal-lm").eval()
    assert isinstance(built, minitx.DecoderModel)
    return built


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The products that are computed: "packed" or "plain"."""
    calls: list[str] = []

    def note(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: calls.append(name) or function(*args)  # type: ignore[func-returns-value]

    monkeypatch.setattr(module, "onednn", note("packed", module.onednn))
    monkeypatch.setattr(module, "linear", note("plain", module.linear))
    return calls


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_fused_optimizers(kind: Any) -> None:
    """PyTorch does not count what they write."""
    linear, x = pack_weights(nn.Linear(256, 512)), torch.randn(8, 256)
    with torch.no_grad():
        linear(x)
    optimizer = kind(linear.parameters(), lr=0.1, fused=True)
    optimizer.register_step_post_hook(lambda *_: optimizer.zero_grad())
    linear(x).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(512, 256), (1031, 128), (256, 1024)])
@torch.no_grad()
def test_every_number_of_rows(dtype: torch.dtype, shape: tuple[int, int], products: list[str]) -> None:
    linear = nn.Linear(shape[1], shape[0], dtype=dtype)
    packed = pack_weights(copy.deepcopy(linear))
    tolerance = 2e-4 if dtype == torch.float32 else 0.05
    for rows in ((), (1,), (3, 2), (64,), (2, 200)):
        x = torch.randn(*rows, shape[1]).to(dtype)
        exact = F.linear(x.double(), linear.weight.double(), linear.bias.double())
        output = packed(x)
        assert (output.dtype, output.shape) == (dtype, exact.shape)
        assert torch.allclose(output.double(), exact, rtol=0.01, atol=tolerance)
    assert set(products) == {"packed"}


@torch.no_grad()
def test_logits_and_tokens(model: minitx.DecoderModel, products: list[str]) -> None:
    ids = torch.randint(600, (3, 9))
    logits, tokens = (
        model(ids).logits,
        minitx.generate(model, ids, minitx.Greedy(), max_new_tokens=8).sequences,
    )
    assert pack_weights(model) is model
    assert torch.allclose(model(ids).logits, logits, atol=1e-5)
    assert "packed" in products
    for row, other in zip(
        minitx.generate(model, ids, minitx.Greedy(), max_new_tokens=8).sequences, tokens, strict=True
    ):
        assert torch.equal(row, other)
    undo_pack_weights(model)
    assert torch.equal(model(ids).logits, logits)
    assert not any("_packed" in vars(part) for part in model.modules())


def called(model: minitx.DecoderModel, ids: Tensor, products: list[str]) -> int:
    """The number of products of a forward."""
    products.clear()
    model(ids)
    return len(products)


@torch.no_grad()
@pytest.mark.parametrize("packed_first", [False, True])
def test_fused_projections(model: minitx.DecoderModel, packed_first: bool, products: list[str]) -> None:
    ids = torch.randint(600, (3, 9))
    logits = model(ids).logits
    for apply in (pack_weights, fuse_projections) if packed_first else (fuse_projections, pack_weights):
        apply(model)
    attention: Any = model.decoder.layers[0].attention.self_attention  # type: ignore[union-attr]
    assert torch.allclose(model(ids).logits, logits, atol=1e-5)
    assert type(attention.fused) is PackedLinear
    fused = called(model, ids, products)
    handle = attention.Q.register_forward_hook(lambda *_: None)
    assert torch.allclose(model(ids).logits, logits, atol=1e-5)
    handle.remove()
    assert called(undo_fuse_projections(model), ids, products) > fused
    undo_pack_weights(model)
    assert torch.equal(model(ids).logits, logits)


@torch.no_grad()
def test_a_copy_follows_its_parameter(products: list[str]) -> None:
    linear = pack_weights(nn.Linear(256, 512))
    x = torch.randn(4, 256)
    linear.weight.mul_(2)
    assert torch.allclose(linear(x), F.linear(x, linear.weight, linear.bias), atol=1e-4)
    linear.weight = nn.Parameter(torch.randn(512, 256))
    assert torch.allclose(linear(x), F.linear(x, linear.weight, linear.bias), atol=1e-4)
    linear.load_state_dict(nn.Linear(256, 512).state_dict())
    assert torch.allclose(linear(x), F.linear(x, linear.weight, linear.bias), atol=1e-4)
    half = linear.bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert set(products) == {"packed"}


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Linear, ExpertsLinear])
def test_a_new_weight_at_the_old_address_is_packed(kind: type[nn.Module], products: list[str]) -> None:
    """Its version begins at 0 again, so that address and version are those of the old one."""
    experts = kind is ExpertsLinear
    layer: Any = ExpertsLinear(2, 256, 512, bias=False) if experts else nn.Linear(256, 512, bias=False)
    pack_weights(layer)
    values, x = torch.randn(layer.weight.shape).numpy(), torch.randn(4, 256)
    for factor in (1, 2, 3):
        values *= factor
        layer.weight = nn.Parameter(torch.from_numpy(values))
        output = layer(x, 1) if experts else layer(x)
        weight = layer.weight[1] if experts else layer.weight
        assert torch.allclose(output, F.linear(x, weight), atol=1e-3)
    assert set(products) == {"packed"}


def test_weights_made_in_inference_mode_are_not_packed(products: list[str]) -> None:
    """PyTorch does not count their changes."""
    with torch.inference_mode():
        unseen = nn.Linear(512, 256)
    with pytest.raises(ArgumentValueError, match="inference mode"):
        pack_weights(unseen)
    model, x = pack_weights(nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 256))), torch.randn(4, 256)
    model[1].weight = unseen.weight
    with torch.inference_mode():
        before = model(x)
        model[1].weight.mul_(2)
        assert torch.allclose(model(x), 2 * before - model[1].bias, atol=1e-4)
    assert "plain" in products


def test_copies_of_experts_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = pack_weights(ExpertsLinear(8, 256, 512, bias=False))
    copies = experts.packed  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "Packed", None)  # another list would raise
    with torch.no_grad():
        experts(torch.randn(3, 256), 7)
    assert experts.packed is copies  # type: ignore[attr-defined]


def test_gradients_and_other_inputs_take_the_plain_product(products: list[str]) -> None:
    linear, x = pack_weights(nn.Linear(256, 512)), torch.randn(3, 256)
    linear(x).sum().backward()
    assert linear.weight.grad is not None
    with torch.no_grad():
        linear(x[:0])
        torch.func.vmap(linear)(x[None])
        with torch.autocast("cpu"):
            assert linear(x).dtype == torch.bfloat16
        with pytest.raises(RuntimeError):
            linear(torch.randn(3, 255))
        linear.double()(x.double())
        small = pack_weights(nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 4)))[1]
        small(torch.randn(2, 512))
    assert set(products) == {"plain"}
    assert type(small) is PackedLinear


def test_optimizers_see_and_change_the_same_weights(model: minitx.DecoderModel) -> None:
    plain = copy.deepcopy(model)
    pack_weights(model)
    ids = torch.randint(600, (2, 8))
    for each in (plain, model):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            each(ids, labels=ids).loss.backward()
            optimizer.step()
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, plain(ids).logits, atol=1e-5)


def test_copies_pickles_and_files(model: minitx.DecoderModel, tmp_path: Path) -> None:
    ids = torch.randint(600, (2, 8))
    minitx.save(model, tmp_path / "plain")
    pack_weights(model)
    minitx.save(model, tmp_path / "packed")
    names = [path.name for path in (tmp_path / "plain").iterdir()]
    for name in names:
        assert (tmp_path / "packed" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(copy.deepcopy(model)(ids).logits, logits)
        part: Any = pickle.loads(pickle.dumps(model.decoder.layers[0].attention.self_output.dense))
        assert isinstance(part, PackedLinear)
        x = torch.randn(3, 256)
        assert torch.equal(part(x), model.decoder.layers[0].attention.self_output.dense(x))  # type: ignore[operator,union-attr]
    assert repr(model).count("Packed") == 0


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentTypeError, match="model"):
        pack_weights(3)  # type: ignore[type-var]
    double = fast_linear(nn.Sequential(nn.Linear(256, 512).double()))
    with pytest.raises(ArgumentValueError, match="float32 or bfloat16"):
        pack_weights(double)
    assert type(double[0]) is FastLinear
    with pytest.raises(ArgumentValueError, match="CPU"):
        pack_weights(nn.Linear(256, 512, device="meta"))

    def full(self: Packed, weight: Tensor) -> Tensor:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(Packed, "of", full)
    models = nn.Sequential(nn.Linear(256, 512), ExpertsLinear(2, 256, 512, bias=False))
    with pytest.raises(RuntimeError, match="memory"):
        pack_weights(models)
    assert [type(each) for each in models] == [nn.Linear, ExpertsLinear]
    assert "_packed" not in vars(models[0])


def test_the_choice_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured once for each dtype, with a weight of a model's size."""
    calls: list[tuple[torch.dtype, int]] = []

    def measure(*_: Any, dtype: torch.dtype, size: int, **__: Any) -> list[float]:
        calls.append((dtype, size))
        return [2.0 if dtype == torch.float32 else 1.0, 1.0]

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "has_packed", lambda dtype: dtype != torch.float64)
    module._packed_is_faster.cache_clear()
    try:
        choices = [packed_is_faster(), packed_is_faster(torch.bfloat16), packed_is_faster(torch.float64)]
        assert [*choices, packed_is_faster()] == [True, False, False, True]
        assert calls == [(torch.float32, 2048), (torch.bfloat16, 2048)]
    finally:
        module._packed_is_faster.cache_clear()
