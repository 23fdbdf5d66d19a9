"""gpt-oss (arXiv:2508.10925), unquantised.

Differs from Mixtral: biases in attention, router and experts; a learned sink in the softmax of every head; a
window in every other layer; clamped SwiGLU; YaRN. Its files hold each projection of all experts as one
tensor, as (inputs, outputs), gate and dense column by column.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures._decoder import layer_types, with_windows
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.decoders import llama
from minitx.architectures.decoders.mixtral import with_experts
from minitx.architectures.mapping import CheckpointEntry, Table, transposed
from minitx.architectures.operations import Rearrange
from minitx.config import ModelConfig, replace_in
from minitx.config.model import FULL, SLIDING
from minitx.models import Model
from minitx.models.initialization import Draw, Rules

YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("hidden_act", "silu")  # inside the experts' clamped SwiGLU
    rope = hf.config.get("rope_scaling") or hf.config.get("rope_parameters") or YARN
    biased = hf.flag("attention_bias", True)
    values = hf.with_values(rope_parameters=rope, attention_bias=biased)
    config = llama.read(values, eps=1e-5, key_value_heads=8, head_dim=64, theta=150_000.0)
    config = with_experts(
        hf,
        replace_in(config, "decoder.layer.attention", sinks=True),
        experts=128,
        experts_per_tok=4,
        router_bias=True,
        bias=True,
        swiglu_limit=hf.positive("swiglu_limit", 7.0),
        swiglu_alpha=hf.number("swiglu_alpha", 1.702),
    )
    types = tuple(FULL if i % 2 else SLIDING for i in range(config.stack.num_hidden_layers))
    window = hf.size("sliding_window", 128)
    return replace(config, decoder=with_windows(config.stack, layer_types(hf, types), window))


LAYER_PREFIX, SOURCE_LAYER = llama.LAYER_PREFIX, llama.SOURCE_LAYER
INNER, EXPERTS = f"{LAYER_PREFIX}.intermediate.experts", f"{SOURCE_LAYER}.mlp.experts"

WEIGHTS: Table = llama.NON_FFN_WEIGHTS | {
    f"{LAYER_PREFIX}.attention.self_attention.sinks": f"{SOURCE_LAYER}.self_attn.sinks",
    f"{LAYER_PREFIX}.intermediate.router": f"{SOURCE_LAYER}.mlp.router",
    (f"{INNER}.gate.weight", f"{INNER}.dense.weight"): CheckpointEntry(
        (f"{EXPERTS}.gate_up_proj",), Rearrange("e h (f part) -> part e f h")
    ),
    (f"{INNER}.gate.bias", f"{INNER}.dense.bias"): CheckpointEntry(
        (f"{EXPERTS}.gate_up_proj_bias",), Rearrange("e (f part) -> part e f")
    ),
    f"{INNER}.output.weight": transposed(f"{EXPERTS}.down_proj"),
    f"{INNER}.output.bias": f"{EXPERTS}.down_proj_bias",
}


def initialization(model: Model) -> Rules:
    """Draws the biases of the routers like weights."""
    return {"*.router.bias": Draw(std=model.config.initializer_range)}


ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    model_types={"gpt_oss": "GptOss"},
    read=read,
    initialization=initialization,
    weights=WEIGHTS,
)
