"""Scores of attention heads on repeated random tokens: induction, previous token, duplicate token.

After arXiv:2209.11895: on a random sequence that is repeated, only the first occurrence tells which token
follows; a head that attends there from the second one is an induction head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from minitx.inspect.analysis.table import Grid
from minitx.inspect.inputs import check_eval, prefix_of
from minitx.inspect.taps import record
from minitx.inspect.taps.edit import num_layers, stack_of
from minitx.models import Model
from minitx.validation import ArgumentValueError, check_integer, check_integer_dtype, check_token_ids


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadScores:
    """The mean attention weight of every head at three places, between 0 and 1; `print` shows them.

    Attributes:
        induction: (layers, heads), from the second occurrence of a token to the one after its first.
        duplicate_token: from the second occurrence of a token to its first.
        previous_token: from each token to the one before it.
        tokens: (rows, T), the sequences.
        axes: names of the axes of each score.
    """

    axes: ClassVar[tuple[str, ...]] = ("layer", "head")
    induction: Tensor
    duplicate_token: Tensor
    previous_token: Tensor
    tokens: Tensor

    def grid(self, name: str) -> Grid:
        """Returns one score as a table of layers and heads.

        Args:
            name: "induction", "duplicate_token" or "previous_token".

        Raises:
            ArgumentValueError: another name.
        """
        if name not in KINDS:
            raise ArgumentValueError("name", name, f"one of {', '.join(map(repr, KINDS))}")
        values: Tensor = getattr(self, name)
        layers, heads = values.shape
        return Grid(
            values=values,
            axes=("layer", "head"),
            rows=tuple(map(str, range(layers))),
            columns=tuple(map(str, range(heads))),
            title=name.replace("_", " "),
        )

    def __str__(self) -> str:
        return "\n\n".join(str(self.grid(name)) for name in KINDS)


KINDS = ("induction", "duplicate_token", "previous_token")


def head_scores(
    model: Model,
    *,
    length: int = 24,
    rows: int = 4,
    seed: int = 0,
    first_token: int | None = None,
    tokens: Tensor | None = None,
    stack: str | None = None,
) -> HeadScores:
    """Measures where every head attends on random tokens that are repeated once.

    Args:
        model: the model; of a model with an encoder and a decoder both get the sequence.
        length: number of different tokens before they are repeated.
        rows: number of sequences.
        seed: of the random tokens; the padding token is not among them.
        first_token: id of a token before the sequence, such as the start token; None: no such token.
        tokens: (rows, length) instead of random ones, without the repetition; each token once in a row.
        stack: "encoder" or "decoder" of a model with both; None: the decoder.

    Returns:
        The scores.

    Raises:
        ArgumentTypeError, ArgumentValueError: a vocabulary with fewer tokens, a token that is repeated.

    Example:
        >>> scores = minitx.inspect.head_scores(model, first_token=tokenizer.bos_token_id)
        >>> scores.grid("induction").top(3)
    """
    check_eval(model)
    name = stack_of(model, stack)
    once = _random(model, name, length, rows, seed) if tokens is None else _checked(tokens)
    rows, length = once.shape
    ids = torch.cat((once, once), dim=1)
    skip = 0 if first_token is None else 1
    if first_token is not None:
        ids = torch.cat((ids.new_full((rows, 1), check_integer("first_token", first_token)), ids), dim=1)
    ids = ids.to(model.device)
    arguments = {f"{prefix_of(model, stack)}input_ids": ids for stack in model.families}
    places = [f"{name}.layers.{n}.attention.self_attention.weights" for n in range(num_layers(model, name))]
    with record(model, *places) as seen, torch.no_grad():
        model(**arguments)
    weights = [seen.calls(place)[0][:, :, skip:, skip:] for place in places]  # (rows, H, 2n, 2n) each
    return HeadScores(
        induction=_mean_at(weights, range(length, 2 * length), length - 1),
        duplicate_token=_mean_at(weights, range(length, 2 * length), length),
        previous_token=_mean_at(weights, range(1, 2 * length), 1),
        tokens=ids,
    )


def _mean_at(weights: list[Tensor], queries: range, distance: int) -> Tensor:
    """Returns the mean weight of the keys at a distance before the queries: (layers, H)."""
    index = torch.tensor(queries, device=weights[0].device)
    return torch.stack([layer[:, :, index, index - distance].mean(dim=(0, 2)) for layer in weights])


def _random(model: Model, stack: str, length: int, rows: int, seed: int) -> Tensor:
    """Returns random tokens, each at most once in a row: (rows, length)."""
    length, rows = check_integer("length", length, 2), check_integer("rows", rows, 1)
    check_integer("seed", seed)
    config = model.get_submodule(f"{prefix_of(model, stack)}embedder").config
    pad, size = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", 0)
    allowed = torch.tensor([token for token in range(size) if token != pad])
    if length > len(allowed):
        raise ArgumentValueError("length", length, f"at most {len(allowed)}, the number of tokens")
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [allowed[torch.randperm(len(allowed), generator=generator)[:length]] for _ in range(rows)]
    )


def _checked(tokens: Tensor) -> Tensor:
    """Checks that the tokens are (rows, length), each once in a row."""
    check_integer_dtype("tokens", check_token_ids("tokens", tokens))
    if tokens.shape[1] < 2 or any(len({*row}) < len(row) for row in tokens.tolist()):
        expected = "at least two tokens, each once in a row"
        raise ArgumentValueError("tokens", tokens, expected, "they are repeated here")
    return tokens
