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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from inspect import get_annotations
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from minitx.decoding.loop import Observer, choose_tokens
from minitx.decoding.output import Event
from minitx.decoding.parameters import (
    Integers,
    Numbers,
    Parameter,
    document,
    freeze,
    parameter,
    parameters_of,
)
from minitx.decoding.presets.orders import DEFAULT, in_order
from minitx.decoding.processors import bias, constraints, forcing, penalties, temperature
from minitx.decoding.processors.base import Processor, StatefulProcessor
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.dry import DRY, check_breakers
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.base import Argmax, Device, Sampler, SamplerArguments, Seed
from minitx.decoding.session import DecodingSession
from minitx.decoding.watermark.base import Watermark, watermark_step
from minitx.habits import argument_hint, register_fields
from minitx.validation import ArgumentValueError, check_type


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
        bias.SequenceBias, 'added to the last token of a sequence: "464 3290=-5"; -inf bans it', "IDS=BIAS"
    )
    logit_bias: Mapping[int, float] | None = parameter(
        bias.LogitBias, 'added to the logits of tokens, from -100 to 100: "464=-5, 50=2" (OpenAI)', "ID=BIAS"
    )
    encoder_repetition_penalty: Numbers = parameter(
        penalties.EncoderRepetitionPenalty, "above 1 makes tokens of the source more probable; 1: off"
    )
    penalty_window: int | None = parameter(
        penalties.check_window, "the next four penalties count the last N tokens of prompt and output", "N"
    )
    repetition_penalty: Numbers = parameter(
        penalties.RepetitionPenalty, "above 1 makes repeated tokens less probable; 1: off (arXiv:1909.05858)"
    )
    frequency_penalty: Numbers = parameter(
        penalties.FrequencyPenalty, "subtracted per occurrence in the output, from -2 to 2; 0: off (OpenAI)"
    )
    presence_penalty: Numbers = parameter(
        penalties.PresencePenalty, "subtracted once from tokens of the output, from -2 to 2; 0: off (OpenAI)"
    )
    relative_frequency_penalty: Numbers = parameter(
        penalties.RelativeFrequencyPenalty, "subtracted times a token's share in prompt and output; 0: off"
    )
    dry: tuple[float, ...] | None = parameter(
        DRY.from_numbers, "0.8,1.75,2: penalises repetitions of more than 2 tokens", "X,BASE,LENGTH,N"
    )
    dry_breakers: Sequence[int] | None = parameter(
        check_breakers, "tokens that no repetition of `dry` contains, such as those of line ends", "IDS"
    )
    no_repeat_ngram_size: int = parameter(
        penalties.NoRepeatNGram, "no N tokens are repeated in order (arXiv:1705.04304); 0: off", "N", off=0
    )
    encoder_no_repeat_ngram_size: int = parameter(
        penalties.EncoderNoRepeatNGram, "no N tokens of the source are repeated; 0: off", "N", off=0
    )
    bad_words_ids: Sequence[Sequence[int]] | None = parameter(
        bias.BadWords, 'sequences to ban, here two: "464 3290,50"', "IDS"
    )
    allowed_token_ids: Sequence[int] | None = parameter(
        constraints.AllowedTokens, "ban all tokens but these", "IDS"
    )
    min_length: Integers = parameter(
        constraints.MinLength,
        "no end before N tokens of prompt and output; 0: off",
        then="min_new_tokens",
    )
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int] | Tensor] | None = parameter(
        constraints.PrefixAllowed, "(row, its tokens) -> ids that may come next (GENRE, arXiv:2010.00904)"
    )
    forced_bos_token_id: int | None = parameter(
        constraints.ForcedBos, "the second token of a row, such as the language of the output", "ID"
    )
    forced_eos_token_id: int | Sequence[int] | None = parameter(
        constraints.ForcedEos.from_ids, "one of these is the last token that max_new_tokens allows", "IDS"
    )
    remove_invalid_values: bool = parameter(
        temperature.RemoveInvalid, "replace NaN and infinite logits by finite ones; no error", off=False
    )
    exponential_decay_length_penalty: tuple[int, float] | None = parameter(
        bias.ExponentialDecayLength.from_pair,
        "20,1.05: end tokens become ever more probable after 20 generated tokens",
        "START,FACTOR",
    )
    suppress_tokens: Sequence[int] | None = parameter(constraints.SuppressTokens, "ban these tokens", "IDS")
    begin_suppress_tokens: Sequence[int] | None = parameter(
        constraints.BeginSuppressTokens.beside_forced_bos, "ban these as the first generated token", "IDS"
    )
    prefix_bias: tuple[Sequence[int], float] | None = parameter(
        forcing.PrefixBias.from_pair,
        'leads the output along a prefix until it leaves that: "([464, 3290], 0.5)" are ids and beta',
        "CALL",
    )
    processors: Sequence[Processor | StatefulProcessor] = parameter(
        tuple, "custom functions (logits, context) -> logits, applied before the temperature", off=()
    )
    thinking_budget: forcing.ThinkingBudget | None = parameter(
        forcing.ThinkingBudget.checked,
        'ends thinking blocks that are too long: "ThinkingBudget(tokens=64, begin=[5], end=[6])"',
        "CALL",
    )
    watermark: Watermark | None = parameter(
        watermark_step, 'marks the text for a detector: "KGW(bias=2)", "SynthID(keys=[3, 5])"', "CALL"
    )
    renormalize_logits: bool = parameter(
        temperature.Renormalize, "the result are log-probabilities", off=False
    )
    chain: Chain | None = parameter(None, "a literal `Chain` that replaces all fields with processors")

    # The strategy that errors about seed=, generator= and num_samples= suggest if this one draws nothing.
    _drawing: ClassVar[str] = "Sample"
    # The field with the order of the chain, if there is one.
    _order: ClassVar[str] = ""
    # Whether a keyed sampler may take the place of the draw; a subclass has to state it anew.
    _keyed: ClassVar[bool] = False
    # Whether whole sequences are compared, so that no token is certain before the end.
    searches = False

    def __new__(cls, *values: Any, **options: Any) -> Self:
        """Checks the names of the fields; a TypeError suggests another name."""
        kind, known = cls.__name__, [field.name for field in fields(cls)]
        if values:
            raise TypeError(f"{kind} takes its fields by name, as in {kind}(repetition_penalty=1.1).")
        for name in options:
            if name not in known:
                hint = argument_hint("strategy", name, known)
                raise TypeError(f"{kind} has no field {name!r}.{hint and ' '}{hint}")
        for field in fields(cls):
            if field.default is MISSING and field.name not in options:
                raise TypeError(f"{kind} needs its field {field.name!r}, as in {kind}({field.name}=...).")
        return super().__new__(cls)

    def __init_subclass__(cls, example: str = "", **options: Any) -> None:
        """Registers and documents the fields that a strategy declares.

        Args:
            example: the strategy that errors suggest for these fields, where the class is not public.
            options: of other base classes.
        """
        super().__init_subclass__(**options)
        register_fields(example or cls.__name__, (name for name in get_annotations(cls) if name[0] != "_"))
        document(cls)

    def __post_init__(self) -> None:
        freeze(self)
        self._check()
        self.build()  # each processor checks its own parameters

    def __repr__(self) -> str:
        """The fields that are not at their default."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        changed = ", ".join(f"{field.name}={value!r}" for field, value in values if value != field.default)
        return f"{type(self).__name__}({changed})"

    @property
    def lookahead(self) -> int:
        """The number of tokens that `DecodingSession.crop` must be able to remove."""
        return 0

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """Returns the chain of processors of all fields that are not off.

        Args:
            min_new_tokens: of this call, one or per row; also applied before a literal chain.
        """
        minimum = constraints.MinNewTokens(min_new_tokens)
        if self.chain is not None:
            return self.chain if minimum.min_new_tokens == 0 else Chain(minimum, *self.chain.processors)
        chain: list[Processor | StatefulProcessor] = []
        for name, declared in in_order(parameters_of(self), getattr(self, self._order, DEFAULT)):
            value = getattr(self, name)
            if declared.processor is not None and value is not declared.off:
                processor = self._make(name, declared, value)  # checks the value
                if value != declared.off:  # off, if not the same object: 1 for 1.0
                    chain += processor if isinstance(processor, tuple) else [processor]
            if declared.then and minimum.min_new_tokens != 0:
                chain.append(minimum)
        return Chain(*chain)

    def _make(self, name: str, declared: Parameter, value: Any) -> Any:
        """Returns the processor of a field, or a tuple of several."""
        assert declared.processor is not None  # else `build` does not ask for it
        if declared.off is False:
            check_type(name, value, bool, "True or False")
            return declared.processor()
        needed = getattr(self, declared.needs) if declared.needs else None
        return declared.processor(value) if needed is None else declared.processor(value, needed)

    def sampler(
        self,
        prompts: Sequence[Sequence[int]],
        num_samples: int = 1,
        *,
        seed: Seed | None = None,
        generator: torch.Generator | None = None,
        device: Device = "cpu",
    ) -> Sampler:
        """Returns the sampler of a call: of strategies that draw nothing, the most probable token.

        Args:
            prompts: ids of each prompt, with the encoder input before them if there is one.
            num_samples: rows per prompt.
            seed: an integer for all prompts, or one per prompt; None for a random one, or with `generator`.
            generator: on the device of the logits.
            device: of the logits.

        Raises:
            ArgumentValueError: two sources of randomness, or arguments without effect.
        """
        return self._sampler(SamplerArguments(prompts, num_samples, seed, generator, device))

    def _sampler(self, call: SamplerArguments) -> Sampler:
        self._check_draws_nothing(seed=call.seed, generator=call.generator, num_samples=call.num_samples)
        return Argmax()

    def forcing(self, token: int) -> Self:
        """Returns the same strategy with a token that it forces as the second one of a row."""
        if self.chain is None:
            return replace(self, forced_bos_token_id=token)
        return replace(self, chain=Chain(*self.chain.processors, constraints.ForcedBos(token)))

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Checks a request against this strategy; returns it, with another chain where one is needed."""
        request.chain.check_rows(len(request.prompts) * request.num_samples, request.num_samples)
        return request

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Generates with a session; yields the events of each step.

        Args:
            session: not yet started.
            observe: called with the session and the chosen tokens (R,) at every step.
        """
        return choose_tokens(session, observe)

    def _check_draws_nothing(self, **options: Any) -> None:
        """Checks that no option has another value than its default."""
        kind = type(self).__name__
        for name, value in options.items():
            if value is not None and not (name == "num_samples" and value == 1):
                hint = f"{kind}() draws nothing, so that {name}= has no effect; {self._drawing}() draws"
                raise ArgumentValueError(name, value, "left out", hint)

    def _check(self) -> None:
        """Checks the fields that no processor sees."""
        check_type("processors", self.processors, tuple, "a list of processors")
        if getattr(self.watermark, "draws", False) and not vars(type(self)).get("_keyed"):
            raise ArgumentValueError("watermark", self.watermark, "another; this one replaces Sample's draw")
        if self.chain is None:
            return
        example = f"as in {type(self).__name__}(chain=Chain(TopK(50)))"
        check_type("chain", self.chain, Chain, "a Chain", example)
        replaced = [name for name, p in parameters_of(self).items() if p.processor or name == self._order]
        others = [name for name in replaced if getattr(self, name) != parameters_of(self)[name].off]
        if others:
            hint = "a literal chain replaces these fields, so include their processors"
            raise ArgumentValueError("chain", self.chain, f"passed without {', '.join(others)}", hint)


register_fields("Sample", parameters_of(Strategy))
document(Strategy)
