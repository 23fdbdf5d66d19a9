"""Logits of labels to scores."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from minitx.models import Model
from minitx.pipelines.checks import config_value
from minitx.validation import ArgumentValueError

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


def inference_labels(model: Model) -> tuple[int, int, bool]:
    """Returns the indices of entailment and contradiction, and whether a label is named entailment.

    Entailment is the first label that begins with "entail", else the last one; contradiction is the first
    label, or the last one if entailment is the first.
    """
    config = {} if model.checkpoint is None else model.checkpoint.config
    names = {} if model.checkpoint is None else model.checkpoint.id2label
    indices = config_value(config, "label2id", dict, "an object") or {n: index for index, n in names.items()}
    assert model.head is not None
    count = model.head.config.num_labels
    labels = [name for name in indices if str(name).lower().startswith("entail")]
    named = [config_value(indices, name, int, "the index of a label") for name in labels]
    entailment = named[0] if named else count - 1
    if not 0 <= entailment < count:
        raise ArgumentValueError("model", entailment, f"a model whose entailment is one of {count} labels")
    return entailment, count - 1 if entailment == 0 else 0, bool(named)
