"""Log-probabilities of given texts: perplexity, best-of, reranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minitx.decoding.generation_config import begin_token
from minitx.decoding.names import names_explained
from minitx.decoding.prompts import Prompts, check_tokenizer, read_prompts
from minitx.decoding.request import beginnings, checked
from minitx.decoding.session import padded_rows, padded_sources
from minitx.models import EncoderDecoderModel
from minitx.validation import check_integer

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Scores:
    """How probable texts are to the model.

    Attributes:
        logprobs: per row (T,) float32, the natural logarithm of each token's probability given those
            before it; the first token has none before it, and 0 (of an encoder-decoder it has the start).
        totals: (B,) their sums: of the whole text.
        perplexities: (B,) exp of minus the mean over all tokens that have one before them; NaN for none.
    """

    logprobs: list[Tensor]
    totals: Tensor
    perplexities: Tensor


@names_explained
@torch.no_grad()  # and not inference_mode: a score may enter a loss
def score(
    model: CausalModel,
    texts: Prompts,
    *,
    sources: Prompts | None = None,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    batch_size: int = 8,
) -> Scores:
    """The log-probability of every token of given texts, each given the tokens before it.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        texts: a text, texts, lists of ids of any lengths, or a (B, T) tensor or array of ids.
        sources: what the encoder of an encoder-decoder reads, one for each text.
        tokenizer: for texts; those of an encoder-decoder are encoded as targets.
        attention_mask: (B, T), for a padded tensor.
        batch_size: texts per forward; their logits, (batch_size, T, V), take the most memory.

    Raises:
        TypeError, ValueError: as `generate`, about the model and the texts.
    """
    model = checked(model)
    check_tokenizer(tokenizer)
    batch_size = check_integer("batch_size", batch_size, 1)
    reads = model.task == "seq2seq-lm"
    if reads != (sources is not None):
        raise ValueError(
            "sources= is missing: what the encoder reads, one for each text."
            if reads
            else "sources= is for models with an encoder, and this one has none."
        )
    rows = read_prompts(
        texts,
        vocab_size=model.decoder_embedder.config.vocab_size,
        tokenizer=tokenizer,
        attention_mask=attention_mask,
        bos=begin_token(model, tokenizer),
        as_target=reads,
        name="text",
        use="score",
    )
    sources_read = [] if sources is None else sources_of(model, sources, len(rows), tokenizer)
    if reads:
        starts = beginnings(model, None, len(rows), tokenizer)
        rows = [[*start, *row] for start, row in zip(starts, rows, strict=True)]
    found: list[Tensor] = []
    for first in range(0, len(rows), batch_size):
        part = slice(first, first + batch_size)
        found += logprobs(model, rows[part], sources_read[part])
    if reads:
        found = [values[1:] for values in found]
    totals = torch.stack([values.sum() for values in found])
    counts = torch.tensor([len(values) - (not reads) for values in found], device=totals.device)
    return Scores(found, totals, torch.exp(-totals / counts))


def sources_of(
    model: CausalModel, sources: Prompts, rows: int, tokenizer: Tokenizer | None
) -> list[list[int]]:
    """The ids of what the encoder reads.

    Raises:
        ValueError: another number of them than of texts.
    """
    size = model.config.inputs.vocab_size
    found = read_prompts(sources, vocab_size=size, tokenizer=tokenizer, name="source", use="read")
    if len(found) != rows:
        raise ValueError(f"there are {len(found)} sources and {rows} texts; give one for each text.")
    return found


def logprobs(model: CausalModel, rows: list[list[int]], sources: list[list[int]]) -> list[Tensor]:
    """The log-probabilities of each row's tokens, (T,) per row; sources as many, or none."""
    batch = padded_rows(model, rows)
    if isinstance(model, EncoderDecoderModel):
        ids, mask = padded_sources(model, sources)
        logits = model(ids, mask, *batch[:2], decoder_position_ids=batch.position_ids).logits
    else:
        logits = model(*batch).logits
    assert logits is not None, "a language model has logits"
    found = []
    for row, ids, scores in zip(rows, batch.input_ids, logits, strict=True):
        start = len(ids) - len(row)  # behind the padding
        # Row by row: a second (B, T, V) in float32 may need more memory than the model.
        following = torch.log_softmax(scores[start:-1].float(), dim=-1)
        chosen = following.gather(1, ids[start + 1 :, None]).squeeze(1)  # (T - 1,)
        found.append(torch.cat((chosen.new_zeros(1), chosen)))
    return found
