"""`minitx.pipeline`: one line from a text to an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from minitx.pipelines.batching import Call, limits_for, progress_bar
from minitx.pipelines.checks import check_iterable
from minitx.pipelines.inputs import read_rows, run_rows
from minitx.pipelines.models import check_eval, load_model, usual_model
from minitx.pipelines.registry import BY_MODEL_TYPE, TASKS, TaskSpec, default_task, find_task
from minitx.pipelines.result import Details
from minitx.pipelines.task import ModelInput, Options, Request, Task
from minitx.transaction import read_consistently
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_flags,
    check_integer,
    check_optional_strings,
    check_type,
)

if TYPE_CHECKING:
    from minitx.models import Model
    from minitx.tokenizer import Tokenizer

CHUNK = 512  # requests that are sorted by length together
FIRST_CHUNK = 8  # of a stream, which has its first results soon; the next ones double


class Pipeline:
    """A task with its model; from `minitx.pipeline`.

    Calls from several threads do not disturb one another. `with pipeline(...) as pipe:` frees the model at
    the end.

    Attributes:
        task: the `Task`, with `model` and `tokenizer`.
        options: of every call, unless the call states others.
    """

    def __init__(
        self,
        task: Task[Any, Any],
        options: Options,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
        details: bool | None = None,
    ) -> None:
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        check_flags(**{n: v for n, v in {"progress": progress, "details": details}.items() if v is not None})
        self._task: Task[Any, Any] | None = task
        self.options = options
        self._batch_size, self._progress, self._details = batch_size, progress, details

    @property
    def task(self) -> Task[Any, Any]:
        """The task.

        Raises:
            RuntimeError: the pipeline is closed.
        """
        if self._task is None:
            raise RuntimeError("This pipeline is closed, and its model was freed; make another one.")
        return self._task

    @property
    def model(self) -> Model:
        """The model."""
        model: Model = self.task.model
        return model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, of a task on text."""
        task: Any = self.task
        tokenizer: Tokenizer = task.tokenizer
        return tokenizer

    def __call__(self, *inputs: Any, columns: Sequence[str] | None = None, **named: Any) -> Any:
        """Returns the results of requests, in their order.

        Args:
            *inputs: a request, such as a string or a dict of the task's fields; a list or tuple of requests,
                which gives a list of results; any other iterable, which gives an iterator of results that
                reads ahead a little, or not at all with batch_size=1; or the `Path` of a .txt (one request
                per line), .jsonl or .csv file, likewise. It may also be named: inputs=...
            columns: of a file: the columns or keys of the task's fields, in their order; None: their names.
            **named: fields of the task by name, such as question= and context=, as one value or lists of
                values; or, for this call only, options of the task, and batch_size.

        Raises:
            TypeError, ValueError: inputs that are not requests of the task, or unknown options.
        """
        if "batch_size" in named:
            return self._with_batch_size(named.pop("batch_size"))(*inputs, columns=columns, **named)
        task = self.task
        if "inputs" in named and "inputs" not in task.fields:
            inputs = (*inputs, named.pop("inputs"))
        # a field that is an option too, such as candidate_labels, is named for all requests
        fields = [name for name in task.fields if name in named and not hasattr(task.Options, name)]
        given = {name: named.pop(name) for name in fields}
        options = task.options(self.options, named)
        values = task.arguments(inputs, given)
        values = task.prepare(values, options)
        details = self._details is not False
        if isinstance(values, Path):
            if values.is_dir():
                hint = "a text is passed as a string, not as a Path"
                raise ArgumentValueError("inputs", values, "the path of a file, not of a folder", hint)
            rows = read_rows(values, task.fields, columns, optional=task.optional)
            lines = run_rows(rows, values, task.fields[0], lambda requests: self._stream(requests, options))
            return (result for result, _ in lines)
        if columns is not None:
            raise ArgumentValueError("columns", columns, "None", "it names columns of a file, a pathlib.Path")
        if task.is_single(values):
            requests = {task.fields[0]: task.read(task.only(values), task.fields[0])}
            (result,) = self._run(task, task.preprocess_all(requests, options), options, details, Call())
            return task.unwrap(result, values, options)
        if isinstance(values, list | tuple):
            requests = task.read_all(values)
            with progress_bar(len(requests), task.spec.name, self._progress) as advance:
                results: list[Any] = []
                source, call = iter(requests.items()), Call(advance, total=len(requests))
                while chunk := task.preprocess_all(dict(islice(source, CHUNK)), options):
                    results += self._run(task, chunk, options, details, call)
                return results
        check_iterable(values, f"{task.spec.name} takes {task.describe_inputs()}")
        return self._stream(values, options)

    def _with_batch_size(self, batch_size: int | None) -> Self:
        """Returns a pipeline of the same task with another number of rows in a batch."""
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        other = copy(self)
        other._batch_size = batch_size
        return other

    def stream(self, inputs: Any, **options: Any) -> Iterator[str]:
        """Returns an iterator of the pieces of a generated text, as they come; joined they are the new text.

        Args:
            inputs: one request.
            **options: of the task, for this call only.

        Raises:
            TypeError, ValueError: several requests, unknown options, or a task that does not generate text.
        """
        task = self.task
        settings = task.options(self.options, options)
        if not task.is_single(inputs):
            hint = f"{task.spec.name} takes {task.describe_inputs()}; call the pipeline for several"
            raise ArgumentTypeError("inputs", inputs, "one request", hint)
        check_eval(task.model)
        return task.stream(task.read(task.only(inputs), task.fields[0]), settings)

    def _stream(self, values: Iterable[Any], options: Options) -> Iterator[Any]:
        """Yields results in the order of the inputs, chunk by chunk.

        An error of an input, or of its source, comes after the results of all inputs before it. With one row
        in a batch nothing is read ahead.
        """
        task, details = self.task, self._details is True
        most = 1 if self._batch_size == 1 else CHUNK
        source, size, count, error = iter(values), min(FIRST_CHUNK, most), 0, None
        with progress_bar(None, task.spec.name, self._progress) as advance:
            call = Call(advance, total=None)
            while error is None:
                chunk, error = task.read_ahead(islice(source, size), options, count)
                if not chunk:
                    break
                yield from self._run(task, chunk, options, details, call)
                count, size = count + len(chunk), min(2 * size, most)
        if error is not None:
            raise error

    def _run(
        self,
        task: Task[Any, Any],
        requests: Sequence[tuple[Request, Sequence[ModelInput]]],
        options: Options,
        details: bool,
        call: Call,
    ) -> list[Any]:
        """Returns the results of requests, whose inputs share batches.

        Args:
            task: this pipeline's.
            requests: with their inputs of the model.
            options: of the call.
            details: whether results keep theirs.
            call: whose requests they are.
        """
        results = []
        outputs = self._outputs(task, [items for _, items in requests], options, call)
        for (request, items), rows in zip(requests, outputs, strict=True):
            result = task.postprocess(request, items, rows, options)
            if details and hasattr(result, "details"):
                result.details = Details(task.spec.name, request, tuple(items), tuple(rows))
            results.append(result)
        return results

    def _outputs(
        self,
        task: Task[Any, Any],
        groups: Sequence[Sequence[ModelInput]],
        options: Options,
        call: Call,
    ) -> list[list[Any]]:
        """Returns the model's outputs for the inputs of each group, which share batches."""
        check_eval(task.model)  # training may have begun since the pipeline was made
        call.noted = call.noted or task.note_inputs(groups, options, call.start, call.total)
        call.start += len(groups)
        limits = limits_for(task.model.device, self._batch_size)
        flat = [(index, item) for index, items in enumerate(groups) for item in items]
        outputs: list[Any] = [None] * len(flat)
        left = [len(items) for items in groups]
        for batch in task.batches([item for _, item in flat], limits, options):
            rows = task.forward([flat[index][1] for index in batch], options)
            for index, row in zip(batch, rows, strict=True):
                outputs[index] = row
                left[flat[index][0]] -= 1
            call.advance(sum(left[index] == 0 for index in {flat[index][0] for index in batch}))
        ordered = iter(outputs)
        return [list(islice(ordered, len(items))) for items in groups]

    def close(self) -> None:
        """Frees the model; the pipeline cannot be used any more."""
        device = None if self._task is None else self._task.model.device
        self._task = None
        if device is not None and device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._task is None:
            return "Pipeline(closed)"
        model = self.model
        origin = getattr(model.checkpoint, "folder", None) or type(model).__name__
        dtype = str(model.dtype).removeprefix("torch.")
        parts = [repr(self.task.spec.name), repr(str(origin)), dtype, f"device={str(model.device)!r}"]
        parts += filter(None, [self.task.describe(self.options)])
        return f"Pipeline({', '.join(parts)})"


