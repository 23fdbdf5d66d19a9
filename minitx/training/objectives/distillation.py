"""Distillation: a student learns the distributions of a teacher (arXiv:1503.02531, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minitx.training.objectives.base import IGNORED, Batch, Example, Loss, Objective
from minitx.validation import ArgumentValueError, Interval, check_number, check_type

TASKS = ("masked-lm", "causal-lm", "seq2seq-lm", "sequence-classification", "token-classification")


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns temperature ** 2 * KL(teacher || student) of each distribution: (..., C), (..., C) -> (...).

    Both logits are divided by the temperature; its square keeps the size of the gradients.

    Args:
        student: (..., C) logits.
        teacher: (..., C) logits.
        temperature: above 0; a higher one shows more of the teacher's small probabilities.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    ours = (student.to(wide) / temperature).log_softmax(dim=-1)
    theirs = (teacher.to(wide) / temperature).log_softmax(dim=-1)
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(dim=-1)


class _Recorded:
    """A model whose last output is kept, so that two losses share one forward."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.task, self.output = model, getattr(model, "task", None), None

    def __call__(self, **batch: Any) -> Any:
        self.output = self.model(**batch)
        return self.output


@dataclass(frozen=True)
class Distillation(Objective):
    """Distillation on top of an objective with one target per token or row.

    The loss of a target is (1 - hard_weight) * KL + hard_weight * the objective's own loss.

    Attributes:
        objective: makes the batches, and has the loss on the labels.
        teacher: a model of the same task, classes and vocabulary as the student, in eval mode.
        temperature: of both distributions.
        hard_weight: weight of the loss on the labels.
    """

    objective: Objective
    teacher: nn.Module = field(repr=False)
    temperature: float = 2.0
    hard_weight: float = 0.5

    def __post_init__(self) -> None:
        check_type("objective", self.objective, Objective, "an objective")
        check_type("teacher", self.teacher, nn.Module, "a model")
        positive = Interval(0, float("inf"), open_low=True, open_high=True)
        check_number("temperature", self.temperature, positive)
        check_number("hard_weight", self.hard_weight, Interval(0, 1))
        if any(module.training for module in self.teacher.modules()):
            expected = "in eval mode: dropout would change its logits"
            raise ArgumentValueError("teacher", self.teacher, expected, "call teacher.eval()")

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the batch of the objective; arguments and errors are its own."""
        return self.objective(examples, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the weighted sum of both losses.

        Args:
            model: the student.
            batch: from `__call__`, on the device of student and teacher.

        Raises:
            ArgumentValueError: tasks or classes that differ, or a task with other targets.
        """
        student: Any = _Recorded(model)
        if student.task not in TASKS or getattr(self.teacher, "task", None) != student.task:
            expected = f"a student like the teacher, of one of the tasks {', '.join(TASKS)}"
            raise ArgumentValueError("model.task", student.task, expected)
        hard = self.objective.loss(student, batch)
        with torch.no_grad():
            teacher = self.teacher(**batch).logits
        logits, labels = student.output.logits, batch["labels"]
        if logits.shape != teacher.shape or labels.shape != logits.shape[:-1]:
            expected = f"one with logits of shape {tuple(logits.shape)}, and a label for each distribution"
            raise ArgumentValueError("teacher", self.teacher, expected)
        if student.task == "causal-lm":
            logits, teacher, labels = logits[:, :-1], teacher[:, :-1], labels[:, 1:]
        targets = labels != IGNORED
        soft = distillation_loss(logits[targets], teacher[targets], self.temperature).sum()
        return Loss((1 - self.hard_weight) * soft + self.hard_weight * hard.total, hard.count)
