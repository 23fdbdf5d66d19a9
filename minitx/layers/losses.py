"""Losses of the task heads: logits and labels to a scalar, computed in float32 or better.

All but `cross_entropy` have the signature `Loss`. The integer label -100 is ignored, except as a position of
an answer (`span_loss`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.config import HeadConfig
from minitx.layers.cross_entropy import BlockwiseCrossEntropy, is_large, widened
from minitx.layers.pooling import check_flat
from minitx.validation import ArgumentValueError, check_shape, values_unavailable

Loss = Callable[[Any, Any, Tensor | None, HeadConfig], Tensor]  # logits, labels, mask, config -> ()


def token_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Returns the cross-entropy over classes, tokens or choices: (..., C), (...), (B, T) -> ()."""
    return cross_entropy(logits, labels)


def next_token_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Returns the cross-entropy of each token after those before it: (B, T, V), (B, T), (B, S) -> ()."""
    if labels.shape != logits.shape[:-1]:
        expected = f"of shape {tuple(logits.shape[:-1])} like input_ids, not {tuple(labels.shape)}"
        raise ArgumentValueError("labels", labels, expected)
    following = F.pad(labels[:, 1:], (0, 1), value=-100)  # logits[:, :-1] would be a copy of all logits
    return cross_entropy(logits, following)


def label_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Returns the loss of classification or regression of sequences: (B, C), (B,) or (B, C), (B, T) -> ().

    `config.problem_type` decides which. Without one, a single class means regression, integers mean one class
    per row, and other numbers one target per class. With `config.soft_labels`, several numbers per row are
    class probabilities instead, and a negative class is ignored.

    Raises:
        ArgumentValueError: labels of another shape or dtype, or outside of the classes.
    """
    problem, wide = config.problem_type, widened(logits)
    if problem is None and logits.shape[-1] == 1:
        problem = "regression"
    if problem is None and config.soft_labels and labels.dim() > 1 and labels.shape[-1] > 1:
        check_shape("labels", labels, tuple(wide.shape), like="logits")
        return F.cross_entropy(wide, labels.to(wide.dtype))
    if problem is None and config.soft_labels:
        return cross_entropy(logits, labels.long().masked_fill(labels < 0, -100))
    if problem is None:
        several = labels.is_floating_point()
        problem = "multi_label_classification" if several else "single_label_classification"
    if problem != "single_label_classification" and labels.numel() != wide.numel():
        expected = f"one number for each of the logits, of shape {tuple(wide.shape)}"
        raise ArgumentValueError("labels", labels, expected, f"problem_type is {problem!r}")
    if problem == "regression":
        return F.mse_loss(wide, labels.to(wide.dtype).view_as(wide))
    if problem == "multi_label_classification":
        check_shape("labels", labels, tuple(wide.shape), like="logits")
        return F.binary_cross_entropy_with_logits(wide, labels.to(wide.dtype))
    return cross_entropy(logits, labels)


def span_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Returns the mean cross-entropy of first and last position: (B, T, 2), (B, 2), (B, T) -> ().

    As in transformers, a position from T on is ignored, and a negative one is clamped to 0.

    Raises:
        ArgumentValueError: labels of another shape or dtype.
    """
    rows, time, _ = logits.shape
    if labels.shape != (rows, 2) or labels.is_complex():
        expected = f"integers of shape ({rows}, 2), not {tuple(labels.shape)}"
        raise ArgumentValueError("labels", labels, expected, "the first and last position of each answer")
    start, end = (
        cross_entropy(logits[..., i], labels[:, i].clamp(0, time), ignore_index=time) for i in (0, 1)
    )
    return (start + end) / 2


def detection_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Returns the binary cross-entropy of the attended tokens, 1 = replaced: (B, T), (B, T), (B, T) -> ().

    Raises:
        ArgumentValueError: labels or a mask of another shape.
    """
    check_shape("labels", labels, tuple(logits.shape))
    wide = widened(logits)
    attended = torch.ones_like(labels, dtype=torch.bool) if mask is None else check_flat(mask)
    return F.binary_cross_entropy_with_logits(wide[attended], labels[attended].to(wide.dtype))


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """Returns the mean cross-entropy over all labels but `ignore_index`: (..., C), (...) -> ().

    Raises:
        ArgumentValueError: labels of another shape or dtype, or outside of the classes.
    """
    classes = logits.shape[-1]
    if labels.shape != logits.shape[:-1] or labels.is_floating_point() or labels.is_complex():
        expected = f"integers of shape {tuple(logits.shape[:-1])}, not {tuple(labels.shape)}"
        raise ArgumentValueError("labels", labels, expected)
    if not values_unavailable(labels):
        wrong = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
        if bool(wrong.any()):
            worst = int(labels[wrong][0])
            raise ArgumentValueError("labels", worst, f"from 0 to {classes - 1}, or {ignore_index} to ignore")
    flat, targets = logits.reshape(-1, classes), labels.reshape(-1).long()
    if is_large(flat):
        loss: Tensor = BlockwiseCrossEntropy.apply(flat, targets, ignore_index)  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(widened(flat), targets, ignore_index=ignore_index)
