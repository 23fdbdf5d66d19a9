"""`run_recipe`: from a TOML file to a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from minitx.tokenizer import load_tokenizer
from minitx.training.distributed.group import from_first, joined
from minitx.training.recipe.file import RECIPE, Recipe, read_recipe
from minitx.training.recipe.prepare import Prepared, prepare
from minitx.training.session import TrainResult, train
from minitx.training.state import check_place
from minitx.transaction import transaction


def run_recipe(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> TrainResult:
    """Trains what a recipe describes; `minitx train` does this.

    The recipe, with its overrides, is written as recipe.toml into the folder of the run, beside each of its
    checkpoints and beside the trained model.

    Started by torchrun, it joins the other processes, and leaves them at the end: the first one trains the
    tokenizer and writes the token blocks, which the others take, and all train as `train` does.

    Args:
        recipe: from `read_recipe`; or a TOML file, or the folder of a run.
        overrides: as for `read_recipe`.
        folder: as for `read_recipe`.
        resume: continue the run in the folder from its last checkpoint.
        progress: show progress bars; None: at a terminal.

    Returns:
        Steps and metrics; the trained model is in the folder `model` of the run's folder.

    Raises:
        ArgumentTypeError, ArgumentValueError: values that do not fit.
        FileExistsError, FileNotFoundError: a folder of another run, or without a run to resume; missing
            files.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP.
        FirstProcessError: the first of several processes cannot begin, and raises its own error.
        FloatingPointError, OSError, ValueError: as `train`.

    Example:
        >>> run_recipe("recipes/pretrain-causal.toml", ["data.files=mine.txt", "train.steps=50"])
    """
    with joined():
        if isinstance(recipe, Recipe):
            read = recipe
        else:
            read = from_first(partial(read_recipe, recipe, overrides, folder=folder))
        prepared = prepare_in_turn(read, resume=resume, progress=progress)
        return run_prepared(prepared, resume=resume, progress=progress)


def prepare_in_turn(recipe: Recipe, *, resume: bool = False, progress: bool | None = None) -> Prepared:
    """Prepares a run in the first process, then in the others; arguments and errors are those of `prepare`.

    Raises:
        FileExistsError, FileNotFoundError: a folder of another run, or without a run to resume.
        FirstProcessError: the first of several processes failed.
    """
    first: list[Prepared] = []

    def _prepare() -> dict[str, str | bytes]:
        check_place(recipe.folder, resume=resume)
        first.append(prepare(recipe, resume=resume, progress=progress))
        return first[0].tokenizer.contents()

    contents = from_first(_prepare)
    if first:
        return first[0]
    with TemporaryDirectory() as folder:
        with transaction(Path(folder)) as files:
            files.write_all(contents)
        tokenizer = load_tokenizer(folder)
    return prepare(recipe, resume=resume, tokenizer=tokenizer, progress=False)


def run_prepared(prepared: Prepared, *, resume: bool = False, progress: bool | None = None) -> TrainResult:
    """Trains a run that is prepared; arguments and errors are those of `run_recipe`."""
    return train(
        prepared.model,
        prepared.dataset,
        prepared.objective,
        prepared.config,
        folder=prepared.recipe.folder,
        evaluation=prepared.evaluation,
        tokenizer=prepared.tokenizer,
        files={RECIPE: prepared.recipe.text},
        resume=resume,
        progress=progress,
    )
