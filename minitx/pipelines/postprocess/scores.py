"""Logits of labels to scores."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from minitx.models import Model

Function = Literal["softmax", "sigmoid", "none"]
FUNCTIONS = ("softmax", "sigmoid", "none")


def function_of(model: Model) -> Function:
    """Returns the function that the config states for the scores of a classifier.

    None for regression, a sigmoid for several labels at once or a single one, else softmax.
    """
    config: Any = {} if model.checkpoint is None else model.checkpoint.config
    assert model.head is not None
    problem = config.get("problem_type")
    if problem == "regression":
        return "none"
    if problem == "multi_label_classification" or model.head.config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def scores_of(logits: Tensor, function: Function) -> Tensor:
    """(..., C) -> (..., C), scores of labels"""
    if function == "softmax":
        return logits.softmax(dim=-1)
    return logits.sigmoid() if function == "sigmoid" else logits


def label_names(model: Model) -> dict[int, str]:
    """Returns the names of the labels by index; LABEL_0, LABEL_1, ... without a checkpoint."""
    if model.checkpoint is not None:
        names: dict[int, str] = model.checkpoint.id2label
        return names
    assert model.head is not None
    return {index: f"LABEL_{index}" for index in range(model.head.config.num_labels or 0)}
