"""Options of the tasks that generate text, by the names of transformers; None where nothing is stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from minitx.decoding import Strategy
from minitx.decoding.parameters import Parameter, parameters_of
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.text.stopping import Stop
from minitx.pipelines.text_task import TextOptions
from minitx.validation import (
    ArgumentValueError,
    check_choice,
    check_flags,
    check_integer,
    check_optional_strings,
    check_type,
)

_COUNTS = {"max_new_tokens": 1, "min_new_tokens": 0, "min_length": 0, "num_beams": 1}
_COUNTS |= {"num_return_sequences": 1, "num_samples": 1}
_FLAGS = ("do_sample", "return_tensors", "return_text", "clean_up_tokenization_spaces", "skip_special_tokens")

# Options of which the first may not be greater than the second
_CONTRADICTIONS = [("min_length", "max_length"), ("min_new_tokens", "max_length")]
_CONTRADICTIONS += [("min_new_tokens", "max_new_tokens")]


def _document(parameters: Mapping[str, Parameter]) -> str:
    """Returns the docstring of options that are fields of strategies."""
    lines = (f"        {name}: {declared.help}." for name, declared in parameters.items())
    return "Fields of strategies.\n\n    Attributes:\n" + "\n".join(lines)


# Options of a call -> options of its pipeline that they replace
REPLACED: Mapping[str, tuple[str, ...]] = {
    "max_length": ("max_new_tokens",),
    "max_new_tokens": ("max_length",),
    "min_length": ("min_new_tokens",),
    "min_new_tokens": ("min_length",),
    "num_return_sequences": ("num_samples",),
    "num_samples": ("num_return_sequences",),
    "eos_token_id": ("stop",),
    "stop": ("eos_token_id", "stop_sequence", "stop_strings"),
    "stop_sequence": ("stop", "stop_strings"),
    "stop_strings": ("stop", "stop_sequence"),
    "return_tensors": ("return_text",),
    "return_text": ("return_tensors",),
}


FIELDS: Mapping[str, Parameter] = {
    name: declared
    for name, declared in parameters_of(BeamSample).items()
    if name not in ("chain", "processors")  # which are for a strategy itself
}
if TYPE_CHECKING:
    _StrategyOptions = TextOptions
else:
    _StrategyOptions = make_dataclass(
        "_StrategyOptions",
        [(name, Any, field(default=None)) for name in FIELDS],
        bases=(TextOptions,),
        namespace={"__doc__": _document(FIELDS)},
        frozen=True,
        kw_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(_StrategyOptions):
    """Options of text generation: of this task, or None for those of the checkpoint.

    It also has the fields of strategies, such as temperature and num_beams, which transformers has too.

    Attributes:
        overflow: what happens to a text with more tokens than the model takes: "truncate" cuts it off,
            "error" refuses it.
        max_length: most tokens, those of a decoder's prompt included; `max_new_tokens` is easier to use.
        max_new_tokens: most tokens of the output.
        min_new_tokens: least tokens of the output.
        do_sample: draw tokens instead of taking the most probable ones.
        num_return_sequences: outputs per text.
        num_samples: outputs per text, as num_return_sequences.
        seed: an integer that makes draws repeatable; a text's do not depend on the other texts.
        strategy: one of minitx, such as Beam(num_beams=8), instead of its fields.
        eos_token_id: the end tokens, instead of the checkpoint's.
        stop_sequence: strings that end the output; they are part of it.
        stop_strings: strings that end the output, as stop_sequence.
        stop: a `Stop` of minitx instead of these three.
        prefix: text before each input, such as "summarize: ".
        return_tensors: return token ids instead of text.
        return_text: return text, which is the default.
        clean_up_tokenization_spaces: remove spaces before punctuation.
        skip_special_tokens: leave special tokens out of the text, which is the default.
    """

    overflow: Literal["truncate", "error"] = "truncate"
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    num_return_sequences: int | None = None
    num_samples: int | None = None
    seed: int | None = None
    strategy: Strategy | None = None
    eos_token_id: int | Sequence[int] | None = None
    stop_sequence: str | Sequence[str] | None = None
    stop_strings: str | Sequence[str] | None = None
    stop: Stop | None = None
    prefix: str | None = None
    return_tensors: bool | None = None
    return_text: bool | None = None
    clean_up_tokenization_spaces: bool | None = None
    skip_special_tokens: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        hint = "a text for generation is not divided into windows"
        check_choice("overflow", self.overflow, ("truncate", "error"), hint)
        for name, value in self.stated().items():
            if name in _COUNTS:
                check_integer(name, value, _COUNTS[name])
        check_flags(**{name: value for name, value in self.stated().items() if name in _FLAGS})
        check_optional_strings(prefix=self.prefix)
        check_type("strategy", self.strategy, Strategy | None, "a Strategy", "such as minitx.Beam()")
        check_type("stop", self.stop, Stop | None, "a Stop", "a string is stop_sequence=...")
        if self.seed is not None:
            check_integer("seed", self.seed)
        self.check_exclusive("num_return_sequences", "num_samples")
        for name in ("eos_token_id", "stop_sequence", "stop_strings"):
            self.check_exclusive(name, "stop")
        self.check_exclusive("stop_sequence", "stop_strings")
        if self.return_tensors and self.return_text:
            raise ArgumentValueError("return_text", True, "left out with return_tensors=True", "one of them")
        if self.return_text is False and not self.return_tensors:
            raise ArgumentValueError("return_text", False, "True", "return_tensors=True returns token ids")

        for least, most in _CONTRADICTIONS:
            low, high = getattr(self, least), getattr(self, most)
            if isinstance(low, int) and high is not None and low > high:
                raise ArgumentValueError(least, low, f"at most {most}={high}")

    def check_exclusive(self, name: str, other: str) -> None:
        """Checks that not both of two options are stated, else raises ArgumentValueError."""
        value = getattr(self, name)
        if value is not None and getattr(self, other) is not None:
            raise ArgumentValueError(name, value, f"left out with {other}=", "leave one of them out")

    def stated(self) -> dict[str, Any]:
        """Returns the options that are not None."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def call(self) -> CallState:
        """The state of the call that these options are for."""
        return CallState()


@dataclass
class CallState:
    """The state of a call, which may be of several batches.

    Attributes:
        plan: the `Plan` of how its texts are generated, once it is known.
        inherited: names of options that the pipeline states, and not the call.
        repeats: how often each prompt has occurred, since equal prompts draw different tokens.
    """

    plan: Any = None
    inherited: Set[str] = frozenset()
    repeats: Counter[tuple[int, ...]] | None = None

    def count(self, ids: Sequence[int]) -> int:
        """Returns how often this prompt occurred before."""
        self.repeats = Counter() if self.repeats is None else self.repeats
        self.repeats[tuple(ids)] += 1
        return self.repeats[tuple(ids)] - 1
