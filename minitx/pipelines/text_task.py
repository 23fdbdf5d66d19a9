"""`TextTask`: what tasks on text share: tokenization, windows of long texts, batches of token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from torch import Tensor

from minitx.pipelines.checks import (
    STRIDES,
    check_max_length,
    check_stride,
    check_tokenizer,
    check_unicode,
    check_windows,
    note_windows,
)
from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.preprocess.starts import start_of
from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.task import ModelInput, Options, Task
from minitx.tokenizer.batch import Batch, Truncation, collate
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_integer,
    check_type,
)

if TYPE_CHECKING:
    from tokenizers import Encoding

    from minitx.models import Model
    from minitx.tokenizer import Tokenizer

Overflow = Literal["truncate", "window", "error"]


@dataclass(frozen=True, kw_only=True)
class TextOptions(Options):
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
        check_windows(self)


@dataclass(frozen=True, kw_only=True)
class TextInput(ModelInput):
    """One sequence of tokens: a text, a window of it, or a pair.

    Attributes:
        arguments: input_ids, and token_type_ids if the model uses them.
        size: number of tokens.
        encoding: of the tokenizer: tokens, offsets, words and sequences; None of sequences made otherwise.
    """

    size: int = field(init=False)
    encoding: Encoding | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", len(self.input_ids))

    def __len__(self) -> int:
        return self.size

    @property
    def ids(self) -> Mapping[str, Sequence[Any]]:
        """The arguments, all of which are ids of tokens."""
        return self.arguments

    @property
    def input_ids(self) -> Sequence[int]:
        """The token ids."""
        ids: Sequence[int] = self.arguments["input_ids"]
        return ids

    @property
    def tokens(self) -> list[str]:
        """The tokens as text; empty without an encoding."""
        return [] if self.encoding is None else self.encoding.tokens

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(start, end) of each token in characters of its text; empty without an encoding."""
        return [] if self.encoding is None else self.encoding.offsets


TextOptionsT = TypeVar("TextOptionsT", bound=TextOptions)


