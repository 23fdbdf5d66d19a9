"""Mixtral (arXiv:2401.04088): Mistral with a mixture of experts in place of the feed-forward.

Differs from Mistral: each token uses a few of the experts, weighted by a softmax over those.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama, mistral
from minitx.architectures.mapping import Table, stack_experts
from minitx.config import ExpertsConfig, ModelConfig, replace_in


def with_experts(
    hf: ConfigReader, config: ModelConfig, experts: int = 8, experts_per_tok: int = 2, **fields: Any
) -> ModelConfig:
    """Returns a model whose feed-forward networks are mixtures of experts of the same width.

    Args:
        hf: the config.
        config: the model without experts.
        experts: number of experts, if the file has none.
        experts_per_tok: experts per token, if the file has none.
        fields: other fields of `ExpertsConfig`.

    Raises:
        ValueError: more experts per token than experts.
    """
    hf.expect("output_router_logits", False)  # the loss would include the balance of the experts
    key = hf.first_of("num_experts", "num_local_experts")
    experts, used = hf.size(key, experts), hf.size("num_experts_per_tok", experts_per_tok)
    if used > experts:
        raise hf.error("num_experts_per_tok", used, f"at most {key}={experts}")
    dense = config.stack.layer.feed_forward
    shared: Any = {"intermediate_size": dense.intermediate_size, "hidden_act": dense.hidden_act}
    network = ExpertsConfig(num_experts=experts, num_experts_per_tok=used, **shared | fields)
    return replace_in(config, "decoder.layer", feed_forward=network)


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    return with_experts(hf, mistral.read(hf, eps=1e-5, window=None, theta=1e6))


EXPERTS_PREFIX = f"{llama.LAYER_PREFIX}.intermediate"
SOURCE_EXPERTS = f"{llama.SOURCE_LAYER}.block_sparse_moe"

EXPERTS: Table = {
    f"{EXPERTS_PREFIX}.router": f"{SOURCE_EXPERTS}.gate",
    f"{EXPERTS_PREFIX}.experts.gate": stack_experts(f"{SOURCE_EXPERTS}.experts.{{e}}.w1"),
    f"{EXPERTS_PREFIX}.experts.dense": stack_experts(f"{SOURCE_EXPERTS}.experts.{{e}}.w3"),
    f"{EXPERTS_PREFIX}.experts.output": stack_experts(f"{SOURCE_EXPERTS}.experts.{{e}}.w2"),
}

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"mixtral": "Mixtral"},
    read=read,
    weights=llama.NON_FFN_WEIGHTS | EXPERTS,
)
