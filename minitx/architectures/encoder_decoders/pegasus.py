"""Pegasus (arXiv:1912.08777): pre-trained to generate sentences removed from the source.

Differs from BART: pre-norm with a final norm for each stack, no norm after the embedding; positions are
sinusoidal, stored like learned ones, and not trained; the decoder scales `inputs_embeds` too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoder_decoders import bart
from minitx.config import LearnedPositions, ModelConfig, replace_in
from minitx.layers.embedding import sinusoids
from minitx.models import Model
from minitx.models.initialization import Draw, Rules


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    tokens: dict[str, Any] = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1}
    config = bart.read(hf, norm="pre", embedding_norm=False, positions=LearnedPositions(), **tokens)
    return replace_in(config, "decoder_inputs", scale_inputs_embeds=True)


def initialization(model: Model) -> Rules:
    """Fills the position tables with their sinusoids."""
    return {"*.pos_emb.weight": Draw(value=table)}


def table(parameter: Tensor) -> Tensor:
    """Returns the sinusoids of all positions: (P, E) -> (P, E)."""
    positions, size = parameter.shape
    return sinusoids("tensor2tensor", torch.arange(positions, device=parameter.device), size)


ARCHITECTURE = Architecture(
    model_types={"pegasus": "Pegasus"},
    read=read,
    heads=bart.word_head,
    initialization=initialization,
    prefix="model.",
    weights=bart.names(norm="pre", embedding_norm=False),
    head_weights={"seq2seq-lm": bart.WORD_HEAD},
    frozen=(bart.BIAS, "embedder.pos_emb.weight", "decoder_embedder.pos_emb.weight"),
)
