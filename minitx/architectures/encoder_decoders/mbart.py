"""mBART (arXiv:2001.08210) and mBART-50: BART for many languages.

Differs from BART: pre-norm with a final norm for each stack; in training the language token at the end of the
target is moved to the front, where it starts the decoder input.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoder_decoders import bart
from minitx.config import HeadConfig, ModelConfig


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    return replace(bart.read(hf, norm="pre"), decoder_start_token_id=None)


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return bart.heads(hf, labels=2)


ARCHITECTURE = Architecture(
    model_types={"mbart": "MBart"},
    read=read,
    heads=heads,
    prefix="model.",
    weights=bart.names(norm="pre"),
    head_weights=bart.HEAD_WEIGHTS,
    frozen=(bart.BIAS,),
)