class TextTask(Task[TextOptionsT, TextInput]):
    """A task on text: its fields are strings, and its inputs sequences of tokens, padded on the right.

    Args:
        spec, model: as for `Task`.
        tokenizer: of the same checkpoint.

    Attributes:
        divides: whether overflow="window" is one of the options.
    """

    Options: ClassVar[type[Any]] = TextOptions
    fields: ClassVar[tuple[str, ...]] = ("text",)
    pads = True
    divides: ClassVar[bool] = True
    kind = "a string"
    remedy = 'overflow="window" uses all of a text, max_length= states another limit'

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__(spec, model)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, spec: TaskSpec, model: Any, tokenizer: Any, hub: Mapping[str, Any]) -> Self:
        """As `Task.load`, with the tokenizer.

        Raises:
            ArgumentTypeError: a model without a folder and a tokenizer, or a tokenizer of another library.
            ArgumentValueError: the tokenizer of another model.
        """
        loaded = load_tokenizer_for(model, tokenizer, hub)
        if tokenizer is not None:
            check_tokenizer(model, loaded)
        return cls(spec, model, loaded)

    def options(self, base: TextOptionsT | None, values: Mapping[str, Any]) -> TextOptionsT:
        """As `Task.options`; a call without windows does not inherit their overlap.

        Raises:
            ArgumentValueError: a `max_length` above the model's, or as `Task.options`.
        """
        if base is not None and values.get("overflow", "window") != "window":
            values = {name: None for name in STRIDES if hasattr(base, name)} | dict(values)
        options = super().options(base, values)
        check_max_length(options, self.most_tokens(options))
        return options

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`; every text must be valid Unicode."""
        request = super().read(value, name)
        for key, text in request.items():
            check_unicode(self.name_of(key, name), text)
        return request

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """Returns the checked value of a field: a string, or a list of strings if it is one of `lists`.

        Raises:
            ArgumentTypeError: anything else.
        """
        if value is not None and field in self.lists:
            return check_list(self.name_of(field, name), value)
        if value is not None:
            hint = "several texts are a list of strings"
            check_type(self.name_of(field, name), value, str, "a string", hint)
        return value

    def limit(self, options: TextOptionsT) -> int | None:
        """Returns the most tokens of a sequence; None without any limit."""
        return token_limit(self.model, self.tokenizer, options.max_length)

    def most_tokens(self, options: TextOptionsT) -> int | None:
        """Returns the greatest `max_length` that has an effect; None without any limit."""
        return self.limit(options)

    def encode(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        *,
        options: TextOptionsT,
        cut: Truncation = True,
        stride: int | None = None,
        names: Sequence[str] = (),
    ) -> list[TextInput]:
        """Tokenizes one text or pair into one sequence, or into windows.

        Args:
            text, pair: strings, or lists of words.
            options: their `overflow`, `max_length` and `stride`.
            cut: the text of a pair that is truncated or divided; True truncates the longer one first.
            stride: overlap of windows; None for that of the options.
            names: of text and pair, for messages; empty for the first fields.

        Raises:
            ValueError: a text that is too long, with overflow="error", or a limit that leaves no room.
        """
        limit = self.limit(options)
        windows = options.overflow == "window" and limit is not None
        if windows and stride is None and limit is not None:
            stride = self.overlap(options, limit, pair=pair is not None)
        if options.overflow == "truncate" and limit is not None:
            text, pair = self._starts(text, pair, cut, limit)
        batch = self.tokenizer(
            [text],
            pairs=None if pair is None else [pair],
            truncation=False if limit is None else cut,
            max_length=limit,
            stride=(stride or 0) if windows else 0,
            is_split_into_words=not isinstance(text, str),
            return_overflow=windows,
            as_tensors=False,
        )
        too_long = limit is not None and bool(batch.encodings[0].overflowing)
        if too_long and options.overflow == "error":
            hint = 'overflow="truncate" cuts it off' + ', overflow="window" divides it' * self.divides
            expected = f"of at most {limit} tokens, special tokens included"
            name, value = _text_to_cut(text, pair, cut, names or self.fields)
            raise ArgumentValueError(name, value, expected, hint)
        if too_long and all(batch.encodings[0].special_tokens_mask):
            raise ArgumentValueError("max_length", limit, f"above {limit}", "special tokens leave no room")
        return self.inputs_of(batch, truncated=too_long and not windows)

    def _starts(self, text: Any, pair: Any, cut: Truncation, limit: int) -> tuple[Any, Any]:
        """Returns text and pair, without most of what truncation to `limit` tokens cuts off."""
        if self.tokenizer.truncation_side == "left":
            return text, pair
        if isinstance(text, str) and (pair is None or cut == "only_first"):
            text = start_of(text, self.tokenizer, limit)
        if isinstance(pair, str) and cut == "only_second":
            pair = start_of(pair, self.tokenizer, limit)
        return text, pair

    def inputs_of(self, batch: Batch, *, truncated: bool = False) -> list[TextInput]:
        """Returns the rows of a tokenizer's batch with the ids that the model has embeddings of."""
        unused = {"attention_mask"}  # which `collate` makes
        if not self.model.config.text_inputs.type_vocab_size:
            unused.add("token_type_ids")
        names = [name for name in batch if name not in unused]
        return [
            TextInput(
                arguments={name: batch[name][row] for name in names}, encoding=encoding, truncated=truncated
            )
            for row, encoding in enumerate(batch.encodings)
        ]

    def overlap(self, options: TextOptionsT, limit: int, *, pair: bool) -> int:
        """Returns the number of tokens by which windows of `limit` tokens overlap."""
        room = max(limit - self.num_special_tokens(pair), 0)
        if options.stride is None:
            return room // 4
        check_stride("stride", options.stride, room)
        return options.stride

    def num_special_tokens(self, pair: bool) -> int:
        """Returns the number of special tokens around a text or a pair."""
        return len(self.tokenizer.encode("", "" if pair else None))

    def collate(self, inputs: Sequence[TextInput]) -> dict[str, Tensor]:
        """Returns the arguments of the model for a batch, padded on the right, on its device.

        Raises:
            ArgumentValueError: an id that the model does not have.
        """
        size = self.model.config.text_inputs.vocab_size
        pad_id = self.tokenizer.pad_token_id or 0
        pad_id = pad_id if pad_id < size else 0  # padding that was added to the tokenizer alone
        batch = collate([item.arguments for item in inputs], input_ids=pad_id)
        if batch["input_ids"].numel() and int(batch["input_ids"].max()) >= size:
            hint = f"the model has {size} tokens, the tokenizer {len(self.tokenizer)}"
            raise ArgumentValueError("tokenizer", self.tokenizer, "that of the model", hint)
        return {name: ids.to(self.model.device) for name, ids in batch.items()}

    def output_of(self, row: Mapping[str, Tensor], item: TextInput) -> Any:
        """Returns the first of `outputs`: (C), or (T, C) without padding."""
        values = row[self.outputs[0]]
        return values[: item.size] if values.dim() == 2 else values

    def note_inputs(
        self, groups: Sequence[Sequence[Any]], options: TextOptionsT, start: int, total: int | None
    ) -> bool:
        """As `Task.note_inputs`; also about windows that hardly advance."""
        return note_windows(self, groups, options) or super().note_inputs(groups, options, start, total)


def check_list(name: str, value: Any) -> list[str]:
    """Returns the checked value of a field that is a list of strings, else raises ArgumentTypeError."""
    hint = "wrap a single string in a list; a file with lists is a .jsonl"
    check_type(name, value, list | tuple, "a list of strings", hint)
    for index, text in enumerate(value):
        check_type(f"{name}[{index}]", text, str, "a string")
    return list(value)


def _text_to_cut(
    text: str | Sequence[str], pair: str | Sequence[str] | None, cut: Truncation, names: Sequence[str]
) -> tuple[str, Any]:
    """Returns name and value of the text of a pair that truncation would cut."""
    second = pair is not None and (cut == "only_second" or (cut is True and len(pair) > len(text)))
    return (names[1], pair) if second else (names[0], text)


def load_tokenizer_for(model: Model, tokenizer: Any, hub: Mapping[str, Any]) -> Tokenizer:
    """Returns a tokenizer: the one passed, that of a folder or Hub id, or that of the model's folder.

    Raises:
        ArgumentTypeError: a model that was not loaded from a folder, or a tokenizer of another library.
    """
    from minitx.tokenizer import Tokenizer, load_tokenizer

    if tokenizer is None:
        folder = getattr(model.checkpoint, "folder", None)
        if folder is None:
            hint = "the model was not loaded from a folder; pass one of minitx.load_tokenizer"
            raise ArgumentTypeError("tokenizer", None, "a tokenizer", hint)
        return load_tokenizer(folder)
    loaded = load_tokenizer(tokenizer, **hub) if isinstance(tokenizer, str | Path) else tokenizer
    check_type("tokenizer", loaded, Tokenizer, "a tokenizer of minitx", "minitx.load_tokenizer loads one")
    return loaded
