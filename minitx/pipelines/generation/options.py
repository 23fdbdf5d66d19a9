"""Options of the tasks that generate text, by the names of transformers; None where nothing is stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from minitx.decoding import Strategy
from minitx.decoding.stopping import Stop
from minitx.pipelines.task import Options
from minitx.validation import (
    ArgumentValueError,
    check_choice,
    check_flags,
    check_integer,
    check_optional_strings,
    check_type,
)

if TYPE_CHECKING:
    from minitx.pipelines.generation.plan import Plan

_COUNTS = {"max_new_tokens": 1, "min_new_tokens": 0, "min_length": 0, "num_beams": 1}
_COUNTS |= {"num_return_sequences": 1, "num_samples": 1}
_FLAGS = ("do_sample", "return_tensors", "return_text", "clean_up_tokenization_spaces", "skip_special_tokens")


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(Options):
    """Options of text generation: of this task, or None for those of the checkpoint.

    Attributes:
        max_length: most tokens, those of a decoder's prompt included; `max_new_tokens` is easier to use.
        max_new_tokens: most tokens of the output.
        min_length: least tokens, those of a decoder's prompt included.
        min_new_tokens: least tokens of the output.
        do_sample: draw tokens instead of taking the most probable ones.
        num_beams: number of beams of a beam search; 1 is none.
        num_return_sequences: outputs per text.
        num_samples: the same.
        seed: an integer that makes draws repeatable; a text's do not depend on the other texts.
        temperature: divides the logits; below 1 is less random.
        top_k: draw from the K most probable tokens; 0 from all.
        top_p: draw from the fewest most probable tokens of this total probability.
        min_p: drop tokens below this times the highest probability.
        top_h: keep the most probable tokens with at most this part of the entropy.
        typical_p: draw from tokens of typical surprise, of this total probability.
        epsilon_cutoff: drop tokens less probable than this.
        eta_cutoff: the same, but less strict where the entropy is high.
        repetition_penalty: above 1 makes repeated tokens less probable.
        encoder_repetition_penalty: above 1 makes tokens of the source more probable.
        presence_penalty: subtracted once from tokens of the output.
        frequency_penalty: subtracted per occurrence in the output.
        no_repeat_ngram_size: no N tokens are repeated in order.
        encoder_no_repeat_ngram_size: no N tokens of the source are repeated in order.
        length_penalty: of a beam search: above 0 favours longer outputs.
        early_stopping: of a beam search: True, False or "never".
        bad_words_ids: lists of token ids to ban.
        suppress_tokens: token ids to ban.
        begin_suppress_tokens: token ids to ban as the first one.
        forced_bos_token_id: the first token of the output.
        forced_eos_token_id: the last token if the output reaches its greatest length.
        sequence_bias: added to the logits of sequences of token ids.
        logit_bias: added to the logits of tokens.
        exponential_decay_length_penalty: (start, factor): end tokens become ever more probable.
        prefix_allowed_tokens_fn: a function (row, its tokens) that returns the ids that may come next.
        renormalize_logits: normalise the logits after processing.
        remove_invalid_values: replace NaN and infinite logits.
        strategy: one of minitx, such as Beam(num_beams=8), instead of the options above.
        eos_token_id: the end tokens, instead of the checkpoint's.
        stop_sequence: strings that end the output; they are part of it.
        stop_strings: the same.
        stop: a `Stop` of minitx instead of these three.
        prefix: text before each input, such as "summarize: ".
        return_tensors: return token ids instead of text.
        return_text: return text, which is the default.
        clean_up_tokenization_spaces: remove spaces before punctuation.
        skip_special_tokens: leave special tokens out of the text, which is the default.
    """

    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    num_samples: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    sequence_bias: Mapping[tuple[int, ...], float] | None = None
    logit_bias: Mapping[int, float] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int] | Tensor] | None = None
    renormalize_logits: bool | None = None
    remove_invalid_values: bool | None = None
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
        if self.stride is not None:
            raise ArgumentValueError("stride", self.stride, "None", hint)
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

    def check_exclusive(self, name: str, other: str) -> None:
        """Checks that not both of two options are stated, else raises ArgumentValueError."""
        value = getattr(self, name)
        if value is not None and getattr(self, other) is not None:
            raise ArgumentValueError(name, value, f"left out with {other}=", "leave one of them out")

    def stated(self) -> dict[str, Any]:
        """Returns the options that are not None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @cached_property
    def call(self) -> CallState:
        """The state of the call that these options are for."""
        return CallState()


@dataclass
class CallState:
    """The state of a call, which may be of several batches.

    Attributes:
        plan: how its texts are generated, once it is known.
        repeats: how often each prompt has occurred, since equal prompts draw different tokens.
    """

    plan: Plan | None = None
    repeats: Counter[tuple[int, ...]] | None = None

    def count(self, ids: Sequence[int]) -> int:
        """Returns how often this prompt occurred before."""
        self.repeats = Counter() if self.repeats is None else self.repeats
        self.repeats[tuple(ids)] += 1
        return self.repeats[tuple(ids)] - 1
