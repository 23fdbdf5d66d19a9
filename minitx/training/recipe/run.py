"""`run_recipe`: from a TOML file to a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minitx.training.recipe.file import RECIPE, Recipe, read_recipe
from minitx.training.recipe.prepare import Prepared, prepare
from minitx.training.session import TrainResult, train
from minitx.training.state import check_place


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
        Interrupted: Ctrl-C or SIGTERM.
        FloatingPointError, OSError, ValueError: as `train`.

    Example:
        >>> run_recipe("recipes/pretrain-causal.toml", ["data.files=mine.txt", "train.steps=50"])
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, overrides, folder=folder)
    check_place(recipe.folder, resume=resume)
    return run_prepared(prepare(recipe, resume=resume, progress=progress), resume=resume, progress=progress)


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
