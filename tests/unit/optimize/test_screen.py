"""A screened head: the token is that of the whole product, whose logits are used in all other cases."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import minitx
from minitx import Beam, Greedy, Sample, Stop
from minitx.decoding import ClassifierFree
from minitx.decoding.arguments import resolve
from minitx.decoding.session import DecodingSession
from minitx.guarantees import only_argmax_used
from minitx.inspect.explain import explain
from minitx.layers.heads import Head
from minitx.optimize import (
    auto,
    bfloat16_weights,
    compiled_steps,
    pack_weights,
    quantize,
    screen,
    screen_head,
    shortlisted,
    undo_compiled_steps,
    undo_pack_weights,
    undo_screen_head,
    vocabulary_shortlist,
)
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import PackedLinear
from minitx.optimize.screen import ScreenedWeight, screened_weight
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.optimize.configs import gpt2
from tests.unit.optimize.test_auto import BERT, random
from tests.unit.test_rms_decoder_configs import GEMMA_2

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "vocab_size": 600,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
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
    """The number of logits of each row that a screened product computed; -1: it computed none."""
    counts: list[int] = []
    product = ScreenedWeight.screened

    def _count(self: ScreenedWeight, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        y = product(self, x, weight, bias)
        counts.extend([-1] if y is None else y.isfinite().sum(-1).tolist())
        return y

    monkeypatch.setattr(ScreenedWeight, "screened", _count)
    return counts


@pytest.fixture(autouse=True)
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads of a few hundred tokens have more candidates in proportion than those of 50,000."""
    monkeypatch.setattr(screen, "_MOST_LOGITS", 0.8)


class Entropies(Greedy):
    """A strategy whose own loop reads the logits between two steps of the usual one."""

    def run(self, session: Any, observe: Any = None) -> Iterator[Any]:
        for events in super().run(session, observe):
            assert bool(session.logits.isfinite().all())
            yield events


def with_screen(linear: nn.Linear) -> Any:
    vars(pack_weights(linear))["_packed"] = ScreenedWeight()
    return linear


def tokens(results: Any) -> list[list[int]]:
    return [result.tokens.tolist() for result in results]


