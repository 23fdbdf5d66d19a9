"""SmolLM3: Llama's parts, with some layers without positions (NoPE, arXiv:2501.18795).

Differs from Llama: every fourth layer has no RoPE, and with `use_sliding_window` those layers attend to a
sliding window; the head is tied.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import layer_types, tied_decoder_heads, with_windows
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama
from minitx.config import ModelConfig, replace_in
from minitx.config.model import FULL, SLIDING


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = llama.read(hf, key_value_heads=4, pad=128004, theta=2e6, biases=llama.BIASES)
    layers, every = range(config.stack.num_hidden_layers), hf.size("no_rope_layer_interval", 4)
    flags = hf.get("no_rope_layers", None)  # 1: the layer has RoPE, despite the name
    if flags is None:
        flags = [int((i + 1) % every != 0) for i in layers]
    if not isinstance(flags, list) or len(flags) != len(layers) or any(x not in (0, 1) for x in flags):
        raise hf.error("no_rope_layers", flags, f"a list of 0 or 1 for each of {len(layers)} layers")
    window = hf.size_or_none("sliding_window", None)
    # The flag applies only where the file does not list the types.
    slides = hf.flag("use_sliding_window", False) and window is not None
    types = layer_types(hf, tuple(SLIDING if slides and not rope else FULL for rope in flags))
    config = replace_in(config, "decoder.positions", layers=tuple(map(bool, flags)))
    return replace(config, decoder=with_windows(config.stack, types, window))


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"smollm3": "SmolLM3"},
    read=read,
    heads=tied_decoder_heads,
)
