"""Mistral (arXiv:2310.06825).

Differs from Llama: every layer attends to a sliding window, unless the config has none.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import with_windows
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama
from minitx.config import ModelConfig
from minitx.config.model import SLIDING


def read(
    hf: ConfigReader,
    *,
    eps: float = 1e-6,
    key_value_heads: int | None = 8,
    window: int | None = 4096,
    pad: int | None = None,
    theta: float = 10_000.0,
    partial: bool = False,
) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = llama.read(
        hf, eps=eps, key_value_heads=key_value_heads, pad=pad, theta=theta, partial=partial, biases=()
    )
    width = hf.size_or_none("sliding_window", window)
    if width is None:
        return config
    types = (SLIDING,) * config.stack.num_hidden_layers
    return replace(config, decoder=with_windows(config.stack, types, width))


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"mistral": "Mistral"},
    read=read,
)