@given(data=st.data(), seed=st.integers(0, 2**31), rows=st.integers(1, 2), biased=st.booleans())
def test_the_largest_output(data: Any, seed: int, rows: int, biased: bool) -> None:
    """Weights and inputs of many magnitudes, with outliers, equal rows, and tokens that a bias excludes."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = data.draw(st.sampled_from([(512, 128), (700, 96), (1031, 130)]))
    linear = nn.Linear(inputs, outputs, bias=biased)
    with torch.no_grad():
        weight = torch.randn(outputs, inputs, generator=generator)
        weight *= data.draw(st.sampled_from([1e-25, 1e-3, 1, 1e3]))
        weight[:, 0] *= data.draw(st.sampled_from([1, 100]))
        weight[7] *= data.draw(st.sampled_from([0, 1, 50]))
        weight[5] = weight[3]
        linear.weight.copy_(weight)
        if biased:
            linear.bias.mul_(data.draw(st.sampled_from([1, 1e6])))
            linear.bias[::3] = -torch.inf
    head = with_screen(linear)
    x = torch.randn(rows, 1, inputs, generator=generator) * data.draw(st.sampled_from([1e-30, 1e-6, 1, 1e4]))
    x[..., 1 : data.draw(st.integers(1, 9))] *= data.draw(st.sampled_from([1, 1000]))
    with torch.inference_mode():
        with only_argmax_used(head.packed):
            y = head(x)
        whole, exact = head(x), nn.functional.linear(x.double(), weight.double())
        exact = exact if linear.bias is None else exact + linear.bias
        copies: Any = head.packed
        for row, truth in zip(x[:, 0], exact[:, 0], strict=True):
            approximate, bound = copies.bounded(row, linear.bias)
            off = (approximate.double() - truth).abs()[truth.isfinite()]
            assert bool((off <= bound[truth.isfinite()]).all()) or bool(bound.isnan().all())
    assert y.shape == whole.shape == (rows, 1, outputs)
    chosen = y.argmax(-1, keepdim=True)
    size = torch.linalg.vector_norm(x.double()) * torch.linalg.vector_norm(weight.double(), dim=-1).max()
    size += 0 if linear.bias is None else linear.bias.detach()[linear.bias.isfinite()].abs().max()
    size += 1e-30  # what float32 cannot represent
    assert bool((exact.amax(-1, keepdim=True) - exact.gather(-1, chosen) <= 1e-6 * size).all())
    kept = y.isfinite()
    torch.testing.assert_close(y[kept], whole[kept], rtol=1e-4, atol=1e-6 * float(size))


def test_tokens_at_the_edge_of_the_bound() -> None:
    """Two rows, and an input, whose rounding makes the other row seem the larger one."""
    low, high, ones, first = (torch.full((128,), value) for value in (0.49 / 127, 0.51 / 127, 1.0, 0.0))
    low[0] = high[0] = first[0] = 1
    for larger, other, x in (
        (low, ones * 1.2 / 128, ones),
        (ones, first * 1.2, low),
        (ones * 1.6 / 128, high, ones),
        (first * 1.6, ones, high),
    ):
        linear = nn.Linear(128, 512, bias=False)
        with torch.no_grad():
            linear.weight.zero_()
            linear.weight[300], linear.weight[7] = larger, other
        head = with_screen(linear)
        with torch.inference_mode(), only_argmax_used(head.packed):
            assert int((linear.weight @ x).argmax()) == 300
            assert int(head(x[None]).argmax()) == 300


def test_of_equal_logits_the_first_token(screened: list[int]) -> None:
    """Rows that are equal have equal logits, wherever they stand."""
    generator = torch.Generator().manual_seed(0)
    for copies in range(2, 40):
        head = with_screen(nn.Linear(200, 900, bias=False))
        with torch.no_grad():
            head.weight.normal_(generator=generator)
            x = torch.randn(1, 200, generator=generator)
            best = head.weight[int((x @ head.weight.T).argmax())].clone()
            places = torch.randperm(900, generator=generator)[:copies]
            head.weight[places] = best * 1.01
        with torch.inference_mode(), only_argmax_used(head.packed):
            assert int(head(x).argmax()) == int(places.min())
    assert min(screened) >= 2


def test_few_logits_are_computed(screened: list[int]) -> None:
    head = with_screen(nn.Linear(256, 20_000, bias=False))
    with torch.no_grad():
        head.weight.normal_(std=0.02)
    x = torch.randn(2, 256)
    x[1, 7] = 50.0  # as a feature of a trained model whose step would round all others to few integers
    with torch.inference_mode(), only_argmax_used(head.packed):
        y = head(x)
        assert torch.equal(y.isneginf().sum(-1), 20_000 - torch.tensor(screened))
    assert min(screened) > 0
    assert max(screened) < 200


def test_a_screen_that_excludes_too_few_pauses(screened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = with_screen(nn.Linear(256, 512)), torch.randn(1, 256)
    monkeypatch.setattr(screen, "_MOST_LOGITS", 0.0)
    with torch.inference_mode(), only_argmax_used(head.packed):
        assert all(bool(head(x).isfinite().all()) for _ in range(35))
    assert screened == [-1, -1, -1]


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
        with torch.inference_mode(), only_argmax_used(head.packed):
            torch.testing.assert_close(head(x), whole, equal_nan=True, rtol=0.0, atol=0.0)
    assert screened == [-1, -1]


@pytest.mark.parametrize("rows", [1, 2])
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
        (Greedy(), {"guidance": ClassifierFree(1.5, [[3], [4]])}),
        (Entropies(), {}),
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
    minitx.generate(model, [[5]] * 3, Greedy(), **ALL)  # more rows than it serves
    assert screened == []


def test_functions_that_come_in_the_middle_of_a_stream(plain: Any, model: Any, screened: list[int]) -> None:
    seen: list[bool] = []
    for number, _ in enumerate(minitx.stream(model, PROMPTS[:1], Greedy(), **ALL)):
        if number == 4:
            handle = model.head.register_forward_hook(lambda head, inputs, y: seen.append(_is_whole(y)))
    handle.remove()
    assert (len(screened), seen) == (4, [True] * 7)


def _is_whole(logits: Tensor) -> bool:
    return bool(logits.isfinite().all())


def test_sessions_of_others(model: Any, screened: list[int]) -> None:
    """Whoever runs a strategy has the session, and may read its logits."""
    explanation = explain(model, [5, 6, 7], Greedy(), max_new_tokens=3)
    assert "-inf" not in str(explanation)
    session = DecodingSession(model, resolve(model, PROMPTS[:1], Greedy(), ALL)[1])
    for _ in Greedy().run(session):
        assert _is_whole(session.logits)
    assert screened == []


def test_models_of_others(model: Any, screened: list[int]) -> None:
    """A part of another class, and attention of the user's own, may use logits."""
    other = screen_head(pack_weights(minitx.from_config(gpt2(), head="causal-lm", seed=1).eval()))
    seen: list[bool] = []

    def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Any, options: Any) -> Tensor:
        seen.append(_is_whole(other(torch.tensor([[5]])).logits))
        return query

    model.set_attention(_attention)
    minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)
    assert all(seen)
    model.set_attention("sdpa")
    model.decoder.layers[0] = Lens(model.decoder.layers[0], model)
    minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)
    assert screened == []


