"""How a model of any family is called."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from minitx import EncoderDecoderModel


def run(model: Any, ids: Tensor) -> Any:
    """The output for ids (B, T), of multiple choice one choice per row.

    An encoder-decoder writes some of them, or labels a text that ends.
    """
    if not isinstance(model, EncoderDecoderModel):
        return model(ids[:, None] if model.task == "multiple-choice" else ids)
    if model.task in (None, "seq2seq-lm"):
        vocab_size = model.decoder_embedder.config.vocab_size
        return model(ids, decoder_input_ids=ids[:, : ids.shape[1] // 2 + 1] % vocab_size)
    if model.task == "sequence-classification":
        ids = ids.clone()
        ids[:, -1] = model.config.eos_token_id
    return model(ids, decoder_input_ids=ids)
