"""Strategies: what `generate` is told about choosing tokens, one field per parameter.

`Greedy` takes the most probable token, `Sample` draws one. Fields have the names of transformers or, for
the penalties that transformers does not have, of OpenAI. A field at its default changes nothing:
`Sample()` is plain sampling from the model's distribution. `build` makes the chain of processors.

Which order? The fields do not say, so `Sample(order=...)` does. The libraries differ: with temperature 1.5
and top_p 0.9, "transformers" and "vllm" cut what the temperature has flattened, "llama.cpp" cuts first. To
choose an order of one's own, give a literal chain: `Sample(chain=Chain(TopP(0.9), Temperature(1.5)))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import get_annotations
from typing import Any, Literal, Self

from torch import Tensor

from minitx.decoding.checks import Integers, Numbers, set_frozen
from minitx.decoding.loop import Observer, choose_tokens
from minitx.decoding.names import meant
from minitx.decoding.output import Event
from minitx.decoding.processors.base import Processor, StatefulProcessor
from minitx.decoding.processors.bias import BadWords, ExponentialDecayLength, LogitBias, SequenceBias
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.constraints import (
    AllowedTokens,
    BeginSuppressTokens,
    ForcedBos,
    ForcedEos,
    MinLength,
    MinNewTokens,
    PrefixAllowed,
    SuppressTokens,
)
from minitx.decoding.processors.penalties import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    FrequencyPenalty,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from minitx.decoding.processors.temperature import RemoveInvalid, Renormalize, Temperature
from minitx.decoding.processors.truncation import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Strategy:
    """The fields that every strategy has. At its default each changes nothing.

    "Per row" is one number for all rows, or a list, tuple or tensor of B values, where a row is a sample of
    a prompt. "Output" is what was generated. The processor of a field, in `minitx.decoding`, says more.
    Strategies are values that compare equal if their fields do; with a bias, a dict, they have no hash.

    Attributes:
        repetition_penalty: above 0, per row; 1.0 is off, above 1 makes tokens of prompt and output less
            probable (CTRL, arXiv:1909.05858).
        presence_penalty: in [-2, 2], per row; subtracted from the logits of tokens of the output (OpenAI).
        frequency_penalty: in [-2, 2], per row; the same, as often as they occurred (OpenAI).
        encoder_repetition_penalty: above 0, per row; 1.0 is off, above 1 favours tokens of the prompt, or of
            what an encoder read.
        no_repeat_ngram_size: n; no n tokens come again (arXiv:1705.04304). 0 is off.
        encoder_no_repeat_ngram_size: n; no n tokens of the prompt, or of what an encoder read. 0 is off.
        sequence_bias: {(token, ...): bias}, added to the last token's logit behind the others; -inf bans it.
        bad_words_ids: token ids of each word that must not come.
        logit_bias: {token: bias}, biases in [-100, 100], added to the logit (OpenAI).
        allowed_token_ids: no other tokens come.
        suppress_tokens: these do not come.
        begin_suppress_tokens: these do not come first.
        forced_bos_token_id: the second token of a row, as the language of an encoder-decoder's output.
        forced_eos_token_id: an end token, or some, of which one is the last that max_new_tokens allows.
        exponential_decay_length_penalty: (start, factor): from `start` generated tokens on, end tokens
            become more probable, if factor > 1.
        prefix_allowed_tokens_fn: (row, its tokens) -> ids, of which one comes next (GENRE, arXiv:2010.00904).
        remove_invalid_values: NaN and infinite logits become finite ones, in place of an error.
        renormalize_logits: the processed logits become log-probabilities.
        min_length: per row, tokens of prompt and output before an end token may come.
        processors: of your own, `(logits, context) -> logits`; they come before the temperature.
        chain: a literal `Chain`, in place of all other fields.

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
    exponential_decay_length_penalty: tuple[int, float] | None = None
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int] | Tensor] | None = None
    remove_invalid_values: bool = False
    renormalize_logits: bool = False
    min_length: Integers = 0
    processors: Sequence[Processor | StatefulProcessor] = ()
    chain: Chain | None = None

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
            set_frozen(self, **{name: _value(value)})
        self._check()
        self.build()  # each processor checks its own parameters

    def __repr__(self) -> str:
        """The fields that are not at their default."""
        given = ((each, getattr(self, each.name)) for each in fields(self))
        said = ", ".join(f"{each.name}={value!r}" for each, value in given if value != each.default)
        return f"{type(self).__name__}({said})"

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

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Generates with a session; yields the events of each step.

        Args:
            session: not yet started.
            observe: called with the session and the chosen tokens (R,) at every step.
        """
        return choose_tokens(session, observe)

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Checks a request against this strategy; returns it, with another chain where one is needed."""
        return request

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Greedy(Strategy):
    """Takes the most probable token of each row; of equal ones the lowest id on a CPU.

    Its fields are those that every strategy has: help(minitx.decoding.Strategy) explains them.
    """


@dataclass(frozen=True, kw_only=True, repr=False)
class Sample(Strategy):
    """Draws each token from the model's distribution, or from what the fields make of it.

    It also has the fields of every strategy: help(minitx.decoding.Strategy) explains them.

    Attributes:
        temperature: above 0, per row; the logits are divided by it. 1.0 is off, below 1 is less random. In a
            list, 0 makes its row greedy.
        top_k: per row; only the k most probable tokens stay (arXiv:1805.04833). 0 is off.
        top_p: in (0, 1], per row; the fewest tokens that have this much probability (arXiv:1904.09751). 1.0
            is off.
        min_p: in [0, 1], per row; tokens with this share of the best one's probability (arXiv:2407.01082).
            0.0 is off.
        typical_p: in (0, 1], per row; as top_p, but those first whose surprise is nearest to the entropy
            (arXiv:2202.00666). 1.0 is off.
        epsilon_cutoff: in [0, 1), per row; tokens of at least this probability, 3e-4 to 9e-4 in the paper
            (arXiv:2210.15191). 0.0 is off.
        eta_cutoff: in [0, 1), per row; the same, but less where the entropy is high, 3e-4 to 4e-3 in the
            paper (arXiv:2210.15191). 0.0 is off.
        top_h: in (0, 1], per row; the most tokens whose entropy is at most this share of that of all
            (arXiv:2509.02510). None is off.
        order: in which the fields work: "transformers", "vllm" (min_p before the other cuts) or "llama.cpp"
            (temperature behind them).
    """

    temperature: Numbers = 1.0
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


def _value(given: Any) -> Any:
    """What does not change with what was given and can be compared: tuples for lists, tensors and arrays."""
    plain = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(plain, Mapping):
        return dict(plain)
    return tuple(map(_value, plain)) if isinstance(plain, list | tuple) else plain


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
    other = owner(name)
    return f" {other} has it." if other else meant(name, _field_names(cls))


def owner(name: str, kind: type[Strategy] = Strategy) -> str | None:
    """The name of the strategy that brings a field; `Sample` for one that all have."""
    if name in get_annotations(kind):
        while getattr(getattr(kind, "begin", None), "__isabstractmethod__", False):
            kind = kind.__subclasses__()[0]  # what searches have in common is no strategy by itself
        return "Sample" if kind is Strategy else kind.__name__
    found = (owner(name, each) for each in kind.__subclasses__())
    return next(filter(None, found), None)
