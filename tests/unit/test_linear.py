"""The product of few rows is the product of many rows, and a pass over the model chooses it."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import minitx
from minitx.layers.experts import ExpertsLinear
from minitx.optimize import few_rows as few_rows_pass
from minitx.optimize import undo_few_rows
from minitx.optimize.few_rows import FewRowsExpertsLinear, FewRowsLinear, divisor, linear

module = sys.modules[linear.__module__]
SIZES = [(512, 256), (50257 // 29, 64), (1031, 128), (29 * 331, 16)]  # 1031 is prime, and has no equal parts


@pytest.mark.parametrize(("outputs", "inputs"), SIZES)
@pytest.mark.parametrize("rows", [(), (1,), (2,), (4, 1), (1, 5), (2, 8), (64,), (5, 13), (0, 4)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_every_number_of_rows(outputs: int, inputs: int, rows: tuple[int, ...], bias: bool) -> None:
    weight, x = torch.randn(outputs, inputs), torch.randn(*rows, inputs)
    b = torch.randn(outputs) if bias else None
    exact = F.linear(x.double(), weight.double(), None if b is None else b.double())
    for stored in (weight, weight.t().contiguous().t()):
        found = linear(x, stored, b)
        assert found.shape == exact.shape
        assert torch.allclose(found.double(), exact, rtol=0, atol=2e-4)
        assert found.is_contiguous()  # else sums and norms stay so, and the next product is slow


@torch.no_grad()
def test_the_other_products_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare torch with itself."""
    plain: list[int] = []

    def note(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        plain.append(x.numel() // x.shape[-1])
        return torch.nn.functional.linear(x, weight, bias)

    weight = torch.randn(512, 256)
    with monkeypatch.context() as patch:
        patch.setattr(module, "F", type("F", (), {"linear": staticmethod(note)}))
        for rows in (1, 4, 5, 64, 65):
            linear(torch.randn(rows, 256), weight, None)
        with torch.enable_grad():  # the backward of the others is slower
            linear(torch.randn(3, 256), weight, None)
        linear(torch.randn(1, 256), weight[:64], None)  # small
        linear(torch.randn(1, 256).double(), weight.double(), None)
        linear(torch.randn(1, 512), weight.t(), None)  # lies the other way in memory
    assert plain == [65, 3, 1, 1, 1]


def test_it_prints_and_compiles_as_torchs_own() -> None:
    layer = few_rows_pass(nn.Linear(256, 512))
    assert type(layer) is FewRowsLinear
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
    assert {FewRowsLinear, FewRowsExpertsLinear} <= kinds
    assert not {nn.Linear, ExpertsLinear} & kinds
    plain = undo_few_rows(copy.deepcopy(model))
    assert not {FewRowsLinear, FewRowsExpertsLinear} & {type(module) for module in plain.modules()}
    assert repr(plain) == repr(model)
    assert plain.state_dict().keys() == model.state_dict().keys()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain(ids).logits, model(ids).logits)  # too small for the other product
    assert few_rows_pass(plain) is plain
    assert {type(module) for module in plain.modules()} == kinds


def test_subclasses_of_linear_stay_as_they_are() -> None:
    class Custom(nn.Linear):
        pass

    assert type(few_rows_pass(nn.Sequential(Custom(2, 3)))[0]) is Custom
