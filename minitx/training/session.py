"""`train`: a run with its folder, from the first step or from a checkpoint to the trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from minitx.checkpoint.save import HasFiles, save
from minitx.io import write_atomically
from minitx.models import Model
from minitx.optimize import recompute_layers, undo_recompute_layers
from minitx.signals import deferred
from minitx.training.config import TrainConfig
from minitx.training.loop import Dataset, NotFiniteError, Run, check_single
from minitx.training.lora.adapt import has_adapters
from minitx.training.lora.files import save_adapter
from minitx.training.metrics import TENSORBOARD, Metrics, Progress, progress_bar
from minitx.training.objectives.base import Objective
from minitx.training.state import RunFolder
from minitx.training.tensors import load_parameters
from minitx.validation import ArgumentValueError, check_flags, check_path


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended a run after a complete step; the message states how to continue.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


@dataclass(frozen=True)
class TrainResult:
    """The end of a run.

    Attributes:
        steps: number of finished steps.
        best_step: step of the best evaluation; None without evaluation.
        best_loss: its loss.
        metrics: the records of metrics.jsonl.
        folder: of the run, or None.
    """

    steps: int
    best_step: int | None
    best_loss: float | None
    metrics: list[dict[str, Any]]
    folder: Path | None

    @property
    def loss(self) -> float:
        """The mean loss over the last steps."""
        return float(next(row["loss"] for row in reversed(self.metrics) if "loss" in row))


def train(
    model: nn.Module,
    dataset: Dataset,
    objective: Objective,
    config: TrainConfig,
    *,
    folder: str | Path | None = None,
    evaluation: Dataset | None = None,
    tokenizer: HasFiles | None = None,
    files: Mapping[str, str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> TrainResult:
    """Trains a model in place, and leaves it in eval mode.

    Ctrl-C, SIGTERM or SIGHUP ends the step, writes a checkpoint and raises `Interrupted`; a second one ends
    at once. An error in a step writes a checkpoint of the last finished one. A run that resumes has the same
    numbers, bit for bit, as one that was not interrupted.

    Started by torchrun, each process trains on its share of the data, with its part of the parameters
    (FSDP2); a step has `batch_size * accumulation` examples of each. The parameters stay distributed.

    Args:
        model: from `minitx.load` or `minitx.from_config`, or a module with several such children; on the
            device to train on.
        dataset: of examples, with `len()` and `[index]`.
        objective: examples to batches, and batches to losses.
        config: settings.
        folder: a new folder for metrics, checkpoints and the trained model; None: nothing is written.
        evaluation: dataset whose loss is measured every `config.evaluate_every` steps, and at the end.
        tokenizer: to save with the model.
        files: name -> text of further files in the folder of the run and in those of its models.
        resume: continue the run in `folder` from its last checkpoint, or from the beginning if it has none.
            The model must be the one that the run began with; its parameters are those of the checkpoint
            afterwards.
        progress: show a progress bar; None: at a terminal.

    Returns:
        Steps and metrics. With `config.patience` the model has the parameters of the best evaluation.

    Raises:
        ArgumentTypeError, ArgumentValueError: arguments that do not fit together, examples that do not fit.
        FileExistsError, FileNotFoundError: a folder of another run, or without a run to resume.
        FloatingPointError: a loss or gradient that is infinite or NaN.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP.
        OSError: a full disk; the checkpoints before stay.
        ValueError: a checkpoint that is damaged, or of another model.
    """
    check_flags(resume=resume)
    run = Run(model, dataset, objective, config)
    check_arguments(run, folder, evaluation, resume)
    with ExitStack() as stack:
        stack.enter_context(run.world.explained())
        place = None
        if folder is not None:
            path = check_path("folder", folder)
            place = stack.enter_context(run.world.open_run(path, config, resume=resume))
        if place is not None and (steps := place.steps()):
            if config.steps < steps[-1]:
                expected = f"at least {steps[-1]}, the steps of the checkpoint"
                raise ArgumentValueError("steps", config.steps, expected)
            run.load_state(place.load(steps[-1]))
            if config.patience and run.best and run.best[0] not in steps:
                run.best, run.worse = None, 0  # `patience` is new: its checkpoint was not kept
        writes = place is not None and run.world.is_first
        if place is not None and writes:
            place.write_config()
        board = place.path / TENSORBOARD if place is not None and writes and config.tensorboard else None
        lines = place.metrics if place is not None and writes else None
        metrics = stack.enter_context(Metrics(lines, run.finished, board))
        if config.checkpoint_activations:
            recompute_layers(model)
            stack.callback(undo_recompute_layers, model)
        stack.callback(model.eval)
        progress = progress if run.world.is_first else False
        show = stack.enter_context(progress_bar(config.steps, run.finished, progress))
        session = Session(run, place, metrics, evaluation, tokenizer, files)
        session.write_files()
        signals = stack.enter_context(deferred())
        signal = session.run_steps(show, signals)
        session.finish()
        if signal := signal or run.world.largest(max(signals, default=0)):
            raise Interrupted(session.message(), signal)
    best_step, best_loss = run.best or (None, None)
    return TrainResult(
        run.finished, best_step, best_loss, metrics.records, None if place is None else place.path
    )


def check_arguments(run: Run, folder: object, evaluation: Dataset | None, resume: bool) -> None:
    """Checks that the arguments of `train` fit together, else raises ArgumentValueError."""
    config, hint = run.config, "it is the folder of the run"
    if evaluation is not None and len(evaluation) == 0:
        raise ArgumentValueError("evaluation", evaluation, "a dataset with examples, or None")
    if evaluation is not None:
        check_single(run.objective, "evaluation", evaluation, config)
    if config.evaluate_every and evaluation is None:
        raise ArgumentValueError("evaluation", None, f"a dataset with evaluate_every={config.evaluate_every}")
    if folder is None:
        for name, needs in (
            ("resume", resume),
            ("save_every", config.save_every),
            ("patience", config.patience),
            ("tensorboard", config.tensorboard),
        ):
            if needs:
                raise ArgumentValueError("folder", None, f"a path with {name}={needs}", hint)


class Session:
    """A run with its folder.

    Args:
        run: in memory.
        place: its folder; None: nothing is written.
        metrics: its records.
        evaluation: dataset of the evaluations.
        tokenizer: to save with the model.
        files: name -> text of further files.
    """

    def __init__(
        self,
        run: Run,
        place: RunFolder | None,
        metrics: Metrics,
        evaluation: Dataset | None,
        tokenizer: HasFiles | None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.run, self.place, self.metrics = run, place, metrics
        self.evaluation, self.tokenizer, self.files = evaluation, tokenizer, files or {}

    @property
    def is_complete(self) -> bool:
        """Whether the last step is done, or early stopping has ended the run."""
        run, patience = self.run, self.run.config.patience
        return run.finished >= run.config.steps or 0 < patience <= run.worse

    def run_steps(self, show: Progress, signals: list[int]) -> int:
        """Runs steps until the last one, early stopping or a signal to a process; returns that, or 0."""
        run, config, signal = self.run, self.run.config, 0
        while not (self.is_complete or (signal := run.world.largest(max(signals, default=0)))):
            with self.rescued():
                sums, is_best = run.step(), False
            show(sums.loss / sums.targets, sums.tokens / sums.seconds)
            is_last = run.finished == config.steps
            if self.evaluation is not None and (is_last or is_due(run.finished, config.evaluate_every)):
                with self.rescued():
                    loss = run.evaluate(self.evaluation)
                self.metrics.add({"step": run.finished, "evaluation_loss": loss})
                is_best = run.worse == 0 and config.patience > 0
            if self.is_complete or is_due(run.finished, config.log_every):
                self.log()
            if is_best or is_due(run.finished, config.save_every):
                self.save()
        return signal

    @contextmanager
    def rescued(self) -> Iterator[None]:
        """Saves the last finished step if an error ends the run, and adds to the error how to continue."""
        try:
            yield
        except Exception as error:
            run, place = self.run, self.place
            if place is None:
                raise
            # Processes save together, and an error that not all of them have would leave them waiting.
            is_common = run.world.is_alone or isinstance(error, NotFiniteError)
            if run.finished and run.is_consistent and is_common:
                try:
                    self.save()
                except Exception as failure:
                    error.add_note(f"No checkpoint could be written: {failure}")
            if steps := place.steps():
                error.add_note(
                    f"The checkpoint after step {steps[-1]} is in {place.checkpoint(steps[-1])}; remove the "
                    "cause, and continue from it with resume=True (--resume)."
                )
            raise

    def log(self) -> None:
        """Adds a record of the steps since the last one."""
        run, sums = self.run, self.run.sums
        record = {
            "step": run.finished,
            "loss": sums.loss / sums.targets,
            "learning_rate": run.learning_rate,
            "gradient_norm": run.gradient_norm,
            "epoch": run.sampler.epoch + run.sampler.position / run.sampler.size,
            "targets": sums.targets,
            "tokens": sums.tokens,
            "tokens_per_second": sums.tokens / sums.seconds,
        }
        run.sums = type(sums)()
        self.metrics.add(record)

    def save(self) -> None:
        """Writes a checkpoint into the folder, if there is one."""
        if self.place is not None:
            best = self.run.best[0] if self.run.best and self.run.config.patience else None
            self.place.save(self.run.state(), self.write_model, best)

    def write_model(self, folder: Path) -> None:
        """Writes the model, or its adapters, and the tokenizer; of another module, each child that is one."""
        model = self.run.world.whole(self.run.model)
        if not self.run.world.is_first:
            return
        parts = {"": model} if isinstance(model, Model) else dict(model.named_children())
        for name, part in parts.items():
            if isinstance(part, Model):
                write = save_adapter if has_adapters(part) else save
                write(part, folder / name, tokenizer=self.tokenizer)
        write_texts(folder, self.files)

    def write_files(self) -> None:
        """Writes the further files into the folder of the run, if there is one."""
        if self.place is not None:
            write_texts(self.place.path, self.files)

    def finish(self) -> None:
        """Writes a checkpoint, and the model of a complete run, with `patience` the best one."""
        run, place = self.run, self.place
        self.save()
        if place is None or not self.is_complete:
            return
        if run.config.patience and run.best and run.best[0] != run.finished:
            load_parameters(place.load(run.best[0]).tensors, run.model)
        self.write_model(place.model)

    def message(self) -> str:
        """Returns the message after a signal."""
        done = f"training was interrupted after step {self.run.finished} of {self.run.config.steps}"
        if self.place is None:
            return f"{done}; nothing was saved, since the run has no folder (folder=...)."
        if self.is_complete:
            return f"{done}, when it was complete; the model is in {self.place.model}."
        return f"{done}; continue with train(..., folder={str(self.place.path)!r}, resume=True)."


def write_texts(folder: Path, files: Mapping[str, str]) -> None:
    """Writes texts by the names of their files."""
    for name, text in files.items():
        write_atomically(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))


def is_due(step: int, every: int) -> bool:
    """Whether something happens after a step that happens every so many steps; 0: at the end alone."""
    return every > 0 and step % every == 0
