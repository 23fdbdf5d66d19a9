"""`Task`: preprocess -> model -> postprocess, the shape of every task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from minitx.habits import UnknownArgumentError
from minitx.models import DecoderModel, ModelOutput
from minitx.models.compiled import check_not_compiled
from minitx.pipelines.batching import BatchLimits, make_batches
from minitx.pipelines.checks import check_list, check_stride, check_unicode, option_hint
from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.registry import TaskSpec
from minitx.tokenizer.batch import Truncation
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_integer,
    check_type,
)

if TYPE_CHECKING:
    from tokenizers import Encoding

    from minitx.tokenizer import Tokenizer

Overflow = Literal["truncate", "window", "error"]
Request = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every task on text.

    Attributes:
        overflow: what happens to a text with more tokens than the model takes: "truncate" cuts it off,
            "window" divides it into overlapping windows and combines their results, "error" refuses it.
        max_length: most tokens of a sequence, special tokens included; None for those of model and tokenizer.
        stride: number of tokens by which neighbouring windows overlap; None for a quarter of a window.
    """

    overflow: Overflow = "truncate"
    max_length: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        check_choice("overflow", self.overflow, ("truncate", "window", "error"))
        if self.max_length is not None:
            check_integer("max_length", self.max_length, 1)
        if self.stride is not None:
            check_integer("stride", self.stride, 0)


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One sequence for the model: a text, a window of it, or a pair.

    Attributes:
        ids: arguments of the model without padding: input_ids, and token_type_ids if the model uses them.
        encoding: of the tokenizer: tokens, offsets, words and sequences; None of sequences made otherwise.
        truncated: whether a part of the text was cut off.
        label: whatever tells this sequence from the others of its request, such as the label of a hypothesis.
    """

    ids: Mapping[str, Sequence[int]]
    encoding: Encoding | None = None
    truncated: bool = False
    label: Any = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def input_ids(self) -> Sequence[int]:
        """The token ids."""
        return self.ids["input_ids"]

    @property
    def tokens(self) -> list[str]:
        """The tokens as text; empty without an encoding."""
        return [] if self.encoding is None else self.encoding.tokens

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(start, end) of each token in characters of its text; empty without an encoding."""
        return [] if self.encoding is None else self.encoding.offsets


OptionsT = TypeVar("OptionsT", bound=Options)


