"""Granite (arXiv:2405.04324): Llama with four multipliers.

Differs from Llama: the word embeddings (and `inputs_embeds`), the attention scores and the output of every
branch are multiplied by values of the config, and the logits are divided by one; the only head is that for
the next token.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama
from minitx.config import HeadConfig, ModelConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = llama.read(hf, biases=llama.BIASES)
    scale = hf.number("embedding_multiplier", 1.0)
    config = replace_in(config, "inputs", embedding_scale=scale, scale_inputs_embeds=True)
    config = replace_in(config, "decoder.layer", branch_scale=hf.number("residual_multiplier", 1.0))
    return replace_in(config, "decoder.layer.attention", scale=hf.number("attention_multiplier", 1.0))


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head for the next token."""
    head = decoder_heads(hf)["causal-lm"]
    return {"causal-lm": replace(head, scale=1 / hf.positive("logits_scaling", 1.0))}


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"granite": "Granite"},
    read=read,
    heads=heads,
    head_weights={"causal-lm": DECODER_HEADS["causal-lm"]},
)