def pipeline(
    task: str | None = None,
    model: str | Path | Model | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | int | torch.device | None = None,
    batch_size: int | None = None,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
    progress: bool | None = None,
    details: bool | None = None,
    **options: Any,
) -> Pipeline:
    """Makes a function from inputs to answers: preprocessing, a model, postprocessing.

    Args:
        task: name or alias of a task, such as "text-classification"; `minitx pipelines` lists them. None
            takes the task of the model's head.
        model: folder, Hub id, name of a shipped checkpoint such as "minitx/tiny-qa", or a loaded model; None
            takes the task's usual checkpoint from the Hub and, where the Hub cannot be reached, the shipped
            one, if the task has one. A warning names it.
        tokenizer: folder, Hub id, or a loaded tokenizer; None takes that of the model.
        dtype: as for `minitx.load`; None keeps the checkpoint's dtype.
        device: of the model: "cpu", "cuda:1", or a number, -1 for the CPU; None takes an accelerator if any.
        batch_size: most sequences in a batch; None lets their lengths decide. It does not change results.
        revision, token, offline: of the Hub, as for `minitx.load`.
        progress: show a progress bar; None shows one at a terminal if a list takes over a second.
        details: keep `result.details`; None keeps them except for streams and files.
        **options: of the task, for every call.

    Returns:
        The pipeline; call it with inputs.

    Raises:
        TypeError, ValueError: an unknown task or option, or a model without the head of the task: no head is
            ever random.
        FileNotFoundError: as `minitx.load`.
    """
    check_optional_strings(task=task)
    spec, stated = (None, {}) if task is None else find_task(task)
    hub = {"revision": revision, "token": token, "offline": offline}
    if model is None:
        if spec is None:
            raise ArgumentTypeError("task", None, "the name of a task", 'pipeline("fill-mask"), for example')
        model, hub = usual_model(spec, hub)

    def read() -> Any:
        """Loads the model and its tokenizer, both of one save."""
        if isinstance(model, str | Path):
            loaded = load_model(spec, model, dtype, _device(device), hub)
        else:
            loaded = _check_model(model, dtype, device)
        chosen = spec or _task_of(loaded)
        return chosen.task_class().for_model(loaded).load(chosen, loaded, tokenizer, hub)

    is_folder = isinstance(model, str | Path) and os.path.isdir(model)
    implementation = read_consistently(Path(model), read) if is_folder else read()
    pipe: Pipeline = implementation.spec.pipeline_class()(
        implementation,
        implementation.options(None, {**stated, **options}),
        batch_size=batch_size,
        progress=progress,
        details=details,
    )
    return pipe


