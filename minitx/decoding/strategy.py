"""Strategies: how `generate` chooses tokens, one field per parameter.

Fields have the names of transformers or, for the penalties that transformers does not have, of OpenAI. A
field at its default changes nothing: `Sample()` is plain sampling from the model's distribution. `build`
makes the chain of processors, `sampler` the sampler. Each strategy has its file in `samplers` or `search`;
this one has their common base.

Processors are applied in the order of the fields, which is that of transformers; `Sample(order=...)` chooses
another library's. With temperature 1.5 and top_p 0.9, "transformers" and "vllm" filter the flattened
distribution, "llama.cpp" filters first. For a custom order pass a literal chain:
`Sample(chain=Chain(TopP(0.9), Temperature(1.5)))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import get_annotations
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from minitx.decoding.loop import Observer, choose_tokens
from minitx.decoding.names import field_suggestion, register
from minitx.decoding.output import Event
from minitx.decoding.parameters import (
    Integers,
    Numbers,
    document,
    parameter,
    parameters_of,
    set_frozen,
    to_comparable,
)
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
from minitx.decoding.processors.temperature import RemoveInvalid, Renormalize
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.base import Argmax, Sampler, Seed
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentTypeError, ArgumentValueError

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
        PrefixAllowed, off=None, help="(row, its tokens) -> ids that may come next (GENRE, arXiv:2010.00904)"
    )
    forced_bos_token_id: int | None = parameter(
        ForcedBos,
        off=None,
        help="the second token of a row, as the language of an encoder-decoder's output",
        metavar="ID",
    )
    forced_eos_token_id: int | Sequence[int] | None = parameter(
        ForcedEos.from_ids,
        off=None,
        help="one of these tokens is the last that max_new_tokens allows",
        metavar="IDS",
    )
    remove_invalid_values: bool = parameter(
        RemoveInvalid, off=False, help="replace NaN and infinite logits by finite ones instead of an error"
    )
    exponential_decay_length_penalty: tuple[int, float] | None = parameter(
        ExponentialDecayLength.from_pair,
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

    # The strategy that errors about seed=, generator= and num_samples= suggest if this one draws nothing.
    _drawing: ClassVar[str] = "Sample"

    def __new__(cls, *values: Any, **options: Any) -> Self:
        """Raises TypeError for unknown names, with a suggestion."""
        if values:
            raise TypeError(
                f"{cls.__name__} takes its fields by name, as in {cls.__name__}(repetition_penalty=1.1)."
            )
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no field {name!r}.{field_suggestion(name, known)}")
        return super().__new__(cls)

    def __init_subclass__(cls, example: str = "", **options: Any) -> None:
        """Registers and documents the fields that a strategy declares.

        Args:
            example: the strategy that errors suggest for these fields, where the class is not public.
            options: of other base classes.
        """
        super().__init_subclass__(**options)
        register(example or cls.__name__, (name for name in get_annotations(cls) if name[0] != "_"))
        document(cls)

    def __post_init__(self) -> None:
        for each in fields(self):
            set_frozen(self, **{each.name: to_comparable(getattr(self, each.name))})
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

    def sampler(
        self,
        prompts: Sequence[Sequence[int]],
        num_samples: int = 1,
        *,
        seed: Seed | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Sampler:
        """Returns the sampler of a call: of strategies that draw nothing, the most probable token.

        Args:
            prompts: ids of each prompt, with the encoder input before them if there is one.
            num_samples: rows per prompt.
            seed: an integer for all prompts, or one per prompt; None with `generator` for a random one.
            generator: on the device of the logits.
            device: of the logits.

        Raises:
            ArgumentValueError: two sources of randomness, or arguments without effect.
        """
        self._check_draws_nothing(seed=seed, generator=generator, num_samples=num_samples)
        return Argmax()

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Checks a request against this strategy; returns it, with another chain where one is needed."""
        return request

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Generates with a session; yields the events of each step.

        Args:
            session: not yet started.
            observe: called with the session and the chosen tokens (R,) at every step.
        """
        return choose_tokens(session, observe)

    def _check_draws_nothing(self, **options: Any) -> None:
        """Raises ArgumentValueError for an option that is not at its default."""
        kind = type(self).__name__
        for name, value in options.items():
            if value is not None and not (name == "num_samples" and value == 1):
                hint = f"{kind}() draws nothing, so that {name}= has no effect; {self._drawing}() draws"
                raise ArgumentValueError(name, value, "left out", hint)

    def _check(self) -> None:
        """Checks the fields that no processor sees."""
        for name, declared in parameters_of(self).items():
            value = getattr(self, name)
            if declared.processor is not None and declared.off is False and not isinstance(value, bool):
                raise ArgumentTypeError(name, value, "True or False")
        if not isinstance(self.processors, tuple):
            raise ArgumentTypeError("processors", self.processors, "a list of processors")
        if self.chain is None:
            return
        if not isinstance(self.chain, Chain):
            example = f"as in {type(self).__name__}(chain=Chain(TopK(50)))"
            raise ArgumentTypeError("chain", self.chain, "a Chain", example)
        others = [f.name for f in fields(self) if f.name != "chain" and getattr(self, f.name) != f.default]
        if others:
            raise ArgumentValueError(
                "chain",
                self.chain,
                f"passed without {', '.join(others)}",
                "a literal chain replaces all other fields, so include their processors",
            )


register("Sample", parameters_of(Strategy))
document(Strategy)


def _in_order(names: Iterable[str], order: str) -> list[str]:
    """Returns the names in one of the ORDERS."""
    ordered = list(names)
    for name, following in ORDERS[order]:
        if name in ordered and (following is None or following in ordered):
            ordered.remove(name)
            ordered.insert(len(ordered) if following is None else ordered.index(following), name)
    return ordered
