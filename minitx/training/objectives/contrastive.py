"""Contrastive sentence pairs: a sentence's vector is nearest to that of its pair among all of the batch.

In-batch negatives (arXiv:1705.00652, section 4.4): the cosine similarities of an anchor to all positives of
the batch, times a scale, are logits of which its own positive is the label. sentence-transformers calls it
MultipleNegativesRankingLoss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.layers.token_pooling import check_pooling, pool
from minitx.training.objectives.base import Batch, Example, Loss, Objective
from minitx.training.objectives.batching import (
    check_optional_integers,
    check_rows,
    collate,
    encode_text,
    entry,
    padding_id,
)
from minitx.validation import ArgumentValueError, Interval, check_flags, check_number

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


def pair_loss(anchors: Tensor, candidates: Tensor, *, scale: float = 20.0, symmetric: bool = False) -> Tensor:
    """Returns the loss of each anchor: (P, E), (P or 2P, E) -> (P,).

    Args:
        anchors: (P, E).
        candidates: (P, E) positives, of which anchor i has candidate i; further negatives may follow.
        scale: of the cosine similarities, the inverse of a temperature.
        symmetric: the mean with the loss of finding the anchor of each positive.
    """
    logits = scale * F.normalize(anchors, dim=-1) @ F.normalize(candidates, dim=-1).T
    labels = torch.arange(len(anchors), device=anchors.device)
    losses = F.cross_entropy(logits, labels, reduction="none")
    if not symmetric:
        return losses
    return (losses + F.cross_entropy(logits[:, : len(anchors)].T, labels, reduction="none")) / 2


@dataclass(frozen=True)
class SentencePairs(Objective):
    """Contrastive pairs, of encoders or decoders that `minitx.embed` takes.

    Examples have the texts `anchor` and `positive`, and all or none of them `negative`. No two examples of a
    batch should be alike: each positive is a negative of the other anchors. A pair alone in its batch,
    without a `negative`, is no target: an evaluation leaves it out, and training refuses it.

    Attributes:
        tokenizer: of the model.
        pooling: as in `EmbeddingSettings`, the pooling of the checkpoint.
        scale: of the cosine similarities.
        symmetric: also find the anchor of each positive.
        max_length: maximum number of tokens of a text; None: all of them.
    """

    tokenizer: Tokenizer
    pooling: str | tuple[str, ...] = "mean"
    scale: float = 20.0
    symmetric: bool = False
    max_length: int | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        check_number("scale", self.scale, Interval(0, float("inf"), open_low=True, open_high=True))
        check_flags(symmetric=self.symmetric)
        check_optional_integers(1, max_length=self.max_length)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids`, `attention_mask`, ... of the anchors, then the positives, then the negatives.

        Args:
            examples: P pairs.
            generator: not used.

        Returns:
            (2P or 3P, T) each, and `num_pairs`, P.

        Raises:
            ArgumentTypeError, ArgumentValueError: an example without these texts.
        """
        check_rows([{}] * len(examples))
        negatives = sum("negative" in example for example in examples)
        if 0 < negatives < len(examples):
            index = next(i for i, example in enumerate(examples) if "negative" not in example)
            hint = "either all pairs have a negative, or none"
            raise ArgumentValueError(f"examples[{index}]", list(examples[index]), "one with 'negative'", hint)
        names = ("anchor", "positive", "negative")[: 3 if negatives else 2]
        rows = [
            encode_text(f"examples[{i}][{name!r}]", entry(x, name, i), self.tokenizer, self.max_length)
            for name in names
            for i, x in enumerate(examples)
        ]
        return collate(rows, padding_id(self.tokenizer)) | {"num_pairs": torch.tensor(len(examples))}

    def check_single(self, example: Example) -> None:
        """Checks that the example has a `negative`, else raises ArgumentValueError."""
        if "negative" not in example:
            expected = "at least 2 pairs in a batch: without other pairs an anchor has no negatives"
            raise ArgumentValueError("batch['num_pairs']", 1, expected, "add 'negative' to the examples")

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the summed loss of the pairs.

        Args:
            model: an encoder or decoder; its head is not used.
            batch: from `__call__`, on the device of the model.

        Raises:
            ArgumentValueError: one pair without a negative, unless gradients are disabled.
        """
        pairs = int(batch["num_pairs"])
        is_target = len(batch["input_ids"]) > 2  # else its own positive is the only candidate
        if not is_target and torch.is_grad_enabled():
            self.check_single({})
        inputs: dict[str, Any] = {name: x for name, x in batch.items() if name != "num_pairs"}
        if getattr(model, "task", None) == "causal-lm":
            inputs["logits_to_keep"] = 1
        output = model(**inputs)
        hidden, pooled = output.last_hidden_state, output.pooler_output
        wide = torch.promote_types(hidden.dtype, torch.float32)
        pooled = None if pooled is None else pooled.to(wide)
        vectors = pool(self.pooling, hidden.to(wide), pooled, batch["attention_mask"].bool())
        anchors, candidates = vectors.tensor_split([pairs])
        losses = pair_loss(anchors, candidates, scale=self.scale, symmetric=self.symmetric)
        return Loss(losses.sum(), batch["num_pairs"] * is_target)
