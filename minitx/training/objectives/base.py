"""The interface of an objective: examples to a batch, and a model's loss on it as a sum and a count.

An objective returns a sum and not a mean, so that a step over several micro-batches, or several processes,
divides by the number of targets of all of them: every target has the same weight, however they are split.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minitx.validation import ArgumentValueError

Example = Mapping[str, Any]
Batch = dict[str, Tensor]

IGNORED = -100  # a label without a loss, as in torch.nn.functional.cross_entropy


@dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Attributes:
        total: sum of the losses of all targets, a scalar with a gradient.
        count: number of targets, a scalar; the mean loss is `total / count`.
    """

    total: Tensor
    count: Tensor


class Objective(ABC):
    """A training objective: how examples become a batch, and a batch a loss.

    Subclasses are frozen dataclasses whose fields are its options. An objective holds no state: the same
    examples and the same state of the generator give the same batch.

    Attributes:
        task: of the head that the model must have; None: any.
    """

    task: ClassVar[str | None] = None

    @abstractmethod
    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the arguments of the model's forward, `labels` included.

        Args:
            examples: one per row of the batch.
            generator: the only source of randomness.

        Raises:
            ArgumentValueError: examples that do not fit the objective.
        """

    def check_single(self, example: Example) -> None:  # noqa: B027 - not abstract: most check nothing
        """Checks that a batch of this example alone has a target; most objectives accept any example.

        `train` calls it before the first step where a batch has one example.

        Raises:
            ArgumentValueError: the target needs other examples.
        """

    def totals(self, batches: Iterable[Batch]) -> Batch:
        """Returns sums over the micro-batches of a step that the loss of each of them needs.

        The loop adds them to each batch (with several processes, the sums over all). Most losses are a mean
        over one kind of targets and need none; a sum of several means needs the number of each kind.

        Args:
            batches: from `__call__`.

        Returns:
            Further arguments of `loss`, scalars by name.
        """
        return {}

    def options(self) -> dict[str, Any]:
        """Returns the name of the objective and its options, in types that JSON has; others are left out.

        A checkpoint holds them: a run must continue with the objective that it began with.
        """
        values: dict[str, Any] = {"objective": type(self).__name__}
        fields: tuple[dataclasses.Field[Any], ...] = (
            dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        )
        for field in fields:
            value = getattr(self, field.name)
            if isinstance(value, Objective):
                values |= {f"{field.name}.{name}": option for name, option in value.options().items()}
            elif field.init and isinstance(value, bool | int | float | str | tuple | None):
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return values

    def check_continues(self, options: Mapping[str, Any]) -> None:
        """Checks that a run with this objective can continue one with `options()` of an earlier one.

        Raises:
            ArgumentValueError: another objective, or another option.
        """
        ours, hint = self.options(), "start a new run in another folder to change it"
        for name in sorted(ours.keys() | options.keys(), key=lambda name: name != "objective"):
            if ours.get(name) != options.get(name):
                path = name if name == "objective" else f"objective.{name}"
                expected = f"{options.get(name)!r}, as in the checkpoint"
                raise ArgumentValueError(path, ours.get(name), expected, hint)

    def check_task(self, model: nn.Module) -> None:
        """Checks that the model has the head that this objective trains; modules without tasks pass.

        Raises:
            ArgumentValueError: another head, or none.
        """
        task = getattr(model, "task", self.task)
        if self.task is not None and task != self.task:
            hint = f'load or build the model with head="{self.task}"'
            raise ArgumentValueError("model.task", task, repr(self.task), hint)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the loss of the model's head on a batch.

        Args:
            model: called with the batch; the output has `loss`, a mean over the targets.
            batch: from `__call__`, on the device of the model.

        Raises:
            ArgumentValueError: a model without a head, labels outside of its classes.
        """
        self.check_task(model)
        mean = model(**batch).loss
        if mean is None:
            hint = 'load or build the model with head=, such as head="causal-lm"'
            raise ArgumentValueError("model", model, "one that computes the loss of this objective", hint)
        count = count_targets(batch, getattr(model, "task", None))
        # A mean over no targets is NaN.
        return Loss(torch.where(count > 0, mean * count, torch.zeros_like(mean)), count)


def count_targets(batch: Batch, task: str | None) -> Tensor:
    """Returns the number of targets that the mean loss of a head is taken over, a scalar.

    Args:
        batch: with `labels`; integers other than -100, or one number per row or class, are targets.
        task: of the model's head. The label of a sequence's first token is no target of "causal-lm";
            replaced-token detection has all attended tokens as targets; the two labels of an answer,
            its first and last token, are one target.

    Raises:
        ArgumentValueError: no labels.
    """
    if "labels" not in batch:
        raise ArgumentValueError("batch", sorted(batch), "a batch with labels", "the objective adds them")
    labels = batch["labels"]
    if task == "question-answering":
        return torch.tensor(len(labels), device=labels.device)
    if task == "replaced-token-detection":
        mask = batch.get("attention_mask")
        return torch.ones_like(labels).sum() if mask is None else (mask != 0).sum()
    if labels.is_floating_point():  # regression: the mean is over all numbers
        return torch.tensor(labels.numel(), device=labels.device)
    if task == "causal-lm":
        labels = labels[:, 1:]
    return (labels != IGNORED).sum()


def count_tokens(batch: Batch) -> int:
    """Returns the number of input tokens that are not padding."""
    count = 0
    for name, ids in batch.items():
        if name.endswith("input_ids"):
            mask = batch.get(name.replace("input_ids", "attention_mask"))
            count += ids.numel() if mask is None or mask.shape != ids.shape else int((mask != 0).sum())
    return count
