"""`minitx train`: a recipe to a trained model."""

from __future__ import annotations

import shlex
import warnings
from typing import TYPE_CHECKING, Any

from minitx.cli.options import Argument, command
from minitx.cli.render import emit, note
from minitx.cli.source import Source
from minitx.signals import CODES

if TYPE_CHECKING:
    from minitx.training.recipe.file import Recipe


@command(Argument("recipe", "RECIPE", "a TOML file; or the folder of a run, to --resume"))
def train(source: Source, recipe: str, folder: str | None, json: bool, **values: Any) -> int:
    """Trains a model, or prints what a run would take; returns the exit code.

    Of several processes, which torchrun starts, the first one prints.
    """
    from minitx.training import plan_recipe, read_recipe
    from minitx.training.distributed.group import FirstProcessError, from_first, is_first, joined

    progress = False if json else None
    with joined():
        if not is_first():
            warnings.simplefilter("ignore")
        try:
            read = from_first(lambda: read_recipe(recipe, values["set"], folder=folder))
            if values["dry_run"]:
                plan = from_first(lambda: plan_recipe(read, progress=progress))
                emit(json, plan.to_json(), str(plan))
                return 0
            return _run(read, bool(values["resume"]), json, progress)
        except FirstProcessError:  # which prints its own error
            return 2


def _run(recipe: Recipe, resume: bool, json: bool, progress: bool | None) -> int:
    """Trains, and prints the end; returns the exit code."""
    from minitx.training import Interrupted, TrainingEnd, run_recipe
    from minitx.training.distributed.group import has_several_processes, is_first

    try:
        result = run_recipe(recipe, resume=resume, progress=progress)
    except Interrupted as stopped:
        if is_first():
            reason, mark, _ = str(stopped).partition("; continue with ")
            start = "torchrun ... -m minitx" if has_several_processes() else "minitx"
            place = shlex.quote(str(recipe.folder))
            note(f"{reason}{mark and f'{mark}{start} train {place} --resume'}")
        return CODES[stopped.signal]
    if is_first():
        end = TrainingEnd.of(recipe, result)
        emit(json, end.to_json(), str(end))
    return 0
