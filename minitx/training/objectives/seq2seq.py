"""Sequence to sequence: predict the target from the source, with label smoothing as an option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.tokenizer.batch import pad
from minitx.training.objectives.base import IGNORED, Batch, Example, Loss, Objective, count_targets
from minitx.training.objectives.batching import (
    as_row,
    check_optional_integers,
    check_rows,
    collate,
    encode,
    encode_text,
    entry,
    padding_id,
)
from minitx.validation import Interval, check_number

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Returns the summed cross-entropy with smoothed labels: (..., V), (...) -> ().

    The target distribution gives each label 1 - smoothing, and divides the rest evenly among all V tokens
    (arXiv:1512.00567, section 7, with a uniform prior).

    Args:
        logits: (..., V).
        labels: (...), -100 is ignored.
        smoothing: in [0, 1).
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(
        wide.flatten(0, -2),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


@dataclass(frozen=True)
class Seq2SeqLM(Objective):
    """Target after source, of encoder-decoders with head="seq2seq-lm".

    Examples have `input_ids` and `labels`, both with an end token, or the texts `text` and `target`.

    Attributes:
        tokenizer: of texts, and for the id of padding; None if all examples have ids.
        label_smoothing: share of the target probability that is divided among all tokens.
        max_length: maximum number of tokens of a source text; None: all of them.
        max_target_length: likewise of a target text.
    """

    task = "seq2seq-lm"
    tokenizer: Tokenizer | None = None
    label_smoothing: float = 0.0
    max_length: int | None = None
    max_target_length: int | None = None

    def __post_init__(self) -> None:
        check_number("label_smoothing", self.label_smoothing, Interval(0, 1, open_high=True))
        check_optional_integers(1, max_length=self.max_length, max_target_length=self.max_target_length)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids` and `attention_mask` (B, S), and `labels` (B, T); the model shifts the labels.

        Args:
            examples: one per row.
            generator: not used.

        Raises:
            ArgumentTypeError, ArgumentValueError: neither ids nor texts.
        """
        check_rows([{}] * len(examples))
        rows = [encode(x, i, self.tokenizer, self.max_length) for i, x in enumerate(examples)]
        targets = [self.target(example, index) for index, example in enumerate(examples)]
        return collate(rows, padding_id(self.tokenizer)) | {"labels": pad(targets, IGNORED)}

    def target(self, example: Example, index: int) -> list[int]:
        """Returns the labels of one example; `index` is its place in the batch, for messages."""
        if self.tokenizer is None or "labels" in example:
            return as_row(f"examples[{index}]['labels']", entry(example, "labels", index))
        text = entry(example, "target", index, "or with 'labels'")
        name, limit = f"examples[{index}]['target']", self.max_target_length
        return encode_text(name, text, self.tokenizer, limit, as_target=True)["input_ids"]

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the summed cross-entropy of the targets.

        Args:
            model: an encoder-decoder.
            batch: from `__call__`, on the device of the model.

        Raises:
            ArgumentValueError: a model without a head.
        """
        if not self.label_smoothing:
            return super().loss(model, batch)
        self.check_task(model)
        logits = model(**batch).logits
        total = smoothed_cross_entropy(logits, batch["labels"], self.label_smoothing)
        return Loss(total, count_targets(batch, "seq2seq-lm"))
