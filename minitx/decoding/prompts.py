"""What `generate` is given, as rows of ids; and rows of any lengths as one batch, padded on the left.

B prompts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

Prompts = str | Sequence[str] | Sequence[Sequence[int]] | Sequence[Tensor] | Tensor


class PaddedBatch(NamedTuple):
    """Prompts of different lengths side by side.

    Attributes:
        input_ids: (B, T) long, padded on the left, so that every row continues at its end.
        attention_mask: (B, T) bool, False at padding; None where there is none.
        position_ids: (B, T) long, each row's own count from 0; None without padding.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor | None


def read_prompts(
    prompts: Prompts,
    *,
    vocab_size: int,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    bos: int | None = None,
    as_target: bool = False,
    name: str = "prompt",
    use: str = "continue",
) -> list[list[int]]:
    """The ids of each prompt, without padding.

    Args:
        prompts: a text, texts, lists of ids of any lengths, or a (B, T) tensor or array.
        vocab_size: how many ids the model knows.
        tokenizer: for texts, which get the special tokens that it frames texts with.
        attention_mask: (B, T) of a tensor: 1 or True at tokens, 0 or False at padding, on whichever side.
        as_target: texts are what an encoder-decoder writes, not what it reads.
        bos: what an empty prompt could begin with, for the error.
        name, use: what a prompt is called, and what is done with it, for the error; the argument is called
            so as well, "prompts", "decoder_prompts".

    Raises:
        TypeError: something else than prompts, or than a tensor as their mask.
        ValueError: none at all, an empty one, ids outside the vocabulary, texts without a tokenizer, a mask
            that does not fit.
    """
    argument = name.replace(" ", "_") + "s"
    if isinstance(prompts, Tensor):
        rows = _of_tensor(prompts, attention_mask, argument)
    elif attention_mask is not None:
        raise ValueError(
            f"attention_mask= goes with {argument} as a (batch, time) tensor; lists of ids need no padding."
        )
    else:
        rows = _of_list(prompts, tokenizer, as_target, name, argument)
    if not rows:
        raise ValueError(f"There are no {name}s; expected at least one.")
    for number, row in enumerate(rows):
        if not row:
            hint = f"; this model's texts begin with token {bos}: give [[{bos}]]" if bos is not None else ""
            raise ValueError(f"{name.capitalize()} {number} has no tokens; there must be one to {use}{hint}.")
        low, high = min(row), max(row)
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"{name.capitalize()} {number} holds the id {low if low < 0 else high}, but the model knows "
                f"the ids 0 to {vocab_size - 1}; is the tokenizer another model's?"
            )
    return rows


def check_tokenizer(tokenizer: Any) -> None:
    """
    Raises:
        TypeError: neither None nor a tokenizer.
    """
    if tokenizer is None:
        return
    from minitx.tokenizer import Tokenizer  # imported already, by whoever made one

    if not isinstance(tokenizer, Tokenizer):
        kind = type(tokenizer).__name__
        raise TypeError(f"tokenizer is a {kind}; minitx.load_tokenizer(...) makes one.")


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> PaddedBatch:
    """(B, T) out of rows of any lengths; `pad` is the id that fills, which nothing attends to."""
    longest = max(map(len, rows))
    if all(len(row) == longest for row in rows):
        return PaddedBatch(torch.tensor(rows, dtype=torch.long, device=device), None, None)
    filled = [[pad] * (longest - len(row)) + list(row) for row in rows]
    start = torch.tensor([longest - len(row) for row in rows], device=device)[:, None]
    columns = torch.arange(longest, device=device)
    return PaddedBatch(
        input_ids=torch.tensor(filled, dtype=torch.long, device=device),
        attention_mask=columns >= start,
        position_ids=(columns - start).clamp(min=0),
    )


def padded_behind(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The same for texts that nothing goes on from: ids (B, S), padded on the right, and their mask."""
    longest = max(map(len, rows))
    filled = [list(row) + [pad] * (longest - len(row)) for row in rows]
    ids = torch.tensor(filled, dtype=torch.long, device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
    equal = all(len(row) == longest for row in rows)
    return ids, None if equal else torch.arange(longest, device=device) < lengths


def _of_tensor(prompts: Tensor, attention_mask: Tensor | None, argument: str) -> list[list[int]]:
    if prompts.dim() != 2 or prompts.is_floating_point() or prompts.dtype == torch.bool:
        raise ValueError(
            f"{argument} is a tensor of shape {tuple(prompts.shape)} and {prompts.dtype}; expected whole "
            "numbers of shape (batch, time)."
        )
    if attention_mask is None:
        return list(prompts.tolist())
    if not isinstance(attention_mask, Tensor):
        raise TypeError(
            f"attention_mask is a {type(attention_mask).__name__}; expected a tensor of the shape of "
            f"{argument}, {tuple(prompts.shape)}."
        )
    if attention_mask.shape != prompts.shape or not bool(
        ((attention_mask == 0) | (attention_mask == 1)).all()
    ):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; expected 1 (a token) or 0 (padding) "
            f"for each id of {argument}, {tuple(prompts.shape)}."
        )
    masks = attention_mask.bool().cpu()
    return [row[mask].tolist() for row, mask in zip(prompts.cpu(), masks, strict=True)]


def _of_list(
    prompts: Any, tokenizer: Tokenizer | None, as_target: bool, name: str, argument: str
) -> list[list[int]]:
    given = prompts.tolist() if hasattr(prompts, "tolist") else prompts  # of numpy
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, bytes) or not isinstance(texts, Sequence):
        kind, hint = type(prompts).__name__, ""
        if isinstance(prompts, Mapping) and "input_ids" in prompts:  # what a tokenizer makes of texts
            masked = " with attention_mask=" if argument in ("prompts", "texts") else ""
            hint = f" Give the texts themselves, or batch['input_ids']{masked}."
        raise TypeError(
            f"{argument} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}; expected a text, texts, lists of "
            f"ids or a tensor of ids.{hint}"
        )
    if all(isinstance(text, str) for text in texts):
        if texts and tokenizer is None:
            raise ValueError(
                f"{name.capitalize()}s as text need tokenizer=; or give their ids, a list for each."
            )
        if tokenizer is None:
            return []
        return [tokenizer.encode(text, as_target=as_target) for text in texts]
    rows = []
    for number, row in enumerate(texts):
        ids = row.tolist() if hasattr(row, "tolist") else row
        if isinstance(ids, str | bytes) or not isinstance(ids, Sequence):
            raise TypeError(
                f"{argument}[{number}] is {row!r:.40} ({type(row).__name__}) among lists of ids; expected "
                f"all texts, or a list of ids for each {name}: [[5, 6]] for a single one."
            )
        if not all(isinstance(token, Integral) and not isinstance(token, bool) for token in ids):
            raise TypeError(
                f"{argument}[{number}] holds something else than ids, whole numbers: {ids!r:.60}."
            )
        rows.append([int(token) for token in ids])
    return rows
