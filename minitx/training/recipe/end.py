"""The end of a run that a recipe described, and the command that uses its model."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minitx.io import read_json
from minitx.readers import read_values
from minitx.training.distributed.group import has_several_processes
from minitx.training.recipe.file import Recipe, files_of
from minitx.training.recipe.objectives import read_objective
from minitx.training.recipe.turns import conversation
from minitx.training.session import TrainResult
from minitx.training.state import MODEL

# Objective -> command, and what follows the model's folder.
_COMMANDS = {
    "masked-lm": ("minitx run fill-mask", '"A {mask} sleeps."'),
    "causal-lm": ("minitx generate", '"Once upon a time" --temperature 0.8'),
    "span-corruption": ("minitx generate", '"A cat <extra_id_0> on the mat."'),
    "denoising": ("minitx generate", '"A {mask} sleeps." --beams 4'),
    "replaced-tokens": ("minitx inspect", ""),
    "seq2seq-lm": ("minitx generate", '"A source text" --beams 4'),
    "instruct": ("minitx generate", '"A prompt" --temperature 0.8'),
    "dpo": ("minitx generate", '"A prompt" --temperature 0.8'),
    "sequence-labels": ("minitx run text-classification", '"A text"'),
    "token-labels": ("minitx run token-classification", '"Ann lives in Paris."'),
    "answer-spans": ("minitx run question-answering", '"Who sleeps?" --context "A cat sleeps."'),
    "sentence-pairs": ("minitx embed", '"A cat sleeps." "A kitten naps."'),
}


@dataclass(frozen=True)
class TrainingEnd:
    """The end of a run. `print(end)` shows it.

    Attributes:
        steps: number of finished steps.
        loss: mean over the last steps.
        best_step, best_loss: of the best evaluation, or None.
        model: folder of the trained model.
        use: a command that uses it.
    """

    steps: int
    loss: float
    best_step: int | None
    best_loss: float | None
    model: str
    use: str

    @classmethod
    def of(cls, recipe: Recipe, result: TrainResult) -> TrainingEnd:
        """Returns the end of a run.

        Args:
            recipe: of the run.
            result: of `run_recipe`.
        """
        folder = recipe.folder / MODEL
        use = command(read_objective(recipe.objective).task.name, folder, is_conversation(recipe))
        return cls(result.steps, result.loss, result.best_step, result.best_loss, str(folder), use)

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Returns the end as text."""
        best = "" if self.best_loss is None else f"; best evaluation {self.best_loss:.4f}"
        at = "" if self.best_loss is None else f" after step {self.best_step}"
        done = f"{self.steps:,} steps, loss {self.loss:.4f}{best}{at}"
        return f"{done}\nThe model is in {self.model}. Use it:\n  {self.use}"


def command(objective: str, folder: Path, in_turns: bool) -> str:
    """Returns a command that uses a trained model.

    Args:
        objective: name of the objective.
        folder: of the model.
        in_turns: whether the training data consists of conversations.
    """
    program, rest = _COMMANDS[objective]
    if objective == "replaced-tokens":
        folder = folder / "discriminator"
    if in_turns and has_chat_template(folder):
        program, rest = "minitx chat", ""
    if "{mask}" in rest:
        rest = rest.format(mask=read_json(folder / "tokenizer_config.json").get("mask_token"))
    return f"{program} {shlex.quote(str(folder))} {rest}".rstrip()


def interruption(message: str, folder: Path) -> str:
    """Returns the message of an interrupted run, with the command that continues it.

    Args:
        message: of `Interrupted`.
        folder: of the run.
    """
    reason, mark, _ = message.partition("; continue with ")
    program = "torchrun ... -m minitx" if has_several_processes() else "minitx"
    return f"{reason}{mark}{program} train {shlex.quote(str(folder))} --resume" if mark else reason


def at_command_line(message: str) -> str:
    """Returns a message of `check_place` with options of the command line."""
    folder, _, _ = message.partition(" holds a run; ")
    program = "torchrun ... -m minitx" if has_several_processes() else "minitx"
    again = f"continue it with {program} train {shlex.quote(folder)} --resume"
    message = message.replace("continue it with resume=True (--resume)", again)
    return message.replace("resume=True (--resume)", "--resume")


def is_conversation(recipe: Recipe) -> bool:
    """Whether the first record of a recipe's data is a conversation, and not a prompt and a response."""
    if read_objective(recipe.objective).task.name not in ("instruct", "dpo") or recipe.data.files is None:
        return False
    path, columns = files_of(recipe.data.files, "data.files")[0], recipe.data.columns
    _, row = next(read_values(path))
    fields = ("messages", "prompt", "chosen")
    names = {name: columns.get(name, name) for name in fields if not columns or name in columns}
    return bool(conversation({name: row[column] for name, column in names.items() if column in row}))


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template."""
    config = read_json(folder / "tokenizer_config.json")
    return "chat_template" in config or (folder / "chat_template.jinja").is_file()
