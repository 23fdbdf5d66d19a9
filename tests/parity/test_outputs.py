"""Hidden states, attention weights and `inputs_embeds` equal transformers', for every case and head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minitx.inspect.compare.reference import Wide
from minitx.layers.attention import BACKENDS
from minitx.models import EncoderDecoderModel
from tests.parity.cases import BY_NAME
from tests.parity.reference import CASES_AND_HEADS, logits_of, padded, pair, real_tokens, text
from tests.parity.test_cache import DECODERS, ENCODER_DECODERS

# field -> whose tokens its rows are ("decoder_": the decoder's), and whether it holds weights (B, H, T, S)
FIELDS = {
    "hidden_states": ("", False),
    "attentions": ("", True),
    "encoder_hidden_states": ("", False),
    "encoder_attentions": ("", True),
    "decoder_hidden_states": ("decoder_", False),
    "decoder_attentions": ("decoder_", True),
    "cross_attentions": ("decoder_", True),
}


@contextmanager
def eager(reference: Any, implementation: str) -> Iterator[None]:
    """The reference gives weights with this implementation alone."""
    reference.set_attn_implementation("eager")
    try:
        with torch.inference_mode(), Wide():
            yield
    finally:
        reference.set_attn_implementation(implementation)


def compare(expected: Any, output: Any, inputs: dict[str, Tensor]) -> float:
    """The largest difference in any field that either has, at real tokens, of numbers above 1 as a share."""
    largest = 0.0
    for name, (kind, weights) in FIELDS.items():
        theirs, ours = getattr(expected, name, None), output[name]
        if theirs is None or len(theirs) == 0:
            assert ours is None, name
            continue
        assert len(ours) == len(theirs), name
        real = real_tokens(inputs, kind).flatten(0, -2)
        for a, b in zip(theirs, ours, strict=True):
            assert a.shape == b.shape, name
            a, b = ((x.transpose(1, 2) if weights else x)[real] for x in (a, b))
            largest = max(largest, ((a - b).abs().max() / a.abs().max().clamp(min=1)).item())
    return largest


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_hidden_states_and_attentions(name: str, task: str, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, task, torch.float64, root)
    plain = text(case, 3, 9, task)
    if task == "multiple-choice":
        plain["attention_mask"] = torch.ones_like(plain["input_ids"])
    asked: dict[str, Any] = {"output_hidden_states": True, "output_attentions": True}
    for inputs in (plain, padded(case, plain, "left"), padded(case, plain, "right")):
        with eager(reference, case.reference):
            expected = reference(**inputs, **asked)
        for backend in BACKENDS:
            model.set_attention(backend)
            with torch.inference_mode():
                output, without = model(**inputs, **asked), model(**inputs)
            assert compare(expected, output, inputs) <= case.float64, backend
            assert torch.equal(output.last_hidden_state, without.last_hidden_state)
            assert all(without[field] is None for field in FIELDS)


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_embeddings_as_inputs(name: str, task: str, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, task, torch.float64, root)
    inputs = text(case, 3, 9, task)
    if case.ends(task):
        with pytest.raises(ValueError, match="pass input_ids"):
            model(
                inputs_embeds=model.embedder.word_emb(inputs["input_ids"]),
                decoder_input_ids=inputs["input_ids"],
            )
        return
    if task == "multiple-choice":
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        ours = dict(inputs)
        ours["inputs_embeds"] = model.embedder.word_emb(ours.pop("input_ids"))
        output = model(**with_target(model, ours, inputs["input_ids"]))
        assert torch.allclose(output.last_hidden_state, model(**inputs).last_hidden_state, rtol=0, atol=1e-12)
        with Wide():
            theirs = dict(inputs)
            words = reference.get_input_embeddings()(theirs.pop("input_ids"))
            scale = getattr(reference.get_encoder(), "embed_scale", 1.0)  # Marian, Pegasus: of ids alone
            assert torch.equal(words * scale, ours["inputs_embeds"])
            theirs["inputs_embeds"] = ours["inputs_embeds"]
            expected = reference(**with_target(model, theirs, inputs["input_ids"]))
    for a, b in zip(logits_of(expected), logits_of(output), strict=True):
        assert (a - b).abs().max() <= case.float64 * a.abs().max().clamp(min=1)
    if not logits_of(expected):
        difference = (expected.last_hidden_state - output.last_hidden_state).abs().max()
        assert difference <= case.float64 * expected.last_hidden_state.abs().max().clamp(min=1)


def with_target(model: Any, inputs: dict[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """A head that labels the source shifts its ids for the decoder, so there both are passed."""
    if not isinstance(model, EncoderDecoderModel) or "decoder_input_ids" in inputs:
        return inputs
    return {**inputs, "decoder_input_ids": model.shifted("input_ids", ids)}


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_embeddings_as_decoder_inputs(name: str, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, "seq2seq-lm", torch.float64, root)
    assert isinstance(model, EncoderDecoderModel)
    inputs = padded(case, text(case, 3, 9, "seq2seq-lm"), "left")
    ids = inputs.pop("decoder_input_ids")
    plain = torch.where(
        inputs["decoder_attention_mask"].bool(), ids, 5
    )  # no padding ids: they number positions
    with torch.inference_mode():
        embeds = model.decoder_embedder.word_emb(plain)
        output = model(**inputs, decoder_inputs_embeds=embeds)
        expected = model(**inputs, decoder_input_ids=plain)
        real = inputs["decoder_attention_mask"].bool()
        assert (output.logits - expected.logits)[real].abs().max() <= 1e-12
        with Wide():
            theirs = reference(**inputs, decoder_inputs_embeds=embeds).logits
    assert (output.logits - theirs)[real].abs().max() <= case.float64 * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize(("max_length", "backend"), [(None, "sdpa"), (12, "sdpa"), (None, "eager")])
@pytest.mark.parametrize("name", DECODERS)
def test_with_a_cache(name: str, max_length: int | None, backend: str, root: Path) -> None:
    """Prefill, one token, several tokens, one token; as embeddings every other time."""
    case = BY_NAME[name]
    task = "seq2seq-lm" if name in ENCODER_DECODERS else "causal-lm"
    reference, model = pair(name, task, torch.float64, root)
    model.set_attention(backend)
    source = text(case, 2, 9)["input_ids"]
    ids = text(case, 2, 12, seed=1)["input_ids"]
    asked: dict[str, Any] = {"output_hidden_states": True, "output_attentions": True}
    cache, theirs = model.make_cache(max_length), None
    if isinstance(model, EncoderDecoderModel):
        with torch.inference_mode():
            model.encode_into(cache, source)
    start = 0
    for number, count in enumerate((7, 1, 3, 1)):
        part = ids[:, start : start + count]
        start += count
        with eager(reference, case.reference):
            if isinstance(model, EncoderDecoderModel):
                more = {"input_ids": source, "decoder_input_ids": part}
            else:
                more = {"input_ids": part}
            expected = reference(**more, **asked, past_key_values=theirs, use_cache=True)
            theirs = expected.past_key_values
        with torch.inference_mode():
            if number % 2:
                embeds = model.decoder_embedder.word_emb(part)
                output = model.decode(inputs_embeds=embeds, cache=cache, **asked)
            else:
                output = model.decode(part, cache=cache, **asked)
        prefix = "decoder_" if isinstance(model, EncoderDecoderModel) else ""
        names = [f"{prefix}hidden_states", f"{prefix}attentions"] + ["cross_attentions"] * bool(prefix)
        for field in names:
            for a, b in zip(expected[field], output[field], strict=True):
                if a.shape != b.shape:  # GPT-Neo's reference keeps the keys before the window, of weight 0
                    assert not a[..., : -b.shape[-1]].any()
                    a = a[..., -b.shape[-1] :]
                assert a.shape == b.shape, (field, number)
                assert (a - b).abs().max() <= case.float64 * a.abs().max().clamp(min=1), (field, number)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", DECODERS)  # the last changes slowest, so that a model is made once
def test_with_a_cache_and_padding(name: str, side: str, backend: str, root: Path) -> None:
    """A padded prompt, or source of an encoder-decoder, then one token, several tokens, one token."""
    case = BY_NAME[name]
    task = "seq2seq-lm" if name in ENCODER_DECODERS else "causal-lm"
    reference, model = pair(name, task, torch.float64, root)
    model.set_attention(backend)
    inputs = padded(case, {"input_ids": text(case, 3, 7)["input_ids"]}, side)
    prompt, mask = inputs["input_ids"], inputs["attention_mask"]
    ids = text(case, 3, 12, seed=1)["input_ids"]
    asked: dict[str, Any] = {"output_hidden_states": True, "output_attentions": True}
    cache, theirs = model.make_cache(), None
    seq2seq = isinstance(model, EncoderDecoderModel)
    if seq2seq:
        with torch.inference_mode():
            model.encode_into(cache, prompt, mask)
        real = torch.ones_like(ids).bool()
    else:
        ids = torch.cat((prompt, ids[:, 7:]), dim=1)
        real = torch.cat((mask, torch.ones_like(ids[:, 7:])), dim=1).bool()
    positions = (real.cumsum(1) - 1).clamp(min=0)
    for start, stop in pairwise((0, 7, 8, 11, 12)):
        part, now = ids[:, start:stop], real[:, start:stop]
        if seq2seq:
            more = {**inputs, "decoder_input_ids": part}
        else:
            more = {"input_ids": part, "attention_mask": real[:, :stop].long()}
            if "position_ids" in signature(reference.forward).parameters:
                more["position_ids"] = positions[:, start:stop]
        with eager(reference, case.reference):
            expected = reference(**more, **asked, past_key_values=theirs, use_cache=True)
            theirs = expected.past_key_values
        with torch.inference_mode():
            padding = () if seq2seq else (now.long(), positions[:, start:stop])
            output = model.decode(part, *padding, cache=cache, **asked)
        prefix = "decoder_" if seq2seq else ""
        for field in (f"{prefix}hidden_states", f"{prefix}attentions", *["cross_attentions"] * seq2seq):
            for a, b in zip(expected[field], output[field], strict=True):
                if "attentions" in field:
                    a, b = (x.transpose(1, 2) for x in (a[..., -b.shape[-1] :], b))
                assert a.shape == b.shape, (field, start)
                difference = (a[now] - b[now]).abs().max()
                assert difference <= case.float64 * a[now].abs().max().clamp(min=1), (field, start)


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2"])
def test_some_layers(name: str, root: Path) -> None:
    task = BY_NAME[name].tasks[-1]
    _, model = pair(name, task, torch.float64, root)
    inputs = text(BY_NAME[name], 2, 9, task)
    with torch.inference_mode():
        every, one = model(**inputs, output_attentions=True), model(**inputs, output_attentions=(0, -1))
    for field in FIELDS:
        if "attentions" in field and every[field] is not None:
            assert torch.equal(one[field][0], every[field][0])
            assert torch.equal(one[field][-1], every[field][-1])
            assert all(weights is None for weights in one[field][1:-1])
    with pytest.raises(
        ValueError, match=r"output_attentions=99 must be from -\d to \d; the model runs \d layers"
    ):
        model(**inputs, output_attentions=[99])
    with pytest.raises(
        TypeError, match="output_attentions='all' must be a bool or a collection of layer numbers"
    ):
        model(**inputs, output_attentions="all")
