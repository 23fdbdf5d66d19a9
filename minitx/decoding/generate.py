"""`generate` and `stream`: what they are asked for, checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from minitx.decoding.loop import Call, Logprobs, steps
from minitx.decoding.names import names_explained
from minitx.decoding.output import Event, Result, collected
from minitx.decoding.parameters import Integers
from minitx.decoding.prompts import Prompts
from minitx.decoding.request import prepare
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.stopping import Stop
from minitx.decoding.strategy import Seed, Strategy

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer


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
    model: CausalModel,
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
    decoder_prompts: Prompts | None = None,
) -> Result:
    """Continues prompts.

    A batch gives the tokens that its rows give one by one, as far as the last bits of the model's logits
    allow; with `generator` only if the strategy is greedy, since all rows then draw from one source.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompts: a text, texts, lists of ids of any lengths, or a (B, T) tensor or array of ids: what is gone
            on with, or what the encoder reads.
        strategy: `Sample(...)`, `Greedy(...)`, `Beam(...)`, or "checkpoint" for what its
            generation_config.json says; that then also holds for `stop` and the numbers of tokens, where they
            are not given.
        max_new_tokens: most tokens per row; 0 gives none. To be given, unless "checkpoint" gives it.
        min_new_tokens: before so many, end tokens are forbidden, and neither stop tokens nor stop strings
            end a row; one number, or one per row.
        num_samples: rows per prompt, one after the other; they share its forward. Of a search, as many of the
            best hypotheses as that.
        tokenizer: for prompts as text, for texts in the result, and for stop strings. Its `tgt_lang`, if it
            has one, is the language that an encoder-decoder writes: forced as the first new token behind a
            start token alone, where the strategy has no `forced_bos_token_id` of its own (`Alternatives`
            choose from the tokens behind it). Where texts begin with their language, it is the start token,
            and so is not among the new ones.
        attention_mask: (B, T), for prompts that are a padded tensor.
        stop: what ends a row; None is `Stop()`, the checkpoint's end tokens.
        seed: a whole number, or one per prompt. A row then depends on its seed and prompt alone and not on
            the batch; equal prompts, and the samples of one, differ all the same. An error with a strategy
            that draws nothing.
        generator: draws as `torch.multinomial` does. Without it and a seed, a seed is drawn from torch's
            global one.
        logprobs: "raw" for log-probabilities by the model's own distribution, "processed" by the one that
            the chain made of it.
        top_logprobs: also of how many of the most probable tokens.
        prefill_chunk: most tokens of the prompts in one forward, for long ones in little memory.
        decoder_prompts: what the texts of an encoder-decoder begin with, for all prompts or for each: ids,
            or texts, which come behind the start token and the language. None is the start token.

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
        decoder_prompts=decoder_prompts,
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
    model: CausalModel,
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
    decoder_prompts: Prompts | None = None,
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
            decoder_prompts=decoder_prompts,
        )
    )
