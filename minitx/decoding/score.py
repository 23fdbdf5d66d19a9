"""Log-probabilities of given texts: perplexity, best-of, reranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minitx.decoding.generate import checked
from minitx.decoding.prompts import Prompts, check_tokenizer, padded, read_prompts
from minitx.decoding.settings import begin_token
from minitx.layers.checks import whole

if TYPE_CHECKING:
    from minitx.models import DecoderModel
    from minitx.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Scores:
    """How probable texts are to the model.

    Attributes:
        logprobs: per row (T,) float32, the natural logarithm of each token's probability given those
            before it; the first token has none before it, and 0.
        totals: (B,) their sums: of the whole text.
        perplexities: (B,) exp of minus the mean over all tokens but the first; NaN for a single token.
    """

    logprobs: list[Tensor]
    totals: Tensor
    perplexities: Tensor


@torch.no_grad()  # and not inference_mode: a score may enter a loss
def score(
    model: DecoderModel,
    texts: Prompts,
    *,
    tokenizer: Tokenizer | None = None,
    attention_mask: Tensor | None = None,
    batch_size: int = 8,
) -> Scores:
    """The log-probability of every token of given texts, each given the tokens before it.

    Args:
        model: a causal language model, in eval mode.
        texts: a text, texts, lists of ids of any lengths, or a (B, T) tensor or array of ids.
        tokenizer: for texts.
        attention_mask: (B, T), for a padded tensor.
        batch_size: texts per forward; their logits, (batch_size, T, V), take the most memory.

    Raises:
        TypeError, ValueError: as `generate`, about the model and the texts.
    """
    model = checked(model)
    check_tokenizer(tokenizer)
    batch_size = whole("batch_size", batch_size, 1, "texts per forward")
    rows = read_prompts(
        texts,
        vocab_size=model.config.embedder.vocab_size,
        tokenizer=tokenizer,
        attention_mask=attention_mask,
        bos=begin_token(model, tokenizer),
    )
    found: list[Tensor] = []
    for start in range(0, len(rows), batch_size):
        found += logprobs(model, rows[start : start + batch_size])
    totals = torch.stack([values.sum() for values in found])
    counts = torch.tensor([len(values) - 1 for values in found], device=totals.device)
    return Scores(found, totals, torch.exp(-totals / counts))


def logprobs(model: DecoderModel, rows: list[list[int]]) -> list[Tensor]:
    """The log-probabilities of each row's tokens, (T,) per row."""
    batch = padded(rows, model.config.embedder.pad_token_id or 0, model.embedder.word_emb.weight.device)
    logits = model(batch.input_ids, batch.attention_mask, batch.position_ids).logits
    assert logits is not None, "a causal language model has logits"
    found = []
    for row, ids, scores in zip(rows, batch.input_ids, logits, strict=True):
        start = len(ids) - len(row)  # behind the padding
        # Row by row: a second (B, T, V) in float32 may need more memory than the model.
        following = torch.log_softmax(scores[start:-1].float(), dim=-1)
        chosen = following.gather(1, ids[start + 1 :, None]).squeeze(1)  # (T - 1,)
        found.append(torch.cat((chosen.new_zeros(1), chosen)))
    return found
