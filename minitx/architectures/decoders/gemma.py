"""Gemma (arXiv:2403.08295): Llama's parts with other numbers.

Differs from Llama: norm weights are stored as their difference from 1; word embeddings are scaled by the root
of their width; GELU by its tanh approximation; heads wider than hidden_size / heads; tied.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import tied_decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama
from minitx.config import ModelConfig, replace_in

FEED_FORWARD = "decoder.layer.feed_forward"


def read(hf: ConfigReader, *, act: str = "hidden_activation", key_value_heads: int = 4) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("use_bidirectional_attention", None, False)
    config = llama.read(hf, head_dim=256, key_value_heads=key_value_heads, pad=0)
    scale = config.inputs.hidden_size**0.5
    config = replace_in(config, "inputs", embedding_scale=scale, rounded_scale=True)
    config = replace_in(config, "decoder.layer.norm", offset=1.0)
    return replace_in(config, FEED_FORWARD, hidden_act=hf.activation(act, "gelu_pytorch_tanh"))


def read_first(hf: ConfigReader) -> ModelConfig:
    """Reads a file of the first Gemma: another key for the activation, whose "gelu" is the approximation."""
    config = read(hf, act="hidden_act", key_value_heads=16)
    if hf.activation("hidden_act", "gelu_pytorch_tanh") != "gelu":
        return config
    return replace_in(config, FEED_FORWARD, hidden_act="gelu_pytorch_tanh")


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"gemma": "Gemma"},
    read=read_first,
    heads=tied_decoder_heads,
)
