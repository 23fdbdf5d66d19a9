"""Qwen2 and 2.5 (arXiv:2407.10671).

Differs from Llama: Q, K and V have biases; with `use_sliding_window` the layers from `max_window_layers` on
attend to a sliding window.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import layer_types, with_windows
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama
from minitx.config import ModelConfig, replace_in
from minitx.config.model import FULL, SLIDING


def windowed(hf: ConfigReader, config: ModelConfig) -> ModelConfig:
    """Returns the model with its window and layer types; by default `max_window_layers` layers are full."""
    first, layers = hf.size("max_window_layers", 28, least=0), range(config.stack.num_hidden_layers)
    window = hf.size_or_none("sliding_window", 4096)
    if not hf.flag("use_sliding_window", False):
        window = None
    usual = tuple(SLIDING if window is not None and i >= first else FULL for i in layers)
    return replace(config, decoder=with_windows(config.stack, layer_types(hf, usual), window))


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("use_mrope", False)  # positions in three directions, of models that see
    config = llama.read(hf, key_value_heads=32)
    config = replace_in(config, "decoder.layer.attention", bias=True, output_bias=False)
    return windowed(hf, config)


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"qwen2": "Qwen2"},
    read=read,
)
