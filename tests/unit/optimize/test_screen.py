"""A screened head: the token is that of the whole product, whose logits are used in all other cases."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import minitx
from minitx import Beam, Greedy, Sample, Stop
from minitx.guarantees import argmax_alone
from minitx.optimize import (
    auto,
    compiled_steps,
    pack_weights,
    quantize,
    screen,
    screen_head,
    shortlisted,
    undo_compiled_steps,
    undo_pack_weights,
    undo_screen_head,
)
from minitx.optimize.classes import set_class
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import PackedLinear
from minitx.optimize.screen import ScreenedLinear, ScreenedWeight
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.optimize.configs import gpt2
from tests.unit.optimize.test_auto import BERT, random

ALL: dict[str, Any] = {"stop": Stop(eos=()), "max_new_tokens": 12}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [3]]


@pytest.fixture
def plain() -> Any:
    return minitx.from_config(gpt2(), head="causal-lm", seed=0).eval()


@pytest.fixture
def model(plain: Any) -> Any:
    return screen_head(pack_weights(copy.deepcopy(plain)))


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of logits that each screened product computed; -1: it left it to the whole one."""
    counts: list[int] = []
    product = ScreenedWeight._screened

    def _count(*arguments: Any) -> Tensor | None:
        y = product(*arguments)
        counts.append(-1 if y is None else int(y.isfinite().sum()))
        return y

    monkeypatch.setattr(ScreenedWeight, "_screened", _count)
    return counts


@pytest.fixture(autouse=True)
def any_share(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Heads of a few hundred tokens have more candidates in proportion than those of 50,000."""
    monkeypatch.setattr(screen, "_MANY", 1.25)
    return


def with_screen(linear: nn.Linear) -> nn.Linear:
    set_class(pack_weights(linear), ScreenedLinear)
    return linear


def tokens(results: Any) -> list[list[int]]:
    return [result.tokens.tolist() for result in results]


@given(data=st.data(), seed=st.integers(0, 2**31), rows=st.integers(1, 4), biased=st.booleans())
def test_the_largest_output(data: Any, seed: int, rows: int, biased: bool) -> None:
    """Weights and inputs of many magnitudes, with outliers, equal rows, and tokens that a bias excludes."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = data.draw(st.sampled_from([(512, 128), (700, 96), (1031, 130)]))
    linear = nn.Linear(inputs, outputs, bias=biased)
    with torch.no_grad():
        weight = torch.randn(outputs, inputs, generator=generator) * data.draw(
            st.sampled_from([1e-3, 1, 1e3])
        )
        weight[:, 0] *= data.draw(st.sampled_from([1, 100]))
        weight[7] *= data.draw(st.sampled_from([0, 1, 50]))
        weight[5] = weight[3]
        linear.weight.copy_(weight)
        if biased:
            linear.bias[::3] = -torch.inf
    head = with_screen(linear)
    x = torch.randn(rows, 1, inputs, generator=generator) * data.draw(st.sampled_from([1e-6, 1, 1e4]))
    x[..., 1] *= data.draw(st.sampled_from([1, 1000]))
    with torch.inference_mode():
        with argmax_alone():
            y = head(x)
        whole, exact = head(x), nn.functional.linear(x.double(), weight.double())
        exact = exact if linear.bias is None else exact + linear.bias
    assert y.shape == whole.shape == (rows, 1, outputs)
    chosen = y.argmax(-1, keepdim=True)
    size = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(weight, dim=-1).max()
    assert bool((exact.amax(-1, keepdim=True) - exact.gather(-1, chosen) <= 1e-6 * size).all())
    kept = y.isfinite()
    torch.testing.assert_close(y[kept], whole[kept], rtol=1e-4, atol=1e-6 * float(size))


def test_few_logits_are_computed(screened: list[int]) -> None:
    head = with_screen(nn.Linear(256, 20_000, bias=False))
    with torch.no_grad():
        head.weight.normal_(std=0.02)
    x = torch.randn(2, 256)
    with torch.inference_mode(), argmax_alone():
        y = head(x)
        assert torch.equal(y.isneginf().sum(-1), 20_000 - torch.tensor(screened))
    assert max(screened) < 200


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_inputs_and_weights_without_a_bound(value: float, screened: list[int]) -> None:
    """All outputs are equal, or one is not finite: the whole product is computed."""
    for place in ("input", "weight"):
        head, x = pack_weights(nn.Linear(256, 512)), torch.randn(1, 256)
        with torch.no_grad():
            if place == "input":
                x[0, :] = value
            elif value:
                head.weight[5, 6] = value
            else:
                head.weight.zero_()
            head.bias.zero_()
        with torch.no_grad():
            whole = head(x)
        with_screen(head)
        with torch.inference_mode(), argmax_alone():
            torch.testing.assert_close(head(x), whole, equal_nan=True, rtol=0.0, atol=0.0)
    assert screened == [-1, -1]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_greedy_decoding(rows: int, plain: Any, model: Any, screened: list[int]) -> None:
    expected = minitx.generate(plain, PROMPTS[:rows], Greedy(), **ALL)
    assert screened == []
    assert tokens(minitx.generate(model, PROMPTS[:rows], Greedy(), **ALL)) == tokens(expected)
    assert len(screened) == 11 * rows  # the first token is that of the prefill
    events = [event.token for event in minitx.stream(model, PROMPTS[:1], Greedy(), **ALL)]
    assert events == tokens(expected)[0]
    assert len(screened) == 11 * (rows + 1)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (Sample(), {"seed": 1}),
        (Beam(num_beams=2), {}),
        (Greedy(repetition_penalty=1.3), {}),
        (Greedy(), {"logprobs": "raw"}),
        (Greedy(), {"min_new_tokens": 3, "stop": Stop(eos=(5,))}),
        (Sample(top_k=1), {}),
    ],
)
def test_whole_logits(strategy: Any, options: Any, plain: Any, model: Any, screened: list[int]) -> None:
    """Strategies, processors and log-probabilities see the logits of all tokens."""
    a, b = (minitx.generate(m, PROMPTS[:2], strategy, **{**ALL, **options}) for m in (plain, model))
    assert tokens(a) == tokens(b)
    assert screened == []


