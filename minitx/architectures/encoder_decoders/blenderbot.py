"""Blenderbot (arXiv:2004.13637): an open-domain chatbot, small encoder and deep decoder.

Differs from BART: pre-norm with a final norm for each stack, no norm after the embedding, no spare rows in
the position tables.
"""

from __future__ import annotations

from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoder_decoders import bart
from minitx.config import LearnedPositions, ModelConfig


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    tokens: dict[str, Any] = {"pad_token_id": 0, "decoder_start_token_id": 1}
    return bart.read(hf, norm="pre", embedding_norm=False, positions=LearnedPositions(), **tokens)


ARCHITECTURE = Architecture(
    model_types={"blenderbot": "Blenderbot"},
    read=read,
    heads=bart.word_head,
    prefix="model.",
    weights=bart.names(norm="pre", embedding_norm=False),
    head_weights={"seq2seq-lm": bart.WORD_HEAD},
    frozen=(bart.BIAS,),
)