class Lens(nn.Module):
    """A layer that reads logits from its output."""

    def __init__(self, layer: nn.Module, model: Any) -> None:
        super().__init__()
        self.layer, self.read = layer, [model.head]

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The inputs and outputs are those of the layer."""
        hidden = self.layer(*inputs, **options)
        assert _is_whole(self.read[0](hidden, None, None))
        return hidden


def test_another_dtype(plain: Any, model: Any, screened: list[int]) -> None:
    a, b = (minitx.generate(m.bfloat16(), PROMPTS[:1], Greedy(), **ALL) for m in (pack_weights(plain), model))
    assert tokens(a) == tokens(b)
    assert screened == []
    a, b = (minitx.generate(m.float(), PROMPTS[:1], Greedy(), **ALL) for m in (plain, model))
    assert tokens(a) == tokens(b)
    assert len(screened) == 11


def test_heads_that_change_logits(plain: Any, screened: list[int]) -> None:
    """Functions and classes of others are seen, before the pass and after it."""
    for late in (False, True):
        model = pack_weights(copy.deepcopy(plain))
        model.head.__class__ = Biased if not late else type(model.head)
        if late:
            screen_head(model)
            model.head.forward = partial(_biased, model.head.forward)
        else:
            with pytest.raises(ArgumentValueError, match="of another class"):
                screen_head(model)
        assert minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)[0].tokens.tolist() == [599] * 12
        assert screened == []


def _biased(forward: Any, *inputs: Any) -> Tensor:
    logits: Tensor = forward(*inputs)
    return logits + 100 * (torch.arange(600) == 599)


class Biased(Head):
    """A head that adds a number to each logit."""

    def forward(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, T, E), (B, E), (B, S) -> (B, T, V)"""
        return _biased(super().forward, hidden, pooled, mask)


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
    assert undo_screen_head(model) is model
    assert screened_weight(model) is None
    assert type(model.head.projection) is PackedLinear
    assert undo_screen_head(model) is model
    assert tokens(minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)) == expected
    assert len(screened) == 33
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
        (plain, "call pack_weights first"),
        (encoder, "the model does not predict the next token"),
        (pack_weights(copy.deepcopy(plain).bfloat16()), "its head is in torch.bfloat16; load it"),
        (quantize.int8_dynamic(copy.deepcopy(plain)), "undo the pass .* call pack_weights first"),
        (bfloat16_weights(copy.deepcopy(plain)), "undo the pass .* call pack_weights first"),
        (vocabulary_shortlist(pack_weights(copy.deepcopy(plain)), range(9)), "call pack_weights first"),
        (minitx.from_config({**GEMMA_2, **SMALL}, head="causal-lm"), "the head caps its logits"),
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
    assert screened_weight(model) is None
    minitx.generate(model, PROMPTS[:1], Greedy(), **ALL)


def test_optimize_chooses_it(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For large heads, on processors that are faster with packed and int8 weights."""
    monkeypatch.setattr(auto, "packed_is_faster", lambda dtype: True)
    monkeypatch.setattr(auto, "int8_is_faster", lambda: True)

    def _left(**options: Any) -> str | None:
        report: Any = minitx.optimize.report(minitx.optimize(plain, verbose=False, **options))
        return report.left_out.get("screen_head")  # type: ignore[no-any-return]

    assert _left() == "its head has fewer than 4,194,304 weights"
    monkeypatch.setattr(auto, "SMALLEST_HEAD", 1)
    assert _left() is None
    assert screened_weight(plain) is not None
    assert type(minitx.optimize.undo_optimize(plain).head.projection) is FastLinear
    assert _left(passes=["screen_head", "pack_weights"]) is None
    assert "screen_head" in undo_pack_weights(plain).optimization.left_out
    with pytest.raises(ArgumentValueError, match="a list with pack_weights, which screen_head needs"):
        minitx.optimize(plain, passes=["screen_head"])
    assert _left(int8=True) == "pack_weights is left out"
    monkeypatch.setattr(auto, "int8_is_faster", lambda: False)
    assert _left() == "products of int8 are not faster on this processor"
    minitx.optimize.undo_optimize(plain).bfloat16()
    assert str(_left()).startswith("its head is in torch.bfloat16")
