"""The arguments of `generate`: as options by name, and as one checked request.

`GenerationOptions` lists the keyword arguments that `generate`, `stream` and `explain` share;
`arguments.py` checks them and builds the `GenerationRequest` that a `DecodingSession` works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from minitx.decoding.grammar.options import GrammarOptions
from minitx.decoding.guidance.base import Guidance, ResolvedGuidance
from minitx.decoding.parameters import Integers
from minitx.decoding.prefix.prefix_cache import PrefixCache
from minitx.decoding.processors.chain import Chain
from minitx.decoding.prompts import Prompts
from minitx.decoding.samplers.base import Sampler, Seed
from minitx.decoding.text.stopping import ResolvedStop, Stop

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

Logprobs = Literal["raw", "processed"]
AHEAD = 8  # steps that run on an accelerator before their tokens are read


class GenerationOptions(GrammarOptions, total=False):
    """Options of `generate`, `stream` and `explain`.

    max_new_tokens: most tokens per row; 0 generates none. Required unless strategy="checkpoint" states it.
    min_new_tokens: until a row has this many tokens, end tokens are forbidden and stop tokens and stop
        strings are ignored; one number or one per row (of a search: per prompt).
    num_samples: rows per prompt, adjacent in the result; they share the prefill. Of a search: the number of
        hypotheses to return per prompt, best first.
    tokenizer: for prompts as text, texts in the result, and stop strings. If it has a `tgt_lang`, an
        encoder-decoder generates in that language: the language token is forced as the first new token after
        a start token, unless the strategy has its own `forced_bos_token_id` (`Alternatives` choose among the
        tokens after it). Where the language itself is the start token, it is not part of the result.
    attention_mask: (B, T), for prompts that are a padded tensor.
    stop: conditions that end a row; None is `Stop()`, the checkpoint's end tokens.
    seed: an integer, or one per prompt. A row then depends on its seed and prompt alone and not on the batch;
        equal prompts, and the samples of one, still differ. An error with a strategy that draws nothing.
    generator: draws as `torch.multinomial` does, from one source for all rows. Without it and without a seed,
        a seed is drawn from torch's global generator.
    logprobs: "raw" for log-probabilities of the model's distribution, guided if there is a guidance, or
        "processed" for those after the chain.
    top_logprobs: also return this many of the most probable tokens at each step.
    prefill_chunk: most prompt tokens per forward, which limits the memory of long prompts.
    decoder_prompts: for encoder-decoders: decoder input ids, or texts, that the target continues, one for all
        prompts or one per prompt. Texts are placed after the start token and the language. None is the start
        token alone.
    inputs_embeds: for decoders: per prompt a (T, E) tensor that replaces the word embeddings of its T tokens,
        e.g. embeddings of an image; the ids at those positions are placeholders. With LongRoPE, such a row
        must not grow beyond the original context length.
    grammar: the texts of which each row must be one, `Choices(["yes", "no"])`, `Regex("[0-9]{4}")` or another
        grammar of `minitx.decoding`. Before other processors act, tokens that lead to no such text are
        forbidden, and end tokens until the text is complete. A row that reaches max_new_tokens is a
        beginning of one. Needs a tokenizer and an end token.
    schema: short for `grammar=JsonSchema(schema)`: a JSON schema as a dict or text, or a model of pydantic.
    guidance: other distributions that change the model's at every step, before the processors: of other
        prompts (`ClassifierFree`, `ContextAware`), models (`ContrastiveDecoding`, `Experts`, `Ensemble`) or
        layers (`DoLa`), of the text so far (`FSD`), or of a function (`ScoreFunction`).
    prefix: for decoders: a `PrefixCache` of the model, which has the keys and values of earlier prompts.
    cache: "int8" stores keys and values in 8 bits, for a quarter of float32's memory; the logits change a
        little. None: in the dtype of the model.
    heal: for decoders: generates the last tokens of a prompt again where a longer token begins with their
        text, so that a prompt may end within a word. The new tokens spell that text in any way and go on.
        `Result.sequences` has all of them, texts begin where the prompt ends. Needs a tokenizer.
    """

    max_new_tokens: int | None
    min_new_tokens: Integers | None
    num_samples: int
    tokenizer: Tokenizer | None
    attention_mask: Tensor | None
    stop: Stop | None
    seed: Seed | None
    generator: torch.Generator | None
    logprobs: Logprobs | None
    top_logprobs: int
    prefill_chunk: int | None
    decoder_prompts: Prompts | None
    inputs_embeds: Sequence[Tensor] | None
    guidance: Guidance | None
    prefix: PrefixCache | None
    cache: Literal["int8"] | None
    heal: bool


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One call of `generate`, checked and resolved.

    Attributes:
        prompts: ids of each prompt without padding; of an encoder-decoder, the decoder's first tokens. With
            heal=True without the tokens that are generated again.
        sources: ids of the encoder input of each prompt; None without an encoder.
        inputs_embeds: per prompt (T, E), instead of the word embeddings of its tokens; None for those.
        vocab_size: V, the number of logits.
        num_samples: rows per prompt; of a search, hypotheses returned per prompt.
        chain: processes the logits.
        sampler: takes a token per row from the processed logits.
        keys: (rows,) long, the random keys of the rows (of a search: of the prompts); None unless the chain
            needs them.
        stop: conditions that end a row.
        max_new_tokens: most tokens per row.
        min_new_tokens: per row (of a search: per prompt), the number of tokens before which nothing stops it.
        tokenizer: for texts; None for results without texts.
        logprobs, top_logprobs, prefill_chunk: as in `GenerationOptions`.
        guidance: for sessions of `open_session`; None for none.
        prefix: keys and values of earlier prompts; None for none.
        cache_dtype: of keys and values; None for that of the model.
        repeated: per prompt, the characters at the beginning of the output that the prompt had; () for 0.
        whole_prompts: with heal=True, the prompts with the tokens that are generated again; else ().
        run_ahead: the number of steps after which the tokens are read, to see whether rows have ended; see
            `ahead_of`.
        only_argmax: whether nobody uses more of the logits than their argmax.
    """

    prompts: list[list[int]]
    sources: list[list[int]] | None = None
    inputs_embeds: Sequence[Tensor] | None = None
    vocab_size: int
    num_samples: int
    chain: Chain
    sampler: Sampler
    keys: Tensor | None = None
    stop: ResolvedStop
    max_new_tokens: int
    min_new_tokens: list[int]
    tokenizer: Tokenizer | None = None
    logprobs: Logprobs | None = None
    top_logprobs: int = 0
    prefill_chunk: int | None = None
    guidance: ResolvedGuidance | None = None
    prefix: PrefixCache | None = None
    cache_dtype: torch.dtype | None = None
    repeated: Sequence[int] = ()
    whole_prompts: Sequence[list[int]] = ()
    run_ahead: int = 1
    only_argmax: bool = False

    @property
    def passed_prompts(self) -> Sequence[list[int]]:
        """The prompts of the call, whether they are healed or not."""
        return self.whole_prompts or self.prompts


def ahead_of(request: GenerationRequest, device: torch.device) -> int:
    """Returns the number of steps after which the tokens are read; those after the end are dropped.

    Reading waits for an accelerator. It is 1 on a CPU, where nothing waits; with a generator, from which the
    steps that are dropped would draw; with a limit of seconds; and for log-probabilities, which are read too.

    Args:
        request: of a call that returns all its tokens at the end.
        device: of the model.
    """
    draws = getattr(request.sampler, "generator", None) is not None
    reads = request.stop.deadline is not None or request.logprobs is not None
    return 1 if device.type == "cpu" or draws or reads else AHEAD
