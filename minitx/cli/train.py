"""`minitx train`: a recipe to a trained model."""

from __future__ import annotations

import shlex
from typing import Any

from minitx.cli.options import Argument, command
from minitx.cli.render import emit, note
from minitx.cli.source import Source
from minitx.signals import CODES


@command(Argument("recipe", "RECIPE", "a TOML file; or the folder of a run, to --resume"))
def train(source: Source, recipe: str, folder: str | None, json: bool, **values: Any) -> int:
    """Trains a model, or prints what a run would take; returns the exit code."""
    from minitx.training import Interrupted, TrainingEnd, plan_recipe, read_recipe, run_recipe

    resume, progress = bool(values["resume"]), False if json else None
    read = read_recipe(recipe, values["set"], folder=folder)
    if values["dry_run"]:
        plan = plan_recipe(read, progress=progress)
        emit(json, plan.to_json(), str(plan))
        return 0
    try:
        end = TrainingEnd.of(read, run_recipe(read, resume=resume, progress=progress))
    except Interrupted as stopped:
        reason, mark, _ = str(stopped).partition("; continue with ")
        note(f"{reason}{mark and mark + shlex.join(['minitx', 'train', str(read.folder), '--resume'])}")
        return CODES[stopped.signal]
    emit(json, end.to_json(), str(end))
    return 0
