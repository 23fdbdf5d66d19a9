"""Mixtral (arXiv:2401.04088): Mistral with a mixture of experts in place of the feed-forward.

Differs from Mistral: each token uses a few of the experts, weighted by a softmax over those.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.decoders import llama, mistral
from minitx.architectures.mapping import Table, stack_experts
from minitx.config import ExpertsConfig, ModelConfig


def expert_numbers(hf: ConfigReader, *, number: int = 8, chosen: int = 2, width: int) -> ExpertsConfig:
    """How many experts there are, how many of them a token uses, and how wide one is.

    Raises:
        ValueError: a token cannot use more than there are.
    """
    key = hf.first_of("num_experts", "num_local_experts")
    experts, used = hf.size(key, number), hf.size("num_experts_per_tok", chosen)
    if used > experts:
        raise ValueError(f"config.json: num_experts_per_tok={used} is more than {key}={experts}.")
    return ExpertsConfig(num_experts=experts, num_experts_per_tok=used, intermediate_size=width)


def read(hf: ConfigReader) -> ModelConfig:
    # The balance of the experts in training.
    hf.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")
    config = mistral.read(hf, eps=1e-5, window=None, theta=1e6)
    experts = expert_numbers(hf, width=config.stack.intermediate_size)
    return replace(config, decoder=replace(config.stack, experts=experts))


LAYER, SOURCE = f"{llama.LAYER}.intermediate", f"{llama.SOURCE}.block_sparse_moe"

EXPERTS: Table = {
    f"{LAYER}.router": f"{SOURCE}.gate",
    f"{LAYER}.experts.gate": stack_experts(f"{SOURCE}.experts.{{e}}.w1"),
    f"{LAYER}.experts.dense": stack_experts(f"{SOURCE}.experts.{{e}}.w3"),
    f"{LAYER}.experts.output": stack_experts(f"{SOURCE}.experts.{{e}}.w2"),
}

ARCHITECTURE = Architecture(
    model_types={"mixtral": "Mixtral"},
    read=read,
    heads=decoder_heads,
    prefix="model.",
    weights=llama.AROUND | EXPERTS,
    head_weights=DECODER_HEADS,
    unused_tensors=llama.STORED,
)
