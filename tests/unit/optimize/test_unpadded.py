"""A model that computes no padding gives each text the values that it has alone."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import minitx
from minitx.architectures.registry import REGISTRY
from minitx.layers.attention import SelfAttention
from minitx.layers.stack import Stack
from minitx.models import Model
from minitx.optimize import undo_unpadded, unpadded
from minitx.optimize.unpadded import divide, obstacle, without_padding
from minitx.pipelines.batching import BatchLimits, fill_batches
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.parity.cases import BY_NAME

module = sys.modules[unpadded.__module__]
LENGTHS = (9, 1, 33, 9, 4, 2, 33)
# Configurations with the same stack as another one of the suite are left out.
NAMES = [
    *("bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra", "albert-uneven-groups"),
    *("mpnet", "mpnet-far", "modernbert", "modernbert-biases", "tapas"),
    *("deberta-v2", "deberta-v3", "deberta-v2-content-only"),
    *("t5", "t5-near", "mt5", "umt5", "bart", "mbart", "marian", "pegasus", "m2m_100", "blenderbot"),
    "bert-gpt2",
]
DECODERS = ["gpt2", "llama", "mistral", "bloom", "qwen2"]
REFUSED = {"deberta-v2-conv": "convolution", "llama-dynamic": "'dynamic'", "phi3-long": "'longrope'"}


def build(name: str, head: str = "none", dtype: torch.dtype = torch.float64) -> Any:
    """A model of the parity suite with random weights, norms and biases too."""
    case = BY_NAME[name]
    model = minitx.from_config({**case.config, "model_type": case.model_type}, head=head, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.to(dtype).eval()


def batch_of(name: str, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    """Random texts, padded on the right."""
    case, time = BY_NAME[name], max(lengths)
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(time) < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, 99, mask.shape, generator=generator)
    batch = {"input_ids": ids.where(mask, torch.tensor(case.pad)), "attention_mask": mask.long()}
    if sizes := case.config.get("type_vocab_sizes"):
        kinds = [torch.randint(0, size, mask.shape, generator=generator) for size in sizes]
        batch["token_type_ids"] = torch.stack(kinds, dim=-1)
    elif case.config.get("type_vocab_size", 0) > 1:
        batch["token_type_ids"] = torch.randint(0, 3, mask.shape, generator=generator)
    return batch


def encode(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    """The hidden states of the stack that reads the inputs: (B, T, E)."""
    hidden: Tensor = model.encode(**inputs) if len(model.families) == 2 else model(**inputs).last_hidden_state
    return hidden


@pytest.mark.parametrize("name", [*NAMES, *DECODERS])
@torch.no_grad()
def test_a_text_has_the_values_that_it_has_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS", 40)  # several rows of several texts
    model, inputs = build(name), batch_of(name)
    alone = [
        encode(model, {key: value[row : row + 1, :length] for key, value in inputs.items()})
        for row, length in enumerate(LENGTHS)
    ]
    hidden = encode(unpadded(model), inputs)
    assert hidden.shape[:2] == inputs["input_ids"].shape
    for row, (length, expected) in enumerate(zip(LENGTHS, alone, strict=True)):
        assert torch.allclose(hidden[row, :length], expected[0], rtol=0, atol=1e-12)
        assert not hidden[row, length:].any()


def test_every_encoder_of_the_registry_is_tested() -> None:
    covered = {BY_NAME[name].model_type for name in [*NAMES, *REFUSED]}
    assert covered >= {kind for kind, place in REGISTRY.items() if place.startswith("encoder")}


@pytest.mark.parametrize("name", REFUSED)
def test_a_stack_that_mixes_tokens_is_refused_by_name(name: str) -> None:
    model = build(name)
    with pytest.raises(ArgumentValueError, match=REFUSED[name]):
        unpadded(model)
    assert without_padding(model) is model
    with pytest.raises(ArgumentTypeError):
        unpadded(nn.Linear(2, 2))


class Neighbours(nn.Module):
    """A part that mixes tokens."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + hidden.roll(1, dims=1)


class OwnAttention(SelfAttention):
    """Attention whose forward is another."""

    def forward(self, hidden: Tensor, context: Any, cache: Any = None) -> Tensor:
        return super().forward(hidden, context, cache) * 2


