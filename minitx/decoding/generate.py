"""`generate` and `stream`: a checked request, a session, and a strategy that runs it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Unpack

from minitx.decoding.arguments import check_names, resolve
from minitx.decoding.guidance.session import open_session
from minitx.decoding.output import Event, Result, collect
from minitx.decoding.prefix.prefix_cache import PrefixCache, remember
from minitx.decoding.prompts import Prompts
from minitx.decoding.request import GenerationOptions, GenerationRequest, ahead_of
from minitx.decoding.samplers.base import Argmax
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.guarantees import is_own_code, unchanged
from minitx.models import CausalModel
from minitx.optimize.classes import is_unmodified


class Stream(Iterator[Event]):
    """The events of a generation, as they come.

    Attributes:
        rows: the number of rows: prompts times samples.
    """

    def __init__(self, strategy: Strategy, session: DecodingSession) -> None:
        """
        Raises:
            ValueError: a search, which knows no token for certain before its end.
        """
        if strategy.searches:
            raise ValueError(
                "A search compares whole sequences and knows no token for certain before its end, so it "
                "cannot be streamed; call generate(...)."
            )
        self.rows = len(session.request.prompts) * session.request.num_samples
        self._events = (event for events in _steps(strategy, session) for event in events)

    def __next__(self) -> Event:
        return next(self._events)


def generate(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    **options: Unpack[GenerationOptions],
) -> Result:
    """Continues prompts.

    A batch gives the tokens that its rows give one by one, up to the last bits of the model's logits; with
    `generator` only if the strategy is greedy, since all rows then draw from one source.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompts: a string, strings, lists of ids of any lengths, or a (B, T) tensor or array of ids: the
            sequences to continue, or the encoder input.
        strategy: `Sample(...)`, `Greedy(...)`, `Beam(...)` or another, or "checkpoint" for the strategy, stop
            conditions and numbers of tokens that its generation_config.json states; options override them.
        **options: see below.

    Raises:
        TypeError: an unknown option, or an argument of the wrong type.
        ValueError: arguments that do not fit together, before any work; or a row without a token that can be
            drawn, with the name of the processor that removed the last one.
    """
    check_names(generate, options, GenerationOptions.__annotations__)
    strategy, request = resolve(model, prompts, strategy, options)
    argmax = uses_argmax(strategy, request)
    request = replace(request, run_ahead=ahead_of(request, model.device), only_argmax=argmax)
    session = open_session(model, request, lookahead=strategy.lookahead)
    parts = (strategy, request.stop, request.sampler, *request.chain.processors)
    own = is_own_code(parts, request.tokenizer, request.prefix) and is_unmodified(model)
    with unchanged(model if own and request.guidance is None else None):
        result = collect((event for step in _steps(strategy, session) for event in step), request)
    scores, log_weights = session.scores or None, session.log_weights or None
    return replace(result, scores=scores, beams=session.beams or None, log_weights=log_weights)


def stream(
    model: CausalModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    **options: Unpack[GenerationOptions],
) -> Stream:
    """Generates as `generate` does, and yields one event per token.

    Iteration may stop at any token.

    The texts of a row's events, joined, are its text. Text that may still become a stop string, or half a
    character, waits for a later event; nothing is taken back.

    Args:
        model, prompts, strategy: as for `generate`.
        **options: see below.

    Raises:
        TypeError, ValueError: as `generate`; those about arguments at once.
    """
    check_names(stream, options, GenerationOptions.__annotations__)
    strategy, request = resolve(model, prompts, strategy, options)
    request = replace(request, only_argmax=uses_argmax(strategy, request))
    return Stream(strategy, open_session(model, request, lookahead=strategy.lookahead))


def uses_argmax(strategy: Strategy, request: GenerationRequest) -> bool:
    """Whether a call whose session is its own uses only the argmax of the logits."""
    whole = len(request.chain) or request.guidance or request.logprobs
    return type(strategy).run is Strategy.run and type(request.sampler) is Argmax and not whole


def _steps(strategy: Strategy, session: DecodingSession) -> Iterator[list[Event]]:
    """Runs a strategy; a prefix cache of the request stores the generated tokens when iteration ends."""
    steps = strategy.run(session)  # arguments that do not fit are refused at the call
    prefix = None if strategy.searches else session.request.prefix
    return steps if prefix is None else _remembered(steps, prefix, session)


def _remembered(
    steps: Iterator[list[Event]], prefix: PrefixCache, session: DecodingSession
) -> Iterator[list[Event]]:
    try:
        yield from steps
    except GeneratorExit:
        remember(prefix, session)
        raise
    remember(prefix, session)


_OPTIONS = inspect.cleandoc(GenerationOptions.__doc__ or "").partition("\n\n")[2]
for _function in (generate, stream):
    _text = inspect.cleandoc(_function.__doc__ or "")
    _function.__doc__ = f"{_text}\n\nOptions:\n{textwrap.indent(_OPTIONS, '    ')}"
