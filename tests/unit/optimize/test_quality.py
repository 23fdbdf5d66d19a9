"""Quantised models predict a real text nearly as well as in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import minitx
from minitx.optimize.quantize import int4_weights, int8_dynamic, int8_weights, passes, quality
from minitx.validation import ArgumentTypeError, ArgumentValueError

PROSE = Path(__file__).parents[3] / "docs" / "examples" / "prose.txt"
Ids = list[list[int]]


def load(dtype: str = "float32") -> Any:
    return minitx.load("minitx/tiny-decoder", dtype=dtype)


@pytest.fixture(scope="module")
def ids() -> Ids:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    return [tokenizer.encode(line) for line in PROSE.read_text().splitlines()]


@pytest.fixture(scope="module")
def reference() -> Any:
    return load()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("quantize", "options", "change", "agreement", "kl"),
    [
        (int8_dynamic, {}, 0.01, 0.95, 0.004),
        (int8_weights, {}, 0.01, 0.96, 0.002),
        (int4_weights, {}, 0.05, 0.8, 0.07),
        (int4_weights, {"group_size": 64, "head": False}, 0.05, 0.83, 0.06),
    ],
    ids=["int8_dynamic", "int8_weights", "int4_weights", "int4_weights-64"],
)
def test_a_text_is_predicted_as_well(
    quantize: Callable[..., Any],
    options: dict[str, Any],
    change: float,
    agreement: float,
    kl: float,
    dtype: str,
    ids: Ids,
    reference: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "int8_weights_are_slow", lambda: False)
    monkeypatch.setattr(passes, "int4_weights_are_slow", lambda: False)
    measured = quality(quantize(load(dtype), **options), reference, ids)
    assert measured.tokens == 1389
    assert abs(measured.change) < change
    assert measured.agreement > agreement
    assert 0 < measured.kl < kl


def test_the_figures_are_those_of_the_definitions(ids: Ids, reference: Any) -> None:
    model = int8_dynamic(load())
    batch = torch.tensor([row[:60] for row in ids[:3]])
    measured = quality(model, reference, batch)
    with torch.inference_mode():
        p, q = (F.softmax(each(batch).logits[:, :-1].double(), -1) for each in (reference, model))
    target = batch[:, 1:, None]
    assert measured.tokens == 3 * 59
    assert measured.perplexity == pytest.approx(math.exp(-q.gather(2, target).log().mean()), rel=1e-5)
    reference_perplexity = math.exp(-p.gather(2, target).log().mean())
    assert measured.reference_perplexity == pytest.approx(reference_perplexity, rel=1e-5)
    assert measured.kl == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), rel=1e-3)
    assert measured.agreement == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    assert measured.change == measured.perplexity / measured.reference_perplexity - 1
    differences = (p / q).gather(2, target).log().flatten()
    error = math.exp(differences.mean()) * differences.std() / len(differences) ** 0.5
    assert measured.error == pytest.approx(error.item(), rel=1e-3)
    assert quality(model, reference, batch[:1, :2]).error == math.inf
    assert quality(model, reference, list(batch)).perplexity == pytest.approx(measured.perplexity, rel=1e-5)
    assert str(quality(reference, reference, batch)).endswith(
        "(+0.00 % ± 0.00)\nsame first choice 100.0 %, KL 0.00000 nats, 177 tokens"
    )


def test_a_text_with_more_tokens_than_positions_is_divided(reference: Any) -> None:
    positions = reference.decoder_embedder.max_tokens
    ids = torch.arange(2 * positions + 1)[None] % 400
    model = int8_dynamic(load())
    parts = quality(model, reference, [*ids[:, :-1].view(2, -1)])
    assert quality(model, reference, ids) == parts
    assert parts.tokens == 2 * (positions - 1)


def test_losses_are_computed_where_the_model_is(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[tuple[str, str]] = []
    nll_loss = F.nll_loss

    def _noted(x: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
        devices.append((x.device.type, target.device.type))
        return nll_loss(x, target, **options)

    monkeypatch.setattr(F, "nll_loss", _noted)
    with pytest.raises(NotImplementedError, match="meta"):  # it has no values, and so no result
        quality(load().to("meta"), reference, [[1, 2, 3]])
    assert devices == [("meta", "meta")] * 2


def test_bad_arguments(reference: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="reference="):
        quality(reference, "minitx/tiny-decoder", [[1, 2]])  # type: ignore[arg-type]
    encoder = minitx.load("minitx/tiny-encoder")
    with pytest.raises(ArgumentValueError, match=r"model=.* must be a language model"):
        quality(encoder, reference, [[1, 2]])
    for ids in ([[1]], torch.tensor([1, 2]), torch.ones(1, 3)):
        with pytest.raises(ArgumentValueError, match="token ids of shape"):
            quality(reference, reference, ids)
    with pytest.raises(ArgumentValueError, match=r"ids=\[\] must be at least one list.* empty"):
        quality(reference, reference, [])
    for ids in ("a text", None):
        with pytest.raises(ArgumentTypeError, match="ids="):
            quality(reference, reference, ids)
