"""Causal language modelling: predict each token after those before it, with documents packed into rows.

Packing fills rows with several documents, so that little of a batch is padding. A token attends only to its
own document, positions begin anew with each, and a document's first token is not predicted from the document
before it: every document has the loss that it would have in a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch

from minitx.tokenizer.batch import pad
from minitx.training.objectives.base import IGNORED, Batch, Example, Objective
from minitx.training.objectives.batching import (
    as_row,
    check_optional_integers,
    check_rows,
    check_same_length,
    collate,
    encode,
    padding_id,
)

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


class Document(NamedTuple):
    """A sequence of its own in a row.

    Attributes:
        ids: token ids.
        labels: as many, -100 where nothing is predicted; the first is not predicted in any case.
    """

    ids: list[int]
    labels: list[int]


def split_documents(ids: Sequence[int], document_ids: Sequence[int]) -> list[list[int]]:
    """Splits ids where the number of their document changes.

    Args:
        ids: of several documents, one after another.
        document_ids: number of each token's document.
    """
    pairs = groupby(zip(ids, document_ids, strict=True), key=lambda pair: pair[1])
    return [[index for index, _ in document] for _, document in pairs]


def pack(documents: Sequence[Document], length: int) -> list[list[Document]]:
    """Distributes documents over rows of at most `length` tokens.

    A longer document is cut into parts of that length, which are documents from then on. The longest are
    placed first, each in the first row with room ("first fit decreasing", which needs at most 11/9 of the
    fewest possible rows, and one more).

    Args:
        documents: of at least one token each.
        length: of the rows.

    Returns:
        The documents of each row.
    """
    parts = [
        Document(ids[start : start + length], labels[start : start + length])
        for ids, labels in documents
        for start in range(0, len(ids), length)
    ]
    rows: list[list[Document]] = []
    room: list[int] = []
    for part in sorted(parts, key=lambda part: len(part.ids), reverse=True):
        index = next((i for i, free in enumerate(room) if free >= len(part.ids)), len(rows))
        if index == len(rows):
            rows.append([])
            room.append(length)
        rows[index].append(part)
        room[index] -= len(part.ids)
    return rows


def causal_batch(rows: Sequence[Sequence[Document]], pad_token_id: int) -> Batch:
    """Returns the batch of rows of documents.

    Args:
        rows: the documents of each row.
        pad_token_id: id of padding, which attends to padding alone.

    Returns:
        `input_ids` and `labels` (B, T), and `attention_mask` (B, T). With several documents in a row,
        `position_ids` (B, T) too, and the mask is (B, T, T), True within a document; a decoder adds that no
        token attends to later ones.

    Raises:
        ArgumentValueError: no rows.
    """
    check_rows([{}] * len(rows))
    ids = [[index for document in row for index in document.ids] for row in rows]
    labels = [[x for document in row for x in (IGNORED, *document.labels[1:])] for row in rows]
    joined = [{"input_ids": x, "labels": y} for x, y in zip(ids, labels, strict=True)]
    batch = collate(joined, pad_token_id)
    if all(len(row) == 1 for row in rows):
        return batch
    positions = [[place for document in row for place in range(len(document.ids))] for row in rows]
    numbers = [[n for n, document in enumerate(row) for _ in document.ids] for row in rows]
    document = pad(numbers, -1)
    mask = document[:, :, None] == document[:, None, :]
    return batch | {"attention_mask": mask, "position_ids": pad(positions, 0)}


@dataclass(frozen=True)
class CausalLM(Objective):
    """Causal language modelling of decoders with head="causal-lm".

    Examples have `input_ids`, or a `text`, to which the end token is added. A block of tokens from several
    documents has `document_ids` too, as those of `TokenBlocks`.

    Attributes:
        tokenizer: of texts; None if all examples have ids.
        length: pack the documents of a batch into rows of this many tokens; None: one example per row.
    """

    task = "causal-lm"
    tokenizer: Tokenizer | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        check_optional_integers(2, length=self.length)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids`, `attention_mask` and `labels`, of rows with several documents `position_ids`.

        Args:
            examples: documents, or blocks of them.
            generator: not used.

        Raises:
            ArgumentTypeError, ArgumentValueError: neither ids nor text, or an example without tokens.
        """
        rows = [self.documents(example, index) for index, example in enumerate(examples)]
        if self.length is not None:
            rows = pack([document for row in rows for document in row], self.length)
        return causal_batch(rows, padding_id(self.tokenizer))

    def documents(self, example: Example, index: int) -> list[Document]:
        """Returns the documents of one example; `index` is its place in the batch, for messages."""
        ids = encode(example, index, self.tokenizer)["input_ids"]
        end = None if self.tokenizer is None or "input_ids" in example else self.tokenizer.eos_token_id
        if end is not None and ids[-1] != end:
            ids = [*ids, end]
        numbers = example.get("document_ids")
        if numbers is None:
            return [Document(ids, ids)]
        numbers = as_row(name := f"examples[{index}]['document_ids']", numbers)
        check_same_length(name, numbers, ids, "input_ids")
        parts = split_documents(ids, numbers)
        return [Document(part, part) for part in parts]
