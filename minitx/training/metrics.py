"""The metrics of a run: JSON lines, TensorBoard's event files, a progress bar, and the loss curve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from minitx.extras import extra_error
from minitx.io import naming, write_atomically
from minitx.pictures.figure import FORMATS, import_figure, save_figure
from minitx.validation import ArgumentValueError, check_output, check_path

Record = Mapping[str, Any]
TENSORBOARD = "tensorboard"


class Metrics:
    """Records of a run: each has a `step`, and numbers by name.

    Args:
        path: file of JSON lines, which a resumed run continues; None: records are kept in memory only.
        step: of the checkpoint that the run continues from; later records are dropped, since the run
            computes them again.
        tensorboard: folder of TensorBoard's event files; None: there are no such files.

    Attributes:
        records: all of them, earlier ones of a resumed run included.

    Raises:
        ImportError: TensorBoard is not installed; the message names the extra.
        ValueError: a file that does not hold records.
    """

    def __init__(self, path: Path | None = None, step: int = 0, tensorboard: Path | None = None) -> None:
        self.path, self.records = path, read_metrics(path, step) if path is not None else []
        self._writer = None if tensorboard is None else event_writer(tensorboard, step)
        if path is not None and path.exists():
            text = "".join(map(_line, self.records))
            write_atomically(path, lambda file: file.write_text(text, "utf-8"))

    def add(self, record: Record) -> None:
        """Appends a record, and writes it at once."""
        self.records.append(dict(record))
        if self.path is not None:
            with naming(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))
        if self._writer is not None:
            for name, value in record.items():
                if name != "step":
                    self._writer.add_scalar(name, value, record["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _line(record: Record) -> str:
    return json.dumps(dict(record)) + "\n"


def read_metrics(path: str | Path, last: int | None = None) -> list[dict[str, Any]]:
    """Reads the records of a run; of a file that does not exist, none.

    Args:
        path: of metrics.jsonl.
        last: the last step to read; None: all.

    Raises:
        ValueError: a line that is no record. An incomplete last line, of a process that was killed, is none.
    """
    path = check_path("path", path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):  # the last is empty, or incomplete
        try:
            record = json.loads(line)
            step = int(record["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not a record of a step ({error!r}); correct or remove the line."
            ) from None
        if last is None or step <= last:
            records.append(record)
    return records


def event_writer(folder: Path, step: int) -> Any:
    """Returns a writer of TensorBoard's event files; records after `step` in the folder are hidden.

    Raises:
        ImportError: TensorBoard is not installed; the message names the extra.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise extra_error("tensorboard=True needs TensorBoard", error, "tensorboard") from None
    return SummaryWriter(str(folder), purge_step=step + 1)


# --- progress ----------------------------------------------------------------------------------------


class Progress(Protocol):
    """Shows a finished step."""

    def __call__(self, loss: float, tokens_per_second: float) -> None: ...


@contextmanager
def progress_bar(steps: int, finished: int, shown: bool | None) -> Iterator[Progress]:
    """Shows a progress bar on stderr: steps, time left, loss and tokens per second.

    Args:
        steps: of the run.
        finished: steps that an earlier process has done.
        shown: None: at a terminal, after a second.
    """
    if shown is False:
        yield lambda loss, tokens_per_second: None
        return
    from tqdm import tqdm

    off, delay = (None, 1.0) if shown is None else (False, 0.0)
    with tqdm(total=steps, initial=finished, desc="Training", unit="step", disable=off, delay=delay) as bar:

        def _show(loss: float, tokens_per_second: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s", refresh=False)
            bar.update()

        yield _show


# --- the loss curve ----------------------------------------------------------------------------------


def loss_curve(records: Sequence[Record] | str | Path, path: str | Path) -> Path:
    """Draws the losses of a run over its steps, as a .png or .svg file.

    Args:
        records: of a run, such as `TrainResult.metrics`, or the path of a metrics.jsonl.
        path: of the picture.

    Returns:
        The path.

    Raises:
        ArgumentValueError: no losses, or another kind of file.
        ImportError: matplotlib is not installed; the message names the extra.
    """
    target = check_output("path", path, FORMATS)
    rows = read_metrics(Path(records)) if isinstance(records, str | Path) else records
    curves = {
        label: [(row["step"], row[name]) for row in rows if name in row]
        for name, label in (("loss", "training"), ("evaluation_loss", "evaluation"))
    }
    if not any(curves.values()):
        raise ArgumentValueError("records", rows, "records with losses", "the run has not logged any yet")
    figure = import_figure()(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for label, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) == 1 else None)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, target)
