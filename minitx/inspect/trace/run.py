"""`trace`: runs a model on a text once, and describes every step of that forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minitx.decoding.prompts import check_tokenizer, pad_right, read_prompts
from minitx.inspect.inputs import check_eval
from minitx.inspect.taps.record import record
from minitx.inspect.trace import attention, ends, parts
from minitx.inspect.trace.answer import answers
from minitx.inspect.trace.step import UNKNOWN, Step, Trace
from minitx.inspect.trace.tracer import Calls, Side, Tracer, quoted
from minitx.layers.activation import Activation
from minitx.layers.attention import SelfAttention
from minitx.layers.disentangled import Convolution, DisentangledSelfAttention
from minitx.layers.embedder import Embedder
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.feed_forward import GatedIntermediate, Intermediate, Pooler
from minitx.layers.heads import VOCABULARY_TASKS, Head
from minitx.layers.layer import CrossAttentionBranch, Layer, Output, SelfAttentionBranch
from minitx.layers.norm import RMSNorm
from minitx.models import EncoderDecoderModel, Model
from minitx.pictures.text import names_of
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_flags, check_integer

# How the forward of a class of modules is described. An architecture needs no entry of its own.
TABLE: Mapping[type, Callable[..., Step]] = {
    nn.Linear: parts.projection,
    nn.LayerNorm: parts.norm,
    RMSNorm: parts.norm,
    Activation: parts.activation,
    Intermediate: parts.feed_forward,
    GatedIntermediate: parts.gated_feed_forward,
    MixtureOfExperts: parts.experts,
    Output: parts.branch_end,
    SelfAttentionBranch: parts.self_branch,
    CrossAttentionBranch: parts.cross_branch,
    Layer: parts.layer,
    SelfAttention: attention.attention,
    DisentangledSelfAttention: attention.attention,
    Convolution: ends.convolution,
    Embedder: ends.embeddings,
    Pooler: ends.pooler,
    Head: ends.head,
}
# Largest relative difference from float64 that the rounding of a dtype explains.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def trace(
    model: Model,
    text: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor,
    *,
    tokenizer: Tokenizer | None = None,
    target: str | Sequence[int] | None = None,
    depth: int | None = None,
    at: str | None = None,
    check: bool = False,
) -> Trace:
    """Shows every step from text to answer.

    Every step has its name, its equation with the numbers of this model, the names and sizes of its axes,
    parameters, floating-point operations, and its largest values. `print(trace)` shows it in 80 columns.

    Args:
        model: any model of minitx for text, in eval mode.
        text: one text or several, or ids: a list, lists, or a tensor (T,) or (B, T).
        tokenizer: of the model; for texts, and for the names of tokens.
        target: decoder input of an encoder-decoder after its start token, for each text; None: the start
            token alone, for a head that labels the text the text. Ids are the input with its start token.
        depth: levels of steps that are shown; None: the outermost, or all of those in `at`.
        at: show this part only, such as "encoder.layers.0.attention".
        check: recompute every step in float64 from its recorded inputs by a few lines of plain PyTorch.

    Returns:
        The steps, all of them.

    Raises:
        ArgumentTypeError, ArgumentValueError: a model in training mode or for inputs other than text, a text
            without tokenizer, ids outside the vocabulary, a depth below 1, or an unknown `at`.

    Example:
        >>> print(minitx.inspect.trace(model, "It was a", tokenizer=tokenizer))
        >>> print(minitx.inspect.trace(model, ids, at="decoder.layers.0.attention", check=True))
    """
    check_eval(model)
    check_flags(check=check)
    check_tokenizer(tokenizer)
    depth = None if depth is None else check_integer("depth", depth, 1)
    steps = described(model, text, tokenizer, target, check)
    size = f"{model.num_parameters():,} parameters, {str(model.dtype).removeprefix('torch.')}"
    kind = getattr(model.checkpoint, "model_type", None) or type(model).__name__
    result = Trace(
        title=f"{kind} {model.task or ''}".rstrip() + f": {size}",
        steps=steps,
        depth=depth or 1,
        checked=check,
        tolerance=TOLERANCES.get(model.dtype, 1e-1),
    )
    return result if at is None else result.at(at, depth)


def described(model: Model, text: Any, tokenizer: Any, target: Any, check: bool) -> tuple[Step, ...]:
    """Runs the model, and returns all steps."""
    sides = make_sides(model, text, tokenizer, target)
    inputs: dict[str, Any] = {}
    for name, side in sides.items():
        prefix = "decoder_" if name == "decoder" and len(sides) > 1 else ""
        inputs |= {f"{prefix}input_ids": side.ids, f"{prefix}attention_mask": side.mask}
    if model.task == "multiple-choice":
        inputs = {name: None if value is None else value[None] for name, value in inputs.items()}
    calls, skipped = Calls(), () if isinstance(model.head, Head) else ("head", "logits")
    names = [name for name in model.taps() if name not in skipped]
    with torch.inference_mode(), calls.collected(model), record(model, *names) as values:
        output = model(**inputs)
    with torch.no_grad():
        t = Tracer(model, values, calls, sides, TABLE, check)
        t.word = None if tokenizer is None else lambda index: names_of(tokenizer, [index])[0]
        return (*_steps(t), *answers(t, output, tokenizer))


def _steps(t: Tracer) -> Iterator[Step]:
    """Yields the outermost steps up to the logits."""
    model: Any = t.model
    for name, side in t.sides.items():
        t.names = (side.names, side.names)
        module = "decoder_embedder" if name == "decoder" and len(t.sides) > 1 else "embedder"
        yield from texts(t, side, name if len(t.sides) > 1 else "")
        yield t.describe(getattr(model, module), module)
        yield from ends.stack(t, model.get_submodule(name), name)
        projection = getattr(model, "encoder_projection", None)
        if name == "encoder" and isinstance(projection, nn.Module):
            yield t.describe(projection, "encoder_projection", t.out("encoder"))
    if model.pooler is not None:
        yield t.describe(model.pooler, "pooler", t.out(model.families[-1]))
    if "head" in t.calls.others:
        outputs = "vocabulary" if model.task in VOCABULARY_TASKS else "labels"
        yield t.describe(model.head, "head", outputs)
    elif model.head is not None:  # it returns several tensors
        yield Step(name="head", equation=f"{UNKNOWN}{type(model.head).__name__}")


def texts(t: Tracer, side: Side, name: str) -> Iterator[Step]:
    """Yields the steps from a text to ids."""
    prefix = f"{name}." if name else ""
    axes = (("batch", side.ids.shape[0]), ("tokens", side.ids.shape[1]))
    if side.names:
        row = " ".join(quoted(side.names, 0, index) for index in range(len(side.names[0])))
        more = "" if len(side.names) == 1 else f"\n... and {len(side.names) - 1} more rows"
        yield Step(name=f"{prefix}tokens", equation="the text in pieces", axes=axes, note=row + more)
    size = t.model.config.text_inputs.vocab_size
    note = " ".join(map(str, side.ids[0].tolist()))
    yield Step(name=f"{prefix}ids", equation=f"number of each token, of {size:,}", axes=axes, note=note)


def make_sides(model: Model, text: Any, tokenizer: Any, target: Any) -> dict[str, Side]:
    """Returns ids, mask and names of the tokens of each stack."""
    inputs = model.config.text_inputs
    rows = _rows("text", text, inputs.vocab_size, tokenizer)
    sides = {model.families[0]: _side(model, rows, inputs.pad_token_id, tokenizer)}
    if isinstance(model, EncoderDecoderModel):
        sides["decoder"] = _target(model, target, tokenizer, sides["encoder"])
    elif target is not None:
        raise ArgumentValueError("target", target, "None for a model without encoder and decoder")
    return sides


def _rows(name: str, text: Any, size: int, tokenizer: Any, **options: Any) -> list[list[int]]:
    """Returns the ids of each text; a list of ids is one text."""
    plain = text.tolist() if hasattr(text, "tolist") else text
    if isinstance(plain, Sequence) and not isinstance(plain, str) and plain and isinstance(plain[0], int):
        plain = [plain]
    return read_prompts(plain, vocab_size=size, tokenizer=tokenizer, parameter=name, **options)


def _side(model: Model, rows: list[list[int]], pad: int | None, tokenizer: Any) -> Side:
    ids, mask = pad_right(rows, pad or 0, model.device)
    names = [] if tokenizer is None else [names_of(tokenizer, row) for row in ids.tolist()]
    return Side(ids, mask, names)


def _target(model: EncoderDecoderModel, target: Any, tokenizer: Any, source: Side) -> Side:
    """Returns the decoder input: of a head that labels the source, the source."""
    inputs = model.decoder_embedder.config
    start = model.config.decoder_start_token_id
    if target is None and model.task not in ("seq2seq-lm", None):
        ids = model.shifted("text", source.ids)
        return replace(_side(model, ids.tolist(), inputs.pad_token_id, tokenizer), mask=source.mask)
    if target is None:
        if start is None:
            hint = "the decoder of this model starts with the token of a language"
            raise ArgumentValueError("target", None, "a text, or ids with their first token", hint)
        rows = [[start]]
    else:
        rows = _rows("target", target, inputs.vocab_size, tokenizer, as_target=True)
        if isinstance(target, str):
            row = rows[0]
            end = None if tokenizer is None else tokenizer.eos_token_id
            first = row[-1] if start is None else start
            rows = [[first, *(row[:-1] if start is None or row[-1] == end else row)]]
    count = len(source.ids) if len(rows) == 1 else 1
    return _side(model, rows * count, inputs.pad_token_id, tokenizer)