@pytest.mark.parametrize("part", ["intermediate", "attention", "method"])
@torch.no_grad()
def test_a_part_of_the_user_runs_on_the_padded_batch(part: str) -> None:
    model, inputs = build("bert"), batch_of("bert")
    view = unpadded(copy.deepcopy(model))
    for changed in (model, view):
        layer = changed.encoder.layers[1]
        if part == "intermediate":
            layer.intermediate = nn.Sequential(layer.intermediate, Neighbours())
        elif part == "attention":
            layer.attention.self_attention.__class__ = OwnAttention
        else:
            layer.output.forward = lambda hidden, residual: residual.roll(1, dims=1)
    assert "of its own" in obstacle(view.encoder)
    assert torch.equal(view(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    assert without_padding(model) is model


@torch.no_grad()
def test_hooks_see_the_batch() -> None:
    model, inputs, shapes = unpadded(build("bert")), batch_of("bert"), []
    expected = model(**inputs).last_hidden_state
    handle = model.encoder.layers[1].register_forward_hook(lambda *args: shapes.append(args[2].shape))
    hooked = model(**inputs).last_hidden_state
    handle.remove()
    assert shapes == [expected.shape]
    real = inputs["attention_mask"].bool()
    assert torch.allclose(hooked[real], expected[real], rtol=0, atol=1e-12)


@torch.no_grad()
def test_what_a_row_cannot_do_runs_as_before() -> None:
    model, inputs = build("bert"), batch_of("bert")
    view, mask = without_padding(model), inputs["attention_mask"]
    others = [
        {**inputs, "output_hidden_states": True},
        {**inputs, "output_attentions": [1]},
        {**inputs, "attention_mask": mask.flip(1)},
        {**inputs, "attention_mask": (mask[:, None, :] * mask[:, :, None])},
        {**inputs, "attention_mask": mask * 0},
        {"input_ids": inputs["input_ids"]},
    ]
    for arguments in others:
        expected, output = model(**arguments), view(**arguments)
        assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert view(**others[0]).hidden_states is not None
    assert view(**others[1]).attentions[1].shape[-1] == mask.shape[1]


@pytest.mark.parametrize(
    ("lengths", "tokens", "rows"),
    [(LENGTHS, 1024, [91]), (LENGTHS, 50, [66, 25]), ((9, 9, 9, 9, 9), 20, [18, 18, 9])],
)
@torch.no_grad()
def test_the_stack_runs_on_rows_of_tokens_alone(
    lengths: tuple[int, ...], tokens: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS", tokens)
    model, inputs, shapes = build("bert"), batch_of("bert", lengths), []
    real = inputs["attention_mask"].bool()
    expected = model(**inputs).last_hidden_state[real]
    monkeypatch.setattr(Stack, "contexts", watch_shapes(Stack.contexts, shapes))
    hidden = without_padding(model)(**inputs).last_hidden_state[real]
    assert [tuple(shape[:2]) for shape in shapes] == [(1, size) for size in rows]
    assert torch.allclose(hidden, expected, rtol=0, atol=1e-12)


def watch_shapes(contexts: Any, shapes: list[torch.Size]) -> Any:
    """`Stack.contexts` that notes the shape of the hidden states."""

    def _contexts(stack: Any, hidden: Tensor, *others: Any) -> Any:
        shapes.append(hidden.shape)
        return contexts(stack, hidden, *others)

    return _contexts


def test_the_pass_changes_the_class_and_nothing_else(tmp_path: Path) -> None:
    model = build("bert", "sequence-classification")
    before, printed, state = type(model), repr(model), list(model.state_dict())
    view = without_padding(model)
    assert type(model) is before
    assert view.encoder is model.encoder
    assert without_padding(view) is view
    assert unpadded(unpadded(model)) is model
    assert (repr(model), list(model.state_dict())) == (printed, state)
    assert isinstance(model, before)
    minitx.save(model.float(), tmp_path)
    assert torch.equal(minitx.load(tmp_path).head.projection.weight, model.head.projection.weight)
    assert type(undo_unpadded(undo_unpadded(model))) is before


@pytest.mark.parametrize("head", ["sequence-classification", "token-classification", "multiple-choice"])
def test_heads_losses_and_gradients_stay(head: str) -> None:
    model, inputs = build("bert", head), batch_of("bert", (9, 4, 7, 2))
    shape = {"sequence-classification": (4,), "token-classification": (4, 9), "multiple-choice": (2,)}[head]
    if head == "multiple-choice":
        inputs = {name: value.unflatten(0, (2, 2)) for name, value in inputs.items()}
    labels = torch.zeros(shape, dtype=torch.long)
    if head == "token-classification":
        labels[inputs["attention_mask"] == 0] = -100
    other = unpadded(copy.deepcopy(model))
    losses = [each(**inputs, labels=labels).loss for each in (model, other)]
    assert torch.allclose(*losses, rtol=0, atol=1e-12)
    for loss in losses:
        loss.backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        gradients = (torch.zeros_like(one) if p.grad is None else p.grad for p in (one, two))
        assert torch.allclose(*gradients, rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_custom_attention_takes_the_texts_of_one_length_as_a_batch() -> None:
    shapes: list[torch.Size] = []

    def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Any) -> Tensor:
        shapes.append(query.shape)
        assert mask is None
        return torch.softmax(query @ key.mT * options.scale, dim=-1) @ value

    model, inputs = build("bert"), batch_of("bert")
    expected = unpadded(model)(**inputs).last_hidden_state
    output = model.set_attention(_attention)(**inputs).last_hidden_state
    assert torch.allclose(output, expected, rtol=0, atol=1e-12)
    assert [shape[0] for shape in shapes[:5]] == [2, 2, 1, 1, 1]


@torch.no_grad()
def test_an_encoder_decoder_reads_without_padding_and_writes_the_same() -> None:
    model, inputs = build("t5", "seq2seq-lm"), batch_of("t5")
    target = torch.randint(4, 99, (len(LENGTHS), 5), generator=torch.Generator().manual_seed(2))
    expected = model(**inputs, decoder_input_ids=target).logits
    output = unpadded(model)(**inputs, decoder_input_ids=target).logits
    assert torch.allclose(output, expected, rtol=0, atol=1e-11)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 500))
def test_parts_keep_the_order_and_are_of_one_size(lengths: list[int], tokens: int) -> None:
    lengths = sorted(lengths, reverse=True)
    parts = list(divide(lengths, tokens))
    assert [length for part in parts for length in part] == lengths
    assert all(parts)
    assert all(sum(part) < tokens + lengths[0] for part in parts)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 9), st.integers(1, 600))
def test_batches_are_as_full_as_the_limits_allow(lengths: list[int], rows: int, tokens: int) -> None:
    batches = fill_batches(lengths, BatchLimits(rows, tokens, overhead=0))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    sizes = [[lengths[index] for index in batch] for batch in batches]
    assert [size for batch in sizes for size in batch] == sorted(lengths, reverse=True)
    assert all(len(batch) <= rows and (len(batch) == 1 or sum(batch) <= tokens) for batch in sizes)
    for batch, after in pairwise(sizes):
        assert len(batch) == rows or sum(batch) + after[0] > tokens
