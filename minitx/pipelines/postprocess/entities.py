"""Scores of tokens to entities: tokens to words, words to entities, windows to one text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

Strategy = Literal["none", "simple", "first", "average", "max"]
STRATEGIES = ("none", "simple", "first", "average", "max")
Entity = dict[str, Any]
Join = Callable[[list[str]], str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text.

    Attributes:
        word: the token, or its part of the text if it is unknown.
        scores: of the labels.
        start, end: of its part of the text, in characters.
        index: in its sequence, special tokens included.
        continues: whether it continues the word of the token before it.
    """

    word: str
    scores: Sequence[float]
    start: int
    end: int
    index: int
    continues: bool


def continues_word(token: str, start: int, end: int, text: str, prefix: str) -> bool:
    """Returns whether a token continues the word before it.

    Args:
        token: as in the vocabulary.
        start, end: of its part of the text.
        text: of the sequence.
        prefix: of tokens that continue a word; "" if tokens do not show it, and a word then ends at a space.
    """
    if prefix:
        return len(token) != end - start
    return start > 0 and " " not in text[start - 1 : start + 1]


def find_entities(
    tokens: Sequence[Token], labels: Mapping[int, str], strategy: Strategy, join: Join
) -> list[Entity]:
    """Returns the entities of a sequence, or its labelled tokens with the strategy "none".

    Args:
        tokens: without special tokens.
        labels: by index.
        strategy: "simple" groups tokens; "first", "average" and "max" label words, then group them.
        join: tokens to text.
    """
    if strategy in ("none", "simple"):
        entities = [_label_token(token, labels) for token in tokens]
    else:
        entities = [_label_word(word, labels, strategy, join) for word in _words(tokens)]
    return entities if strategy == "none" else group_entities(entities, join)


def _best(scores: Sequence[float], labels: Mapping[int, str]) -> tuple[str, float]:
    score = max(scores)
    return labels[scores.index(score)], score


def _label_token(token: Token, labels: Mapping[int, str]) -> Entity:
    label, score = _best(token.scores, labels)
    return {
        "entity": label,
        "score": score,
        "index": token.index,
        "word": token.word,
        "start": token.start,
        "end": token.end,
    }


def _words(tokens: Sequence[Token]) -> list[list[Token]]:
    """Divides tokens into words."""
    words: list[list[Token]] = []
    for token in tokens:
        if words and token.continues:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _label_word(tokens: Sequence[Token], labels: Mapping[int, str], strategy: str, join: Join) -> Entity:
    if strategy == "first":
        scores = tokens[0].scores
    elif strategy == "max":
        scores = max((token.scores for token in tokens), key=max)
    else:
        columns = zip(*(token.scores for token in tokens), strict=True)
        scores = [sum(column) / len(tokens) for column in columns]
    label, score = _best(scores, labels)
    word = join([token.word for token in tokens])
    return {"entity": label, "score": score, "word": word, "start": tokens[0].start, "end": tokens[-1].end}


def split_label(label: str) -> tuple[bool, str]:
    """Returns whether a label begins an entity, and its tag: B-PER begins a PER, I-PER and PER do not."""
    begins = label.startswith("B-")
    return begins, label[2:] if begins or label.startswith("I-") else label


def group_entities(entities: Sequence[Entity], join: Join) -> list[Entity]:
    """Joins neighbouring tokens or words of the same tag; each B- label begins an entity.

    Args:
        entities: dicts with entity, score, word, start and end.
        join: tokens to text.

    Returns:
        Dicts with entity_group, score (the mean), word, start and end.
    """
    groups: list[list[Entity]] = []
    last_tag = None
    for entity in entities:
        begins, tag = split_label(entity["entity"])
        if groups and tag == last_tag and not begins:
            groups[-1].append(entity)
        else:
            groups.append([entity])
        last_tag = tag
    return [
        {
            "entity_group": group[0]["entity"].split("-", 1)[-1],
            "score": sum(entity["score"] for entity in group) / len(group),
            "word": join([entity["word"] for entity in group]),
            "start": group[0]["start"],
            "end": group[-1]["end"],
        }
        for group in groups
    ]


def drop_labels(entities: Sequence[Entity], ignored: Sequence[str]) -> list[Entity]:
    """Returns the entities whose label or tag is not ignored."""
    return [e for e in entities if e.get("entity") not in ignored and e.get("entity_group") not in ignored]


def merge_overlapping(entities: Sequence[Entity]) -> list[Entity]:
    """Returns entities of overlapping windows by their start; of two that overlap, the longer one.

    The score decides between entities of the same length.
    """
    merged: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if merged and merged[-1]["start"] <= entity["start"] < merged[-1]["end"]:
            merged[-1] = max(merged[-1], entity, key=lambda e: (e["end"] - e["start"], e["score"]))
        else:
            merged.append(entity)
    return merged


def window_starts(lengths: Sequence[int], stride: int, *, from_end: bool = False) -> list[int]:
    """Returns the position in the text of each window's first token.

    Args:
        lengths: number of tokens of each window without special tokens, in the order of the tokenizer.
        stride: number of tokens by which neighbouring windows overlap.
        from_end: whether the first window is the end of the text (truncation on the left).
    """
    step = lengths[0] - stride
    if not from_end:
        return [step * number for number in range(len(lengths))]
    total = lengths[-1] + step * (len(lengths) - 1)
    return [total - step * number - length for number, length in enumerate(lengths)]


def stitch(windows: Sequence[tuple[int, Sequence[T]]]) -> list[T]:
    """Joins overlapping windows; a token in two windows is taken from the one with more context around it.

    Args:
        windows: position of the first token, and tokens. One begins at 0, the next ones where a window before
            ends or earlier.
    """
    ordered = sorted(windows, key=lambda window: window[0])
    cuts = [(right + left + len(tokens)) // 2 for (left, tokens), (right, _) in pairwise(ordered)]
    ends = [*cuts, ordered[-1][0] + len(ordered[-1][1])]
    joined: list[T] = []
    for (start, tokens), end in zip(ordered, ends, strict=True):
        joined += tokens[len(joined) - start : end - start]
    return joined