class Task(Generic[OptionsT]):
    """One task of one model: `preprocess`, `forward` and `postprocess`.

    A subclass has the three methods, its `Options`, and the names of its inputs; `forward` runs the model on
    a padded batch unless the subclass does otherwise.

    Args:
        spec: entry of the table of tasks.
        model: in eval mode, with one of the heads of `spec`.
        tokenizer: of the same checkpoint.

    Attributes:
        fields: names of the inputs of one request; the first is the one that a plain string is.
        optional: those that may be left out.
        lists: those that are lists of strings in one request, such as the documents that are ranked.
        files: fields that the command line reads from a file -> their description.
        remedy: advice of the note about truncated texts.

    Raises:
        ArgumentValueError: a model with another head, or in training mode.
    """

    Options: ClassVar[type[Any]] = Options
    fields: ClassVar[tuple[str, ...]] = ("text",)
    optional: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[Mapping[str, str]] = {}
    remedy: ClassVar[str] = 'overflow="window" uses all of a text, max_length= states another limit'

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        check_not_compiled(model)
        if "none" not in spec.heads and model.task not in spec.heads:
            hint = f"load it with minitx.load(..., head={spec.heads[0]!r}), or choose another task"
            expected = f"a model with the head {' or '.join(map(repr, spec.heads))} for {spec.name}"
            raise ArgumentValueError("model", f"a model with the head {model.task!r}", expected, hint)
        if model.training:
            raise ArgumentValueError("model", type(model).__name__, "in eval mode", "call model.eval()")
        self.spec, self.model, self.tokenizer = spec, model, tokenizer

    @classmethod
    def for_model(cls, model: Any) -> type[Task[Any]]:
        """Returns the class for a model; by default this one."""
        return cls

    # --- arguments ---------------------------------------------------------------------------------

    def options(self, base: OptionsT | None, values: Mapping[str, Any]) -> OptionsT:
        """Returns options: those of `base` with the values that a call states.

        Raises:
            TypeError, ValueError: an unknown option, or a wrong value.
        """
        known = [field.name for field in fields(self.Options)]
        for name in values:
            if name not in known:
                raise UnknownArgumentError(self.spec.name, name, option_hint(name, known))
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
        if len(inputs) > 1 or not (inputs or named):
            hint = f"a call has {self.describe_inputs()}"
            raise ArgumentTypeError("inputs", inputs or None, "one argument", hint)
        table = dict(zip(self.fields, inputs, strict=False)) | dict(named)
        columns = {name: value for name, value in table.items() if self.is_column(name, value)}
        if not columns:
            return table
        sizes = {name: len(value) for name, value in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ArgumentValueError("inputs", sizes, "as many values of each field")
        count = next(iter(sizes.values()))
        rows = {name: value if name in columns else [value] * count for name, value in table.items()}
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]

    def is_column(self, field: str, value: Any) -> bool:
        """Whether the value of a named field is a list of one value per request."""
        is_list = isinstance(value, list | tuple)
        return is_list and (field not in self.lists or any(isinstance(item, list | tuple) for item in value))

    def describe_inputs(self) -> str:
        """Returns a phrase about a request, for messages."""
        names = " and ".join(f"{n!r}{' (optional)' * (n in self.optional)}" for n in self.fields)
        return f"a string, or a dict with {names}, or a list of them"

    def prepare(self, inputs: Any, options: OptionsT) -> Any:
        """Returns the inputs of a call as requests; by default as they are."""
        return inputs

    def is_single(self, inputs: Any) -> bool:
        """Whether inputs are those of one request, and not several."""
        return isinstance(inputs, str | Mapping)

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """Returns the checked fields of one request: of a dict, or the first field of a plain string.

        Args:
            value: of the user.
            name: of the value, for messages.

        Raises:
            TypeError, ValueError: anything else.
        """
        if not isinstance(value, Mapping):
            value = {self.fields[0]: value}
        for key in value:
            if key not in self.fields:
                expected = f"a dict with {', '.join(map(repr, self.fields))}"
                raise ArgumentValueError(f"{name}[{key!r}]", value[key], "left out", f"it must be {expected}")
        for field in self.fields:
            if value.get(field) is None and field not in self.optional:
                hint = f"{self.spec.name} takes {self.describe_inputs()}"
                raise ArgumentTypeError(f"{name}[{field!r}]", None, "stated", hint)
        return {field: self.check_field(field, value.get(field), name) for field in self.fields}

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """Returns the checked value of a field: a string, or the list of strings of one of `lists`.

        Raises:
            ArgumentTypeError: anything else.
        """
        if value is not None and field in self.lists:
            return check_list(field, value, name)
        if value is not None:
            where = name if field == self.fields[0] else f"{name}[{field!r}]"
            check_type(where, value, str, "a string", "several texts are a list of strings")
            check_unicode(where, value)
        return value

    # --- the three steps ---------------------------------------------------------------------------

    def preprocess(self, request: Request, options: OptionsT) -> list[ModelInput]:
        """Returns the sequences of one request."""
        raise NotImplementedError

    @torch.inference_mode()
    def forward(self, inputs: Sequence[ModelInput], options: OptionsT) -> list[Any]:
        """Runs the model on a batch; returns an output per sequence, without padding, on the CPU."""
        output = self.model(**self.collate(inputs))
        return [self.output_of(output, row, len(item)) for row, item in enumerate(inputs)]

    def output_of(self, output: ModelOutput, row: int, length: int) -> Any:
        """Returns the output of one sequence: by default its logits, (C) or (T, C).

        Args:
            output: of the model, for a batch.
            row: index of the sequence in the batch.
            length: number of its tokens.
        """
        logits = output.logits
        assert logits is not None
        return to_cpu(logits[row, :length] if logits.dim() == 3 else logits[row])

    def postprocess(
        self, request: Request, inputs: Sequence[ModelInput], outputs: Sequence[Any], options: OptionsT
    ) -> Any:
        """Returns the result of one request, from the outputs of its sequences."""
        raise NotImplementedError

    def unwrap(self, result: Any, inputs: Any, options: OptionsT) -> Any:
        """Returns the result of a single request in the nesting of transformers; by default as it is."""
        return result

    # --- what tasks share --------------------------------------------------------------------------

    def limit(self, options: OptionsT) -> int | None:
        """Returns the most tokens of a sequence; None without any limit."""
        return token_limit(self.model, self.tokenizer, options.max_length)

    def encode(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        *,
        options: OptionsT,
        cut: Truncation = True,
        stride: int | None = None,
    ) -> list[ModelInput]:
        """Tokenizes one text or pair into one sequence, or into windows.

        Args:
            text, pair: strings, or lists of words.
            options: their `overflow`, `max_length` and `stride`.
            cut: the text of a pair that is truncated or divided; True truncates the longer one first.
            stride: overlap of windows; None for that of the options.

        Raises:
            ValueError: a text that is too long, with overflow="error", or a limit that leaves no room.
        """
        limit = self.limit(options)
        windows = options.overflow == "window"
        if windows and stride is None and limit is not None:
            stride = self.overlap(options, limit, pair=pair is not None)
        batch = self.tokenizer(
            [text],
            pairs=None if pair is None else [pair],
            truncation=False if limit is None else cut,
            max_length=limit,
            stride=(stride or 0) if windows and limit is not None else 0,
            is_split_into_words=not isinstance(text, str),
            return_overflow=windows and limit is not None,
            as_tensors=False,
        )
        too_long = limit is not None and bool(batch.encodings[0].overflowing)
        if too_long and options.overflow == "error":
            hint = 'overflow="truncate" cuts it off, overflow="window" divides it'
            expected = f"of at most {limit} tokens, special tokens included"
            raise ArgumentValueError("text", text, expected, hint)
        names = [name for name in batch if name != "attention_mask"]
        if isinstance(self.model, DecoderModel):  # which has no token types, though tokenizers state them
            names = ["input_ids"]
        return [
            ModelInput(
                ids={name: batch[name][row] for name in names},
                encoding=batch.encodings[row],
                truncated=too_long and not windows,
            )
            for row in range(len(batch["input_ids"]))
        ]

    def overlap(self, options: OptionsT, limit: int, *, pair: bool) -> int:
        """Returns the number of tokens by which windows of `limit` tokens overlap."""
        room = max(limit - self.num_special_tokens(pair), 0)
        if options.stride is None:
            return room // 4
        check_stride("stride", options.stride, room)
        return options.stride

    def num_special_tokens(self, pair: bool) -> int:
        """Returns the number of special tokens around a text or a pair."""
        return len(self.tokenizer.encode("", "" if pair else None))

    def collate(self, inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Returns the arguments of the model for a batch, padded on the right, on its device.

        Raises:
            ArgumentValueError: an id that the model does not have.
        """
        length = max(map(len, inputs))
        pad = {"input_ids": self.tokenizer.pad_token_id or 0}
        device = self.model.device
        batch = {
            name: torch.tensor([_padded(item.ids[name], length, pad.get(name, 0)) for item in inputs])
            for name in inputs[0].ids
        }
        size = self.model.config.text_inputs.vocab_size
        if batch["input_ids"].numel() and int(batch["input_ids"].max()) >= size:
            hint = f"the model has {size} tokens, the tokenizer {len(self.tokenizer)}"
            raise ArgumentValueError("tokenizer", self.tokenizer, "that of the model", hint)
        mask = torch.tensor([_padded([1] * len(item), length, 0) for item in inputs])
        return {name: ids.to(device) for name, ids in batch.items()} | {"attention_mask": mask.to(device)}

    def batches(
        self, inputs: Sequence[ModelInput], limits: BatchLimits, options: OptionsT
    ) -> list[list[int]]:
        """Returns the indices of the sequences of each batch."""
        return make_batches([len(item) for item in inputs], limits, padding=self.pads)

    def stream(self, request: Request, options: OptionsT) -> Iterator[str]:
        """Yields the result of one request in pieces of text.

        Raises:
            ArgumentValueError: a task that does not generate text.
        """
        hint = "call the pipeline; an iterable of inputs gives results one by one"
        raise ArgumentValueError("task", self.spec.name, "one that generates text, to be streamed", hint)

    def describe(self, options: OptionsT) -> str:
        """Returns the settings of a checkpoint that are in use, for `repr`; by default none."""
        return ""

    @property
    def pads(self) -> bool:
        """Whether sequences of different lengths may share a batch."""
        return True


def _padded(values: Iterable[Any], length: int, value: Any) -> list[Any]:
    row = list(values)
    several = row and isinstance(row[0], list)  # such as the types of a token of a table
    return row + [[value] * len(row[0]) if several else value] * (length - len(row))


def to_cpu(tensor: Tensor) -> Tensor:
    """Returns a copy on the CPU, in float32 at least; a copy, since a part of a batch keeps all of it."""
    return tensor.detach().to("cpu", torch.promote_types(tensor.dtype, torch.float32), copy=True)
