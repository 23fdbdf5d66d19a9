"""Objectives of the heads that label: sequences, tokens, and the answer to a question in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minitx.training.objectives.base import IGNORED, Batch, Example, Objective
from minitx.training.objectives.batching import (
    Row,
    as_row,
    check_optional_integers,
    check_rows,
    check_same_length,
    collate,
    encode,
    entry,
    padding_id,
)
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_flags,
    check_integer,
    check_number,
    check_strings,
    check_type,
)

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


@dataclass(frozen=True)
class SequenceLabels(Objective):
    """Classification or regression of sequences, of models with head="sequence-classification".

    Examples have a `text`, and `pair` for a second one, or `input_ids`; and `labels`: the index of a class, a
    number in [0, 1] for each class with `multiple`, or with `num_labels=1` a number to predict, also as text.

    Attributes:
        tokenizer: of texts, and for the id of padding.
        num_labels: number of classes; 1 is regression.
        multiple: any number of classes per sequence.
        max_length: maximum number of tokens of a text; None: all of them.
    """

    task = "sequence-classification"
    tokenizer: Tokenizer
    num_labels: int
    multiple: bool = False
    max_length: int | None = None

    def __post_init__(self) -> None:
        check_integer("num_labels", self.num_labels, 1)
        check_flags(multiple=self.multiple)
        check_optional_integers(1, max_length=self.max_length)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the inputs (B, T) of the model, and `labels` (B,), or (B, C) with `multiple`.

        Args:
            examples: one per row.
            generator: not used.

        Raises:
            ArgumentTypeError, ArgumentValueError: no text or labels, or labels outside of the classes.
        """
        rows = [encode(x, i, self.tokenizer, self.max_length) for i, x in enumerate(examples)]
        labels = [self.label(entry(x, "labels", i), f"examples[{i}]") for i, x in enumerate(examples)]
        return collate(rows, padding_id(self.tokenizer)) | {"labels": torch.tensor(labels)}

    def label(self, value: Any, where: str) -> Any:
        """Returns the label of one example, checked: a class, a number, or a number for each class.

        Args:
            value: of the entry `labels`.
            where: the example, for messages.
        """
        name = f"{where}['labels']"
        if self.multiple:
            check_same_length(name, check_list(name, value), range(self.num_labels), "the classes")
            return [check_number(name, number, Interval(0, 1)) for number in value]
        if self.num_labels == 1:
            hint = "a label of a regression is a number, also as text in a table"
            return check_number(
                name, as_number(value), Interval(-inf, inf, open_low=True, open_high=True), hint
            )
        return check_integer(name, value, 0, self.num_labels - 1)


def as_number(value: Any) -> Any:
    """Returns the number of a text such as "-3.5", a cell of a table; any other value as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def check_list(name: str, value: Any) -> Sequence[Any]:
    """Returns the value if it is a list or tuple, else raises ArgumentTypeError."""
    checked: Sequence[Any] = check_type(name, value, list | tuple, "a list")
    return checked


def align_labels(word_ids: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    """Returns the label of each token: that of its word for the first token, -100 for all others.

    Args:
        word_ids: the number of each token's word; None for a special token.
        labels: of the words.
    """
    before = (None, *word_ids[:-1])
    return [
        labels[word] if word is not None and word != last else IGNORED
        for word, last in zip(word_ids, before, strict=True)
    ]


@dataclass(frozen=True)
class TokenLabels(Objective):
    """Classification of tokens, of models with head="token-classification".

    Examples have `words` and `labels`, a class for each word, of which the first token is labelled; or
    `input_ids` and `labels`, a class for each token, or -100.

    Attributes:
        tokenizer: of words, and for the id of padding.
        num_labels: number of classes.
        max_length: maximum number of tokens; the words after them are left out. None: all of them.
    """

    task = "token-classification"
    tokenizer: Tokenizer
    num_labels: int
    max_length: int | None = None

    def __post_init__(self) -> None:
        check_integer("num_labels", self.num_labels, 1)
        check_optional_integers(1, max_length=self.max_length)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the inputs and `labels` of the model, (B, T) each.

        Args:
            examples: one per row.
            generator: not used.

        Raises:
            ArgumentTypeError, ArgumentValueError: no words or labels, different numbers of them, or labels
                outside of the classes.
        """
        rows = [self.row(example, index) for index, example in enumerate(examples)]
        return collate(rows, padding_id(self.tokenizer))

    def row(self, example: Example, index: int) -> Row:
        """Returns inputs and labels of one example; `index` is its place in the batch, for messages."""
        name = f"examples[{index}]['labels']"
        labels = as_row(name, entry(example, "labels", index))
        for label in labels:
            if label != IGNORED:
                check_integer(name, label, 0, self.num_labels - 1)
        if "input_ids" in example:
            row = encode(example, index, None)
            check_same_length(name, labels, row["input_ids"], "input_ids")
            return row | {"labels": labels}
        words = list(check_list("words", entry(example, "words", index, "or with 'input_ids'")))
        check_same_length(name, labels, words, "words")
        batch = self.tokenizer(
            [words],
            is_split_into_words=True,
            truncation=self.max_length is not None,
            max_length=self.max_length,
            as_tensors=False,
        )
        row = {key: rows[0] for key, rows in batch.items() if key != "attention_mask"}
        return row | {"labels": align_labels(batch.word_ids[0], labels)}


