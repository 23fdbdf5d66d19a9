"""Gemma 3, text only (arXiv:2503.19786).

Differs from Gemma 2: queries and keys are normalised, each head by itself; five layers with a window for each
one without, with two RoPE bases; scores are not capped, logits only if the config asks for it.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import TWO_HEADS, layer_types, two_decoder_heads, with_windows
from minitx.architectures._rope import WHERE, an_object, check_per_type, rope_per_type
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import gemma, gemma2, llama, qwen3
from minitx.config import HeadConfig, ModelConfig, RopeConfig, Rotary, replace_in
from minitx.config.model import FULL, SLIDING


def ropes(hf: ConfigReader, head_dim: int) -> dict[str, RopeConfig]:
    """Returns the RoPE of each layer type; older files scale only the layers without a window.

    Raises:
        ValueError: values that are not per layer type, or values that `rope_per_type` refuses.
    """
    bases = {
        FULL: hf.positive_or_none("rope_theta", 1e6) or 1e6,
        SLIDING: hf.positive_or_none("rope_local_base_freq", 1e4) or 1e4,
    }
    stored = an_object(WHERE, hf.get("rope_parameters", None))
    check_per_type(stored, bases)
    values = {
        kind: {"rope_theta": theta} | an_object(f"{WHERE}[{kind!r}]", stored.get(kind))
        for kind, theta in bases.items()
    }
    values[FULL] |= an_object("config.json: rope_scaling", hf.get("rope_scaling", None))
    for kind, rope in values.items():
        share = rope.get("partial_rotary_factor")
        if share not in (None, 1):
            key = f"rope_parameters[{kind!r}]['partial_rotary_factor']"
            raise hf.error(key, share, "1", "this architecture rotates whole heads")
    return rope_per_type(hf, values, bases, head_dim)


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = gemma.read(hf)
    layers, every = config.stack.num_hidden_layers, hf.size("sliding_window_pattern", 6)
    scale = hf.positive("query_pre_attn_scalar", 256) ** -0.5
    config = replace_in(config, "decoder.layer.attention", scale=scale, qk_norm="head")
    config = replace_in(config, "decoder.layer", norm_placement="sandwich")
    positions = Rotary(ropes=ropes(hf, config.stack.layer.attention.head_dim))
    types = layer_types(hf, tuple(SLIDING if (i + 1) % every else FULL for i in range(layers)))
    window = hf.size("sliding_window", 4096)
    return replace(config, decoder=with_windows(replace(config.stack, positions=positions), types, window))


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return two_decoder_heads(hf, tied=True, softcap=hf.positive_or_none("final_logit_softcapping"))


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"gemma3_text": "Gemma3Text"},
    classes={"causal-lm": "Gemma3ForCausalLM"},
    read=read,
    heads=heads,
    weights=gemma2.WEIGHTS | qwen3.QK_NORMS,
    head_weights=TWO_HEADS,
)
