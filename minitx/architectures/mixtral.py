"""Mixtral (arXiv:2401.04088): Mistral with a mixture of experts in place of the feed-forward.

Differs from Mistral: each token uses a few of the experts, weighted by a softmax over those.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures import llama, mistral
from minitx.architectures.architecture import Architecture
from minitx.architectures.decoder import DECODER_HEADS, decoder_heads
from minitx.architectures.reader import Reader
from minitx.config import ExpertsConfig, ModelConfig
from minitx.weights.table import Table, stack_experts


def read(hf: Reader) -> ModelConfig:
    # The balance of the experts in training.
    hf.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")
    config = mistral.read(hf, eps=1e-5, window=None, theta=1e6)
    experts = ExpertsConfig(
        num_experts=hf.size("num_local_experts", 8),
        num_experts_per_tok=hf.size("num_experts_per_tok", 2),
        intermediate_size=config.stack.intermediate_size,
    )
    return replace(config, decoder=replace(config.stack, experts=experts))


LAYER, SOURCE = f"{llama.LAYER}.intermediate", f"{llama.SOURCE}.block_sparse_moe"

EXPERTS: Table = {
    f"{LAYER}.router": f"{SOURCE}.gate",
    f"{LAYER}.gate": stack_experts(f"{SOURCE}.experts.{{e}}.w1"),
    f"{LAYER}.dense": stack_experts(f"{SOURCE}.experts.{{e}}.w3"),
    f"{LAYER}.output": stack_experts(f"{SOURCE}.experts.{{e}}.w2"),
}

ARCHITECTURE = Architecture(
    model_types={"mixtral": "Mixtral"},
    read=read,
    heads=decoder_heads,
    prefix="model.",
    weights=llama.AROUND | EXPERTS,
    head_weights=DECODER_HEADS,
    stored=llama.STORED,
)
