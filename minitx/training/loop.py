"""A training run in memory: `Run.step` is one update of the parameters; `session.py` repeats it.

A step runs `accumulation` micro-batches forward and backward, which sums the gradients of the losses of all
targets, those of other processes included; divides the gradients by the number of targets, so that every
target has the same weight; clips them; and updates the parameters. A step that is interrupted is computed
again, with the same numbers, from the last finished one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from minitx.training.config import TrainConfig
from minitx.training.data.checksums import batch_checksum
from minitx.training.data.randomness import EVALUATION, batch_generator, global_states, seeded_states
from minitx.training.data.sampler import Sampler
from minitx.training.distributed.find import find_world
from minitx.training.objectives.base import Batch, Example, Loss, Objective, count_tokens
from minitx.training.optimizer import (
    make_optimizers,
    scale_gradients,
    set_learning_rate,
    trainable_parameters,
)
from minitx.training.state import State
from minitx.training.tensors import frozen_checksum, load_optimizer, load_parameters, model_texts, tensors_of
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_type


class Dataset(Protocol):
    """A map-style dataset, as torch.utils.data's; its order is that of the sampler."""

    def __len__(self) -> int:
        """Returns the number of examples."""

    def __getitem__(self, index: int, /) -> Example:
        """Returns an example."""


