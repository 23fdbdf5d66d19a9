"""Direct logit attribution: the part of a logit that each head and network writes into the residual stream.

The final norm divides by the size of the whole residual stream. With that divisor held fixed the end of the
model is linear, so that the contributions sum up to the logit (arXiv:2209.11895; arXiv:2211.00593, section
3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minitx.inspect.analysis.lens.logit import first_call
from minitx.inspect.analysis.table import Grid, number
from minitx.inspect.inputs import (
    Inputs,
    check_vocabulary_head,
    ids_of,
    mask_of,
    positions_of_rows,
    prepare,
    run,
)
from minitx.inspect.taps import record
from minitx.inspect.taps.edit import num_layers, stack_of
from minitx.inspect.tokens import Token, TokenNames, names_of_rows, spelling, token_ids_of_rows
from minitx.layers.layer import Layer, Output
from minitx.layers.norm import RMSNorm
from minitx.layers.stack import Stack
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError

EMBEDDING, BIAS = "embedding", "bias"


@dataclass(frozen=True, eq=False, kw_only=True)
class DirectLogitAttribution:
    """The contributions to a logit, or to the difference of two; `print` shows them by layer.

    Attributes:
        values: (parts, B); their sum over the parts is `logit`.
        names: of the parts: "embedding", "0.head.1", "0.cross.1", "0.feed_forward", "bias".
        logit: (B,), before a cap of the logits.
        tokens: name of the token of each row.
        against: name of the token whose logit is subtracted, row by row; empty: none.
        context: name of the token at the position, row by row.
        axes: names of the axes of `values`.
    """

    axes: ClassVar[tuple[str, ...]] = ("part", "row")
    values: Tensor
    names: tuple[str, ...]
    logit: Tensor
    tokens: tuple[str, ...]
    against: tuple[str, ...]
    context: tuple[str, ...]

    def __getitem__(self, name: str) -> Tensor:
        """Returns the contribution of a part: (B,).

        Raises:
            ArgumentValueError: a part that does not exist.
        """
        if name not in self.names:
            raise ArgumentValueError("name", name, "the name of a part", "result.names has them")
        return self.values[self.names.index(name)]

    def grid(self, row: int = 0) -> Grid:
        """Returns the contributions of one row by layer: heads, cross-attention's heads, feed-forward."""
        parts = [name.partition(".") for name in self.names if name[0].isdigit()]
        layers = [*dict.fromkeys(layer for layer, _, _ in parts)]
        columns = [*dict.fromkeys(part for _, _, part in parts)]
        values = torch.zeros(len(layers), len(columns), dtype=self.values.dtype)
        for layer, _, part in parts:
            value = self[f"{layer}.{part}"][row]
            values[layers.index(layer), columns.index(part)] = value
        short = [name.replace("feed_forward", "network").replace(".", " ") for name in columns]
        return Grid(values=values, axes=("layer", "part"), rows=tuple(layers), columns=tuple(short))

    def top(self, k: int = 5, row: int = 0) -> list[tuple[str, float]]:
        """Returns the k parts with the largest absolute contributions of one row: name and value."""
        values = self.values[:, row]
        order = values.abs().topk(min(k, len(values))).indices.tolist()
        return [(self.names[index], float(values[index])) for index in order]

    def __str__(self) -> str:
        return "\n\n".join(self._row(row) for row in range(self.values.shape[1]))

    def _row(self, row: int) -> str:
        logit = f"logit of {self.tokens[row]!r}"
        logit += f" minus that of {self.against[row]!r}" if self.against else ""
        rest = [f"{name} {number(float(self[name][row]))}" for name in (EMBEDDING, BIAS)]
        end = ", ".join([*rest, f"sum {number(float(self.logit[row]))}"])
        return f"{logit} after {self.context[row]!r}\n{self.grid(row)}\n{end}"


