"""Checks of a tokenizer.json, whose errors would otherwise appear only in use, or abort the process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

LARGEST_ID = 10**7 - 1  # saving takes memory for each id up to the largest
_LARGEST_GROWTH = 2_000
# Characters of a normalized character. A table of sentencepiece may have more, but is stated once.
_GROWTHS = {"Precompiled": 18, "NFKC": 18, "NFKD": 18, "NFC": 3, "NFD": 4}


def check_ids(backend: Backend, path: Path) -> None:
    """Checks the ids of a vocabulary.

    Raises:
        ValueError: one that is larger than those of any model.
    """
    token, index = max(backend.get_vocab().items(), key=lambda item: item[1], default=("", 0))
    if index > LARGEST_ID:
        raise ValueError(f"{path}: the token {token!r:.60} has id {index}; ids must be at most {LARGEST_ID}.")


def check_parts(backend: Backend, path: Path) -> None:
    """Checks normalizer, decoder and post-processor of a tokenizer.json.

    Raises:
        ValueError: replacements that make a text far longer, or special tokens of unknown ids.
    """
    for name in ("normalizer", "decoder"):
        growth = 1.0
        for part in _parts(getattr(backend, name)):
            growth *= _growth(part)
        if growth > _LARGEST_GROWTH:
            raise ValueError(
                f"{path}: the replacements of its {name} can make a text {growth:,.0f} times as long; "
                f"at most {_LARGEST_GROWTH} times is accepted."
            )
    for part in _parts(backend.post_processor):
        for token, index in _special_ids(part):
            if backend.id_to_token(index) is None:
                raise ValueError(
                    f"{path}: its post_processor adds {token!r:.60} as id {index}, which no token has."
                )


def _parts(component: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the parts of a component of a tokenizer, those of sequences one by one."""
    waiting = [] if component is None else [json.loads(component.__getstate__())]
    while waiting:
        part = waiting.pop()
        if part["type"] == "Sequence":
            waiting += next(value for value in part.values() if isinstance(value, list))
        else:
            yield part


def _growth(part: Mapping[str, Any]) -> float:
    """Returns the factor by which one part can make a text longer."""
    if part["type"] != "Replace":
        return _GROWTHS.get(part["type"], 1)
    text = part["pattern"].get("String")
    if text:
        return max(1.0, len(part["content"]) / len(text))
    return 1.0 + len(part["content"])  # of a regular expression, which may match between characters


def _special_ids(part: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yields the special tokens that a part of the post-processor adds, with their ids."""
    if part["type"] == "TemplateProcessing":
        for name, token in part["special_tokens"].items():
            yield from ((name, index) for index in token["ids"])
    elif part["type"] in ("BertProcessing", "RobertaProcessing"):
        yield from (part["sep"], part["cls"])