@dataclass
class Sums:
    """Sums over steps.

    Attributes:
        loss: of all targets.
        targets: number of targets.
        tokens: number of input tokens that are not padding.
        seconds: time.
    """

    loss: float = 0.0
    targets: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, other: Sums) -> None:
        """Adds other sums."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class NotFiniteError(FloatingPointError):
    """A loss or gradient that is infinite or NaN; with several processes all of them raise it."""


class Run:
    """A training run in memory.

    Args:
        model: to train, on the device to train on; put into training mode.
        dataset: of examples.
        objective: examples to batches, and batches to losses.
        config: settings.

    Attributes:
        world: this process, or the processes that train the model together.
        finished: number of finished steps.
        is_consistent: whether the parameters are those after the last finished step; False inside an update.
        best: step and loss of the best evaluation, or None.
        worse: number of evaluations since the best one.
        sums: over the steps since the last metrics.

    Raises:
        ArgumentTypeError: not a module, an objective or a config.
        ArgumentValueError: no examples, or no parameters to train.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, objective: Objective, config: TrainConfig) -> None:
        self.model: nn.Module = check_type("model", model, nn.Module, "a module")
        self.objective: Objective = check_type("objective", objective, Objective, "an Objective")
        self.config: TrainConfig = check_type("config", config, TrainConfig, "a TrainConfig")
        check_training(model, dataset, config)
        self.world, self.frozen = find_world(model), frozen_checksum(model)
        self.world.shard(model, config)
        rank, size = self.world.rank, self.world.size
        self.dataset = dataset
        self.sampler = Sampler(len(dataset), config.seed, rank=rank, world_size=size)
        check_single(objective, "dataset", dataset, config)
        self.parameters = trainable_parameters(model.train())
        if not self.parameters:
            raise ArgumentValueError("model", model, "a model with parameters that require gradients")
        self.device = next(model.parameters()).device
        self.optimizers = make_optimizers(model, config)
        self.random_states = seeded_states(config.seed, self.device, rank)
        self.finished, self.worse, self.sums = 0, 0, Sums()
        self.is_consistent = True
        self.best: tuple[int, float] | None = None
        backend = config.compile if isinstance(config.compile, str) else "inductor"
        self.compiled: Any = torch.compile(model, backend=backend) if config.compile else model
        self.learning_rate = self.gradient_norm = 0.0  # of the last step
        self.indices: list[int] = []  # of the last micro-batch
        self.last: tuple[list[int], int, Batch] | None = None  # its indices, number and content
        self.zero_grad()

    def step(self) -> Sums:
        """Updates the parameters once. A step that fails before the update can be repeated.

        Returns:
            The sums of this step.

        Raises:
            ArgumentValueError: examples that do not fit the objective or the model, or no targets at all.
            FloatingPointError: a loss or a gradient that is infinite or NaN.
        """
        start, position, last = time.perf_counter(), self.sampler.state(), self.last
        random_states = dict(self.random_states)
        try:
            with global_states(self.random_states, self.device):
                sums = self.accumulate()
            self.gradient_norm = scale_gradients(self.parameters, sums.targets, self.config.max_grad_norm)
            self.check_finite(sums.loss)
        except BaseException as error:
            error.add_note(f"In step {self.finished + 1}, with the examples {self.indices} of the dataset.")
            self.sampler.load_state(position)
            self.random_states.update(random_states)
            self.last = last
            self.zero_grad()
            raise
        self.update()
        sums.seconds = time.perf_counter() - start
        self.sums.add(sums)
        return sums

    def accumulate(self) -> Sums:
        """Adds the gradients of the losses of all targets of a step."""
        sums, losses = Sums(), []
        micro_batches = [self.next_batch(index) for index in range(self.config.accumulation)]
        totals = self.totals(batch for _, batch in micro_batches)
        for self.indices, batch in micro_batches:
            loss = self.loss(batch | totals)
            loss.total.backward()  # type: ignore[no-untyped-call]
            losses.append(loss)
            sums.tokens += count_tokens(batch)
        total, count = sum(loss.total.item() for loss in losses), sum(int(loss.count) for loss in losses)
        sums.loss, *counts = self.world.sum(total, count, sums.tokens)
        sums.targets, sums.tokens = map(int, counts)
        if not sums.targets:
            expected, hint = f"of at least one target in step {self.finished + 1}", "all are -100"
            if (limit := getattr(self.objective, "max_length", None)) is not None:
                hint = f"{hint}; max_length={limit} may have cut off the rest"
            raise ArgumentValueError("labels", [], expected, hint)
        return sums

    def next_batch(self, index: int) -> tuple[list[int], Batch]:
        """Returns the indices and the batch of the micro-batch with the number `index` of a step."""
        number = (self.finished * self.config.accumulation + index) * self.world.size + self.world.rank
        self.indices = self.sampler.take(self.config.batch_size)
        examples = [self.dataset[i] for i in self.indices]
        batch = self.objective(examples, batch_generator(self.config.seed, number))
        self.last = self.indices, number, batch
        return self.indices, batch

    def totals(self, batches: Iterable[Batch]) -> Batch:
        """Returns the totals of the objective (`Objective.totals`), over all processes."""
        totals = self.objective.totals(batches)
        sums = self.world.sum(*(total.item() for total in totals.values())) if totals else ()
        return {name: torch.full_like(totals[name], value) for name, value in zip(totals, sums, strict=True)}

    def loss(self, batch: Batch) -> Loss:
        """Returns the loss of a batch, which is moved to the device of the model."""
        moved = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        autocast = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            return self.objective.loss(self.compiled, moved)

    def check_finite(self, loss: float) -> None:
        """Checks the loss and the norm of the gradient, else raises FloatingPointError."""
        if not (math.isfinite(loss) and math.isfinite(self.gradient_norm)):
            name = "gradient" if math.isfinite(loss) else "loss"
            raise NotFiniteError(
                f"the {name} of step {self.finished + 1} is infinite or NaN; the parameters are those after "
                f"step {self.finished}. Lower learning_rate, or raise warmup_steps."
            )

    def update(self) -> None:
        """Updates the parameters by their gradients."""
        self.learning_rate = set_learning_rate(self.optimizers, self.config, self.finished)
        self.is_consistent = False
        for optimizer in self.optimizers:
            optimizer.step()
        self.zero_grad()
        self.finished += 1
        self.is_consistent = True

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def evaluate(self, dataset: Dataset) -> float:
        """Returns the mean loss over a dataset in eval mode, and compares it with the best so far.

        The objective draws the same random numbers at every evaluation.

        Raises:
            ArgumentValueError: no examples, or no targets.
            FloatingPointError: an infinite or NaN loss.
        """
        total, count = 0.0, 0.0
        self.model.eval()
        try:
            totals = self.totals(batch for batch, counts in self.evaluation_batches(dataset) if counts)
            for batch, counts in self.evaluation_batches(dataset):
                with torch.no_grad():
                    loss = self.loss(batch | totals)
                if counts:
                    total, count = total + loss.total.item(), count + int(loss.count)
        finally:
            self.model.train()
        total, count = self.world.sum(total, count)
        if not count:
            raise ArgumentValueError("evaluation", dataset, "a dataset with targets", "all labels are -100")
        mean = total / count
        if not math.isfinite(mean):
            raise NotFiniteError(f"the evaluation loss after step {self.finished} is infinite or NaN.")
        if self.best is None or mean < self.best[1]:
            self.best, self.worse = (self.finished, mean), 0
        else:
            self.worse += 1
        return mean

    def evaluation_batches(self, dataset: Dataset) -> Iterator[tuple[Batch, bool]]:
        """Yields the batches of this process in an evaluation, always the same, and whether each counts.

        All processes have the same number of batches: one that is done repeats the last batch, which does not
        count.
        """
        size, world = self.config.batch_size, self.world
        batches = math.ceil(len(dataset) / size)
        for first in range(0, batches, world.size):
            number = min(first + world.rank, batches - 1)
            examples = [dataset[i] for i in range(number * size, min((number + 1) * size, len(dataset)))]
            batch = self.objective(examples, batch_generator(self.config.seed, number, EVALUATION))
            yield batch, number == first + world.rank

    def state(self) -> State:
        """Returns all that a run needs to continue after its last finished step."""
        tensors = tensors_of(self.model, self.optimizers)
        tensors |= {self.random_name(kind): state for kind, state in self.random_states.items()}
        values: dict[str, Any] = {"sampler": self.sampler.state(), "best": self.best, "worse": self.worse}
        stateless = [n for n, p in self.parameters.items() if not any(p in o.state for o in self.optimizers)]
        values |= {
            "sums": vars(self.sums),
            "stateless": stateless,
            "frozen": self.frozen,
            "models": model_texts(self.model),
            "options": self.objective.options(),
        }
        if self.last is not None:
            indices, number, batch = self.last
            values["last_batch"] = {"indices": indices, "number": number, "checksum": batch_checksum(batch)}
        return State(self.finished, tensors, values)

    def random_name(self, kind: str) -> str:
        """Returns the name of a random state of this process in a checkpoint."""
        return f"random.{kind}.{self.world.rank}" if self.world.rank else f"random.{kind}"

    def load_state(self, state: State) -> None:
        """Continues after the last finished step of another run.

        Raises:
            ArgumentValueError, ValueError: another dataset, seed or model.
        """
        values = state.values
        self.objective.check_continues(values["options"])
        if values["frozen"] != self.frozen:
            raise ValueError(
                "the checkpoint is of another model: the frozen parameters differ; build or load the one "
                "that the run began with."
            )
        self.sampler.load_state(values["sampler"])
        self.check_data(values.get("last_batch"))
        load_parameters(state.tensors, self.model)
        if values["models"] != model_texts(self.model):
            raise ValueError(
                "the checkpoint is of another model: its config or the names of its labels differ; build or "
                "load the one that the run began with."
            )
        for optimizer in self.optimizers:
            load_optimizer(state.tensors, self.model, optimizer, values["stateless"])
        for kind in self.random_states:
            self.random_states[kind] = state.tensors.get(self.random_name(kind), self.random_states[kind])
        self.finished, self.worse, self.sums = state.step, values["worse"], Sums(**values["sums"])
        self.is_consistent = True
        self.best = None if values["best"] is None else (values["best"][0], values["best"][1])

    def check_data(self, last: Mapping[str, Any] | None) -> None:
        """Checks that examples of the dataset give the same batch as before a checkpoint.

        Raises:
            ValueError: they give another.
        """
        if last is None:  # a checkpoint before the first step
            return
        examples = [self.dataset[index] for index in last["indices"]]
        batch = self.objective(examples, batch_generator(self.config.seed, last["number"]))
        if batch_checksum(batch) != last["checksum"]:
            raise ValueError(
                f"the checkpoint is of other data: the examples {last['indices']!s:.60} of the dataset give "
                "another batch than before it. Pass the dataset and the tokenizer of the run, which give the "
                "same at each access, or start a new run in another folder."
            )
        self.last = last["indices"], last["number"], batch


