"""`Task`: preprocess -> model -> postprocess, the shape of every task, whatever its inputs are.

`text_task` has the part that tasks on text share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from minitx.habits import UnknownArgumentError
from minitx.models.compiled import check_not_compiled
from minitx.optimize.unpadded import computes_no_padding, without_padding
from minitx.pipelines.batching import BatchLimits, fill_batches, make_batches
from minitx.pipelines.checks import note_truncation, option_hint
from minitx.pipelines.models import check_head
from minitx.pipelines.registry import TaskSpec
from minitx.validation import ArgumentError, ArgumentTypeError, ArgumentValueError

Request = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a task; a subclass adds them as fields, and checks them in `__post_init__`."""

    def __post_init__(self) -> None:
        """Checks the values; every task has none of its own."""


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One row of a batch, such as a text, a window of it, or an image.

    Attributes:
        arguments: of the model, by name, without the dimension of the batch.
        size: the share of a batch that it takes: the number of its tokens, patches or frames.
        truncated: whether a part of the input was cut off.
        label: whatever tells this row from the others of its request, such as the label of a hypothesis.
    """

    arguments: Mapping[str, Any]
    size: int = 1
    truncated: bool = False
    label: Any = None


OptionsT = TypeVar("OptionsT", bound=Options)
InputT = TypeVar("InputT", bound=ModelInput)


class Task(Generic[OptionsT, InputT]):
    """One task of one model: `preprocess`, `forward` and `postprocess`.

    A subclass has the steps, its `Options`, and the names of its inputs and outputs; `forward` runs the model
    on a batch unless the subclass does otherwise.

    Args:
        spec: entry of the table of tasks.
        model: in eval mode, with one of the heads of `spec`.

    Attributes:
        fields: names of the inputs of one request; the first is the one that a plain value is.
        optional: those that may be left out.
        lists: those that are lists of strings in one request, such as the documents that are ranked.
        files: fields that the command line reads from a file -> their description.
        outputs: names of the model's outputs that `output_of` uses.
        pads: whether inputs of different sizes may share a batch; `collate` then pads them.
        single_lists: whether a list of one request has its result alone, as in transformers.
        kind: phrase about a plain value, for messages.
        remedy: advice of the note about truncated inputs.

    Raises:
        ArgumentValueError: a model with another head, or in training mode.
    """

    Options: ClassVar[type[Any]] = Options
    fields: ClassVar[tuple[str, ...]] = ("input",)
    optional: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[Mapping[str, str]] = {}
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    pads: ClassVar[bool] = False
    single_lists: ClassVar[bool] = False
    kind: ClassVar[str] = "a value"
    remedy: ClassVar[str] = "shorter ones are used as a whole"

    def __init__(self, spec: TaskSpec, model: Any) -> None:
        check_not_compiled(model)
        check_head(spec, model)
        self.spec, self.model = spec, model

    @classmethod
    def for_model(cls, model: Any) -> type[Task[Any, Any]]:
        """Returns the class for a model; by default this one."""
        return cls

    @classmethod
    def load(cls, spec: TaskSpec, model: Any, tokenizer: Any, hub: Mapping[str, Any]) -> Self:
        """Returns the task of a model, with what its steps need beside it: by default nothing.

        Args:
            spec, model: as for the class.
            tokenizer: as for `minitx.pipeline`.
            hub: arguments for downloads: revision, token and offline.

        Raises:
            ArgumentValueError: a tokenizer for a task that has no text.
        """
        if tokenizer is not None:
            raise ArgumentValueError("tokenizer", tokenizer, "None", f"{spec.name} has no text")
        return cls(spec, model)

    # --- arguments ---------------------------------------------------------------------------------

    def options(self, base: OptionsT | None, values: Mapping[str, Any]) -> OptionsT:
        """Returns options: those of `base` with the values that a call states.

        Raises:
            TypeError, ValueError: an unknown option, or a wrong value.
        """
        known = [field.name for field in fields(self.Options)]
        for name in values:
            if name not in known:
                raise UnknownArgumentError(self.spec.name, name, option_hint(name, [*known, *self.fields]))
        options: OptionsT = self.Options(**values) if base is None else replace(base, **values)
        return options

    def arguments(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Returns the inputs of a call: its argument, or requests made of its named fields.

        A field is one value for all requests, or a list of one per request.

        Args:
            inputs: positional arguments.
            named: fields by name.

        Raises:
            TypeError, ValueError: no inputs, several, or fields of different numbers.
        """
        if len(inputs) == 1 and not named:
            return inputs[0]
        hint = f"a call has {self.describe_inputs()}"
        if len(inputs) > 1 or not (inputs or named):
            raise ArgumentTypeError("inputs", inputs or None, "one argument", hint)
        first = self.fields[0]
        if inputs and first in named:
            raise ArgumentValueError(first, named[first], f"left out beside inputs={inputs[0]!r:.80}", hint)
        table = dict(zip(self.fields, inputs, strict=False)) | dict(named)
        columns = {name: value for name, value in table.items() if self.is_column(name, value)}
        if not columns:
            return table
        sizes = {name: len(value) for name, value in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ArgumentValueError("inputs", sizes, "as many values of each field")
        number = next(iter(sizes.values()))
        rows = {name: value if name in columns else [value] * number for name, value in table.items()}
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]

    def is_column(self, field: str, value: Any) -> bool:
        """Whether the value of a named field is a list of one value per request."""
        is_list = isinstance(value, list | tuple)
        return is_list and (field not in self.lists or any(isinstance(item, list | tuple) for item in value))

    def describe_inputs(self) -> str:
        """Returns a phrase about a request, for messages."""
        names = " and ".join(f"{n!r}{' (optional)' * (n in self.optional)}" for n in self.fields)
        return f"{self.kind}, or a dict with {names}, or a list of them"

    def prepare(self, inputs: Any, options: OptionsT) -> Any:
        """Returns the inputs of a call as requests; by default as they are."""
        return inputs

    def is_single(self, inputs: Any) -> bool:
        """Whether inputs are those of one request, and not several."""
        is_list = isinstance(inputs, list | tuple)
        return self.single_lists and len(inputs) == 1 if is_list else isinstance(inputs, str | Mapping)

    def only(self, inputs: Any) -> Any:
        """Returns the request of single inputs."""
        return inputs[0] if self.single_lists and isinstance(inputs, list | tuple) else inputs

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """Returns the checked fields of one request: of a dict, or the first field as a plain value.

        Args:
            value: of the user.
            name: of the value, for messages.

        Raises:
            TypeError, ValueError: anything else.
        """
        if not isinstance(value, Mapping):
            value = {self.fields[0]: value}
        place = "inputs" if name == self.fields[0] else name
        hint = f"{self.spec.name} takes {self.describe_inputs()}"
        for key in value:
            if key not in self.fields:
                raise ArgumentValueError(f"{place}[{key!r}]", value[key], "left out", hint)
        for field in self.fields:
            if value.get(field) is None and field not in self.optional:
                raise ArgumentTypeError(f"{place}[{field!r}]", None, "stated", hint)
        return {field: self.check_field(field, value.get(field), name) for field in self.fields}

    def read_all(self, values: Iterable[Any], first: int = 0) -> dict[str, dict[str, Any]]:
        """Returns the checked requests by their names in messages, which begin with inputs[first]."""
        names = (f"inputs[{index}]" for index in count(first))
        return {name: self.read(value, name) for name, value in zip(names, values, strict=False)}

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """Returns the checked value of a field; by default any value.

        Args:
            field: one of `fields`.
            value: None for an optional field that is left out.
            name: of the request, for messages.
        """
        return value

    def name_of(self, field: str, name: str) -> str:
        """Returns the name of a field in messages: context, or inputs[3]['context'] of one of several.

        Args:
            field: one of `fields`.
            name: of the request, as for `read`.
        """
        if name == self.fields[0]:
            return field
        return name if field == self.fields[0] else f"{name}[{field!r}]"

    # --- the three steps ---------------------------------------------------------------------------

    def preprocess(self, request: Request, options: OptionsT) -> list[InputT]:
        """Returns the inputs of the model for one request."""
        raise NotImplementedError(f"{type(self).__name__} must define preprocess(request, options).")

    def preprocess_named(self, request: Request, name: str, options: OptionsT) -> list[InputT]:
        """As `preprocess`; an error about a field names the request too, if it is one of several."""
        try:
            return self.preprocess(request, options)
        except ArgumentError as error:
            field, bracket, rest = error.parameter.partition("[")
            if name != self.fields[0] and request.get(field) is not None:
                error.parameter = self.name_of(field, name) + bracket + rest
            raise

    def preprocess_all(
        self, requests: Mapping[str, Request], options: OptionsT
    ) -> list[tuple[Request, list[InputT]]]:
        """Returns requests, by their names in messages, each with its inputs of the model."""
        return [
            (request, self.preprocess_named(request, name, options)) for name, request in requests.items()
        ]

    def read_ahead(
        self, values: Iterable[Any], options: OptionsT, first: int
    ) -> tuple[list[tuple[Request, list[InputT]]], Exception | None]:
        """Returns the preprocessed requests before the first error, and this error.

        Args:
            values: requests; reading them may fail.
            options: of the call.
            first: index of the first value, for messages.
        """
        requests: list[tuple[Request, list[InputT]]] = []
        try:
            for value in values:
                requests += self.preprocess_all(self.read_all([value], first + len(requests)), options)
        except Exception as error:
            return requests, error
        return requests, None

    @torch.inference_mode()
    def forward(self, inputs: Sequence[InputT], options: OptionsT) -> list[Any]:
        """Runs the model on a batch; returns an output per input, without padding, on the CPU."""
        model = without_padding(self.model) if self.pads and len(inputs) > 1 else self.model
        output = model(**self.collate(inputs))
        batch = {name: getattr(output, name) for name in self.outputs}
        columns = {name: to_cpu(values) for name, values in batch.items() if values is not None}
        rows = ({name: column[row] for name, column in columns.items()} for row in range(len(inputs)))
        return [own_storage(self.output_of(row, item)) for row, item in zip(rows, inputs, strict=True)]

    def collate(self, inputs: Sequence[InputT]) -> dict[str, Tensor]:
        """Returns the arguments of the model for a batch, on its device; by default stacked, of one shape."""
        return {
            name: torch.stack([torch.as_tensor(item.arguments[name]) for item in inputs]).to(
                self.model.device
            )
            for name in inputs[0].arguments
        }

    def output_of(self, row: Mapping[str, Tensor], item: InputT) -> Any:
        """Returns the output of one input, a tensor or a named tuple: by default the first of `outputs`.

        Args:
            row: the model's `outputs` for it, by name; views of those of the batch, with its padding.
            item: the input.
        """
        return row[self.outputs[0]]

    def batches(self, inputs: Sequence[InputT], limits: BatchLimits, options: OptionsT) -> list[list[int]]:
        """Returns the indices of the inputs of each batch."""
        sizes = [item.size for item in inputs]
        if self.pads and computes_no_padding(without_padding(self.model)):
            return fill_batches(sizes, limits)
        return make_batches(sizes, limits, padding=self.pads)

    def postprocess(
        self, request: Request, inputs: Sequence[InputT], outputs: Sequence[Any], options: OptionsT
    ) -> Any:
        """Returns the result of one request, from the outputs of its inputs."""
        expected = "postprocess(request, inputs, outputs, options)"
        raise NotImplementedError(f"{type(self).__name__} must define {expected}.")

    def unwrap(self, result: Any, inputs: Any, options: OptionsT) -> Any:
        """Returns the result of a single request in the nesting of transformers; by default as it is."""
        return result

    def stream(self, request: Request, options: OptionsT) -> Iterator[str]:
        """Yields the result of one request in pieces of text.

        Raises:
            ArgumentValueError: a task that does not generate text.
        """
        hint = "call the pipeline; an iterable of inputs gives results one by one"
        raise ArgumentValueError("task", self.spec.name, "one that generates text, to be streamed", hint)

    # --- messages ----------------------------------------------------------------------------------

    def note_inputs(
        self, groups: Sequence[Sequence[InputT]], options: OptionsT, start: int, total: int | None
    ) -> bool:
        """Warns about the inputs of requests, before the model runs: those that were truncated.

        Args:
            groups: inputs of each request.
            options: of the call.
            start: index of the first request among all of the call.
            total: number of requests of the call; None if it is not known.

        Returns:
            Whether it warned; then the later requests of the call have no note.
        """
        return note_truncation(self, groups, start, total)

    def describe(self, options: OptionsT) -> str:
        """Returns the settings of a checkpoint that are in use, for `repr`; by default none."""
        return ""


def to_cpu(tensor: Tensor) -> Tensor:
    """Returns a tensor on the CPU, in float32 at least."""
    return tensor.detach().to("cpu", torch.promote_types(tensor.dtype, torch.float32))


def own_storage(output: Any) -> Any:
    """Returns a copy of a tensor, or of those of a named tuple: a view of a batch would keep all of it.

    The copies are not inference tensors, so that other models can be trained on them.
    """
    if isinstance(output, tuple):
        return type(output)(*map(own_storage, output))
    with torch.inference_mode(False):
        return output.clone() if isinstance(output, Tensor) else output
