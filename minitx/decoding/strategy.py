"""Strategies: how `generate` chooses tokens, one field per parameter.

`Greedy` takes the most probable token, `Sample` draws one. Fields have the names of transformers or, for
the penalties that transformers does not have, of OpenAI. A field at its default changes nothing:
`Sample()` is plain sampling from the model's distribution. `build` makes the chain of processors.

Processors are applied in the order of the fields, which is that of transformers; `Sample(order=...)` chooses
another library's. With temperature 1.5 and top_p 0.9, "transformers" and "vllm" filter the flattened
distribution, "llama.cpp" filters first. For a custom order pass a literal chain:
`Sample(chain=Chain(TopP(0.9), Temperature(1.5)))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import get_annotations
from typing import Any, Literal, Self

from torch import Tensor

from minitx.decoding.checks import Integers, Numbers, set_frozen
from minitx.decoding.names import meant
from minitx.decoding.parameters import document, parameter, parameters_of
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

Order = Literal["transformers", "vllm", "llama.cpp"]

# How each order differs from the order of the fields: pairs of a field and the one that it is moved in front
# of, None for the end of the chain.
_LAST = ("renormalize_logits", None)
ORDERS: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    "transformers": (_LAST,),
    "vllm": (
        *((ban, "sequence_bias") for ban in ("bad_words_ids", "allowed_token_ids", "min_length")),
        ("min_p", "top_h"),
        _LAST,
    ),
    "llama.cpp": (("typical_p", "top_p"), ("temperature", None), _LAST),
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


def _end_ids(ids: Any) -> ForcedEos:
    return ForcedEos([ids] if isinstance(ids, int) else ids)


def _decay(pair: Any) -> ExponentialDecayLength:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"exponential_decay_length_penalty={pair!r} must be two numbers: (start, factor).")
    return ExponentialDecayLength(*pair)


@dataclass(frozen=True, kw_only=True, repr=False)
class Strategy:
    """The parameters that every strategy has. At its default each changes nothing.

    "Per row" is one number for all rows, or a list, tuple or tensor of B values, where a row is a sample of
    a prompt. "Output" are the generated tokens; "source" is the encoder input, or without an encoder the
    prompt. The processor of a parameter, in `minitx.decoding`, has its definition. Strategies are values
    that compare equal if their fields do; with a bias, a dict, they have no hash.

    Raises:
        TypeError: an unknown field, or a value of the wrong type.
        ValueError: a value out of range.
    """

    sequence_bias: Mapping[tuple[int, ...], float] | None = parameter(
        SequenceBias,
        off=None,
        help="added to the logit of a sequence's last token after the others; -inf bans it, as in "
        '"464 3290=-5"',
        metavar="IDS=BIAS",
    )
    logit_bias: Mapping[int, float] | None = parameter(
        LogitBias,
        off=None,
        help='added to the logits of tokens, from -100 to 100, as in "464=-5, 50=2" (OpenAI)',
        metavar="ID=BIAS",
    )
    encoder_repetition_penalty: Numbers = parameter(
        EncoderRepetitionPenalty,
        off=1.0,
        per_row=True,
        help="above 1 makes tokens of the source more probable; 1: off",
        metavar="X",
    )
    repetition_penalty: Numbers = parameter(
        RepetitionPenalty,
        off=1.0,
        per_row=True,
        help="above 1 makes tokens of prompt and output less probable; 1: off (arXiv:1909.05858)",
        metavar="X",
    )
    frequency_penalty: Numbers = parameter(
        FrequencyPenalty,
        off=0.0,
        per_row=True,
        help="subtracted from a token's logit per occurrence in the output, from -2 to 2; 0: off (OpenAI)",
        metavar="X",
    )
    presence_penalty: Numbers = parameter(
        PresencePenalty,
        off=0.0,
        per_row=True,
        help="subtracted once from the logits of tokens of the output, from -2 to 2; 0: off (OpenAI)",
        metavar="X",
    )
    no_repeat_ngram_size: int = parameter(
        NoRepeatNGram,
        off=0,
        help="no N tokens are repeated in the same order; 0: off (arXiv:1705.04304)",
        metavar="N",
    )
    encoder_no_repeat_ngram_size: int = parameter(
        EncoderNoRepeatNGram, off=0, help="no N tokens of the source are repeated; 0: off", metavar="N"
    )
    bad_words_ids: Sequence[Sequence[int]] | None = parameter(
        BadWords, off=None, help='sequences to ban, here two: "464 3290,50"', metavar="IDS"
    )
    allowed_token_ids: Sequence[int] | None = parameter(
        AllowedTokens, off=None, help="ban all tokens but these", metavar="IDS"
    )
    min_length: Integers = parameter(
        MinLength,
        off=0,
        per_row=True,
        help="no end token before prompt and output have N tokens; 0: off",
        metavar="N",
    )
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int] | Tensor] | None = parameter(
        PrefixAllowed,
        off=None,
        help="(row, its tokens) -> ids that may come next (GENRE, arXiv:2010.00904)",
    )
    forced_bos_token_id: int | None = parameter(
        ForcedBos,
        off=None,
        help="the second token of a row, as the language of an encoder-decoder's output",
        metavar="ID",
    )
    forced_eos_token_id: int | Sequence[int] | None = parameter(
        _end_ids,
        off=None,
        help="one of these tokens is the last that max_new_tokens allows",
        metavar="IDS",
    )
    remove_invalid_values: bool = parameter(
        RemoveInvalid, off=False, help="replace NaN and infinite logits by finite ones instead of an error"
    )
    exponential_decay_length_penalty: tuple[int, float] | None = parameter(
        _decay,
        off=None,
        help="20,1.05: end tokens become ever more probable after 20 generated tokens",
        metavar="START,FACTOR",
    )
    suppress_tokens: Sequence[int] | None = parameter(
        SuppressTokens, off=None, help="ban these tokens", metavar="IDS"
    )
    begin_suppress_tokens: Sequence[int] | None = parameter(
        BeginSuppressTokens, off=None, help="ban these as the first generated token", metavar="IDS"
    )
    processors: Sequence[Processor | StatefulProcessor] = parameter(
        None, off=(), help="custom functions (logits, context) -> logits, applied before the temperature"
    )
    renormalize_logits: bool = parameter(
        Renormalize, off=False, help="the processed logits become log-probabilities"
    )
    chain: Chain | None = parameter(None, off=None, help="a literal `Chain` that replaces all other fields")

    def __new__(cls, *values: Any, **given: Any) -> Self:
        """Refuses names that are no fields, and suggests others."""
        if values:
            raise TypeError(
                f"{cls.__name__} takes its fields by name, as in {cls.__name__}(repetition_penalty=1.1)."
            )
        for name in given:
            if name not in _field_names(cls):
                raise TypeError(f"{cls.__name__} has no field {name!r}.{_hint(cls, name)}")
        return super().__new__(cls)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        document(cls)

    def __post_init__(self) -> None:
        for name in _field_names(type(self)):
            value = getattr(self, name)
            set_frozen(self, **{name: _value(value)})
        self._check()
        self.build()  # each processor checks its own parameters

    def __repr__(self) -> str:
        """The fields that are not at their default."""
        values = ((each, getattr(self, each.name)) for each in fields(self))
        changed = ", ".join(f"{each.name}={value!r}" for each, value in values if value != each.default)
        return f"{type(self).__name__}({changed})"

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """Returns the chain of processors of all fields that are not off.

        Args:
            min_new_tokens: of this call, one or per row; also applied before a literal chain.
        """
        minimum = MinNewTokens(min_new_tokens)
        if self.chain is not None:
            return self.chain if minimum.min_new_tokens == 0 else Chain(minimum, *self.chain.processors)
        parameters = parameters_of(self)
        chain: list[Processor | StatefulProcessor] = []
        for name in _in_order(parameters, getattr(self, "order", "transformers")):
            value, off = getattr(self, name), parameters[name].off
            if name == "processors":
                chain.extend(self.processors)
            elif parameters[name].processor is not None and value is not off:
                processor = self._make(name, value)  # checks the value
                if value != off:  # off, if not the same object: 1 for 1.0
                    chain.append(processor)
            if name == "min_length" and minimum.min_new_tokens != 0:
                chain.append(minimum)
        return Chain(*chain)

    def _make(self, name: str, value: Any) -> Processor:
        if name == "begin_suppress_tokens":
            return BeginSuppressTokens(value, after_forced_bos=self.forced_bos_token_id is not None)
        declared = parameters_of(self)[name]
        assert declared.processor is not None  # else `build` does not ask for it
        processor: Processor = declared.processor() if declared.off is False else declared.processor(value)
        return processor

    def _check(self) -> None:
        """Checks the fields that no processor sees."""
        name = type(self).__name__
        for flag, declared in parameters_of(self).items():
            value = getattr(self, flag)
            if declared.processor is not None and declared.off is False and not isinstance(value, bool):
                raise TypeError(f"{flag}={value!r} must be True or False.")
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


document(Strategy)


@dataclass(frozen=True, kw_only=True, repr=False)
class Greedy(Strategy):
    """Takes the most probable token of each row; of equal ones the lowest id on a CPU.

    Its fields are those that every strategy has: help(minitx.decoding.Strategy) explains them.
    """


@dataclass(frozen=True, kw_only=True, repr=False)
class Sample(Strategy):
    """Draws each token from the model's distribution, or from what the fields make of it.

    It also has the fields of every strategy: help(minitx.decoding.Strategy) explains them.
    """

    temperature: Numbers = parameter(
        Temperature,
        off=1.0,
        per_row=True,
        help="divides the logits; below 1 is less random, above 1 more; 1: off. In a list, 0 makes its row "
        "greedy",
        metavar="X",
    )
    top_h: Numbers | None = parameter(
        TopH,
        off=None,
        per_row=True,
        help="keep the most probable tokens with at most X of the entropy, from 0 to 1 (arXiv:2509.02510)",
        metavar="X",
    )
    top_k: Integers = parameter(
        TopK,
        off=0,
        per_row=True,
        help="keep the K most probable tokens; 0: all (arXiv:1805.04833)",
        metavar="K",
    )
    top_p: Numbers = parameter(
        TopP,
        off=1.0,
        per_row=True,
        help="keep the fewest most probable tokens of total probability P; 1: all (arXiv:1904.09751)",
        metavar="P",
    )
    min_p: Numbers = parameter(
        MinP,
        off=0.0,
        per_row=True,
        help="drop tokens below P times the highest probability; 0: off (arXiv:2407.01082)",
        metavar="P",
    )
    typical_p: Numbers = parameter(
        Typical,
        off=1.0,
        per_row=True,
        help="keep the tokens whose surprise is nearest to the entropy, of total probability P; 1: all "
        "(arXiv:2202.00666)",
        metavar="P",
    )
    epsilon_cutoff: Numbers = parameter(
        Epsilon,
        off=0.0,
        per_row=True,
        help="drop tokens less probable than P, such as 3e-4; 0: off (arXiv:2210.15191)",
        metavar="P",
    )
    eta_cutoff: Numbers = parameter(
        Eta,
        off=0.0,
        per_row=True,
        help="as epsilon_cutoff, but less strict where the entropy is high; 0: off (arXiv:2210.15191)",
        metavar="P",
    )
    order: Order = parameter(
        None,
        off="transformers",
        help='order of the steps: "transformers", "vllm" (min_p before the other filters) or "llama.cpp" '
        "(temperature after them)",
        metavar="NAME",
    )

    def _check(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order!r} must be one of {', '.join(map(repr, ORDERS))}.")
        super()._check()


def _value(given: Any) -> Any:
    """What does not change with what was given and can be compared: tuples for lists, tensors and arrays."""
    plain = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(plain, Mapping):
        return dict(plain)
    return tuple(map(_value, plain)) if isinstance(plain, list | tuple) else plain


def _in_order(names: Iterable[str], order: str) -> list[str]:
    """Returns the names in one of the ORDERS."""
    ordered = list(names)
    for name, following in ORDERS[order]:
        if name in ordered and (following is None or following in ordered):
            ordered.remove(name)
            ordered.insert(len(ordered) if following is None else ordered.index(following), name)
    return ordered


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
