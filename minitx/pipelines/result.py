"""Results of tasks: the plain dicts and lists of transformers, which print well and know their origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitx.pipelines.task import ModelInput


@dataclass(frozen=True)
class Details:
    """The origin of a result.

    Attributes:
        task: name of the task.
        request: the checked input, by the names of its fields.
        inputs: of the model; sequences of text have `input_ids`, `tokens` and `offsets`.
        outputs: for each of `inputs`, the model's output, such as its logits, on the CPU.
    """

    task: str
    request: Mapping[str, Any]
    inputs: tuple[ModelInput, ...]
    outputs: tuple[Any, ...]


class _Result:
    """The part that results have in common.

    Attributes:
        details: the origin; None for results of a stream or a file, and of `details=False`.
    """

    details: Details | None = None

    def show(self, path: str | Path | None = None) -> Any:
        """Draws the result.

        Args:
            path: an .html, .png or .svg file; None returns a drawing, which a notebook displays and `print`
                shows as text.

        Returns:
            The drawing, or the path.

        Raises:
            ValueError: the result has no details, or another kind of file.
            ImportError: a .png or .svg file without matplotlib; the message names the extra.
        """
        from minitx.pipelines.show import drawing_of

        drawing = drawing_of(self, self.details)
        return drawing if path is None else drawing.save(path)

    def _repr_html_(self) -> str | None:
        return None if self.details is None else self.show().html()

    def __str__(self) -> str:
        return repr(self) if self.details is None else self.show().text()


class Prediction(_Result, dict[str, Any]):
    """One answer: a dict of transformers' keys, each also an attribute."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"This result has no {name!r}; it has {', '.join(map(str, self))} and details.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self:
            self[name] = value
        else:
            super().__setattr__(name, value)


class Predictions(_Result, list[Any]):
    """Several answers to one input, such as the entities of a text: a list of dicts."""

    def __init__(self, answers: Iterable[Any] = (), *, details: Details | None = None) -> None:
        super().__init__(answers)
        if details is not None:
            self.details = details
