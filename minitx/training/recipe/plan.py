"""What a run would take: sizes, steps, memory and time, measured on a copy of the model.

Two steps of a copy give the time of a step, and the states of the optimizer. Activations are the tensors that
autograd keeps for the backward of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitx.models.sizes import count, num_bytes
from minitx.optimize import recompute_layers
from minitx.pictures.text import human
from minitx.training.data.randomness import batch_generator
from minitx.training.distributed.group import has_several_processes
from minitx.training.loop import Run
from minitx.training.objectives.base import count_tokens
from minitx.training.recipe.file import Recipe, read_recipe
from minitx.training.recipe.prepare import Prepared, prepare

_SAMPLE = 256  # most examples whose tokens are counted
_WIDTH = 18  # columns of the names


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would take. `print(plan)` shows it.

    Attributes:
        folder: of the run.
        objective: its name.
        model: its class.
        parameters, trainable: number of parameters, and of those that are trained.
        examples, evaluation_examples: number of examples.
        tokens_per_example: mean, padding aside, over the first examples.
        counted: number of these examples.
        steps, epochs: length of the run.
        batch: examples per step.
        parameter_bytes, gradient_bytes, optimizer_bytes, activation_bytes: memory of training.
        seconds_per_step, tokens_per_second: as measured.
        labels: names of the labels.
        unused_labels: those that no example has.
        recipe: as TOML.
    """

    folder: str
    objective: str
    model: str
    parameters: int
    trainable: int
    examples: int
    evaluation_examples: int
    tokens_per_example: float
    counted: int
    steps: int
    epochs: float
    batch: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    seconds_per_step: float
    tokens_per_second: float
    labels: tuple[str, ...]
    unused_labels: tuple[str, ...]
    recipe: str

    @property
    def tokens_per_epoch(self) -> int:
        """The number of tokens of all examples."""
        return round(self.tokens_per_example * self.examples)

    @property
    def memory_bytes(self) -> int:
        """The memory of all parts."""
        parts = (self.parameter_bytes, self.gradient_bytes, self.optimizer_bytes, self.activation_bytes)
        return sum(parts)

    @property
    def seconds(self) -> float:
        """The time of all steps."""
        return self.steps * self.seconds_per_step

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes and the properties by name."""
        sums = {name: getattr(self, name) for name in ("tokens_per_epoch", "memory_bytes", "seconds")}
        return asdict(self) | sums

    def __str__(self) -> str:
        """Returns the plan as text of at most 80 columns, long paths aside."""
        counted = "counted" if self.counted == self.examples else f"estimated from {self.counted} of them"
        several = (
            f", {self.evaluation_examples:,} more for the evaluation" if self.evaluation_examples else ""
        )
        share = f", {self.trainable:,} of them trained" if self.trainable < self.parameters else ""
        speed = f"{duration(self.seconds_per_step)} per step, {self.tokens_per_second:,.0f} tokens/s"
        rows = {
            "folder": self.folder,
            "objective": self.objective,
            "model": self.model,
            "parameters": f"{self.parameters:,}{share}",
            "labels": shortened(", ".join(self.labels)),
            "unused labels": shortened(", ".join(self.unused_labels)),
            "examples": f"{self.examples:,}{several}",
            "tokens per epoch": f"{self.tokens_per_epoch:,} ({counted})",
            "steps": f"{self.steps:,} of {self.batch} examples, {self.epochs:.3g} epochs",
            "memory": f"{human(self.memory_bytes)}, measured on one micro-batch:",
            "  parameters": human(self.parameter_bytes),
            "  gradients": human(self.gradient_bytes),
            "  optimizer": human(self.optimizer_bytes),
            "  activations": human(self.activation_bytes),
            "time": f"{duration(self.seconds)}, without evaluations; measured on a copy of",
            "": f"the model: {speed}",
        }
        lines = [f"{name:<{_WIDTH}}{text}" for name, text in rows.items() if text]
        return "\n".join(
            [*lines, "", "The recipe, with overrides and absolute paths:", "", self.recipe.rstrip()]
        )


def plan_recipe(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    *,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> Plan:
    """Returns what a run would take, without beginning it; `minitx train --dry-run` prints it.

    Token blocks are written already, and used by the run. Memory and time are those of one process.

    Args:
        recipe, overrides, folder, progress: as for `run_recipe`.

    Raises:
        ArgumentTypeError, ArgumentValueError, OSError, ValueError: as `run_recipe`, before its first step;
            one of several processes.
    """
    if has_several_processes():
        raise ValueError("a plan (--dry-run) is measured in one process; run it without torchrun.")
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, overrides, folder=folder)
    return measure(prepare(recipe, progress=progress))


def measure(prepared: Prepared) -> Plan:
    """Returns what a run takes that is prepared, whose model stays as it is."""
    model: Any = prepared.model
    config, parameters = prepared.config, list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    counted = min(len(prepared.dataset), _SAMPLE)
    batches = [
        prepared.objective([prepared.dataset[index]], batch_generator(config.seed, index))
        for index in range(counted)
    ]
    run = Run(deepcopy(model), prepared.dataset, prepared.objective, config)
    if config.checkpoint_activations:
        recompute_layers(run.model)
    run.step()
    sums = run.step()
    return Plan(
        folder=str(prepared.recipe.folder),
        objective=prepared.stated.name,
        model=name_of(model),
        parameters=count(parameters),
        trainable=count(trained),
        examples=len(prepared.dataset),
        evaluation_examples=0 if prepared.evaluation is None else len(prepared.evaluation),
        tokens_per_example=sum(map(count_tokens, batches)) / counted,
        counted=counted,
        steps=config.steps,
        epochs=prepared.epochs,
        batch=config.batch_size * config.accumulation,
        parameter_bytes=num_bytes(parameters),
        gradient_bytes=num_bytes(trained),
        optimizer_bytes=optimizer_bytes(run),
        activation_bytes=activation_bytes(run),
        seconds_per_step=sums.seconds,
        tokens_per_second=sums.tokens / sums.seconds,
        labels=() if prepared.labels is None else prepared.labels.names,
        unused_labels=unused_labels(prepared),
        recipe=prepared.recipe.text,
    )


def unused_labels(prepared: Prepared) -> tuple[str, ...]:
    """Returns the labels that no example of the training data has."""
    if prepared.labels is None:
        return ()
    used: set[int] = set()
    for index in range(len(prepared.dataset)):
        labels = prepared.dataset[index]["labels"]
        is_multiple = isinstance(labels, list) and all(isinstance(label, float) for label in labels)
        ids = [label for label, value in enumerate(labels) if value] if is_multiple else labels
        used.update(ids if isinstance(ids, list) else [ids])
    return tuple(name for index, name in enumerate(prepared.labels.names) if index not in used)


def name_of(model: nn.Module) -> str:
    """Returns the architecture and the head of a model, such as "gpt2 with head causal-lm"."""
    part: Any = getattr(model, "discriminator", model)
    kind = part.checkpoint.model_type if getattr(part, "checkpoint", None) else type(part).__name__
    text = f"{kind} with head {part.task}" if getattr(part, "task", None) else str(kind)
    return text if part is model else f"{text}, and its generator"


def optimizer_bytes(run: Run) -> int:
    """Returns the memory of the optimizers' states after a step."""
    states = [state for optimizer in run.optimizers for state in optimizer.state.values()]
    return num_bytes([value for state in states for value in state.values() if isinstance(value, Tensor)])


def activation_bytes(run: Run) -> int:
    """Returns the memory of the tensors that one micro-batch keeps for its backward, parameters aside."""
    places = {p.untyped_storage().data_ptr() for p in run.model.parameters()}
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until all are counted, so that no two have the same place

    def _pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in places:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731 - a hook of one expression
    config = run.config
    rows = [run.dataset[index] for index in run.sampler.take(config.batch_size)]
    batch = run.objective(rows, batch_generator(config.seed, 0))
    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(_pack, unpack):
        run.loss(batch)
    return sum(sizes.values())


def duration(seconds: float) -> str:
    """Returns a time in words: 0.25 -> "0.25 s", 5000 -> "1 h 23 min"."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shortened(text: str, width: int = 60) -> str:
    """Returns a text cut to a number of columns."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
