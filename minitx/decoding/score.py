"""Log-probabilities of sequences: perplexity, best-of, reranking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.arguments import decoder_prompts_of
from minitx.decoding.prompts import Prompts, check_tokenizer, pad_rows, pad_sources, read_prompts
from minitx.decoding.special_tokens import begin_token
from minitx.habits import explain_arguments
from minitx.models import EncoderDecoderModel
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer


@dataclass(frozen=True, eq=False)
class Scores:
    """Log-probabilities of sequences.

    Attributes:
        logprobs: per row (T,) float32, the natural logarithm of each token's probability after those before
            it; 0 for the first token of a decoder, which has none before it.
        totals: (B,), their sums.
        perplexities: (B,), exp of minus the mean over all tokens that have one before them; NaN for none.
    """

    logprobs: list[Tensor]
    totals: Tensor
    perplexities: Tensor


@explain_arguments("generate")
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
    """Returns the teacher-forced log-probability of every token.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        texts: a string, strings, lists of ids of any lengths, or a (B, T) tensor or array of ids; of an
            encoder-decoder, the targets without start token.
        sources: the encoder input of an encoder-decoder, one per text.
        tokenizer: for strings; those of an encoder-decoder are encoded as targets.
        attention_mask: (B, T), for a padded tensor.
        batch_size: texts per forward; their logits, (batch_size, T, V), need the most memory.

    Raises:
        TypeError, ValueError: as `generate`, about the model and the texts.
    """
    model = check_causal_model(model)
    check_tokenizer(tokenizer)
    batch_size = check_integer("batch_size", batch_size, 1, hint="texts per forward")
    encodes = model.task == "seq2seq-lm"
    if encodes != (sources is not None):
        expected = "passed, one per text, for a model with" if encodes else "None for a model without"
        raise ArgumentValueError("sources", sources, f"{expected} an encoder")
    rows = read_prompts(
        texts,
        vocab_size=model.decoder_embedder.config.vocab_size,
        tokenizer=tokenizer,
        attention_mask=attention_mask,
        bos=begin_token(model, tokenizer),
        as_target=encodes,
        parameter="texts",
    )
    encoder_rows: list[list[int]] = []
    if sources is not None:
        size = model.config.text_inputs.vocab_size
        encoder_rows = read_prompts(sources, vocab_size=size, tokenizer=tokenizer, parameter="sources")
        if len(encoder_rows) != len(rows):
            raise ArgumentValueError("sources", sources, f"{len(rows)} sequences, one per text")
        starts = decoder_prompts_of(model, None, len(rows), tokenizer)
        rows = [[*start, *row] for start, row in zip(starts, rows, strict=True)]
    parts = [slice(first, first + batch_size) for first in range(0, len(rows), batch_size)]
    logprobs = [row for part in parts for row in _logprobs(model, rows[part], encoder_rows[part])]
    if encodes:
        logprobs = [values[1:] for values in logprobs]
    totals = torch.stack([values.sum() for values in logprobs])
    counts = torch.tensor([len(values) - (not encodes) for values in logprobs], device=totals.device)
    return Scores(logprobs, totals, torch.exp(-totals / counts))


def _logprobs(model: CausalModel, rows: list[list[int]], sources: list[list[int]]) -> list[Tensor]:
    """Returns the log-probabilities of each row's tokens, (T,) per row."""
    batch = pad_rows(model, rows)
    if isinstance(model, EncoderDecoderModel):
        ids, mask = pad_sources(model, sources)
        logits = model(ids, mask, *batch[:2], decoder_position_ids=batch.position_ids).logits
    else:
        logits = model(*batch).logits
    assert logits is not None, "a language model has logits"
    logprobs = []
    for row, ids, scores in zip(rows, batch.input_ids, logits, strict=True):
        start = len(ids) - len(row)  # after the padding
        # Row by row: a second (B, T, V) in float32 may need more memory than the model.
        following = torch.log_softmax(scores[start:-1].float(), dim=-1)
        chosen = following.gather(1, ids[start + 1 :, None]).squeeze(1)  # (T - 1,)
        logprobs.append(torch.cat((chosen.new_zeros(1), chosen)))
    return logprobs
