"""Task heads: what turns hidden states into logits, and logits and labels into a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import HeadConfig
from minitx.layers.activation import Activation
from minitx.layers.linear import Linear
from minitx.layers.norm import Slot, dropout, identity, norm
from minitx.validation import values_unavailable


class Head(nn.Module):
    """Pool, transform, project: projection(dropout(scale * norm(act(dense(dropout(pool(h))))))), capped.

    Every step but the projection is an empty slot in some architecture's head for some task; the
    config says which. The same class scores labels for a sequence and words for a position.
    """

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__()
        if config.task not in TASKS:
            raise ValueError(f"unknown task {config.task!r}; minitx has: {', '.join(TASKS)}.")
        self.config = config
        transform = config.transform
        size = transform.size if transform else hidden_size
        self.pool = POOLING[config.pooling]
        self.input_dropout = dropout(config.input_dropout)
        self.dense: Slot = Linear(hidden_size, size, bias=transform.bias) if transform else identity
        self.activation: Slot = Activation(transform.hidden_act) if transform else identity
        self.layer_norm = norm(transform.norm if transform else None, size)
        self.dropout = dropout(config.classifier_dropout)
        self.projection = Linear(size, config.num_labels, bias=config.bias)

    def forward(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, T, E), (B, E), (B, T) -> (B, labels) where the head pools, else (B, T, labels)"""
        x = self.input_dropout(self.pool(hidden, pooled, mask))
        x = self.layer_norm(self.activation(self.dense(x)))
        x = x if self.config.scale is None else x * self.config.scale
        logits: Tensor = self.projection(self.dropout(x))
        cap = self.config.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


# --- pooling: (B, T, E), (B, E) of the pooler, mask (B, T) -> what the head works on ---------------


def pool_none(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    return hidden


def pool_first(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    return hidden[:, 0]


def pool_first_attended(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """The first token that is not padding: the one at 0, unless the text is padded on the left."""
    if mask is None:
        return hidden[:, 0]
    first = flat_mask(mask).int().argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(first), device=hidden.device), first]


def pool_last(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """The last token that is not padding: the only one that has seen the whole text."""
    if mask is None:
        return hidden[:, -1]
    position = torch.arange(hidden.shape[1], device=hidden.device)
    last = (position * flat_mask(mask)).argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(last), device=hidden.device), last]


def flat_mask(mask: Tensor) -> Tensor:
    if mask.dim() != 2:
        raise ValueError("this head needs an attention_mask of shape (batch, time).")
    return mask


def pool_mean(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """The mean of the attended tokens; zeros where there are none."""
    if mask is None:
        return hidden.mean(dim=1)
    mask = flat_mask(mask)
    total = hidden.masked_fill(~mask[..., None], 0.0).sum(dim=1)  # a NaN at padding stays there
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def pool_pooler(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    if pooled is None:
        raise ValueError("this head reads the pooler, but the model was built without one.")
    return pooled


POOLING: dict[str, Callable[[Tensor, Tensor | None, Tensor | None], Tensor]] = {
    "none": pool_none,
    "first": pool_first,
    "first_attended": pool_first_attended,
    "last": pool_last,
    "mean": pool_mean,
    "pooler": pool_pooler,
}


def widened(logits: Tensor) -> Tensor:
    """Sums over many classes need float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


# --- losses: (logits, labels, mask, config) -> scalar, summed up in float32 or better --------------


def token_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Cross-entropy over classes, words or choices: (..., C), (...); the label -100 does not count."""
    return cross_entropy(logits, labels)


def next_token_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """(B, T, V), (B, T): cross-entropy of each word given those before it; labels are the ids themselves,
    and the label -100 does not count.
    """
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}; expected {tuple(logits.shape[:-1])} like input_ids."
        )
    return cross_entropy(logits[:, :-1], labels[:, 1:])


