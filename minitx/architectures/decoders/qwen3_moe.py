"""Qwen3-MoE (arXiv:2505.09388): Qwen3 with a mixture of experts in most layers.

Differs from Mixtral: attention is Qwen3's; the experts have their own width, and their weights need not sum
to 1; some layers keep a dense feed-forward.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import with_windows
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama, qwen3
from minitx.architectures.decoders.mixtral import with_experts
from minitx.architectures.mapping import Table, stack_experts
from minitx.config import ModelConfig, replace_in
from minitx.config.model import FULL, SLIDING


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = llama.read(hf, key_value_heads=4)
    layers, every = config.stack.num_hidden_layers, hf.size("decoder_sparse_step", 1)
    plain = hf.get("mlp_only_layers", None) or []
    if not isinstance(plain, list) or any(type(i) is not int for i in plain):
        raise hf.error("mlp_only_layers", plain, "a list of numbers of layers")
    window = hf.size_or_none("sliding_window", 4096)
    if not hf.flag("use_sliding_window", False):
        window = None
    config = replace_in(config, "decoder.layer.attention", qk_norm="head")
    config = with_experts(
        hf,
        config,
        experts=128,
        experts_per_tok=8,
        intermediate_size=hf.size("moe_intermediate_size", 768),
        norm_topk_prob=hf.flag("norm_topk_prob", False),
        dense=config.stack.layer.feed_forward,
    )
    experts = tuple(i not in plain and (i + 1) % every == 0 for i in range(layers))
    types = (FULL if window is None else SLIDING,) * layers
    stack = with_windows(replace(config.stack, expert_layers=experts), types, window)
    return replace(config, decoder=stack)


EXPERTS_PREFIX, SOURCE_EXPERTS = f"{llama.LAYER_PREFIX}.intermediate", f"{llama.SOURCE_LAYER}.mlp"

EXPERTS: Table = {
    f"{EXPERTS_PREFIX}.router": f"{SOURCE_EXPERTS}.gate",
    f"{EXPERTS_PREFIX}.experts.gate": stack_experts(f"{SOURCE_EXPERTS}.experts.{{e}}.gate_proj"),
    f"{EXPERTS_PREFIX}.experts.dense": stack_experts(f"{SOURCE_EXPERTS}.experts.{{e}}.up_proj"),
    f"{EXPERTS_PREFIX}.experts.output": stack_experts(f"{SOURCE_EXPERTS}.experts.{{e}}.down_proj"),
}

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"qwen3_moe": "Qwen3Moe"},
    read=read,
    weights=llama.WEIGHTS | qwen3.QK_NORMS | EXPERTS,
)
