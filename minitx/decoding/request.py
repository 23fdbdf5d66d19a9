"""What `generate` is asked for, checked before any work is done, as one `Call`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from minitx.checkpoint.files import GENERATION
from minitx.decoding.generation_config import (
    begin_token,
    end_tokens,
    language_behind_start,
    read_settings,
    start_token,
)
from minitx.decoding.loop import Call, Logprobs
from minitx.decoding.parameters import LARGEST_INTEGER, Integers, check_integers, check_rows
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.constraints import ForcedBos
from minitx.decoding.prompts import Prompts, check_tokenizer, read_prompts
from minitx.decoding.samplers.alternatives import Alternatives
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.base import Search
from minitx.decoding.stopping import Stop
from minitx.decoding.strategy import Seed, Strategy

if TYPE_CHECKING:
    from minitx.layers.embedder import Embedder
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer

TASKS = ("causal-lm", "seq2seq-lm")  # whose logits are of the next token
_STRATEGIES = 'expected a Sample(...), Greedy(...) or Beam(...), or "checkpoint".'


def prepare(
    model: CausalModel,
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
    decoder_prompts: Prompts | None = None,
) -> Call:
    """The arguments of `generate`, checked, as one call of the loop."""
    model = checked(model)
    _check_kinds(stop, tokenizer, generator)
    missing = "max_new_tokens= is missing: how many tokens a row gets at most."
    max_length: int | None = None
    if isinstance(strategy, str):
        missing = f"{missing[:-1]}; {GENERATION} does not say either."
        settings = read_settings(_of_checkpoint(model, strategy))
        strategy = settings.strategy
        # Its end tokens are the checkpoint's in any case, without those that the model lacks.
        stop = replace(settings.stop, eos=None) if stop is None else stop
        max_new_tokens = settings.max_new_tokens if max_new_tokens is None else max_new_tokens
        min_new_tokens = settings.min_new_tokens if min_new_tokens is None else min_new_tokens
        max_length = settings.max_length
    if not isinstance(strategy, Greedy | Alternatives | Sample | Search):
        raise TypeError(f"strategy is {strategy!r:.60}; {_STRATEGIES}")
    searches = isinstance(strategy, Search)
    samples = _count("num_samples", num_samples, least=1, meaning="how many rows a prompt gets")
    reads = model.task == "seq2seq-lm"
    rows = read_prompts(
        prompts,
        vocab_size=model.config.embedder.vocab_size,
        tokenizer=tokenizer,
        attention_mask=attention_mask,
        bos=None if reads else begin_token(model, tokenizer),
        use="read" if reads else "continue",
    )
    sources = rows if reads else None
    if sources is not None:
        _check_source(model.embedder, max(map(len, sources)))
        rows = beginnings(model, decoder_prompts, len(sources), tokenizer)
        language = language_behind_start(model, tokenizer)
        if language is not None:
            strategy, rows = _into_language(strategy, language, rows)
    elif decoder_prompts is not None:
        raise ValueError("decoder_prompts= is for models with an encoder; this one goes on with the prompts.")
    longest = max(map(len, rows))
    if max_new_tokens is None and sources is not None and max_length is not None:
        max_new_tokens = remaining_tokens(max_length, rows)
    if max_new_tokens is None:
        raise TypeError(missing)
    most = _count("max_new_tokens", max_new_tokens, least=0, meaning="how many tokens a row gets at most")
    _check_length(model.decoder_embedder, longest, most)
    seen = rows if sources is None else [[*a, *b] for a, b in zip(sources, rows, strict=True)]
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
        sampler=strategy.sampler(
            seen,
            per_prompt,
            seed=seed,
            generator=generator,
            device=model.decoder_embedder.word_emb.weight.device,
        ),
        search=strategy.search if isinstance(strategy, Search) else None,
        stop=(stop or Stop()).resolved(end_tokens(model, tokenizer), vocab_size, tokenizer),
        max_new_tokens=most,
        min_new_tokens=_least(min_new_tokens, most, len(rows) * per_prompt, per_prompt),
        tokenizer=tokenizer,
        logprobs=logprobs,
        top_logprobs=top,
        prefill_chunk=prefill_chunk,
        sources=sources,
    )


def checked(model: Any) -> CausalModel:
    """
    Raises:
        ValueError: no language model that writes, or one in training mode.
    """
    task = getattr(model, "task", None)
    if task not in TASKS:
        raise ValueError(
            f"This model ({type(model).__name__}, task {task!r}) does not predict the next token; load a "
            'decoder with head="causal-lm", or an encoder-decoder with head="seq2seq-lm".'
        )
    if model.training:
        raise ValueError("The model is in training mode, where dropout disturbs it; call model.eval() first.")
    checked: CausalModel = model
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


def _of_checkpoint(model: CausalModel, strategy: str) -> dict[str, Any]:
    """The generation_config.json that the model was loaded with."""
    if strategy != "checkpoint":
        raise ValueError(f"strategy={strategy!r}; {_STRATEGIES}")
    checkpoint = model.checkpoint
    found = None if checkpoint is None else checkpoint.generation
    if found is None:
        place = (checkpoint and checkpoint.folder) or "this model, which was not loaded,"
        raise ValueError(
            f'strategy="checkpoint": {place} has no {GENERATION}; say what you want with Sample(...) or '
            "Greedy(...)."
        )
    return found


def _count(name: str, value: Any, *, least: int, meaning: str, most: int = LARGEST_INTEGER) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be a whole number: {meaning}.")
    number = int(value)
    if not least <= number <= most:
        limit = (
            f"at least {least}" if number < least and most == LARGEST_INTEGER else f"from {least} to {most}"
        )
        raise ValueError(f"{name}={number} must be {limit}: {meaning}.")
    return number


def _least(minimum: Integers | None, most: int, rows: int, samples: int) -> list[int]:
    """`min_new_tokens` of each row.

    Raises:
        ValueError: another number of them than rows, or more than `max_new_tokens`.
    """
    value = check_integers("min_new_tokens", 0 if minimum is None else minimum, 0, "0 sets no minimum")
    least = [value] * rows if isinstance(value, int) else list(value)
    check_rows("min_new_tokens", least, rows, samples)
    if max(least) > most:
        raise ValueError(f"min_new_tokens={max(least)} is more than max_new_tokens={most}.")
    return least


def beginnings(
    model: CausalModel, prompts: Prompts | None, rows: int, tokenizer: Tokenizer | None
) -> list[list[int]]:
    """What the decoder of an encoder-decoder goes on from, for each text that is read.

    Raises:
        ValueError: it is not known what texts begin with, or there are not as many beginnings as texts.
    """
    if prompts is None:
        return [[_start(model, tokenizer)]] * rows
    texts = [prompts] if isinstance(prompts, str) else prompts
    if tokenizer is not None and isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts):
        language = language_behind_start(model, tokenizer)
        front = [_start(model, tokenizer), *([] if language is None else [language])]
        begun = (tokenizer.encode(t, add_special_tokens=False, as_target=True) for t in texts)
        prompts = [[*front, *ids] for ids in begun]
    size = model.decoder_embedder.config.vocab_size
    found = read_prompts(prompts, vocab_size=size, tokenizer=tokenizer, name="decoder prompt")
    if len(found) not in (1, rows):
        raise ValueError(
            f"there are {len(found)} decoder_prompts and {rows} prompts; give one for all, or one for each."
        )
    return found if len(found) == rows else found * rows


def remaining_tokens(max_length: int, begun: Sequence[Sequence[int]]) -> int:
    """How many new tokens max_length leaves: it counts the start token, and what else a text begins with."""
    return max(0, max_length - max(map(len, begun)))


def _start(model: CausalModel, tokenizer: Tokenizer | None) -> int:
    start = start_token(model, tokenizer)
    if start is None:
        choose = "choose a tgt_lang, or " if tokenizer is not None and tokenizer.languages else ""
        raise ValueError(
            "neither the checkpoint nor the tokenizer says what texts begin with (decoder_start_token_id); "
            f"{choose}give decoder_prompts=, a list of ids for each prompt."
        )
    return start


def _into_language(
    strategy: Strategy, language: int, rows: list[list[int]]
) -> tuple[Strategy, list[list[int]]]:
    """A strategy that writes a language's token first, behind a start token alone.

    The token is generated, as in transformers, and so is part of the result. A strategy that forces another
    one keeps it. `Alternatives` chooses the first tokens, which are then those behind the language.
    """
    if any(isinstance(each, ForcedBos) for each in strategy.build().processors):
        return strategy, rows
    if isinstance(strategy, Alternatives):
        return strategy, [[*row, language] if len(row) == 1 else row for row in rows]
    if strategy.chain is None:
        return replace(strategy, forced_bos_token_id=language), rows
    return replace(strategy, chain=Chain(*strategy.chain.processors, ForcedBos(language))), rows


def _check_source(embedder: Embedder, length: int) -> None:
    """
    Raises:
        ValueError: the encoder has no positions for a text of this length.
    """
    if embedder.pos_emb is not None and length > embedder.max_tokens:
        raise ValueError(
            f"A prompt has {length} tokens, but the encoder has positions for {embedder.max_tokens}; "
            "truncate it or split it."
        )


def _check_length(embedder: Embedder, prompt: int, most: int) -> None:
    """
    Raises:
        ValueError: the last token that the model would be given lies beyond its table of positions.
    """
    needed, limit = prompt + max(most - 1, 0), embedder.max_tokens
    if embedder.pos_emb is not None and needed > limit:
        raise ValueError(
            f"A prompt of {prompt} tokens and max_new_tokens={most} need {needed} positions, but the model "
            f"has {limit}; shorten the prompt, or ask for at most {max(limit - prompt + 1, 0)} tokens."
        )