def label_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """(B, C) with one class per row (B,), a target per class (B, C), or numbers to regress on.

    `problem_type` of the config decides which; without one, a single label means regression, whole
    numbers mean classes, other numbers mean a target per class. With `soft_labels`, several numbers per
    text are the probabilities of its classes instead, and a negative class does not count.
    """
    problem, wide = config.problem_type, widened(logits)
    if problem is None and logits.shape[-1] == 1:
        problem = "regression"
    if problem is None and config.soft_labels and labels.dim() > 1 and labels.shape[-1] > 1:
        return F.cross_entropy(wide, labels.to(wide.dtype))
    if problem is None and config.soft_labels:
        return cross_entropy(logits, labels.long().masked_fill(labels < 0, -100))
    if problem is None:
        several = labels.is_floating_point()
        problem = "multi_label_classification" if several else "single_label_classification"
    if problem == "regression":
        return F.mse_loss(wide, labels.to(wide.dtype).view_as(wide))
    if problem == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(wide, labels.to(wide.dtype))
    return cross_entropy(logits, labels)


def span_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """(B, T, 2), (B, 2) first and last position; positions outside the text do not count."""
    time = logits.shape[1]
    start, end = (
        cross_entropy(logits[..., i], labels[:, i].clamp(0, time), ignore_index=time) for i in (0, 1)
    )
    return (start + end) / 2


def detection_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """(B, T), (B, T): binary cross-entropy over the attended tokens; 1 = the token was replaced."""
    wide = widened(logits)
    attended = torch.ones_like(labels, dtype=torch.bool) if mask is None else flat_mask(mask)
    return F.binary_cross_entropy_with_logits(wide[attended], labels[attended].to(wide.dtype))


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """(..., C), (...) -> scalar"""
    classes = logits.shape[-1]
    if labels.shape != logits.shape[:-1] or labels.is_floating_point():
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; expected whole numbers "
            f"of shape {tuple(logits.shape[:-1])}."
        )
    if not values_unavailable(labels):
        wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
        if bool(wrong.any()):
            worst = int(labels[wrong][0])
            raise ValueError(f"labels hold {worst}, but there are {classes} classes, from 0.")
    return F.cross_entropy(
        widened(logits).reshape(-1, classes), labels.reshape(-1).long(), ignore_index=ignore_index
    )


# --- shapes: logits and the leading shape of input_ids -> the logits that the caller sees ----------


def as_they_are(logits: Tensor, batch: Sequence[int]) -> Tensor:
    return logits


def per_choice(logits: Tensor, batch: Sequence[int]) -> Tensor:
    """(B * choices, 1) -> (B, choices)"""
    return logits.view(*batch)


def per_token(logits: Tensor, batch: Sequence[int]) -> Tensor:
    """(B, T, 1) -> (B, T)"""
    return logits.squeeze(-1)


# --- outputs: logits -> the fields of ModelOutput --------------------------------------------------


def plain_logits(logits: Tensor) -> dict[str, Any]:
    return {"logits": logits}


def span_logits(logits: Tensor) -> dict[str, Any]:
    """(B, T, 2) -> (B, T) twice"""
    return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


@dataclass(frozen=True)
class Task:
    """What a task does with the logits of its head."""

    loss: Callable[[Tensor, Tensor, Tensor | None, HeadConfig], Tensor]
    shape: Callable[[Tensor, Sequence[int]], Tensor] = as_they_are
    outputs: Callable[[Tensor], dict[str, Any]] = plain_logits


TASKS: dict[str, Task] = {
    "masked-lm": Task(token_loss),
    "causal-lm": Task(next_token_loss),
    "seq2seq-lm": Task(token_loss),
    "sequence-classification": Task(label_loss),
    "token-classification": Task(token_loss),
    "question-answering": Task(span_loss, outputs=span_logits),
    "multiple-choice": Task(token_loss, per_choice),
    "next-sentence": Task(token_loss),
    "replaced-token-detection": Task(detection_loss, per_token),
}
