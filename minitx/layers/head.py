"""Task heads: what turns hidden states into logits, and logits and labels into a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import HeadConfig
from minitx.layers.activation import Activation
from minitx.layers.norm import dropout, layer_norm


class Head(nn.Module):
    """Pool, transform, project: projection(dropout(norm(act(dense(dropout(pool(h))))))).

    Every step but the projection is an empty slot in some architecture's head for some task; the
    config says which. The same class scores labels for a sequence and words for a position.
    """

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        size = config.dense_size or hidden_size
        eps = config.layer_norm_eps
        self.input_dropout = dropout(config.input_dropout)
        self.dense = nn.Linear(hidden_size, size, bias=config.dense_bias) if config.dense_size else None
        self.activation = Activation(config.hidden_act) if config.hidden_act else None
        self.layer_norm = layer_norm(size, eps or 0.0, config.norm_bias, when=eps is not None)
        self.dropout = dropout(config.classifier_dropout)
        self.projection = nn.Linear(size, config.num_labels, bias=config.bias)

    def forward(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, T, E), (B, E), (B, T) -> (B, labels) where the head pools, else (B, T, labels)"""
        x = self.input_dropout(POOLING[self.config.pooling](hidden, pooled, mask))
        x = x if self.dense is None else self.dense(x)
        x = x if self.activation is None else self.activation(x)
        logits: Tensor = self.projection(self.dropout(self.layer_norm(x)))
        return logits


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


def flat_mask(mask: Tensor) -> Tensor:
    if mask.dim() != 2:
        raise ValueError("this head's pooling needs an attention_mask of shape (batch, time).")
    return mask


def pool_mean(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    """The mean of the attended tokens; zeros where there are none."""
    if mask is None:
        return hidden.mean(dim=1)
    weight = flat_mask(mask)[..., None].to(hidden.dtype)  # (B, T, 1)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def pool_pooler(hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
    if pooled is None:
        raise ValueError("this head reads the pooler, but the model was built without one.")
    return pooled


POOLING: dict[str, Callable[[Tensor, Tensor | None, Tensor | None], Tensor]] = {
    "none": pool_none,
    "first": pool_first,
    "first_attended": pool_first_attended,
    "mean": pool_mean,
    "pooler": pool_pooler,
}


# --- losses: (logits, labels, mask, config) -> scalar, summed up in float32 or better --------------


def token_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Cross-entropy: (..., C), (...); rows or positions labelled -100 do not count."""
    return cross_entropy(logits, labels)


def label_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """(B, C) with one class per row (B,), a target per class (B, C), or numbers to regress on.

    `problem_type` of the config decides which; without one, a single label means regression, whole
    numbers mean classes, other numbers mean a target per class.
    """
    problem = config.problem_type
    if problem is None and logits.shape[-1] == 1:
        problem = "regression"
    elif problem is None:
        several = labels.is_floating_point()
        problem = "multi_label_classification" if several else "single_label_classification"
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
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
    """(B, T, 1), (B, T): binary cross-entropy over the attended tokens; 1 = the token was replaced."""
    wide = logits.squeeze(-1).to(torch.promote_types(logits.dtype, torch.float32))
    attended = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    return F.binary_cross_entropy_with_logits(wide[attended], labels[attended].to(wide.dtype))


def choice_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """(B * choices, 1), (B,): cross-entropy over the choices of each row."""
    return cross_entropy(logits.view(len(labels), -1), labels)


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """(..., C), (...) -> scalar"""
    flat = logits.reshape(-1, logits.shape[-1])
    wide = flat.to(torch.promote_types(flat.dtype, torch.float32))
    return F.cross_entropy(wide, labels.reshape(-1), ignore_index=ignore_index)


# --- outputs: logits and the leading shape of input_ids -> the fields of ModelOutput ---------------


def plain_logits(logits: Tensor, batch: Sequence[int]) -> dict[str, Tensor]:
    return {"logits": logits}


def span_logits(logits: Tensor, batch: Sequence[int]) -> dict[str, Tensor]:
    return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


def choice_logits(logits: Tensor, batch: Sequence[int]) -> dict[str, Tensor]:
    return {"logits": logits.view(*batch)}


def token_logits(logits: Tensor, batch: Sequence[int]) -> dict[str, Tensor]:
    return {"logits": logits.squeeze(-1)}


@dataclass(frozen=True)
class Task:
    """What a task does with the logits of its head."""

    loss: Callable[[Tensor, Tensor, Tensor | None, HeadConfig], Tensor]
    outputs: Callable[[Tensor, Sequence[int]], dict[str, Tensor]] = plain_logits


TASKS: dict[str, Task] = {
    "masked-lm": Task(token_loss),
    "sequence-classification": Task(label_loss),
    "token-classification": Task(token_loss),
    "question-answering": Task(span_loss, span_logits),
    "multiple-choice": Task(choice_loss, choice_logits),
    "next-sentence": Task(token_loss),
    "replaced-token-detection": Task(detection_loss, token_logits),
}
