"""Objectives of the heads that label: sequences, tokens, and the answer to a question in a text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minitx.tokenizer.batch import pad
from minitx.training.objectives.base import IGNORED, Batch, Example, Objective
from minitx.training.objectives.batching import (
    Row,
    as_plain,
    as_row,
    check_optional_integers,
    check_real,
    check_same_length,
    collate,
    encode,
    entry,
    padding_id,
    row_of,
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
class Labelled(Objective):
    """Base of these objectives, each of which states the rows of an example, and their labels.

    Attributes:
        tokenizer: of texts, and for the id of padding.
    """

    tokenizer: Tokenizer

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the inputs of the model, (B, T) each, and `labels`, whose shape is that of the head's loss.

        Args:
            examples: one per row, or of several rows each.
            generator: not used.

        Raises:
            ArgumentTypeError, ArgumentValueError: an entry that is missing, or labels that do not fit.
        """
        pairs = [pair for index, example in enumerate(examples) for pair in self.rows(example, index)]
        batch = collate([row for row, _ in pairs], padding_id(self.tokenizer))
        return batch | {"labels": self.as_tensor([label for _, label in pairs])}

    @abstractmethod
    def rows(self, example: Example, index: int) -> list[tuple[Row, Any]]:
        """Returns inputs and label of each row of an example; `index` is its place, for messages."""

    def as_tensor(self, labels: Sequence[Any]) -> Tensor:
        """Returns the labels of all rows."""
        return torch.tensor(labels)


@dataclass(frozen=True)
class SequenceLabels(Labelled):
    """Classification or regression of sequences, of models with head="sequence-classification".

    Examples have a `text`, and `pair` for a second one, or `input_ids`; and `labels`: the index of a class, a
    number in [0, 1] for each class with `multiple`, or a number (also as text) with `num_labels=1`. Labels
    of a batch are (B,), or (B, C) with `multiple`.

    Attributes:
        num_labels: number of classes; 1 is regression.
        multiple: any number of classes per sequence.
        max_length: maximum number of tokens of a text; None: all of them.
    """

    task = "sequence-classification"
    num_labels: int
    multiple: bool = False
    max_length: int | None = None

    def __post_init__(self) -> None:
        check_integer("num_labels", self.num_labels, 1)
        check_flags(multiple=self.multiple)
        check_optional_integers(1, max_length=self.max_length)

    def rows(self, example: Example, index: int) -> list[tuple[Row, Any]]:
        """As `Labelled.rows`: one row."""
        row = encode(example, index, self.tokenizer, self.max_length)
        return [(row, self.label(entry(example, "labels", index), f"examples[{index}]['labels']"))]

    def label(self, value: Any, name: str) -> Any:
        """Returns the label of one example, checked: a class, a number, or a number for each class.

        Args:
            value: of the entry `labels`.
            name: of the entry, for messages.
        """
        if self.multiple:
            check_same_length(name, check_list(name, value), range(self.num_labels), "the classes")
            return [check_number(name, number, Interval(0, 1)) for number in value]
        if self.num_labels == 1:
            return check_real(name, value, "a label of a regression is a number, also as text in a table")
        return check_integer(name, value, 0, self.num_labels - 1)


@dataclass(frozen=True)
class TokenLabels(Labelled):
    """Classification of tokens, of models with head="token-classification".

    Examples have `words` and `labels`, a class for each word, of which the first token is labelled; or
    `input_ids` and `labels`, a class for each token, or -100. Labels of a batch are (B, T).

    Attributes:
        num_labels: number of classes, at least 2.
        max_length: maximum number of tokens; the words after them are left out. None: all of them.
    """

    task = "token-classification"
    num_labels: int
    max_length: int | None = None

    def __post_init__(self) -> None:
        check_integer("num_labels", self.num_labels, 2, hint="with one class there is nothing to learn")
        check_optional_integers(1, max_length=self.max_length)

    def rows(self, example: Example, index: int) -> list[tuple[Row, list[int]]]:
        """As `Labelled.rows`: one row."""
        name = f"examples[{index}]['labels']"
        labels = as_row(name, entry(example, "labels", index))
        for label in labels:
            if label != IGNORED:
                check_integer(name, label, 0, self.num_labels - 1)
        if "input_ids" in example:
            row = encode(example, index, None)
            check_same_length(name, labels, row["input_ids"], "input_ids")
            return [(row, labels)]
        words = list(check_list("words", entry(example, "words", index, "or with 'input_ids'")))
        check_same_length(name, labels, words, "words")
        limit, cut = self.max_length, self.max_length is not None
        batch = self.tokenizer(
            [words], is_split_into_words=True, truncation=cut, max_length=limit, as_tensors=False
        )
        return [(row_of(batch), align_labels(batch.word_ids[0], labels))]

    def as_tensor(self, labels: Sequence[Any]) -> Tensor:
        """As `Labelled.as_tensor`, padded with -100."""
        return pad(labels, IGNORED)


