"""`estimate`: parameters, memory and operations of a model, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from minitx.checkpoint.build import meta_model
from minitx.inspect.estimate.memory import inference_activations, prepared, training_memory
from minitx.inspect.estimate.parts import (
    active_parameters,
    cache_bytes,
    embedding_parameters,
    parameters_by_part,
)
from minitx.inspect.flops import Tokens, attention_flops, forward_flops
from minitx.inspect.trace.step import amount
from minitx.models import Model
from minitx.models.compiled import check_not_compiled
from minitx.models.decoder import NEXT_TOKEN_TASKS
from minitx.models.sizes import num_bytes, on_meta
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.pictures.text import WIDTH, human
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_dtype, check_integer

DTYPES = ("float32", "bfloat16", "float16")
OPTIMIZER_STATES = 2  # of AdamW: the means of gradients and of their squares


_USUAL = 512  # tokens of a text
_MOST = 2**31 - 1  # texts, or tokens


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Parameters, memory and operations of a model. `print(estimate)` shows it.

    Attributes:
        model: architecture and head.
        dtype: of the parameters.
        batch: texts at once.
        length: tokens of each text.
        new_tokens: tokens that a decoder generates after each.
        parameters: their number; tied ones are counted once.
        active_parameters: those that one token uses, without the experts that it does not choose.
        embedding_parameters: those of embedding tables.
        parts: number of parameters by part.
        bytes: bytes of the parameters by dtype.
        parameter_bytes: of this model.
        forward_flops: operations of the matrix products of a forward over all tokens.
        prefill_flops: of the prompt in a generation, which needs the logits of its last token only; 0 for a
            model that does not generate.
        token_flops: of the last new token of a row.
        generation_flops: of prompt and new tokens together.
        cache: bytes of the full key/value cache by kind.
        inference_activations: largest memory of tensors between the layers, beside parameters and cache.
        training_activations: memory of the tensors that a forward of a training step keeps for its backward.
        gradient_bytes: of all trained parameters.
        backward_bytes: largest memory of activations and gradients together; as gradients come, activations
            go.
        optimizer_bytes: states of AdamW.
    """

    model: str
    dtype: str
    batch: int
    length: int
    new_tokens: int
    parameters: int
    active_parameters: int
    embedding_parameters: int
    parts: dict[str, int]
    bytes: dict[str, int]
    parameter_bytes: int
    forward_flops: int
    prefill_flops: int
    token_flops: int
    generation_flops: int
    cache: dict[str, int]
    inference_activations: int
    training_activations: int
    gradient_bytes: int
    backward_bytes: int
    optimizer_bytes: int

    @property
    def cache_bytes(self) -> int:
        """The bytes of the cache, of all kinds."""
        return sum(self.cache.values())

    @property
    def inference_bytes(self) -> int:
        """The peak memory of a forward or a generation."""
        return self.parameter_bytes + self.cache_bytes + self.inference_activations

    @property
    def training_bytes(self) -> int:
        """The peak memory of a training step after the first one."""
        return self.parameter_bytes + self.optimizer_bytes + self.backward_bytes

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes and the sums by name."""
        sums = {name: getattr(self, name) for name in ("cache_bytes", "inference_bytes", "training_bytes")}
        return asdict(self) | sums

    def __str__(self) -> str:
        """Returns the estimate as text of at most 80 columns."""
        return "\n".join(_lines(self))

    __repr__ = __str__


def estimate(
    model: Model | Mapping[str, Any],
    *,
    batch: int = 1,
    length: int | None = None,
    new_tokens: int = 64,
    dtype: torch.dtype | str | None = None,
    head: str | None = None,
) -> Estimate:
    """Estimates parameters, memory and operations of a model, without its weights.

    Works on the meta device: nothing is allocated or computed, whatever the size of the model. Operations are
    counted by a formula, peak memory by following every tensor of a forward, a generation and a training
    step.

    Args:
        model: any model of minitx for text, or the content of a config.json.
        batch: texts at once.
        length: tokens of each text; of an encoder-decoder, of the source. None: 512, or as many as the model
            has positions for.
        new_tokens: tokens that a decoder generates after each; 0: one forward only. Of an encoder-decoder
            also the tokens of the target in training.
        dtype: of the parameters; None: that of the model, or the one that the config states.
        head: of a config, as for `minitx.from_config`.

    Raises:
        ArgumentTypeError, ArgumentValueError: neither a model nor a config, sizes below 1, inputs other than
            text, more tokens than the model has positions for.
        ValueError: as `minitx.from_config`.

    Example:
        >>> print(minitx.inspect.estimate(config, batch=8, length=2048, dtype="bfloat16"))
    """
    sizes: dict[str, Any] = {"batch": check_integer("batch", batch, 1, _MOST)}
    sizes["new_tokens"] = check_integer("new_tokens", new_tokens, 0, _MOST)
    dtype = None if dtype is None else check_dtype("dtype", dtype)
    empty, name = _empty(model, dtype, head)
    length = _usual_length(empty, new_tokens) if length is None else check_integer("length", length, 1, _MOST)
    sizes["length"] = length
    generates = bool(new_tokens) and empty.task in NEXT_TOKEN_TASKS
    if not generates:
        labels = empty.task not in (*NEXT_TOKEN_TASKS, None)  # the decoder runs the source
        sizes["new_tokens"] = (length if labels else new_tokens) if len(empty.families) > 1 else 0
    check_length(empty, sizes["length"], sizes["new_tokens"])
    fields: dict[str, Any] = counts(empty) | operations(empty, **sizes, generates=generates)
    fields["cache"] = {}
    if generates:
        crosses = len(empty.families) > 1
        held = max((1 if crosses else length) + new_tokens - 1, 1)
        fields["cache"] = cache_bytes(empty, batch, held, length, empty.dtype.itemsize)
    prepared(empty)
    peak, _ = inference_activations(empty, batch, length, sizes["new_tokens"])
    kept, backward, gradients = training_memory(empty.train(), batch, length, sizes["new_tokens"])
    peaks: dict[str, Any] = {"inference_activations": peak, "training_activations": kept}
    return Estimate(
        model=name,
        dtype=str(empty.dtype).removeprefix("torch."),
        **sizes,
        **fields,
        **peaks,
        gradient_bytes=gradients,
        backward_bytes=backward,
        optimizer_bytes=OPTIMIZER_STATES * gradients,
    )


def _empty(model: Any, dtype: torch.dtype | None, head: str | None) -> tuple[Any, str]:
    """Returns a model on the meta device, in eval mode, and its name."""
    if isinstance(model, Mapping):
        stored = model.get("dtype") or model.get("torch_dtype") or "float32"
        empty, record = meta_model(model, head=head, dtype=dtype or check_dtype("dtype", stored))
        empty.set_attention(record.attention)
        return mixed_dtypes(empty), f"{record.model_type} {empty.task or ''}".rstrip()
    check_not_compiled(model)
    if not isinstance(model, Model):
        raise ArgumentTypeError("model", model, "a model of minitx, or the content of a config.json")
    if head is not None:
        raise ArgumentValueError("head", head, "None for a model", "it has the head that it was loaded with")
    name = getattr(model.checkpoint, "model_type", None) or type(model).__name__
    empty = on_meta(model).eval()
    return (empty if dtype is None else empty.to(dtype)), f"{name} {model.task or ''}".rstrip()


def _usual_length(model: Any, new_tokens: int) -> int:
    """Returns 512, or as many tokens as the embedder has positions for, less those that are generated."""
    embedder = model.get_submodule("embedder")
    generated = new_tokens if model.families == ("decoder",) and model.task in NEXT_TOKEN_TASKS else 0
    room = embedder.max_tokens - generated if embedder.has_position_table else _USUAL
    return max(1, min(_USUAL, room))


def check_length(model: Any, length: int, new_tokens: int) -> None:
    """Checks that the texts fit the tables of positions.

    Raises:
        ArgumentValueError: they do not, or the inputs are no text.
    """
    assert model.config.text_inputs, "raises for other inputs"
    crosses = len(model.families) > 1
    ends = {
        "embedder": (
            "length",
            length if crosses or model.task not in NEXT_TOKEN_TASKS else length + new_tokens,
        )
    }
    if crosses:
        ends["decoder_embedder"] = ("new_tokens", new_tokens)
    for name, (parameter, tokens) in ends.items():
        embedder = model.get_submodule(name)
        if embedder.has_position_table and tokens > embedder.max_tokens:
            expected = f"such that at most {embedder.max_tokens} tokens need a position, not {tokens}"
            value = length if parameter == "length" else new_tokens
            raise ArgumentValueError(parameter, value, expected, "the model has a table of positions")


def counts(model: Model) -> dict[str, Any]:
    """Returns the numbers and bytes of parameters."""
    number, sizes = model.num_parameters(), {}
    for name in DTYPES:
        sizes[name] = number * getattr(torch, name).itemsize
    return {
        "parameters": number,
        "active_parameters": active_parameters(model),
        "embedding_parameters": embedding_parameters(model),
        "parts": parameters_by_part(model),
        "bytes": sizes,
        "parameter_bytes": num_bytes(model.parameters()),
    }


def operations(model: Any, batch: int, length: int, new_tokens: int, *, generates: bool) -> dict[str, int]:
    """Returns the operations of a forward, and of a generation."""
    crosses = len(model.families) > 1
    whole = Tokens(batch, max(new_tokens, 1), source=length) if crosses else Tokens(batch, length)
    fields = {"forward_flops": forward_flops(model, whole), "prefill_flops": 0}
    fields |= {"token_flops": 0, "generation_flops": 0}
    if not generates:
        return fields
    first = 1 if crosses else length
    source = length if crosses else 0
    prefill = forward_flops(model, Tokens(batch, first, source=source, logits=1))
    later = [Tokens(batch, 1, first + n, source, 1) for n in range(new_tokens - 1)]
    fields["prefill_flops"] = prefill
    if not later:
        return fields | {"generation_flops": prefill}
    fixed = forward_flops(model, later[0]) - _pairs(model, later[0])
    fields["token_flops"] = (fixed + _pairs(model, later[-1])) // batch
    return fields | {"generation_flops": prefill + fixed * len(later) + sum(_pairs(model, t) for t in later)}


def _pairs(model: Any, tokens: Tokens) -> int:
    """Returns the operations of a decoding step that depend on the tokens in the cache."""
    steps = range(len(model.decoder.layer_order))
    return sum(attention_flops(model.decoder, step, tokens, tokens.new, tokens.past) for step in steps)


def _lines(e: Estimate) -> list[str]:
    """Returns the estimate as lines of a name, a number and a note."""
    active = f"{e.active_parameters:,} of them for each token" if e.active_parameters < e.parameters else ""
    rows: list[tuple[str, str, str]] = [("parameters", f"{e.parameters:,}", active)]
    for part, number in e.parts.items():
        rows.append((f"  {part}", f"{number:,}", f"{100 * number / e.parameters:.1f} %"))
    rows.append(("bytes of parameters", human(e.parameter_bytes), e.dtype))
    for name, size in e.bytes.items():
        rows += [] if name == e.dtype else [("", human(size), name)]
    texts = f"{e.batch} x {e.length} tokens"
    rows.append(("operations of a forward", amount(e.forward_flops, "FLOP"), texts))
    if e.generation_flops:
        rows.append(("  of the prompt", amount(e.prefill_flops, "FLOP"), "logits of its last token"))
        rows.append(("  of the last new token", amount(e.token_flops, "FLOP"), "of each text"))
        rows.append(("  of a generation", amount(e.generation_flops, "FLOP"), f"{e.new_tokens} new tokens"))
    note = f"{texts}, {e.new_tokens} new tokens" if e.generation_flops else texts
    rows.append(("peak of inference", human(e.inference_bytes), note))
    for name, size in e.cache.items():
        rows.append((f"  cache, {name}", human(size), ""))
    rows.append(("  activations", human(e.inference_activations), ""))
    rows.append(("peak of a training step", human(e.training_bytes), f"{texts}, AdamW"))
    rows.append(("  optimizer", human(e.optimizer_bytes), ""))
    rows.append(("  backward", human(e.backward_bytes), "the peak of these together"))
    rows.append(("    activations", human(e.training_activations), "after the forward"))
    rows.append(("    gradients", human(e.gradient_bytes), "after the backward"))
    lines = [f"{name:<28}{number:>18}  {text}".rstrip()[:WIDTH] for name, number, text in rows]
    return [f"{e.model}, {e.dtype}", "", *lines]
