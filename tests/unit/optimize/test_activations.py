"""The activation of a feed-forward network may be computed in the product before it."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minitx
from minitx.config import FeedForwardConfig
from minitx.layers.activation import Activation
from minitx.layers.feed_forward import Intermediate
from minitx.optimize import fast_linear, undo_fast_linear
from minitx.optimize.linear import FastIntermediate

module = sys.modules[fast_linear.__module__]


def network(act: str = "gelu", dropout: float | None = None) -> Any:
    """A feed-forward network that is large enough for a choice of products."""
    config = FeedForwardConfig(intermediate_size=512, hidden_act=act, dropout=dropout, output_dropout=0.0)
    torch.manual_seed(0)
    return fast_linear(Intermediate(config, 256)).eval()


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The activations of oneDNN's products, which count as faster on whatever machine the tests run."""
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    made: list[str] = []
    product = module.onednn

    def onednn(*arguments: Any) -> Tensor:
        made.append(arguments[3] if len(arguments) > 3 else "none")
        result: Tensor = product(*arguments)
        return result

    monkeypatch.setattr(module, "onednn", onednn)
    return made


def in_steps(model: Any, x: Tensor) -> Tensor:
    """The network without the pass, on the same product."""
    result: Tensor = Intermediate.forward(model, x)
    return result


@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("rows", [(5,), (2, 65), (1, 33)])
@torch.no_grad()
def test_the_activation_of_the_product_is_that_of_pytorch(
    act: str, rows: tuple[int, ...], calls: list[str]
) -> None:
    model, x = network(act), 3 * torch.randn(*rows, 256)
    output = model(x)
    assert calls == [act]
    assert torch.equal(output, in_steps(model, x))
    assert output.is_contiguous()


@pytest.mark.parametrize("act", ["silu", "quick_gelu", "tanh", "gelu_new", "gelu_pytorch_tanh"])
@torch.no_grad()
def test_other_activations_are_computed_by_themselves(act: str, calls: list[str]) -> None:
    model, x = network(act), torch.randn(7, 256)
    assert torch.equal(model(x), in_steps(model, x))
    assert set(calls) == {"none"}


def test_gradients_are_recorded(calls: list[str]) -> None:
    model, x = network(), torch.randn(7, 256, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert "gelu" not in calls


@torch.no_grad()
def test_dropout_follows() -> None:
    model, x = network(dropout=0.5), torch.randn(7, 256)
    assert torch.equal(model(x), in_steps(model, x))
    model.train()
    torch.manual_seed(1)
    output = model(x)
    torch.manual_seed(1)
    assert torch.equal(output, in_steps(model, x))


class Doubled(Activation):
    """An activation of the user."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def gelu(x: Tensor) -> Tensor:
    """An activation with the name of another."""
    return x


@pytest.mark.parametrize("change", ["hook", "pre-hook", "class", "name", "product", "order"])
@torch.no_grad()
def test_a_changed_part_is_used(change: str, calls: list[str]) -> None:
    model, x = network(), torch.randn(7, 256)
    if change == "hook":
        model.activation.register_forward_hook(lambda *args: args[2] + 1)
    elif change == "pre-hook":
        model.dense.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))
    elif change == "class":
        model.activation = Doubled("gelu")
    elif change == "name":
        model.activation = Activation(gelu)
    elif change == "product":
        model.dense = nn.Linear(256, 512)
    else:
        model._modules["dense"] = model._modules.pop("dense")
        model.activation, model.dense = model.dense, model.activation
    assert torch.equal(model(x), in_steps(model, x))
    assert "gelu" not in calls


@torch.no_grad()
def test_a_loaded_model_has_it_and_the_pass_is_undone(calls: list[str]) -> None:
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512, "vocab_size": 9}
    sizes["max_position_embeddings"] = 12
    model = minitx.from_config({"model_type": "bert", "num_hidden_layers": 1, **sizes}, seed=0).eval()
    before, printed, ids = copy.deepcopy(model), repr(model), torch.ones(1, 12, dtype=torch.long)
    assert type(model.encoder.layers[0].intermediate) is FastIntermediate
    expected = model(ids).last_hidden_state
    assert calls.count("gelu") == 1
    assert type(undo_fast_linear(model).encoder.layers[0].intermediate) is Intermediate
    assert repr(model) == printed
    assert torch.allclose(model(ids).last_hidden_state, expected, rtol=0, atol=1e-5)
    assert type(fast_linear(model).encoder.layers[0].intermediate) is type(
        before.encoder.layers[0].intermediate
    )