def answer_tokens(offsets: Tensor, context: Tensor, start: int, end: int) -> tuple[int, int] | None:
    """Returns the first and the last token of an answer; None if the window does not contain all of it.

    Args:
        offsets: (T, 2) start and end of each token in characters of its text.
        context: (T,) bool, the tokens of the context.
        start, end: the answer's characters in the context.
    """
    first = context & (offsets[:, 0] <= start) & (start < offsets[:, 1])
    last = context & (offsets[:, 0] < end) & (end <= offsets[:, 1])
    if not (bool(first.any()) and bool(last.any())):
        return None
    return int(first.nonzero()[0]), int(last.nonzero()[-1])


@dataclass(frozen=True)
class AnswerSpans(Objective):
    """Answers in a context, of models with head="question-answering".

    Examples have `question`, `context` and `answers`, {"text": [...], "answer_start": [...]} as in SQuAD
    (arXiv:1606.05250), of which the first is learned; without one, the question has no answer there. A long
    context becomes several rows that overlap.

    Attributes:
        tokenizer: of the model.
        max_length: tokens of a row, question included.
        stride: number of tokens by which the rows of a context overlap.
    """

    task = "question-answering"
    tokenizer: Tokenizer
    max_length: int = 384
    stride: int = 128

    def __post_init__(self) -> None:
        check_integer("max_length", self.max_length, 1)
        check_integer("stride", self.stride, 0)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the inputs of the model (R, T), and `labels` (R, 2): first and last token of the answer.

        A row without the answer has the first token, [CLS] of an encoder, as both.

        Args:
            examples: of one or several rows each.
            generator: not used.

        Raises:
            ArgumentTypeError, ArgumentValueError: an example without these entries, or an answer that is not
                where it should be in the context.
        """
        check_rows([{}] * len(examples))
        answers = [answer_characters(example, index) for index, example in enumerate(examples)]
        batch = self.tokenizer(
            [entry(example, "question", index) for index, example in enumerate(examples)],
            pairs=[example["context"] for example in examples],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflow=True,
            return_offsets=True,
            as_tensors=False,
        )
        labels = []
        for row, index in enumerate(batch.overflow_to_sample):
            context = torch.tensor([sequence == 1 for sequence in batch.sequence_ids[row]])
            offsets = torch.tensor(batch.offsets[row])
            answer = answers[index]
            tokens = None if answer is None else answer_tokens(offsets, context, *answer)
            labels.append((0, 0) if tokens is None else tokens)
        names = [name for name in batch if name != "attention_mask"]
        rows = [{name: batch[name][row] for name in names} for row in range(len(labels))]
        return collate(rows, padding_id(self.tokenizer)) | {"labels": torch.tensor(labels)}


def answer_characters(example: Example, index: int) -> tuple[int, int] | None:
    """Returns start and end of the first answer in the context; None without answers.

    Args:
        example: with `context` and `answers`.
        index: its place in the batch, for messages.

    Raises:
        ArgumentTypeError, ArgumentValueError: missing entries, or a context without the answer at its start.
    """
    context, answers = entry(example, "context", index), entry(example, "answers", index)
    name = f"examples[{index}]['answers']"
    try:
        texts, starts = answers["text"], answers["answer_start"]
    except (KeyError, TypeError):
        raise ArgumentTypeError(name, answers, '{"text": [...], "answer_start": [...]}') from None
    if not len(texts):
        return None
    text, start = texts[0], int(starts[0])
    check_strings(**{name: text})
    if not text or context[start : start + len(text)] != text:
        expected = f"a text of the context from character {start} on"
        raise ArgumentValueError(name, text, expected, f"there it has {context[start : start + len(text)]!r}")
    return start, start + len(text)
