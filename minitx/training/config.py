"""The settings of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

import torch

from minitx.training.schedules import SCHEDULES
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_choice,
    check_flags,
    check_integer,
    check_number,
    check_type,
)

OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
_AT_LEAST = {  # smallest value of each integer
    "steps": 1,
    "batch_size": 1,
    "accumulation": 1,
    "warmup_steps": 0,
    "decay_steps": 0,
    "evaluate_every": 0,
    "patience": 0,
    "save_every": 0,
    "keep": 1,
    "log_every": 1,
}
_WITHIN = {
    "learning_rate": Interval(0, torch.inf, open_low=True, open_high=True),
    "weight_decay": Interval(0, torch.inf, open_high=True),
    "eps": Interval(0, 1),
    "min_lr_ratio": Interval(0, 1),
    "max_grad_norm": Interval(0, torch.inf),
}
_FIXED = ("seed", "optimizer")  # by a checkpoint: order of the data, state of the optimizer


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a run.

    Attributes:
        steps: number of updates of the parameters.
        batch_size: examples per micro-batch, in each process.
        accumulation: micro-batches per step, in each process; the loss is the mean over all their targets.
        learning_rate: the peak learning rate.
        weight_decay: of the parameters that decay (`minitx.training.optimizer.weight_decay_groups`).
        decay_embeddings: whether embeddings do.
        betas: of AdamW.
        eps: of AdamW.
        optimizer: "adamw", or "muon" for the matrices; experts' weights are of three dimensions, and AdamW's.
        schedule: "constant", "linear", "cosine" or "wsd" (`minitx.training.schedules`).
        warmup_steps: steps in which the learning rate rises linearly from 0.
        decay_steps: last steps, in which the learning rate of "wsd" falls.
        min_lr_ratio: learning rate at the end of the decay, as a factor of the peak learning rate.
        max_grad_norm: largest norm of the gradient; 0: no clipping.
        precision: "bfloat16": one process computes matrix products in bfloat16 under autocast; several
            also gather all parameters in bfloat16 (FSDP2's `MixedPrecisionPolicy`).
            Parameters and optimizer stay as they are.
        compile: whether `torch.compile` compiles the model, or the name of its backend.
        checkpoint_activations: compute the activations of each layer again in the backward, to save memory.
        evaluate_every: steps between evaluations; 0: one at the end.
        patience: number of evaluations without a lower loss after which the run ends; 0: it does not.
        save_every: steps between checkpoints; 0: one at the end.
        keep: number of latest checkpoints to keep; with `patience` the best one is kept too.
        log_every: steps between metrics.
        tensorboard: write TensorBoard's event files too.
        seed: of the order of the data and the random numbers of the objective.

    Raises:
        ArgumentTypeError, ArgumentValueError: a value out of bounds, or lengths that do not fit together.
    """

    steps: int
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    decay_embeddings: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup_steps: int = 0
    decay_steps: int = 0
    min_lr_ratio: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "float32"
    compile: bool | str = False
    checkpoint_activations: bool = False
    evaluate_every: int = 0
    patience: int = 0
    save_every: int = 0
    keep: int = 2
    log_every: int = 10
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in _AT_LEAST.items():
            check_integer(name, getattr(self, name), minimum)
        check_integer("seed", self.seed, 0, 2**63 - 1)
        for name, interval in _WITHIN.items():
            check_number(name, getattr(self, name), interval)
        for name in ("decay_embeddings", "checkpoint_activations", "tensorboard"):
            check_flags(**{name: getattr(self, name)})
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        check_compile(self.compile)
        if not isinstance(self.betas, list | tuple) or len(self.betas) != 2:
            raise ArgumentTypeError("betas", self.betas, "two numbers", "such as (0.9, 0.999)")
        for beta in self.betas:
            check_number("betas", beta, Interval(0, 1, open_high=True))
        object.__setattr__(self, "betas", tuple(self.betas))  # TOML has lists
        self._check_lengths()

    def _check_lengths(self) -> None:
        if self.schedule == "wsd" and self.decay_steps == 0:
            raise ArgumentValueError("decay_steps", 0, 'at least 1 with schedule="wsd"')
        if self.schedule != "wsd" and self.decay_steps:
            hint = "the others decay over all steps after the warm-up"
            raise ArgumentValueError("decay_steps", self.decay_steps, '0 without schedule="wsd"', hint)
        if self.warmup_steps + self.decay_steps > self.steps:
            expected = f"at most {self.steps - self.decay_steps}, the steps without the decay"
            raise ArgumentValueError("warmup_steps", self.warmup_steps, expected)
        if self.warmup_steps == self.steps == 1:
            hint = "the first step of a warm-up has the learning rate 0"
            raise ArgumentValueError("warmup_steps", 1, "below steps=1", hint)
        if self.patience and not self.evaluate_every:
            raise ArgumentValueError("patience", self.patience, "0 without evaluate_every")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns a config from values by name, such as a table of a TOML file.

        Raises:
            ArgumentTypeError, ArgumentValueError: an unknown name, a missing one, or a value out of bounds.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := next((name for name in values if name not in names), None):
            near = get_close_matches(unknown, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise ArgumentValueError("config", unknown, f"one of {', '.join(names)}", hint)
        if "steps" not in values:
            raise ArgumentValueError("config", dict(values), "one with steps, the length of the run")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name, in types that TOML and JSON have."""
        return dataclasses.asdict(self) | {"betas": list(self.betas)}

    def check_continues(self, earlier: TrainConfig) -> None:
        """Checks that a run with this config can continue one with an earlier config.

        Raises:
            ArgumentValueError: a setting is another that the checkpoint depends on.
        """
        for name in _FIXED:
            value, expected = getattr(self, name), getattr(earlier, name)
            if value != expected:
                hint = "start a new run in another folder to change it"
                raise ArgumentValueError(name, value, f"{expected!r}, as in the checkpoint", hint)


def check_compile(value: Any) -> None:
    """Checks that a value is a bool or a backend of `torch.compile`, else raises an argument's error."""
    expected = "True, False or the name of a backend"
    check_type("compile", value, bool | str, expected)
    if isinstance(value, str) and value not in torch.compiler.list_backends(exclude_tags=()):
        hint = f"such as {', '.join(map(repr, torch.compiler.list_backends()))}"
        raise ArgumentValueError("compile", value, expected, hint)
