"""The end of a run that a recipe described, and the command that uses its model."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minitx.io import read_json
from minitx.training.recipe.file import Recipe
from minitx.training.recipe.objectives import read_objective
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
        use = command(read_objective(recipe.objective).task.name, folder)
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


def command(objective: str, folder: Path) -> str:
    """Returns a command that uses a trained model.

    Args:
        objective: name of the objective.
        folder: of the model.
    """
    program, rest = _COMMANDS[objective]
    if objective == "replaced-tokens":
        folder = folder / "discriminator"
    if objective in ("instruct", "dpo") and has_chat_template(folder):
        program, rest = "minitx chat", ""
    if "{mask}" in rest:
        rest = rest.format(mask=read_json(folder / "tokenizer_config.json").get("mask_token"))
    return f"{program} {shlex.quote(str(folder))} {rest}".rstrip()


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template."""
    config = read_json(folder / "tokenizer_config.json")
    return "chat_template" in config or (folder / "chat_template.jinja").is_file()
