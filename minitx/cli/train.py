"""`minitx train`: a recipe to a trained model."""

from __future__ import annotations

from typing import Any

from minitx.cli.options import Argument, command
from minitx.cli.render import emit, note
from minitx.cli.source import Source
from minitx.signals import CODES


@command(Argument("recipe", "RECIPE", "a TOML file; or the folder of a run, to --resume"))
def train(source: Source, recipe: str, folder: str | None, json: bool, **values: Any) -> int:
    """Trains a model, or prints what a run would take; returns the exit code.

    Of several processes, which torchrun starts, the first one prints.
    """
    from minitx.training import Interrupted, TrainingEnd, plan_recipe, read_recipe, run_recipe
    from minitx.training.distributed.group import FirstProcessError, from_first, is_first, is_repeated, joined
    from minitx.training.recipe.end import at_command_line, interruption
    from minitx.training.recipe.file import changes

    resume, progress = bool(values["resume"]), False if json else None
    with joined(quiet=True):
        try:
            read = from_first(lambda: read_recipe(recipe, values["set"], folder=folder))
            changed = from_first(lambda: changes(read, values["set"])) if resume else []
            if changed and is_first():
                hint = "pass the folder of the run to keep its values"
                note(f"the recipe differs from that of the run: {', '.join(changed)}; {hint}.")
            if values["dry_run"]:
                report: Any = from_first(lambda: plan_recipe(read, progress=progress))
            else:
                result = run_recipe(read, resume=resume, progress=progress)
                if not is_first():  # which alone has the metrics of earlier steps
                    return 0
                report = TrainingEnd.of(read, result)
        except FirstProcessError:  # which prints its own error
            return 2
        except Interrupted as stopped:
            note(interruption(str(stopped), read.folder))
            return CODES[stopped.signal]
        except Exception as error:
            if is_repeated(error):
                return 2
            if isinstance(error, FileExistsError | FileNotFoundError) and "(--resume)" in str(error):
                raise type(error)(at_command_line(str(error))) from None
            raise
        emit(json, report.to_json(), str(report))
    return 0
