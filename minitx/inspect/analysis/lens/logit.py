"""The logit lens: the head of the model, applied to the residual stream after every layer.

After nostalgebraist, "interpreting GPT: the logit lens" (2020), and arXiv:2303.08112, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.inspect.analysis.table import CELL, render_table, shorten
from minitx.inspect.inputs import Inputs, check_vocabulary_head, ids_of, mask_of, prepare, run
from minitx.inspect.taps import Record, record
from minitx.inspect.taps.edit import num_layers, stack_of
from minitx.inspect.tokens import Token, TokenNames, names_of_rows, spelling, token_id
from minitx.layers.disentangled import DisentangledStack
from minitx.layers.stack import Stack
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_integer

EMBEDDING = "embedding"


# Changes the residual stream before the head, such as a `TunedLens`:
# (B, T, E), number of the value from 0 for the embedding -> (B, T, E)
Translator = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitLens:
    """The logits of every layer; `print` shows the most probable token of each layer and position.

    Attributes:
        logits: (N + 1, B, T, V), of the embedding, after each of the N layers; the last are the model's own.
        layers: names of the first axis: "embedding", "0", "1", ...
        tokens: names of the tokens at the positions, row by row.
        positions: of the tokens, (T,).
        tokenizer: names the tokens of the vocabulary; None: they are shown by id.
        axes: names of the axes of `logits`.
    """

    axes: ClassVar[tuple[str, ...]] = ("layer", "row", "position", "token")
    logits: Tensor
    layers: tuple[str, ...]
    tokens: TokenNames
    positions: tuple[int, ...]
    tokenizer: Tokenizer | None = None

    @property
    def probabilities(self) -> Tensor:
        """The distributions: (N + 1, B, T, V)."""
        return self.logits.softmax(dim=-1)

    @property
    def entropy(self) -> Tensor:
        """Entropy of the distributions in nats: (N + 1, B, T)."""
        logs = self.logits.log_softmax(dim=-1)
        return -(logs.exp() * logs).sum(dim=-1)

    @property
    def divergence(self) -> Tensor:
        """KL divergence of the last distribution from that of each layer, in nats: (N + 1, B, T)."""
        logs = self.logits.log_softmax(dim=-1)
        return (logs[-1].exp() * (logs[-1] - logs)).sum(dim=-1)

    def probability(self, token: Token) -> Tensor:
        """Returns the probability of a token: (N + 1, B, T).

        Args:
            token: its id, its spelling in the vocabulary or a text that is one token.

        Raises:
            ArgumentTypeError, ArgumentValueError: a token that is not in the vocabulary.
        """
        return self.probabilities[..., self._id(token)]

    def rank(self, token: Token) -> Tensor:
        """Returns the number of tokens with a larger logit than this one: (N + 1, B, T); 0 is the best.

        Args:
            token: its id, its spelling in the vocabulary or a text that is one token.

        Raises:
            ArgumentTypeError, ArgumentValueError: a token that is not in the vocabulary.
        """
        index = self._id(token)
        return (self.logits > self.logits[..., index, None]).sum(dim=-1)

    def top(self, k: int = 1) -> Tensor:
        """Returns the ids of the k most probable tokens, best first: (N + 1, B, T, k)."""
        return self.logits.topk(check_integer("k", k, 1, self.logits.shape[-1]), dim=-1).indices

    def table(self, row: int = 0) -> str:
        """Returns the most probable token of each layer and position as text, of one row of the batch.

        Raises:
            ArgumentTypeError, ArgumentValueError: a row that does not exist.
        """
        row = check_integer("row", row, 0, self.logits.shape[1] - 1)
        best, probabilities = self.top()[:, row, :, 0].tolist(), self.probabilities[:, row].amax(dim=-1)
        cells = [
            [
                f"{shorten(spelling(token, self.tokenizer), CELL - 1)} {percent(p)}"
                for token, p in zip(line, values, strict=True)
            ]
            for line, values in zip(best, probabilities.tolist(), strict=True)
        ]
        order = range(len(self.layers) - 1, -1, -1)  # the last layer on top, as the stream flows upwards
        names = [self.layers[i] for i in order]
        return render_table("layer", names, self.tokens[row], [cells[i] for i in order])

    def __str__(self) -> str:
        rows = self.logits.shape[1]
        title = "most probable token after each layer, and its probability in percent"
        return "\n\n".join([title, *(self.table(row) for row in range(rows))])

    def _id(self, token: Token) -> int:
        return token_id("token", token, self.tokenizer, self.logits.shape[-1])


def percent(probability: float) -> str:
    """Returns a probability in percent, in two columns, 99 at most."""
    return f"{min(round(100 * probability), 99):>2}"


def logit_lens(
    model: Model,
    inputs: Inputs,
    *,
    tokenizer: Tokenizer | None = None,
    positions: Sequence[int] | None = None,
    lens: Translator | None = None,
) -> LogitLens:
    """Applies the head to the residual stream of every layer: final norm, projection, scale and cap included.

    Of an encoder-decoder, the residual stream is that of the decoder.

    Args:
        model: with a head over the vocabulary: masked-lm, causal-lm or seq2seq-lm.
        inputs: a text or texts, ids (B, T), or the arguments of a forward by name.
        tokenizer: for texts, and for the names of tokens.
        positions: of the tokens to show; None: all. The logits of a large vocabulary take much memory.
        lens: a `TunedLens`, which translates each layer first; None: no translation.

    Returns:
        The logits.

    Raises:
        ArgumentTypeError, ArgumentValueError: a model without such a head, or in training mode; inputs that
            do not fit it; positions outside of the sequence.

    Example:
        >>> lens = minitx.inspect.logit_lens(model, "It was a dark", tokenizer=tokenizer)
        >>> print(lens)
        >>> lens.rank("night")[:, 0, -1]  # after each layer, at the last position
    """
    arguments = prepare(model, inputs, tokenizer)
    hidden = residual_stream(model, arguments)
    stack = stack_of(model, None)
    rows, time = hidden[0].shape[:2]
    selected = range(time) if positions is None else positions
    chosen = tuple(check_integer("positions", place, -time, time - 1) % time for place in selected)
    if not chosen:
        raise ArgumentValueError("positions", positions, "at least one position")
    parts = []
    with torch.no_grad():
        for layer, value in enumerate(hidden):
            value = value[:, list(chosen)]
            if lens is not None and layer < len(hidden) - 1:
                value = lens(value, layer)
            parts.append(unembed(model, value))
    names = names_of_rows(ids_of(model, arguments, stack), tokenizer, (rows, time))
    return LogitLens(
        logits=torch.stack(parts),
        layers=(EMBEDDING, *map(str, range(len(hidden) - 1))),
        tokens=tuple(tuple(row[position] for position in chosen) for row in names),
        positions=chosen,
        tokenizer=tokenizer,
    )


def residual_stream(model: Model, arguments: dict[str, Any]) -> list[Tensor]:
    """Returns the input of the first layer and the output of each one: (B, T, E) each.

    Args:
        model: with a head over the vocabulary.
        arguments: of its forward.

    Raises:
        ArgumentTypeError: a custom stack, whose end is unknown.
        ArgumentValueError: a model without such a head.
    """
    check_vocabulary_head(model)
    if not isinstance(model.stack, Stack | DisentangledStack):
        raise ArgumentTypeError("model", model.stack, "a model with a stack of minitx")
    names = stream_places(model, stack_of(model, None))
    with record(model, *names) as seen, torch.no_grad():
        run(model, arguments)
    return [first_call(seen, name) for name in names]


def first_call(seen: Record, name: str) -> Tensor:
    """Returns the value of the first forward."""
    return seen.calls(name)[0]


def stream_places(model: Model, stack: str) -> list[str]:
    """Returns the names of the input of the first layer and the output of each one."""
    count = num_layers(model, stack)
    names = [f"{stack}.layers.{layer}.residual.before" for layer in range(count)]
    return [*names, f"{stack}.layers.{count - 1}.residual.after"]


def unembed(model: Model, hidden: Tensor) -> Tensor:
    """Applies the end of the stack and the head: (B, T, E) -> (B, T, V)."""
    stack: Any = model.stack
    for name in ("layer_norm", "dropout", "projection"):
        part = getattr(stack, name, None)
        if part is not None:
            hidden = getattr(part, "forward", part)(hidden)  # not a forward of the model: no hooks
    head: Any = model.head
    logits: Tensor = head.forward(hidden, None, None)
    return logits


def real_positions(model: Model, arguments: dict[str, Any], hidden: Tensor) -> Tensor:
    """Returns which positions are not padding: (B, T) bool."""
    mask = mask_of(model, arguments, stack_of(model, None))
    return hidden.new_ones(hidden.shape[:2], dtype=torch.bool) if mask is None else mask