def _task_of(model: Model) -> TaskSpec:
    """Returns the task of a model without a named one, by its files or its head."""
    if model.checkpoint is not None and model.checkpoint.sentence_files:
        classifies = model.task == "sequence-classification"
        return TASKS["text-ranking" if classifies else "sentence-similarity"]
    kind = getattr(model.checkpoint, "model_type", "")
    purpose = BY_MODEL_TYPE.get(kind) if model.task == "seq2seq-lm" else None
    spec = TASKS[purpose] if purpose else default_task(model.task or "none")
    if spec is None:
        hint = f"the model has the head {model.task!r}, which is that of no single task"
        raise ArgumentValueError("task", None, "the name of a task", hint)
    return spec


def _check_model(model: Any, dtype: Any, device: Any) -> Model:
    """Returns a loaded model if it is one of minitx, else raises ArgumentTypeError."""
    from minitx.models import Model

    hint = "pass a folder, a Hub id, or a model of minitx.load"
    check_type("model", model, Model, "a model of minitx", hint)
    for name, value in {"dtype": dtype, "device": device}.items():
        if value is not None:
            raise ArgumentValueError(name, value, "None with a loaded model", f"call model.to({value!r})")
    loaded: Model = model
    return loaded


def _device(device: Any) -> torch.device:
    """Returns the device: an accelerator by default if there is one; -1 is the CPU."""
    from minitx.checkpoint.load import check_device

    found = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return found or torch.device("cpu")
    if isinstance(device, int) and not isinstance(device, bool):
        kind = "cuda" if found is None else found.type
        device = "cpu" if device == -1 else f"{kind}:{device}"
    return check_device(device)
