"""The keys of a recipe: a dataclass per table, whose fields are the keys."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_choice,
    check_integer,
    check_number,
)

T = TypeVar("T")
_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "true or false", list: "a list"}
_WORDS[dict] = "a table"


@dataclass(frozen=True, kw_only=True)
class ModelTable:
    """The model to train: `name` or `config`.

    Attributes:
        name: a folder or Hub id to load.
        config: content of a config.json, for a model with random weights. What the tokenizer knows, such as
            `vocab_size`, may be left out.
        generator: of the objective "replaced-tokens": the keys of `config` in which the generator differs.
        share_embeddings: whether the generator has the embeddings of the discriminator.
        head: None: that of the objective.
        dtype: of the parameters; None: as stored, or float32.
        device: to train on.
        seed: of random weights; None: that of the run.
        lora: options of `add_lora`; None: the whole model is trained.
    """

    name: str | None = None
    config: dict[str, Any] | None = None
    generator: dict[str, Any] | None = None
    share_embeddings: bool = True
    head: str | None = None
    dtype: str | None = None
    device: str = "cpu"
    seed: int | None = None
    lora: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.config is None):
            hint = 'name = "folder or Hub id" loads a model, [model.config] begins with random weights'
            stated = None if self.name is None else self.name
            raise ArgumentValueError("model", stated, "a table with either name or config", hint)
        if self.generator is not None and self.config is None:
            hint = "it is config with some keys changed"
            raise ArgumentValueError(
                "model.generator", self.generator, "left out without [model.config]", hint
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerTable:
    """The tokenizer: that of the model, one from a folder, or one trained on the data.

    Attributes:
        name: a folder or Hub id; None: that of `model.name`.
        style: train one in this style, of `train_tokenizer`.
        vocab_size, lowercase, special_tokens: of `train_tokenizer`.
        chat_template: "chatml", or a template in Jinja, for any tokenizer.
        pad_token, mask_token, bos_token, eos_token: the token of this role, for any tokenizer.
    """

    name: str | None = None
    style: str | None = None
    vocab_size: int | None = None
    lowercase: bool | None = None
    special_tokens: list[str] | None = None
    chat_template: str | None = None
    pad_token: str | None = None
    mask_token: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None and self.style is not None:
            hint = "a tokenizer is loaded or trained"
            raise ArgumentValueError("tokenizer.style", self.style, "left out with tokenizer.name", hint)
        if self.style is None:
            for key, value in self.training().items():
                hint = 'add a style such as "gpt2" to train a tokenizer'
                raise ArgumentValueError(f"tokenizer.{key}", value, "left out without tokenizer.style", hint)

    def training(self) -> dict[str, Any]:
        """Returns the options of `train_tokenizer` that are stated, apart from the style."""
        names = ("vocab_size", "lowercase", "special_tokens")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def roles(self) -> dict[str, str]:
        """Returns the tokens of roles that are stated."""
        names = ("pad_token", "mask_token", "bos_token", "eos_token")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """The examples.

    Attributes:
        files: one or several patterns such as "texts/*.txt"; .jsonl, .ndjson, .csv and .tsv files hold
            records, all others text.
        documents: of text: "paragraphs", "lines" or "files", as of `read_texts`.
        columns: of records: field of an example -> name of its column; without it all columns are fields
            under their own names.
        labels: names of the labels in the order of their ids; None: those that occur, sorted.
        where: of records: column -> value, or list of values, that it must have.
        min_characters, max_characters: of text: shortest and longest document to keep.
        limit: number of documents or records to keep, the first ones.
        held_out: share of the data for the evaluation.
        evaluation: patterns of the files for the evaluation.
        block_length: of text: tokenize it once, and train on blocks of this many tokens.
        tokens: folder of the token blocks; it is written if it does not exist. None: beside the run's.
    """

    files: str | list[str] | None = None
    documents: str = "paragraphs"
    columns: dict[str, str] = field(default_factory=dict)
    labels: list[str] | None = None
    where: dict[str, Any] = field(default_factory=dict)
    min_characters: int = 0
    max_characters: int | None = None
    limit: int | None = None
    held_out: float = 0.0
    evaluation: str | list[str] | None = None
    block_length: int | None = None
    tokens: str | None = None

    def __post_init__(self) -> None:
        check_choice("data.documents", self.documents, ("paragraphs", "lines", "files"))
        check_integer("data.min_characters", self.min_characters)
        for name in ("max_characters", "limit", "block_length"):
            if (value := getattr(self, name)) is not None:
                check_integer(f"data.{name}", value, 2 if name == "block_length" else 1)
        check_number("data.held_out", self.held_out, Interval(0, 1, open_high=True))
        if self.files is None and self.tokens is None:
            raise ArgumentValueError("data.files", None, "the files to train on", 'such as "texts/*.txt"')
        if self.evaluation is not None and self.held_out:
            hint = "the evaluation has files of its own, or a share of the others"
            raise ArgumentValueError("data.held_out", self.held_out, "0 with data.evaluation", hint)
        if self.tokens is not None and self.block_length is None:
            raise ArgumentValueError("data.block_length", None, "a number of tokens with data.tokens")


def table(kind: type[T], values: Mapping[str, Any], name: str) -> T:
    """Returns a table of a recipe.

    Args:
        kind: its dataclass.
        values: by key.
        name: of the table, for messages.

    Raises:
        ArgumentTypeError: a value of another type.
        ValueError: an unknown key.
    """
    hints = get_type_hints(kind)
    check_keys(values, [each.name for each in dataclasses.fields(kind)], name)  # type: ignore[arg-type]
    for key, value in values.items():
        kinds = [get_origin(each) or each for each in _members(hints[key])]
        kinds = [*kinds, int] if float in kinds else kinds
        if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(_WORDS[each] for each in kinds if each in _WORDS)
            raise ArgumentTypeError(f"{name}.{key}", value, expected)
    return kind(**values)


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def check_keys(values: Any, known: Iterable[str], name: str) -> None:
    """Checks that a value is a table with known keys only; an error names the nearest key.

    Raises:
        ArgumentTypeError: something other than a table.
        ValueError: another key.
    """
    names = list(known)
    if not isinstance(values, Mapping):
        raise ArgumentTypeError(name, values, f"a table, [{name}], with keys such as {', '.join(names[:3])}")
    for key in values:
        if key not in names:
            near = get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"{name}.{key} is no key of a recipe; {hint}{name} has {', '.join(names)}.")
