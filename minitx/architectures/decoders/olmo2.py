"""OLMo 2 (arXiv:2501.00656).

Differs from Llama: a branch is normed where it ends instead of where it begins; queries and keys are normed
over their whole width.
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.decoders import llama, qwen3
from minitx.architectures.mapping import Table
from minitx.config import (
    HeadConfig,
    ModelConfig,
    replace_in,
)


def read(hf: ConfigReader) -> ModelConfig:
    config = llama.read(hf, eps=1e-5, pad=1)
    config = replace_in(config, "decoder.layer.attention", qk_norm="width")
    return replace_in(config, "decoder.layer", norm_placement="branch")


LAYER, SOURCE = llama.LAYER, llama.SOURCE
BEFORE = (f"{LAYER}.attention_norm", f"{LAYER}.feed_forward_norm")


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    found = decoder_heads(hf)
    return {task: found[task] for task in HEADS}


HEADS = ("causal-lm", "sequence-classification")

WEIGHTS: Table = {name: row for name, row in llama.WEIGHTS.items() if name not in BEFORE} | {
    f"{LAYER}.attention.self_output.branch_norm": f"{SOURCE}.post_attention_layernorm",
    f"{LAYER}.output.branch_norm": f"{SOURCE}.post_feedforward_layernorm",
}

ARCHITECTURE = Architecture(
    model_types={"olmo2": "Olmo2"},
    read=read,
    heads=heads,
    prefix="model.",
    weights=WEIGHTS | qwen3.QK_NORMS,
    head_weights={task: DECODER_HEADS[task] for task in HEADS},
    unused_tensors=llama.STORED,
)