def direct_logit_attribution(
    model: Model,
    inputs: Inputs,
    tokens: Token | Sequence[Token],
    against: Token | Sequence[Token] | None = None,
    *,
    position: int | Sequence[int] = -1,
    tokenizer: Tokenizer | None = None,
) -> DirectLogitAttribution:
    """Splits a logit, or the difference of two, into the contributions of the parts of the model.

    Parts are the embedding, every attention head, every feed-forward network, and one bias: that of the final
    norm, the output projections of the attention and the head together. The scale of the final norm, and of
    norms at the end of a branch, is held fixed. Of an encoder-decoder the parts are those of the decoder. If
    the model caps its logits, this is the logit before the cap.

    Args:
        model: with a head over the vocabulary, and norms within its branches (norm_placement "pre",
            "sandwich" or "branch").
        inputs: a text or texts, ids (B, T), or the arguments of a forward by name.
        tokens: whose logit: an id, a spelling in the vocabulary or a text that is one token; one for all rows
            or a list.
        against: whose logit is subtracted, likewise; None: nothing is.
        position: where the logit is; one for all rows or a list. Negative ones are counted from the end of a
            row, before its padding.
        tokenizer: for texts, and for the names of tokens.

    Returns:
        The contributions, in float64; their sum is the logit.

    Raises:
        ArgumentTypeError, ArgumentValueError: a post-norm model, since each of its norms changes the sum of
            all parts before it; a head with a layer of its own before the projection; inputs or tokens that
            do not fit.

    Example:
        >>> parts = minitx.inspect.direct_logit_attribution(
        ...     model, "Mary and John went home. John gave a book to", " Mary", " John", tokenizer=tokenizer
        ... )
        >>> parts.top(3)
    """
    arguments = prepare(model, inputs, tokenizer)
    check_linear_end(model)
    stack = stack_of(model, None)
    branches = [*_branches(model, stack)]
    first, last = f"{stack}.layers.0.residual.before", branches[-1].layer
    final = f"{stack}.layers.{last}.residual.after"
    with record(model, first, final, *(branch.place for branch in branches)) as seen, torch.no_grad():
        run(model, arguments)
    rows, time = first_call(seen, first).shape[:2]
    places = positions_of_rows(position, rows, time, mask_of(model, arguments, stack))
    size = model.head.projection.out_features  # type: ignore[union-attr]
    index = torch.arange(rows), places

    def _at(name: str, branch: Branch | None = None) -> Tensor:
        value = first_call(seen, name)
        value = value.transpose(1, 2) if branch is not None and branch.is_attention else value
        return value[index].double()  # (B, E), (B, F) or (B, H, D)

    chosen = [token_ids_of_rows("tokens", tokens, tokenizer, size, rows)]
    if against is not None:
        chosen.append(token_ids_of_rows("against", against, tokenizer, size, rows))
    with torch.no_grad():
        parts = {EMBEDDING: _at(first)}
        bias = torch.zeros_like(parts[EMBEDDING])
        for branch in branches:
            contributions, branch_bias = branch.split(_at(branch.place, branch))
            parts |= contributions
            bias = bias + branch_bias
        parts[BIAS] = bias
        stream = _at(final)
        check_sum(torch.stack([*parts.values()]), stream, model.dtype)
        values = _logits_of_parts(model, torch.stack([*parts.values()]), stream, chosen)
    ids = ids_of(model, arguments, stack)
    names = names_of_rows(ids, tokenizer, (rows, time))
    return DirectLogitAttribution(
        values=values,
        names=tuple(parts),
        logit=values.sum(dim=0),
        tokens=tuple(spelling(token, tokenizer) for token in chosen[0].tolist()),
        against=tuple(spelling(token, tokenizer) for ids in chosen[1:] for token in ids.tolist()),
        context=_at_positions(names, places.tolist()),
    )


def _at_positions(names: TokenNames, places: list[int]) -> tuple[str, ...]:
    return tuple(row[place] for row, place in zip(names, places, strict=True))


def check_linear_end(model: Model) -> None:
    """Checks that the logits of a model are a linear function of its parts, for fixed scales of the norms.

    Raises:
        ArgumentTypeError: a custom stack.
        ArgumentValueError: a post-norm model, or a head with a layer of its own.
    """
    check_vocabulary_head(model)
    config = getattr(model.config, model.families[-1])
    if config.layer.norm_placement == "post" or config.layer.residual_after_norm:
        raise ArgumentValueError(
            "model",
            model,
            "pre-norm, with a residual stream that is the sum of its parts; this one normalises the stream "
            "itself after every layer, so that a part's share of a logit depends on all the others",
            "patching_grid measures the effect of a part in any model",
        )
    if not isinstance(model.stack, Stack):
        raise ArgumentTypeError("model", model.stack, "a model with a stack of minitx")
    if model.head.config.transform is not None:  # type: ignore[union-attr]
        expected = "one whose head is a projection; this one has a layer with an activation before it"
        raise ArgumentValueError("model", model, expected, "logit_lens and patching_grid work with any head")


def check_sum(parts: Tensor, stream: Tensor, dtype: torch.dtype) -> None:
    """Checks that the parts sum up to the residual stream, but for rounding: (parts, B, E), (B, E).

    Raises:
        ValueError: they do not; an edit has changed the stream itself, or a layer has other parts.
    """
    size = parts.norm(dim=-1).sum(dim=0)
    error = ((parts.sum(dim=0) - stream).norm(dim=-1) / size).max()
    if float(error) > torch.finfo(dtype).eps ** 0.5:
        raise ValueError(
            "The heads and networks do not sum up to the residual stream: an edit such as steer() changes it "
            "inside this call, or a layer has been replaced by one with other parts."
        )