def test_functions_inside_the_model_see_all_logits(model: Any, screened: list[int]) -> None:
    seen: list[bool] = []
    handle = model.head.register_forward_hook(lambda head, inputs, y: seen.append(bool(y.isfinite().all())))
    minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)
    handle.remove()
    assert len(seen) == 12
    assert all(seen)
    with minitx.inspect.record(model, "head.projection") as record:
        minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)
    assert bool(record["head.projection"].isfinite().all())
    assert screened == []
    minitx.generate(model, [[5]] * 5, Greedy(), **ALL)  # more rows than it serves
    assert screened == []


def test_changed_weights(plain: Any, model: Any, screened: list[int]) -> None:
    for head in (model.head.projection, plain.head.projection):
        with torch.no_grad():
            head.weight.mul_(-1.5)
    a, b = (minitx.generate(m, PROMPTS[:1], Greedy(), **ALL) for m in (plain, model))
    assert tokens(a) == tokens(b)
    assert screened


def test_other_passes_and_copies(plain: Any, model: Any, screened: list[int], tmp_path: Path) -> None:
    expected = tokens(minitx.generate(plain, PROMPTS[:1], Greedy(), **ALL))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert tokens(minitx.generate(twin, PROMPTS[:1], Greedy(), **ALL)) == expected
        assert type(undo_pack_weights(twin).head.projection) is FastLinear
    assert len(screened) == 22
    minitx.save(model, tmp_path / "saved")
    for name, tensor in minitx.load(tmp_path / "saved", head="causal-lm").state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name])
    listed = range(100, 300)
    with shortlisted(model, listed), shortlisted(plain, listed):
        a, b = (minitx.generate(m, PROMPTS[:1], Greedy(), **ALL) for m in (plain, model))
        assert tokens(a) == tokens(b)
    assert tokens(minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)) == expected
    assert len(screened) == 33
    quantize.int8_dynamic(model)
    assert model.head.projection.quantized_from.kind is ScreenedLinear
    quantize.undo_quantization(model)
    assert tokens(minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)) == expected
    assert undo_screen_head(model) is model
    assert type(model.head.projection) is PackedLinear
    assert undo_screen_head(model) is model
    assert str(model) == str(plain)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compiled_steps(plain: Any, model: Any, screened: list[int]) -> None:
    compiled_steps(model)
    for rows in (1, 2):
        expected = tokens(minitx.generate(plain, PROMPTS[:rows], Greedy(), **ALL))
        assert tokens(minitx.generate(model, PROMPTS[:rows], Greedy(), **ALL)) == expected
        assert len(screened) == 11 * (2 * rows - 1)
    penalised = Greedy(repetition_penalty=1.3)
    expected = tokens(minitx.generate(plain, PROMPTS[:1], penalised, **ALL))
    assert tokens(minitx.generate(model, PROMPTS[:1], penalised, **ALL)) == expected
    assert len(screened) == 33
    undo_compiled_steps(model)


def test_bad_models(plain: Any) -> None:
    encoder = random(BERT, "none").eval()
    for model, reason in (
        (plain, "the weight of its head is not packed; call pack_weights first"),
        (encoder, "the model does not predict the next token"),
        (pack_weights(copy.deepcopy(plain).bfloat16()), "the dtype is torch.bfloat16"),
    ):
        classes = [type(module) for module in model.modules()]
        with pytest.raises(ArgumentValueError, match=reason):
            screen_head(model)
        assert [type(module) for module in model.modules()] == classes
    with pytest.raises(ArgumentTypeError, match="model"):
        screen_head("gpt2")  # type: ignore[type-var]


def test_no_memory(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pack_weights(plain)

    def _fail(*arguments: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(screen, "quantize_rows", _fail)
    with pytest.raises(RuntimeError, match="no memory"):
        screen_head(model)
    assert type(model.head.projection) is PackedLinear
    minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)


def test_optimize_chooses_it(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For large heads, on processors that are faster with packed and int8 weights."""
    monkeypatch.setattr(auto, "packed_is_faster", lambda dtype: True)
    monkeypatch.setattr(auto, "int8_is_faster", lambda: True)

    def _left(**options: Any) -> str | None:
        report: Any = minitx.optimize.report(minitx.optimize(plain, verbose=False, **options))
        return report.left_out.get("screen_head")  # type: ignore[no-any-return]

    assert _left() == "the weight of its head is small"
    monkeypatch.setattr(auto, "SCREENED", 1)
    assert _left() is None
    assert type(plain.head.projection) is ScreenedLinear
    assert type(minitx.optimize.undo_optimize(plain).head.projection) is FastLinear
    assert _left(int8=True) == "int8_dynamic has another product"
    monkeypatch.setattr(auto, "int8_is_faster", lambda: False)
    assert _left() == "products of int8 are not faster on this processor"
    minitx.optimize.undo_optimize(plain).bfloat16()
    assert _left() == "the model is in torch.bfloat16"
