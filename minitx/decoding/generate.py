"""`generate` and `stream`: what they are asked for, checked before any work is done."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from minitx.decoding.alternatives import Alternatives, FirstRank
from minitx.decoding.arithmetic import ArithmeticSample, code_from, code_of
from minitx.decoding.checks import LARGEST, Integers, check_rows, integer
from minitx.decoding.loop import Call, Logprobs, steps
from minitx.decoding.names import meant
from minitx.decoding.prompts import Prompts, check_tokenizer, read_prompts
from minitx.decoding.result import Event, Result, collected
from minitx.decoding.search import Search
from minitx.decoding.select import Argmax, CounterNoise, Race, Selector, row_keys
from minitx.decoding.settings import begin_token, end_tokens, read_settings
from minitx.decoding.stop import Stop
from minitx.decoding.strategy import Greedy, Sample, Strategy, owner
from minitx.weights.files import GENERATION

if TYPE_CHECKING:
    from minitx.models import DecoderModel
    from minitx.tokenizer import Tokenizer

Seed = int | Sequence[int] | Tensor
P = ParamSpec("P")
R = TypeVar("R")


def names_explained(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function say, of an argument that it does not have, what has its place."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> R:
        for name in given:
            if name not in known:
                strategy = owner(name)
                hint = f" It belongs to the strategy: {strategy}({name}=...)." if strategy else None
                raise TypeError(f"{function.__name__} has no argument {name!r}.{hint or meant(name, known)}")
        return function(*args, **given)

    return call


class Stream(Iterator[Event]):
    """The events of a call, as they come.

    Attributes:
        rows: how many rows there are: prompts times samples.
    """

    def __init__(self, call: Call) -> None:
        if call.search is not None:
            raise ValueError(
                "A search compares whole texts and knows nothing for certain before its end, so it cannot be "
                "streamed; call generate(...)."
            )
        self.rows = len(call.prompts) * call.num_samples
        self._events = (event for events in steps(call) for event in events)

    def __next__(self) -> Event:
        return next(self._events)


@names_explained
def generate(
    model: DecoderModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    max_new_tokens: int | None = None,
    min_new_tokens: Integers | None = None,
    num_samples: int = 1,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    stop: Stop | None = None,
    seed: Seed | None = None,
    generator: torch.Generator | None = None,
    logprobs: Logprobs | None = None,
    top_logprobs: int = 0,
    prefill_chunk: int | None = None,
) -> Result:
    """Continues prompts.

    A batch gives the tokens that its rows give one by one, as far as the last bits of the model's logits
    allow; with `generator` only if the strategy is greedy, since all rows then draw from one source.

    Args:
        model: a causal language model, in eval mode.
        prompts: a text, texts, lists of ids of any lengths, or a (B, T) tensor or array of ids.
        strategy: `Sample(...)`, `Greedy(...)`, `Beam(...)`, or "checkpoint" for what its
            generation_config.json says; that then also holds for `stop` and the numbers of tokens, where they
            are not given.
        max_new_tokens: most tokens per row; 0 gives none. To be given, unless "checkpoint" gives it.
        min_new_tokens: before so many, end tokens are forbidden, and neither stop tokens nor stop strings
            end a row; one number, or one per row.
        num_samples: rows per prompt, one after the other; they share its forward. Of a search, as many of the
            best hypotheses as that.
        tokenizer: for prompts as text, for texts in the result, and for stop strings.
        attention_mask: (B, T), for prompts that are a padded tensor.
        stop: what ends a row; None is `Stop()`, the checkpoint's end tokens.
        seed: a whole number, or one per prompt. A row then depends on its seed and prompt alone and not on
            the batch; equal prompts, and the samples of one, differ all the same.
        generator: draws as `torch.multinomial` does. Without it and a seed, a seed is drawn from torch's
            global one.
        logprobs: "raw" for log-probabilities by the model's own distribution, "processed" by the one that
            the chain made of it.
        top_logprobs: also of how many of the most probable tokens.
        prefill_chunk: most tokens of the prompts in one forward, for long ones in little memory.

    Raises:
        TypeError: arguments of another kind.
        ValueError: what does not fit together, before any work is done; or a row that is left without a
            token to draw, by the name of the processor that left it so.
    """
    call = prepare(
        model,
        prompts,
        strategy,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        num_samples=num_samples,
        tokenizer=tokenizer,
        attention_mask=attention_mask,
        stop=stop,
        seed=seed,
        generator=generator,
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        prefill_chunk=prefill_chunk,
    )
    if call.search is not None:
        return call.search(call)
    events = Stream(call)
    return collected(
        events,
        events.rows,
        has_text=tokenizer is not None,
        has_logprobs=logprobs is not None,
        top_logprobs=top_logprobs,
    )


@names_explained
def stream(
    model: DecoderModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    max_new_tokens: int | None = None,
    min_new_tokens: Integers | None = None,
    num_samples: int = 1,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    stop: Stop | None = None,
    seed: Seed | None = None,
    generator: torch.Generator | None = None,
    logprobs: Logprobs | None = None,
    top_logprobs: int = 0,
    prefill_chunk: int | None = None,
) -> Stream:
    """`generate`, token by token: iterate over it, and leave when you have enough.

    The texts of a row's events, joined, are its text. What may yet become a stop string, or is half a
    character, waits for a later event; nothing is taken back.

    Args:
        model, prompts, strategy and the others: as for `generate`.

    Raises:
        TypeError, ValueError: as `generate`, at once where it is about the arguments.
    """
    return Stream(
        prepare(
            model,
            prompts,
            strategy,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            num_samples=num_samples,
            tokenizer=tokenizer,
            attention_mask=attention_mask,
            stop=stop,
            seed=seed,
            generator=generator,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            prefill_chunk=prefill_chunk,
        )
    )


def prepare(
    model: DecoderModel,
    prompts: Prompts,
    strategy: Strategy | Literal["checkpoint"],
    *,
    max_new_tokens: int | None,
    min_new_tokens: Integers | None = None,
    num_samples: int = 1,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    stop: Stop | None = None,
    seed: Seed | None = None,
    generator: torch.Generator | None = None,
    logprobs: Logprobs | None = None,
    top_logprobs: int = 0,
    prefill_chunk: int | None = None,
) -> Call:
    """The arguments of `generate`, checked, as one call of the loop."""
    model = checked(model)
    _check_kinds(stop, tokenizer, generator)
    missing = "max_new_tokens= is missing: how many tokens a row gets at most."
    if isinstance(strategy, str):
        missing = f"{missing[:-1]}; {GENERATION} does not say either."
        settings = read_settings(_of_checkpoint(model, strategy))
        strategy = settings.strategy
        # Its end tokens are the checkpoint's in any case, without those that the model lacks.
        stop = replace(settings.stop, eos=None) if stop is None else stop
        max_new_tokens = settings.max_new_tokens if max_new_tokens is None else max_new_tokens
        min_new_tokens = settings.min_new_tokens if min_new_tokens is None else min_new_tokens
    if not isinstance(strategy, Greedy | Alternatives | Sample | Search):
        raise TypeError(
            f"strategy is {strategy!r:.60}; expected a Sample(...), Greedy(...) or Beam(...), or "
            '"checkpoint".'
        )
    searches = isinstance(strategy, Search)
    if max_new_tokens is None:
        raise TypeError(missing)
    most = _count("max_new_tokens", max_new_tokens, least=0, meaning="how many tokens a row gets at most")
    samples = _count("num_samples", num_samples, least=1, meaning="how many rows a prompt gets")
    rows = read_prompts(
        prompts,
        vocab_size=model.config.embedder.vocab_size,
        tokenizer=tokenizer,
        attention_mask=attention_mask,
        bos=begin_token(model, tokenizer),
    )
    _check_length(model, max(map(len, rows)), most)
    assert model.head is not None  # its task says so
    vocab_size = model.head.config.num_labels
    if logprobs not in (None, "raw", "processed"):
        raise ValueError(f'logprobs={logprobs!r} must be "raw", "processed" or None.')
    top = _count("top_logprobs", top_logprobs, least=0, meaning="of how many tokens", most=vocab_size)
    if top and logprobs is None:
        raise ValueError(f'top_logprobs={top} needs logprobs="raw" or "processed".')
    if prefill_chunk is not None:
        meaning = "how many prompt tokens in one forward"
        prefill_chunk = _count("prefill_chunk", prefill_chunk, least=1, meaning=meaning)
    chain = strategy.build(0 if min_new_tokens is None else min_new_tokens)
    per_prompt = 1 if searches else samples
    if not searches:
        chain.check_rows(len(rows) * samples, samples)
    return Call(
        model=model,
        prompts=rows,
        num_samples=samples,
        chain=chain,
        selector=_selector(model, strategy, rows, per_prompt, seed, generator),
        search=strategy.search if isinstance(strategy, Search) else None,
        stop=(stop or Stop()).resolved(end_tokens(model, tokenizer), vocab_size, tokenizer),
        max_new_tokens=most,
        min_new_tokens=_least(min_new_tokens, most, len(rows) * per_prompt, per_prompt),
        tokenizer=tokenizer,
        logprobs=logprobs,
        top_logprobs=top,
        prefill_chunk=prefill_chunk,
    )


def checked(model: Any) -> DecoderModel:
    """
    Raises:
        ValueError: no causal language model, or one in training mode.
    """
    task = getattr(model, "task", None)
    if task != "causal-lm":
        raise ValueError(
            f"This model ({type(model).__name__}, task {task!r}) does not predict the next token; load a "
            'decoder with head="causal-lm".'
        )
    if model.training:
        raise ValueError("The model is in training mode, where dropout disturbs it; call model.eval() first.")
    checked: DecoderModel = model
    return checked


def _check_kinds(stop: Any, tokenizer: Any, generator: Any) -> None:
    """
    Raises:
        TypeError: an object of another kind.
    """
    if stop is not None and not isinstance(stop, Stop):
        raise TypeError(f"stop={stop!r:.60} must be a Stop, as in Stop(strings=...) or Stop(tokens=...).")
    check_tokenizer(tokenizer)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator={generator!r:.60} must be a torch.Generator; seed= takes a number.")


def _of_checkpoint(model: DecoderModel, strategy: str) -> dict[str, Any]:
    """The generation_config.json that the model was loaded with."""
    if strategy != "checkpoint":
        raise ValueError(f'strategy={strategy!r}; expected a Sample(...) or Greedy(...), or "checkpoint".')
    checkpoint = model.checkpoint
    found = None if checkpoint is None else checkpoint.generation
    if found is None:
        place = (checkpoint and checkpoint.folder) or "this model, which was not loaded,"
        raise ValueError(
            f'strategy="checkpoint": {place} has no {GENERATION}; say what you want with Sample(...) or '
            "Greedy(...)."
        )
    return found


def _count(name: str, value: Any, *, least: int, meaning: str, most: int = LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be a whole number: {meaning}.")
    number = int(value)
    if not least <= number <= most:
        limit = f"at least {least}" if number < least and most == LARGEST else f"from {least} to {most}"
        raise ValueError(f"{name}={number} must be {limit}: {meaning}.")
    return number


def _least(minimum: Integers | None, most: int, rows: int, samples: int) -> list[int]:
    """`min_new_tokens` of each row.

    Raises:
        ValueError: another number of them than rows, or more than `max_new_tokens`.
    """
    value = integer("min_new_tokens", 0 if minimum is None else minimum, 0, "0 sets no minimum")
    least = [value] * rows if isinstance(value, int) else list(value)
    check_rows("min_new_tokens", least, rows, samples)
    if max(least) > most:
        raise ValueError(f"min_new_tokens={max(least)} is more than max_new_tokens={most}.")
    return least


def _check_length(model: DecoderModel, prompt: int, most: int) -> None:
    """
    Raises:
        ValueError: the last token that the model would be given lies beyond its table of positions.
    """
    needed, limit = prompt + max(most - 1, 0), model.embedder.max_tokens
    if model.embedder.pos_emb is not None and needed > limit:
        raise ValueError(
            f"A prompt of {prompt} tokens and max_new_tokens={most} need {needed} positions, but the model "
            f"has {limit}; shorten the prompt, or ask for at most {max(limit - prompt + 1, 0)} tokens."
        )


def _selector(
    model: DecoderModel,
    strategy: Strategy,
    prompts: list[list[int]],
    samples: int,
    seed: Seed | None,
    generator: torch.Generator | None,
) -> Selector:
    """How a token is taken.

    Raises:
        ValueError: two sources of randomness, or arguments that mean nothing where nothing is drawn.
    """
    device = model.embedder.word_emb.weight.device
    first_rank = isinstance(strategy, Alternatives)
    if isinstance(strategy, Greedy) or first_rank or (isinstance(strategy, Search) and not strategy.draws):
        kind, other = type(strategy).__name__, "BeamSample" if isinstance(strategy, Search) else "Sample"
        idle = {"seed": seed is not None, "generator": generator is not None}
        idle["num_samples"] = samples > 1 and not first_rank
        for name in (name for name, given in idle.items() if given):
            raise ValueError(
                f"{kind}() draws nothing, so that {name}= has no effect; leave it out, or use {other}()."
            )
        return FirstRank(len(prompts), samples, device) if first_rank else Argmax()
    spread_out = isinstance(strategy, ArithmeticSample)
    if generator is not None:
        if seed is not None:
            raise ValueError("seed= and generator= are two sources of randomness; give one of them.")
        return code_from(generator, len(prompts), samples) if spread_out else Race(generator)
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    if spread_out:
        return code_of(seed, prompts, samples, device)
    return CounterNoise(row_keys(seed, prompts, samples, device))