def check_single(objective: Objective, name: str, dataset: Dataset, config: TrainConfig) -> None:
    """Checks that batches have targets where they have one example, else raises ArgumentValueError.

    Args:
        objective: which may need several.
        name: of the dataset as an argument.
        dataset: with an example.
        config: which has the size of the batches.
    """
    if min(config.batch_size, len(dataset)) > 1:
        return
    try:
        objective.check_single(dataset[0])
    except ArgumentValueError as error:
        few = len(dataset) == 1
        parameter, value, remedy = (name, dataset, "add examples") if few else ("batch_size", 1, "raise it")
        hint = f"{remedy}, or {error.hint}" if error.hint else remedy
        raise ArgumentValueError(parameter, value, error.expected, hint) from None


def check_training(model: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
    """Checks that a run can train a model on a dataset.

    Raises:
        ArgumentTypeError: a dataset without `len()` and `[index]`.
        ArgumentValueError: parameters without values, or of a dtype that autocast does not take.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        hint = "list(...) of an iterator has them"
        raise ArgumentTypeError("dataset", dataset, "a dataset with len() and [index]", hint)
    if any(p.is_meta for p in model.parameters()):
        hint = "build it outside of torch.device('meta'), or load it"
        raise ArgumentValueError("model", type(model), "a model with values, not on the device meta", hint)
    if config.precision == "bfloat16" and any(p.dtype == torch.float16 for p in model.parameters()):
        hint = "train it in float32, with precision='bfloat16': model.float()"
        raise ArgumentValueError("precision", config.precision, "'float32' with parameters in float16", hint)
