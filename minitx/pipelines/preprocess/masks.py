"""Windows around the masks of a text, and the tokens that may fill them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from minitx.pipelines.text_task import TextInput
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, warn


class Masks(NamedTuple):
    """Masks of a text, as `TextInput.label`.

    Attributes:
        ids: token ids of the whole text.
        start: number of tokens of the text that a window leaves out before its first one.
        positions: of the window's masks, in the window.
    """

    ids: Sequence[int]
    start: int
    positions: list[int]


def label_masks(item: TextInput, mask: int | None) -> TextInput:
    """Returns a sequence that is all of its text with its `Masks` as label, the places of the id `mask`."""
    positions = [position for position, index in enumerate(item.input_ids) if index == mask]
    return replace(item, label=Masks(item.input_ids, 0, positions))


def windows(whole: TextInput, masks: Sequence[int], limit: int) -> list[TextInput]:
    """Returns a window around each mask, with the special tokens around the text; equal ones once.

    Args:
        whole: the text, without truncation.
        masks: positions of its masks.
        limit: number of tokens of a window.

    Raises:
        ArgumentValueError: a limit that leaves no room for text.
    """
    assert whole.encoding is not None
    special = whole.encoding.special_tokens_mask
    first, last = special.index(0), len(special) - special[::-1].index(0)  # of the text
    room = limit - first - (len(whole) - last)
    if room < 1:
        hint = f"{limit - room} tokens of each text are special"
        raise ArgumentValueError("max_length", limit, f"at least {limit - room + 1}", hint)
    shared: dict[int, list[int]] = {}
    for mask in masks:
        start = min(max(mask - room // 2, first), last - room)
        shared.setdefault(start, []).append(mask - start + first)
    return [
        TextInput(
            arguments={
                name: [*ids[:first], *ids[start : start + room], *ids[last:]]
                for name, ids in whole.arguments.items()
            },
            label=Masks(whole.input_ids, start - first, positions),
        )
        for start, positions in shared.items()
    ]


def target_ids(
    tokenizer: Tokenizer, targets: Sequence[str] | str | None, *, notes: bool = False
) -> list[int] | None:
    """Returns the ids of the targets, ascending; None without any.

    Args:
        tokenizer: of the model.
        targets: tokens, or words that stand for their first token.
        notes: warn about words that are not tokens.

    Raises:
        ArgumentValueError: none of them has a token.
    """
    if targets is None:
        return None
    ids = set()
    for target in [targets] if isinstance(targets, str) else targets:
        index = tokenizer.token_to_id(target)
        if index is None:
            parts = tokenizer.encode(target, add_special_tokens=False)
            instead = f"its first token {tokenizer.id_to_token(parts[0])!r} is used" if parts else ""
            if notes:
                warn(f"The target {target!r} is not a token of the model; {instead or 'it is left out'}.")
            if not parts:
                continue
            index = parts[0]
        ids.add(index)
    if not ids:
        raise ArgumentValueError("targets", targets, "at least one token of the model")
    return sorted(ids)
