"""Speculative decoding as a strategy (arXiv:2211.17192, arXiv:2302.01318)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from minitx.decoding.loop import Observer
from minitx.decoding.output import Event
from minitx.decoding.parameters import Integers, parameters_of, set_frozen
from minitx.decoding.processors.chain import Chain
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.base import Sampler, SamplerArguments
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.session import DecodingSession
from minitx.decoding.speculative.draft import Draft
from minitx.decoding.speculative.lengths import DynamicLength, Lengths
from minitx.decoding.speculative.loop import SpeculativeLoop
from minitx.decoding.speculative.verification import (
    Ensemble,
    Lenient,
    Match,
    Rule,
    TokenByToken,
    Typical,
    Verification,
    WholeBlock,
    rejection,
)
from minitx.decoding.strategy import Strategy
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_choice,
    check_integer,
    check_number,
    check_type,
)

Verify = Literal["rejection", "match", "block", "ensemble", "typical", "lenient"]
_EXACT = ("rejection", "match", "block")
_MOST_TOKENS = 256


@dataclass(frozen=True, kw_only=True, repr=False)
class Speculative(Strategy):
    """Generates what its target strategy generates, with fewer forwards of the model.

    A draft proposes several tokens, the model verifies them in one forward, and each row keeps as many as it
    accepts. The draft decides how fast that is, not the output: with a target of `Greedy()` the tokens are
    those of `Greedy()`, and with `Sample(...)` their distribution is that of `Sample(...)`, but for three
    ways to verify that are not exact. (A forward over several tokens rounds otherwise than one over a single
    token, so that nearly equal probabilities may be ordered differently.)

    All other parameters are those of the target: `Speculative(draft=..., target=Sample(top_p=0.9))`.

    Attributes:
        draft: proposes the tokens, such as `DraftModel(model)` or `PromptLookup()`.
        tokens: the number of tokens to draft; "dynamic" or `DynamicLength(...)` follows the acceptance.
        target: `Greedy(...)` or `Sample(...)`, how the model chooses.
        verify: exact are "rejection", which accepts a drafted token with probability min(1, p / q), p of the
            model and q of the draft; "match", which draws from the model and accepts a drafted token if it is
            the same; and "block", which decides about all drafted tokens together. A greedy target compares
            in these three. Not exact are "ensemble", which uses weight p + (1 - weight) q in place of p;
            "typical", which accepts tokens above min(threshold, sqrt(threshold) e^-H), H the entropy; and
            "lenient", which accepts tokens above the threshold.
        weight: from 0 to 1, for "ensemble".
        threshold: a probability, for "typical" (of 0.09 by default) and "lenient".
    """

    draft: Draft
    tokens: int | DynamicLength | Literal["dynamic"] = 5
    target: Strategy = Greedy()  # noqa: RUF009 - frozen
    verify: Verify = "rejection"
    weight: float | None = None
    threshold: float | None = None

    def __repr__(self) -> str:
        """The fields that are not at their default, and whether the result is not exact."""
        return super().__repr__() if self.exact else f"{super().__repr__()[:-1]}, exact=False)"

    @property
    def exact(self) -> bool:
        """Whether the output has the distribution of the target."""
        return self.verify in _EXACT

    @property
    def lookahead(self) -> int:
        """The number of tokens that a session must be able to remove."""
        return self._lengths().most + 1

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """Returns the chain of the target."""
        return self.target.build(min_new_tokens)

    def forcing(self, token: int) -> Speculative:
        """Returns the same strategy whose target forces the second token of a row."""
        return replace(self, target=self.target.forcing(token))

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Checks a request as the target does."""
        return self.target.adapt(request)

    def run(self, session: DecodingSession, observe: Observer | None = None) -> Iterator[list[Event]]:
        """Generates with a session; yields the events of each block.

        Raises:
            ArgumentValueError: a draft that does not fit, or RoPE that depends on the length of a block.
            ValueError: it is to be explained.
        """
        if observe is not None:
            raise ValueError(
                "Speculative(...) chooses several tokens at a time, so there is no single step to explain; "
                f"explain its target, which has the same distribution: {self.target!r}."
            )
        request, model = session.request, session.model
        self.draft.check(model, request)
        if (events := self.draft.generate(session, self)) is not None:
            return events
        limit = model.original_contexts.get("dynamic")
        longest = max(map(len, request.prompts)) + request.max_new_tokens + self.lookahead
        if limit is not None and longest > limit:
            expected = f"at most {max(0, request.max_new_tokens - longest + limit)} with Speculative(...)"
            hint = (
                f'RoPE of type "dynamic" rotates a block beyond {limit} tokens otherwise than single tokens'
            )
            raise ArgumentValueError("max_new_tokens", request.max_new_tokens, expected, hint)
        return SpeculativeLoop(session, self.draft, self._verification(), self._lengths()).run()

    def _sampler(self, call: SamplerArguments) -> Sampler:
        return self.target._sampler(call)

    def _lengths(self) -> Lengths:
        if isinstance(self.tokens, int):
            return Lengths(self.tokens, self.tokens)
        dynamic = self.tokens if isinstance(self.tokens, DynamicLength) else DynamicLength()
        return Lengths(dynamic.first, dynamic.most, dynamic.confidence, adapts=True)

    def _verification(self) -> Verification:
        if self.verify == "match" or (self.exact and isinstance(self.target, Greedy)):
            return Match()
        if self.verify == "block":
            return WholeBlock()
        rules: dict[str, Rule] = {"rejection": rejection}
        if self.weight is not None:
            rules["ensemble"] = Ensemble(self.weight)
        if self.threshold is not None:
            rules |= {"typical": Typical(self.threshold), "lenient": Lenient(self.threshold)}
        return TokenByToken(rules[self.verify])

    def _check(self) -> None:
        for name, declared in parameters_of(self).items():
            if getattr(self, name) is not declared.off and getattr(self, name) != declared.off:
                hint = f"the model's parameters are those of the target, as in target=Sample({name}=...)"
                raise ArgumentValueError(name, getattr(self, name), "left out", hint)
        example = "such as PromptLookup() or DraftModel(model)"
        check_type("draft", self.draft, Draft, "a draft", example)
        if type(self.target) not in (Greedy, Sample):
            raise ArgumentTypeError("target", self.target, "Greedy(...) or Sample(...)")
        if getattr(self.target.watermark, "draws", False):
            hint = "drafts are accepted by draws of their own"
            raise ArgumentValueError("target", self.target, "without a GumbelWatermark", hint)
        if not isinstance(self.tokens, DynamicLength) and self.tokens != "dynamic":
            hint = 'the number of tokens to draft, or "dynamic"'
            set_frozen(self, tokens=check_integer("tokens", self.tokens, 1, _MOST_TOKENS, hint))
        check_choice("verify", self.verify, get_args(Verify))
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Checks that `weight` and `threshold` are there where they have an effect, and only there."""
        if self.verify == "typical" and self.threshold is None:
            set_frozen(self, threshold=0.09)
        for name, users in (("weight", ("ensemble",)), ("threshold", ("typical", "lenient"))):
            value = getattr(self, name)
            if self.verify not in users:
                if value is not None:
                    hint = f"it is a number of verify={' and '.join(map(repr, users))}"
                    raise ArgumentValueError(name, value, f"None for verify={self.verify!r}", hint)
                continue
            hint = f"verify={self.verify!r} needs it"
            set_frozen(self, **{name: check_number(name, value, Interval(0, 1), hint)})
        if self.verify == "ensemble" and isinstance(self.target, Greedy):
            expected = "another one for Greedy(...)"
            raise ArgumentValueError(
                "verify", self.verify, expected, "it mixes distributions that are drawn from"
            )