@dataclass(frozen=True)
class AnswerSpans(Labelled):
    """Answers in a context, of models with head="question-answering".

    Examples have `question`, `context` and `answers`, {"text": [...], "answer_start": [...]} as in SQuAD
    (arXiv:1606.05250), of which the first is learned; without one, the question has no answer there. A long
    context becomes several rows that overlap. Labels of a batch are (R, 2): first and last token of the
    answer; a row without it has the first token, [CLS] of an encoder, as both.

    Attributes:
        max_length: tokens of a row, question included.
        stride: number of tokens by which the rows of a context overlap.
    """

    task = "question-answering"
    max_length: int = 384
    stride: int = 128

    def __post_init__(self) -> None:
        check_integer("max_length", self.max_length, 1)
        check_integer("stride", self.stride, 0)

    def rows(self, example: Example, index: int) -> list[tuple[Row, tuple[int, int]]]:
        """As `Labelled.rows`: a row for each window of the context."""
        question, context = (entry(example, name, index) for name in ("question", "context"))
        name = f"examples[{index}]"
        check_strings(**{f"{name}['question']": question, f"{name}['context']": context})
        answer = answer_characters(context, entry(example, "answers", index), f"{name}['answers']")
        batch = self.tokenizer(
            [question],
            pairs=[context],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflow=True,
            return_offsets=True,
            as_tensors=False,
        )
        spans = zip(batch.offsets, batch.sequence_ids, strict=True)
        return [(row_of(batch, row), answer_tokens(*span, answer)) for row, span in enumerate(spans)]


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


def answer_characters(context: str, answers: Any, name: str) -> tuple[int, int] | None:
    """Returns start and end of the first answer in its context; None without answers.

    Args:
        context: the text.
        answers: the value of the entry.
        name: of the entry, for messages.

    Raises:
        ArgumentTypeError, ArgumentValueError: not as in SQuAD, or a context without the answer at its start.
    """
    expected = '{"text": [...], "answer_start": [...]}, with a string and an integer for each answer'
    check_type(name, answers, Mapping, expected)
    texts, starts = (_elements(answers.get(key)) for key in ("text", "answer_start"))
    if not (_are(str, texts) and _are(int, starts) and len(texts) == len(starts)):
        raise ArgumentTypeError(name, answers, expected)
    if not texts:
        return None
    text, start = texts[0], starts[0]
    if not text or start < 0 or context[start : start + len(text)] != text:
        expected = f"a text of the context from character {start} on"
        raise ArgumentValueError(name, text, expected, f"there it has {context[start : start + len(text)]!r}")
    return start, start + len(text)


def _elements(values: Any) -> Any:
    """Returns a sequence or an array as a list of plain elements, any other value as it is."""
    values = as_plain(values)
    return [as_plain(value) for value in values] if isinstance(values, list | tuple) else values


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is kind for value in values)


def answer_tokens(
    offsets: Sequence[tuple[int, int]], sequence_ids: Sequence[int | None], answer: tuple[int, int] | None
) -> tuple[int, int]:
    """Returns the first and the last token of an answer; (0, 0) if the window does not contain all of it.

    Args:
        offsets: start and end of each token in characters of its text.
        sequence_ids: 1 for the tokens of the context.
        answer: start and end of the answer's characters; None: the context has no answer.
    """
    start, end = answer or (-1, -1)
    spans = [span if text == 1 else (0, 0) for span, text in zip(offsets, sequence_ids, strict=True)]
    first = [token for token, span in enumerate(spans) if span[0] <= start < span[1]]
    last = [token for token, span in enumerate(spans) if span[0] < end <= span[1]]
    return (first[0], last[-1]) if first and last else (0, 0)