@dataclass(frozen=True)
class Branch:
    """A branch of a layer.

    Attributes:
        layer: its number.
        kind: "head", "cross" or "feed_forward".
        place: name of the value before the end of the branch.
        output: the end of the branch.
    """

    layer: int
    kind: str
    place: str
    output: Output

    @property
    def is_attention(self) -> bool:
        """Whether the value has a dimension of heads."""
        return self.kind != "feed_forward"

    def split(self, value: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the parts of the branch, and its bias: (B, H, D) or (B, F) -> (B, E) each.

        The bias of a feed-forward network belongs to the network.
        """
        flat = value.flatten(1)
        matrix, bias = affine(self.output.dense, flat.shape[1], flat)
        total = flat @ matrix + bias
        through, norm_bias = frozen_norm(self.output.branch_norm, total)
        scale = self.output.branch_scale
        if not self.is_attention:
            whole = scale * (through(total) + norm_bias)
            return {f"{self.layer}.{self.kind}": whole}, torch.zeros_like(whole)
        _, heads, width = value.shape
        parts = torch.einsum("bhd,hde->hbe", value, matrix.view(heads, width, -1))
        named = {f"{self.layer}.{self.kind}.{head}": scale * through(part) for head, part in enumerate(parts)}
        return named, scale * (through(bias.expand_as(total)) + norm_bias)


def _branches(model: Model, stack: str) -> Iterator[Branch]:
    """Yields the branches of the layers, in the order in which they run."""
    module: Any = model.get_submodule(stack)
    for index in range(num_layers(model, stack)):
        layer = module.layers[module.layer_order[index]]
        assert isinstance(layer, Layer), "a Stack makes layers of this class"
        path = f"{stack}.layers.{index}"
        yield Branch(index, "head", f"{path}.attention.self_attention.mixed", layer.attention.self_output)
        if "cross_attention" in layer._modules:
            name = f"{path}.cross_attention.cross_attention.mixed"
            yield Branch(index, "cross", name, layer.cross_attention.cross_output)
        yield Branch(index, "feed_forward", f"{path}.intermediate", layer.output)


def affine(function: Any, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns matrix (size, E) and bias (E,) of a module that is an affine function, in the dtype of `like`.

    Evaluated instead of read, so that projections with an adapter are no exception.
    """
    parameter = next(function.parameters(), None) if isinstance(function, nn.Module) else None
    dtype = like.dtype if parameter is None else parameter.dtype
    forward = getattr(function, "forward", function)  # without hooks
    inputs = torch.eye(size + 1, size, dtype=dtype, device=like.device)  # the last row is zero
    outputs = forward(inputs).to(like.dtype)
    return outputs[:-1] - outputs[-1], outputs[-1]


def frozen_norm(norm: Any, value: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Returns a norm as a linear function, with its scale held at that of a value, and its bias.

    Args:
        norm: LayerNorm, RMSNorm, or none.
        value: (..., E)

    Raises:
        ArgumentTypeError: another norm.
    """
    none = torch.zeros_like(value[..., :1])
    if norm is None or not isinstance(norm, nn.Module):
        return (lambda part: part), none
    if isinstance(norm, RMSNorm):
        weight = norm.weight.to(value.dtype) + norm.offset
        scale = torch.rsqrt(value.square().mean(dim=-1, keepdim=True) + norm.eps)
        return (lambda part: part * scale * weight), none
    if not isinstance(norm, nn.LayerNorm):
        raise ArgumentTypeError("model", norm, "a model with LayerNorm or RMSNorm")
    spread = torch.rsqrt(value.var(dim=-1, unbiased=False, keepdim=True) + norm.eps)
    gain = norm.weight.to(value.dtype)
    bias = none if norm.bias is None else norm.bias.to(value.dtype)
    return (lambda part: (part - part.mean(dim=-1, keepdim=True)) * spread * gain), bias


def _logits_of_parts(model: Any, parts: Tensor, total: Tensor, tokens: list[Tensor]) -> Tensor:
    """Applies the end of the model to each part; the last one is the bias.

    Args:
        model: with a linear end.
        parts: (parts, B, E)
        total: the residual stream that they sum up to: (B, E).
        tokens: of each row: those of the logit, and those of the one that is subtracted.

    Returns:
        (parts, B)
    """
    stack, head = model.stack, model.head
    through, norm_bias = frozen_norm(stack.layer_norm, total)
    normed = through(parts)
    normed[-1] += norm_bias
    projection, _ = affine(stack.projection, normed.shape[-1], total)
    scale = 1.0 if head.config.scale is None else head.config.scale
    inputs = scale * (normed @ projection)  # (parts, B, W)
    weight = head.projection.weight.to(total.dtype)
    logits = torch.zeros(parts.shape[:2], dtype=total.dtype, device=total.device)
    for sign, ids in zip((1, -1), tokens, strict=False):
        logits += sign * torch.einsum("pbe,be->pb", inputs, weight[ids])
        if head.projection.bias is not None:
            logits[-1] += sign * head.projection.bias.to(total.dtype)[ids]
    return logits
