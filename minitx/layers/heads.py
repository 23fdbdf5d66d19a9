"""Task heads: hidden states to logits, and the table of tasks; losses and poolings have their own files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minitx.config import HeadConfig
from minitx.layers.activation import Activation
from minitx.layers.losses import Loss, detection_loss, label_loss, next_token_loss, span_loss, token_loss
from minitx.layers.norm import Slot, dropout, identity, norm
from minitx.layers.pooling import POOLING
from minitx.layers.table_head import CellLogits, TableHead
from minitx.layers.table_losses import table_loss
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice


class Head(nn.Module):
    """Pool, transform, project: projection(dropout(scale * norm(act(dense(dropout(pool(h))))))), capped.

    Every step but the projection is an empty slot in some head; the config chooses. The same class scores
    labels for a sequence and tokens of the vocabulary for a position.

    Args:
        config: of the head.
        hidden_size: E.

    Raises:
        ArgumentTypeError: another config, such as the name of a task.
        ArgumentValueError: an unknown task, or no number of labels.
    """

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__()
        if not isinstance(config, HeadConfig):
            hint = f'minitx.from_config(config, head="{config}") makes the head of a task by its name'
            raise ArgumentTypeError("head", config, "a HeadConfig or None", hint)
        check_choice("HeadConfig.task", config.task, TASKS)
        if config.num_labels is None:
            expected = f"the number of labels for task={config.task!r}"
            raise ArgumentValueError("HeadConfig.num_labels", None, expected, "e.g. num_labels=2")
        self.config = config
        transform = config.transform
        size = transform.size if transform else hidden_size
        self.pool = POOLING[config.pooling]
        self.input_dropout = dropout(config.input_dropout)
        self.dense: Slot = nn.Linear(hidden_size, size, bias=transform.bias) if transform else identity
        self.activation: Slot = Activation(transform.hidden_act) if transform else identity
        self.layer_norm = norm(transform.norm if transform else None, size)
        self.dropout = dropout(config.classifier_dropout)
        self.projection = nn.Linear(size, config.num_labels, bias=config.bias)

    def forward(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, T, E), (B, E), (B, S) -> (B, C) or (B, T, C)"""
        x = self.input_dropout(self.pool(hidden, pooled, mask))
        x = self.layer_norm(self.activation(self.dense(x)))
        x = x if self.config.scale is None else x * self.config.scale
        logits: Tensor = self.projection(self.dropout(x))
        cap = self.config.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


def head_class(config: HeadConfig) -> type[nn.Module]:
    """Returns the class of a head: one that selects cells of a table, or `Head`."""
    return TableHead if isinstance(config, HeadConfig) and config.cells is not None else Head


# --- shapes: logits of the head and the leading shape of input_ids -> logits of the output ----------------


def keep_shape(logits: Tensor, batch: Sequence[int]) -> Tensor:
    """Returns the logits as they are: (...) -> (...)."""
    return logits


def per_choice(logits: Tensor, batch: Sequence[int]) -> Tensor:
    """Returns one logit per choice: (B * choices, 1) -> (B, choices)."""
    return logits.view(*batch)


def per_token(logits: Tensor, batch: Sequence[int]) -> Tensor:
    """Returns one logit per token: (B, T, 1) -> (B, T)."""
    return logits.squeeze(-1)


# --- fields: logits -> fields of ModelOutput ---------------------------------------------------------------


def logits_field(logits: Tensor) -> dict[str, Any]:
    """Returns the field `logits`.

    Args:
        logits: (B, T, V) or (B, C) or (B, T)
    """
    return {"logits": logits}


def span_fields(logits: Tensor) -> dict[str, Any]:
    """Returns the fields `start_logits` and `end_logits`: (B, T, 2) -> (B, T) twice."""
    return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


def cell_fields(logits: CellLogits) -> dict[str, Any]:
    """Returns the fields `logits`, (B, T), and `logits_aggregation`, (B, C)."""
    return {"logits": logits.selected, "logits_aggregation": logits.aggregation}


@dataclass(frozen=True)
class Task:
    """Loss, shape and names of the logits of a task.

    Attributes:
        loss: of logits and labels.
        shape: brings the logits into the shape of the output.
        fields: names the logits in the output.
    """

    loss: Loss
    shape: Callable[[Any, Sequence[int]], Any] = keep_shape
    fields: Callable[[Any], dict[str, Any]] = logits_field


VOCABULARY_TASKS = ("masked-lm", "causal-lm", "seq2seq-lm")  # with one output per token of the vocabulary

TASKS: dict[str, Task] = {
    "masked-lm": Task(token_loss),
    "causal-lm": Task(next_token_loss),
    "seq2seq-lm": Task(token_loss),
    "sequence-classification": Task(label_loss),
    "token-classification": Task(token_loss),
    "question-answering": Task(span_loss, fields=span_fields),
    "multiple-choice": Task(token_loss, per_choice),
    "next-sentence": Task(token_loss),
    "replaced-token-detection": Task(detection_loss, per_token),
    "table-question-answering": Task(table_loss, fields=cell_fields),
}
