"""From the arguments of `generate` to a checked request.

Every argument is checked here, before any work. `request.py` defines the two sides: `GenerationOptions` and
`GenerationRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.checkpoint.files import GENERATION
from minitx.decoding.generation_config import GenerationSettings, read_settings
from minitx.decoding.grammar.resolve import with_grammar
from minitx.decoding.guidance.base import GuidedCall, resolve_guidance
from minitx.decoding.parameters import Integers, check_size
from minitx.decoding.prefix.prefix_cache import check_prefix
from minitx.decoding.processors.constraints import ForcedBos, MinNewTokens
from minitx.decoding.processors.xtc import processor_keys
from minitx.decoding.prompts import Prompts, Rows, check_tokenizer, read_prompts
from minitx.decoding.request import GenerationOptions, GenerationRequest
from minitx.decoding.samplers.alternatives import Alternatives
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.special_tokens import begin_token, end_tokens, start_tokens
from minitx.decoding.strategy import Strategy
from minitx.decoding.text.healing import heal
from minitx.decoding.text.stopping import Stop
from minitx.habits import UnknownArgumentError, argument_hint
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_integer, check_type

Embeds = Sequence[Tensor]
_STRATEGIES = 'a Strategy such as Sample(...), Greedy(...) or Beam(...), or "checkpoint"'


def resolve(
    model: Any, prompts: Prompts, strategy: Strategy | Literal["checkpoint"], options: GenerationOptions
) -> tuple[Strategy, GenerationRequest]:
    """Checks the arguments of `generate` and resolves defaults that depend on the model or its checkpoint.

    Returns:
        The strategy, and the request for its session.

    Raises:
        ArgumentTypeError, ArgumentValueError: arguments that are wrong or do not fit together.
    """
    call = _Call(check_causal_model(model), strategy, options)
    request = with_grammar(call.request(prompts), options)
    if check_type("heal", options.get("heal", False), bool, "True or False"):
        if call.strategy.forced_bos_token_id is not None:
            raise ArgumentValueError("heal", True, "left out", "forced_bos_token_id= may force another token")
        for name in ("grammar", "schema", "guidance"):
            if options.get(name) is not None:
                raise ArgumentValueError("heal", True, f"left out with {name}=", "it begins after the prompt")
        if getattr(call.strategy.watermark, "draws", False):
            raise ArgumentValueError("heal", True, "left out with a keyed draw", "it begins after the prompt")
        request = heal(request)
    guidance = None if request.guidance is None else request.guidance.guidance
    if guidance is not None and guidance.greedy_only and type(call.strategy) is not Greedy:
        raise ArgumentValueError("strategy", call.strategy, f"Greedy(...) with {type(guidance).__name__}")
    return call.strategy, call.strategy.adapt(request)


def check_names(function: Callable[..., Any], options: Iterable[str], known: Iterable[str]) -> None:
    """Checks that all options are known; the TypeError for another one hints at its name or place here."""
    known = list(known)
    for name in options:
        if name not in known:
            raise UnknownArgumentError(function.__name__, name, argument_hint("generate", name, known))


def decoder_prompts_of(
    model: CausalModel, prompts: Prompts | None, rows: int, tokenizer: Tokenizer | None
) -> Rows:
    """Returns the first decoder input ids of an encoder-decoder, for each of `rows` sources.

    Raises:
        ArgumentValueError: the start token is not known, or another number of decoder prompts than sources.
    """
    if prompts is None:
        return [[_start(model, tokenizer)[0]]] * rows
    texts = [prompts] if isinstance(prompts, str) else prompts
    if tokenizer is not None and isinstance(texts, list | tuple) and all(isinstance(t, str) for t in texts):
        first = [token for token in _start(model, tokenizer) if token is not None]
        encoded = (tokenizer.encode(text, add_special_tokens=False, as_target=True) for text in texts)
        prompts = [[*first, *ids] for ids in encoded]
    size = model.decoder_embedder.config.vocab_size
    ids = read_prompts(prompts, vocab_size=size, tokenizer=tokenizer, parameter="decoder_prompts")
    if len(ids) not in (1, rows):
        raise ArgumentValueError("decoder_prompts", prompts, f"one for all prompts or {rows}, one per prompt")
    return ids if len(ids) == rows else ids * rows


def remaining_tokens(max_length: int, rows: Sequence[Sequence[int]]) -> int:
    """Returns the number of new tokens that a checkpoint's `max_length` leaves after the longest prompt.

    Raises:
        ArgumentValueError: the longest prompt already has `max_length` tokens.
    """
    if (longest := max(map(len, rows))) >= max_length:
        hint = f"the checkpoint's max_length={max_length} leaves none after a prompt of {longest} tokens"
        raise ArgumentValueError("max_new_tokens", None, "an integer", hint)
    return max_length - longest


class _Call:
    """The arguments of one call, while they are checked.

    Attributes:
        model, options, tokenizer: as passed to the call.
        settings: of the checkpoint, for strategy="checkpoint".
        strategy: the call's or the checkpoint's, with the target language if there is one.
        stop: the call's or the checkpoint's.
    """

    def __init__(self, model: CausalModel, strategy: Any, options: GenerationOptions) -> None:
        self.model, self.options, self.tokenizer = model, options, options.get("tokenizer")
        check_tokenizer(self.tokenizer)
        stop, generator = options.get("stop"), options.get("generator")
        check_type("stop", stop, Stop | None, "a Stop", "e.g. Stop(strings=...) or Stop(regex=...)")
        hint = "seed= takes an integer"
        check_type("generator", generator, torch.Generator | None, "a torch.Generator", hint)
        self.settings = self._checkpoint_settings(strategy) if isinstance(strategy, str) else None
        if self.settings is not None:
            strategy = self.settings.strategy
            # The end tokens are the checkpoint's in any case, without those that the model lacks.
            stop = replace(self.settings.stop, eos=None) if stop is None else stop
        self.strategy: Strategy = check_type("strategy", strategy, Strategy, _STRATEGIES)
        self.stop = stop or Stop()

    def request(self, prompts: Prompts) -> GenerationRequest:
        """Returns the request, not yet adapted to the strategy."""
        options = self.options
        model: Any = self.model  # has a head, as `check_causal_model` finds
        stated = 1 if self.settings is None else self.settings.num_samples
        samples = check_size("num_samples", options.get("num_samples", stated), 1, "rows per prompt")
        per_prompt = 1 if self.strategy.searches else samples
        rows, sources = self._read_inputs(prompts)
        most, least = self._limits(rows)
        chain, vocab_size = self.strategy.build(least), model.head.config.num_labels
        logprobs = check_choice("logprobs", options.get("logprobs"), ("raw", "processed", None))
        hint = "the number of tokens"
        top = check_integer("top_logprobs", options.get("top_logprobs", 0), 0, vocab_size, hint)
        if top and logprobs is None:
            raise ArgumentValueError("top_logprobs", top, '0 without logprobs="raw" or "processed"')
        if (chunk := options.get("prefill_chunk")) is not None:
            chunk = check_size("prefill_chunk", chunk, 1, "prompt tokens per forward")
        history = rows if sources is None else [[*a, *b] for a, b in zip(sources, rows, strict=True)]
        embeds, guidance = self._embeds(rows, most), self.settings and self.settings.guidance
        room = most + self.strategy.lookahead
        call = GuidedCall(self.model, rows, sources, room, self.tokenizer, embeds is not None)
        draws: dict[str, Any] = {name: options.get(name) for name in ("seed", "generator")}
        sampler = self.strategy.sampler(history, per_prompt, device=model.device, **draws)
        return GenerationRequest(
            prompts=rows,
            sources=sources,
            inputs_embeds=embeds,
            vocab_size=vocab_size,
            num_samples=samples,
            chain=chain,
            sampler=sampler,
            keys=processor_keys(sampler, chain, len(rows) * per_prompt),
            stop=self.stop.resolved(end_tokens(model, self.tokenizer), vocab_size, self.tokenizer),
            max_new_tokens=most,
            min_new_tokens=_per_row(least, most, len(rows) * per_prompt, per_prompt),
            tokenizer=self.tokenizer,
            logprobs=logprobs,
            top_logprobs=top,
            prefill_chunk=chunk,
            guidance=resolve_guidance(options.get("guidance", guidance), call),
            prefix=check_prefix(options.get("prefix"), model, options),
            cache_dtype=check_choice("cache", options.get("cache"), ("int8", None)) and torch.int8,
        )

    def _checkpoint_settings(self, strategy: str) -> GenerationSettings:
        """Reads the settings that the model was loaded with, of generation_config.json or config.json."""
        if strategy != "checkpoint":
            raise ArgumentValueError("strategy", strategy, _STRATEGIES)
        checkpoint = self.model.checkpoint
        stated = None if checkpoint is None else checkpoint.settings
        if checkpoint is None or stated is None:
            built = "this model was built with from_config and"
            origin = built if checkpoint is None or checkpoint.folder is None else checkpoint.folder
            hint = f"{origin} has no {GENERATION}; choose a strategy: sampling, greedy decoding or a search"
            raise ArgumentValueError("strategy", strategy, "used with a checkpoint that states one", hint)
        return read_settings(*stated)

    def _read_inputs(self, prompts: Prompts) -> tuple[Rows, Rows | None]:
        """Returns the ids that the decoder continues, and those of the encoder input, if any."""
        model, tokenizer, decoder_prompts = self.model, self.tokenizer, self.options.get("decoder_prompts")
        encodes = model.task == "seq2seq-lm"
        rows = read_prompts(
            prompts,
            vocab_size=model.config.text_inputs.vocab_size,
            tokenizer=tokenizer,
            attention_mask=self.options.get("attention_mask"),
            bos=None if encodes else begin_token(model, tokenizer),
        )
        if not encodes:
            if decoder_prompts is not None:
                expected = "None for models without an encoder"
                hint = "this one continues the prompts themselves"
                raise ArgumentValueError("decoder_prompts", decoder_prompts, expected, hint)
            return rows, None
        longest, embedder = max(map(len, rows)), model.embedder
        if embedder.has_position_table and longest > embedder.max_tokens:
            expected = f"of at most {embedder.max_tokens} tokens each, not of {longest}"
            hint = "the encoder has no more positions; truncate or split them"
            raise ArgumentValueError("prompts", prompts, expected, hint)
        starts = decoder_prompts_of(model, decoder_prompts, len(rows), tokenizer)
        _, language = start_tokens(model, tokenizer)
        return starts if language is None else self._with_language(language, starts), rows

    def _with_language(self, language: int, rows: Rows) -> Rows:
        """Makes the strategy generate the target language's token first, after a bare start token.

        The token is generated and so part of the result, as in transformers. A strategy that forces another
        one keeps it. `Alternatives` choose the first tokens, which are then those after the language.
        """
        strategy = self.strategy
        if any(isinstance(processor, ForcedBos) for processor in strategy.build().processors):
            return rows
        if isinstance(strategy, Alternatives):
            return [[*row, language] if len(row) == 1 else row for row in rows]
        self.strategy = strategy.forcing(language)
        return rows

    def _limits(self, rows: Rows) -> tuple[int, Integers]:
        """Returns max_new_tokens and min_new_tokens: the options, else the checkpoint's settings."""
        most, least = self.options.get("max_new_tokens"), self.options.get("min_new_tokens")
        hint, settings = "the most tokens that a row gets", self.settings
        if settings is not None:
            most = settings.max_new_tokens if most is None else most
            least = settings.min_new_tokens if least is None else least
            if most is None and settings.max_length is not None:
                most = remaining_tokens(settings.max_length, rows)
            hint = f"{GENERATION} does not state it; {hint}" if most is None else hint
        if isinstance(most, Sequence) and not isinstance(most, str):
            hint = "minitx.generate_many takes one number per prompt"
        most = check_size("max_new_tokens", most, hint=hint)
        embedder, longest = self.model.decoder_embedder, max(map(len, rows))
        room = embedder.max_tokens - longest + 1  # the last token is not run
        if embedder.has_position_table and max(most, 1) > room:
            expected = f"at most {max(room, 0)} after a prompt of {longest} tokens"
            shorter = "shorten the prompt or ask for fewer tokens"
            hint = f"the model has {embedder.max_tokens} positions; {shorter}"
            raise ArgumentValueError("max_new_tokens", most, expected, hint)
        return most, 0 if least is None else least

    def _embeds(self, rows: Rows, most: int) -> Embeds | None:
        """Returns the embeddings of each prompt, if they have one vector per token and are run once."""
        model, embeds = self.model, self.options.get("inputs_embeds")
        if embeds is None:
            return None
        shapes = [(len(row), model.decoder_embedder.config.embedding_size) for row in rows]
        if model.task == "seq2seq-lm":
            raise ArgumentValueError("inputs_embeds", embeds, "None for models with an encoder")
        several = embeds.dim() > 0 if isinstance(embeds, Tensor) else isinstance(embeds, Sequence)
        tensors: list[Any] = [*embeds] if several else [embeds]
        if not all(isinstance(row, Tensor) and row.is_floating_point() for row in tensors):
            raise ArgumentTypeError("inputs_embeds", embeds, "a floating-point tensor per prompt")
        if [tuple(tensor.shape) for tensor in tensors] != shapes:
            expected = f"a tensor per prompt, of shapes {shapes}"
            raise ArgumentValueError("inputs_embeds", embeds, expected, "one vector per token")
        limit = model.original_contexts.get("longrope", 0)
        room = min((limit - len(row) + 1 for row in rows if len(row) <= limit), default=most)
        if most > room:
            hint = f"LongRoPE runs a row anew, by its ids, where it grows beyond {limit} tokens"
            raise ArgumentValueError("max_new_tokens", most, f"at most {room} with inputs_embeds", hint)
        return tensors


def _per_row(minimum: Integers, most: int, rows: int, per_prompt: int) -> list[int]:
    """Returns `min_new_tokens` of each row."""
    processor = MinNewTokens(minimum)
    processor.check_rows(rows, per_prompt)
    least = [processor.value] * rows if isinstance(processor.value, int) else list(processor.value)
    if max(least) > most:
        raise ArgumentValueError("min_new_tokens", max(least), f"at most max_new_tokens={most}")
    return least


def _start(model: CausalModel, tokenizer: Tokenizer | None) -> tuple[int, int | None]:
    """Returns `start_tokens`, of which the first must be known."""
    start, language = start_tokens(model, tokenizer)
    if start is None:
        choose = "choose a tgt_lang, or " if tokenizer is not None and tokenizer.languages else ""
        hint = (
            "neither the checkpoint nor the tokenizer states a start token (decoder_start_token_id); "
            f"{choose}pass decoder_prompts="
        )
        raise ArgumentValueError("decoder_prompts", None, "a list of ids for each prompt", hint)
    return start, language
