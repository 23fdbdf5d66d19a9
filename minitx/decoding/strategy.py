"""Strategies: what `generate` is told about choosing tokens, one field per parameter.

`Greedy` takes the most probable token, `Sample` draws one. Fields have the names of transformers or, for
the penalties that transformers does not have, of OpenAI. A field at its default changes nothing:
`Sample()` is plain sampling from the model's distribution. `build` makes the chain of processors.

Which order? The fields do not say, so `Sample(order=...)` does. The libraries differ: with temperature 1.5
and top_p 0.9, "transformers" and "vllm" cut what the temperature has flattened, "llama.cpp" cuts first. To
choose an order of one's own, give a literal chain: `Sample(chain=Chain(TopP(0.9), Temperature(1.5)))`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from torch import Tensor

from minitx.decoding.chain import Chain, Processor, StatefulProcessor
from minitx.decoding.checks import Integers, Numbers, settle
from minitx.decoding.constraints import (
    AllowedTokens,
    BadWords,
    BeginSuppressTokens,
    ExponentialDecayLength,
    ForcedBos,
    ForcedEos,
    LogitBias,
    MinLength,
    MinNewTokens,
    PrefixAllowed,
    SequenceBias,
    SuppressTokens,
)
from minitx.decoding.penalties import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    FrequencyPenalty,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from minitx.decoding.reshape import RemoveInvalid, Renormalize, Temperature
from minitx.decoding.truncate import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical

Order = Literal["transformers", "vllm", "llama.cpp"]

_BIASES = ("sequence_bias", "logit_bias")
_PENALTIES = (
    "encoder_repetition_penalty",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
)
_BANS = ("bad_words_ids", "allowed_token_ids", "min_length", "min_new_tokens")
_CONSTRAINTS = (
    "prefix_allowed_tokens_fn",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "processors",
)
# Fields in the order in which they work. What vLLM or llama.cpp does not have stands beside what
# transformers has it beside.
ORDERS: Mapping[str, tuple[str, ...]] = {
    "transformers": (
        *_BIASES,
        *_PENALTIES,
        *_BANS,
        *_CONSTRAINTS,
        "temperature",
        "top_h",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "renormalize_logits",
    ),
    "vllm": (
        *_BANS,
        *_BIASES,
        *_PENALTIES,
        *_CONSTRAINTS,
        "temperature",
        "min_p",
        "top_h",
        "top_k",
        "top_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "renormalize_logits",
    ),
    "llama.cpp": (
        *_BIASES,
        *_PENALTIES,
        *_BANS,
        *_CONSTRAINTS,
        "top_h",
        "top_k",
        "typical_p",
        "top_p",
        "min_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "temperature",
        "renormalize_logits",
    ),
}

_MAKERS: Mapping[str, Callable[[Any], Processor]] = {
    "sequence_bias": SequenceBias,
    "logit_bias": LogitBias,
    "encoder_repetition_penalty": EncoderRepetitionPenalty,
    "repetition_penalty": RepetitionPenalty,
    "frequency_penalty": FrequencyPenalty,
    "presence_penalty": PresencePenalty,
    "no_repeat_ngram_size": NoRepeatNGram,
    "encoder_no_repeat_ngram_size": EncoderNoRepeatNGram,
    "bad_words_ids": BadWords,
    "allowed_token_ids": AllowedTokens,
    "min_length": MinLength,
    "min_new_tokens": MinNewTokens,
    "prefix_allowed_tokens_fn": PrefixAllowed,
    "forced_bos_token_id": ForcedBos,
    "forced_eos_token_id": lambda ids: ForcedEos([ids] if isinstance(ids, int) else ids),
    "remove_invalid_values": lambda _: RemoveInvalid(),
    "exponential_decay_length_penalty": lambda pair: _decay(pair),
    "suppress_tokens": SuppressTokens,
    "begin_suppress_tokens": BeginSuppressTokens,
    "temperature": Temperature,
    "top_h": TopH,
    "top_k": TopK,
    "top_p": TopP,
    "min_p": MinP,
    "typical_p": Typical,
    "epsilon_cutoff": Epsilon,
    "eta_cutoff": Eta,
    "renormalize_logits": lambda _: Renormalize(),
}

# What users look for in a strategy, but what belongs to the call.
_ARGUMENTS_OF_GENERATE = frozenset(
    {
        "max_new_tokens",
        "min_new_tokens",
        "num_samples",
        "stop",
        "seed",
        "generator",
        "logprobs",
        "top_logprobs",
    }
)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The fields that every strategy has. Numbers may be given per row, as a list or tensor of B values.

    Raises:
        TypeError: an unknown field, or a value of the wrong type.
        ValueError: a value out of range.
    """

    repetition_penalty: Numbers = 1.0
    presence_penalty: Numbers = 0.0
    frequency_penalty: Numbers = 0.0
    encoder_repetition_penalty: Numbers = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    sequence_bias: Mapping[tuple[int, ...], float] | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None  # (start, factor)
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int] | Tensor] | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False
    min_length: Integers = 0  # prompt and output together
    processors: Sequence[Processor | StatefulProcessor] = ()  # own ones; before the temperature
    chain: Chain | None = None  # instead of all other fields

    def __new__(cls, *values: Any, **given: Any) -> Self:
        """Refuses names that are no fields, and says which may be meant."""
        if values:
            raise TypeError(
                f"{cls.__name__} takes its fields by name, as in {cls.__name__}(repetition_penalty=1.1)."
            )
        for name in given:
            if name not in _field_names(cls):
                raise TypeError(f"{cls.__name__} has no field {name!r}.{_hint(cls, name)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name in _field_names(type(self)):
            value = getattr(self, name)
            if hasattr(value, "tolist"):  # a tensor or array: numbers can be compared and printed
                value = value.tolist()
            settle(self, **{name: tuple(value) if isinstance(value, list) else value})
        self._check()
        self.build()  # each processor checks its own parameters

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """The chain of processors that the fields ask for, in their order; empty if they ask for nothing.

        Args:
            min_new_tokens: of this call, one or per row; works in front of a literal chain too.
        """
        minimum = MinNewTokens(min_new_tokens)
        if self.chain is not None:
            return self.chain if minimum.min_new_tokens == 0 else Chain(minimum, *self.chain.processors)
        defaults = {field.name: field.default for field in fields(self)} | {"min_new_tokens": 0}
        made: list[Processor | StatefulProcessor] = []
        for name in self._fields_in_order():
            value = minimum.min_new_tokens if name == "min_new_tokens" else getattr(self, name, None)
            if name == "processors":
                made.extend(self.processors)
            elif name in defaults and value is not defaults[name]:
                processor = self._make(name, value)
                if value != defaults[name]:  # off, if not the same object: 1 for 1.0
                    made.append(processor)
        return Chain(*made)

    def _fields_in_order(self) -> Sequence[str]:
        """The orders differ in what `Sample` alone has, and in bans, where it makes no difference."""
        return ORDERS["transformers"]

    def _make(self, name: str, value: Any) -> Processor:
        if name == "begin_suppress_tokens":
            return BeginSuppressTokens(value, after_forced_bos=self.forced_bos_token_id is not None)
        return _MAKERS[name](value)

    def _check(self) -> None:
        """What no processor sees."""
        name = type(self).__name__
        for flag in ("remove_invalid_values", "renormalize_logits"):
            if not isinstance(getattr(self, flag), bool):
                raise TypeError(f"{flag}={getattr(self, flag)!r} must be True or False.")
        if not isinstance(self.processors, tuple):
            raise TypeError(f"processors={self.processors!r} must be a list of processors.")
        if self.chain is None:
            return
        if not isinstance(self.chain, Chain):
            raise TypeError(f"chain={self.chain!r} must be a Chain, as in {name}(chain=Chain(TopK(50))).")
        others = [f.name for f in fields(self) if f.name != "chain" and getattr(self, f.name) != f.default]
        if others:
            raise ValueError(
                f"{name}(chain=...) was also given {', '.join(others)}; a literal chain takes the place of "
                "all other fields, so put the processors for them into it."
            )


@dataclass(frozen=True, kw_only=True)
class Greedy(Strategy):
    """Takes the most probable token of each row; of equal ones the lowest id on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Sample(Strategy):
    """Draws each token from the model's distribution, or from what these fields make of it."""

    temperature: Numbers = 1.0  # per row, 0 makes that row greedy
    top_k: Integers = 0
    top_p: Numbers = 1.0
    min_p: Numbers = 0.0
    typical_p: Numbers = 1.0
    epsilon_cutoff: Numbers = 0.0
    eta_cutoff: Numbers = 0.0
    top_h: Numbers | None = None
    order: Order = "transformers"

    def _check(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order!r} must be one of {', '.join(map(repr, ORDERS))}.")
        super()._check()

    def _fields_in_order(self) -> Sequence[str]:
        return ORDERS[self.order]


def _decay(pair: Any) -> ExponentialDecayLength:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"exponential_decay_length_penalty={pair!r} must be two numbers: (start, factor).")
    return ExponentialDecayLength(*pair)


def _field_names(cls: type[Strategy]) -> list[str]:
    return [field.name for field in fields(cls)]


def _hint(cls: type[Strategy], name: str) -> str:
    """What may have been meant by a name that is no field."""
    if name in _ARGUMENTS_OF_GENERATE:
        return f" It is an argument of the call: generate(..., {name}=...)."
    others = [other.__name__ for other in Strategy.__subclasses__() if name in _field_names(other)]
    if others:
        return f" {' and '.join(others)} has it."
    similar = difflib.get_close_matches(name, _field_names(cls), n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""
