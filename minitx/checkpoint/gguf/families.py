"""Tables of the architectures: names of tensors and keys of llama.cpp -> those of a Hugging Face checkpoint.

The left sides are llama.cpp's names, the right sides the module names of `minitx.architectures`. `{i}` is a
layer, `{e}` an expert: a tensor of the file that holds all experts becomes one tensor for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from minitx.checkpoint.gguf.changes import Change, LessOne, RotatedPairs, Same, SplitHeads, Transposed

SAME = Same()


@dataclass(frozen=True)
class Place:
    """The right side of an entry.

    Attributes:
        name: the module in the checkpoint.
        change: from the file's tensor to the checkpoint's.
    """

    name: str
    change: Change = SAME


@dataclass(frozen=True)
class Family:
    """One architecture of llama.cpp.

    Attributes:
        model_type: of config.json.
        tensors: module in the file -> module in the checkpoint.
        keys: key of the metadata -> key of config.json.
        config: further entries of config.json, which the architecture's name implies.
    """

    model_type: str
    tensors: Mapping[str, str | Place]
    keys: Mapping[str, str]
    config: Mapping[str, object] = field(default_factory=dict)

    def place(self, module: str) -> Place:
        """Returns the place of a module of the file."""
        stored = self.tensors[module]
        return stored if isinstance(stored, Place) else Place(stored)


_LAYER = "model.layers.{i}"
_SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_RMS = {
    **_SIZES,
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "blk.{i}.attn_norm": f"{_LAYER}.input_layernorm",
    "blk.{i}.attn_q": f"{_LAYER}.self_attn.q_proj",
    "blk.{i}.attn_k": f"{_LAYER}.self_attn.k_proj",
    "blk.{i}.attn_v": f"{_LAYER}.self_attn.v_proj",
    "blk.{i}.attn_output": f"{_LAYER}.self_attn.o_proj",
}
_FEED_FORWARD = {
    "blk.{i}.ffn_norm": f"{_LAYER}.post_attention_layernorm",
    "blk.{i}.ffn_gate": f"{_LAYER}.mlp.gate_proj",
    "blk.{i}.ffn_up": f"{_LAYER}.mlp.up_proj",
    "blk.{i}.ffn_down": f"{_LAYER}.mlp.down_proj",
}
_QK_NORMS = {
    "blk.{i}.attn_q_norm": f"{_LAYER}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": f"{_LAYER}.self_attn.k_norm",
}
_PLAIN = {**_ENDS, **_ATTENTION, **_FEED_FORWARD}
_ROTATED = {
    "blk.{i}.attn_q": Place(f"{_LAYER}.self_attn.q_proj", RotatedPairs()),
    "blk.{i}.attn_k": Place(f"{_LAYER}.self_attn.k_proj", RotatedPairs(keys=True)),
}
# llama.cpp rotates neighbours in Llama's heads, and the two halves in all others
_LLAMA = Family("llama", {**_PLAIN, **_ROTATED}, _RMS)


def _shifted(tensors: Mapping[str, str]) -> dict[str, str | Place]:
    """Returns a table in which 1 is subtracted from the weights of the norms."""
    return {
        left: Place(right, LessOne()) if left.endswith("norm") else right for left, right in tensors.items()
    }


_SANDWICH = {
    **_PLAIN,
    "blk.{i}.post_attention_norm": f"{_LAYER}.post_attention_layernorm",
    "blk.{i}.ffn_norm": f"{_LAYER}.pre_feedforward_layernorm",
    "blk.{i}.post_ffw_norm": f"{_LAYER}.post_feedforward_layernorm",
}
_GELU = "gelu_pytorch_tanh"

_OLD_LAYER = "transformer.h.{i}"
_GPT2 = Family(
    "gpt2",
    {
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "blk.{i}.attn_norm": f"{_OLD_LAYER}.ln_1",
        "blk.{i}.attn_qkv": Place(f"{_OLD_LAYER}.attn.c_attn", Transposed()),
        "blk.{i}.attn_output": Place(f"{_OLD_LAYER}.attn.c_proj", Transposed()),
        "blk.{i}.ffn_norm": f"{_OLD_LAYER}.ln_2",
        "blk.{i}.ffn_up": Place(f"{_OLD_LAYER}.mlp.c_fc", Transposed()),
        "blk.{i}.ffn_down": Place(f"{_OLD_LAYER}.mlp.c_proj", Transposed()),
    },
    {
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "block_count": "n_layer",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
)
_BLOOM = Family(
    "bloom",
    {
        "token_embd": "transformer.word_embeddings",
        "token_embd_norm": "transformer.word_embeddings_layernorm",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "blk.{i}.attn_norm": f"{_OLD_LAYER}.input_layernorm",
        "blk.{i}.attn_qkv": Place(f"{_OLD_LAYER}.self_attention.query_key_value", SplitHeads()),
        "blk.{i}.attn_output": f"{_OLD_LAYER}.self_attention.dense",
        "blk.{i}.ffn_norm": f"{_OLD_LAYER}.post_attention_layernorm",
        "blk.{i}.ffn_up": f"{_OLD_LAYER}.mlp.dense_h_to_4h",
        "blk.{i}.ffn_down": f"{_OLD_LAYER}.mlp.dense_4h_to_h",
    },
    {
        "context_length": "seq_length",
        "embedding_length": "hidden_size",
        "block_count": "n_layer",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
)
_NEOX_LAYER = "gpt_neox.layers.{i}"
_GPT_NEOX = Family(
    "gpt_neox",
    {
        "token_embd": "gpt_neox.embed_in",
        "output_norm": "gpt_neox.final_layer_norm",
        "output": "embed_out",
        "blk.{i}.attn_norm": f"{_NEOX_LAYER}.input_layernorm",
        "blk.{i}.attn_qkv": Place(f"{_NEOX_LAYER}.attention.query_key_value", SplitHeads()),
        "blk.{i}.attn_output": f"{_NEOX_LAYER}.attention.dense",
        "blk.{i}.ffn_norm": f"{_NEOX_LAYER}.post_attention_layernorm",
        "blk.{i}.ffn_up": f"{_NEOX_LAYER}.mlp.dense_h_to_4h",
        "blk.{i}.ffn_down": f"{_NEOX_LAYER}.mlp.dense_4h_to_h",
    },
    {**_SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"},
)
_EXPERT = {
    "blk.{i}.ffn_gate_inp": f"{_LAYER}.mlp.gate",
    "blk.{i}.ffn_gate_exps": f"{_LAYER}.mlp.experts.{{e}}.gate_proj",
    "blk.{i}.ffn_up_exps": f"{_LAYER}.mlp.experts.{{e}}.up_proj",
    "blk.{i}.ffn_down_exps": f"{_LAYER}.mlp.experts.{{e}}.down_proj",
}
_MIXTRAL_EXPERT = f"{_LAYER}.block_sparse_moe"

MIXTRAL = Family(
    "mixtral",
    {
        **_ENDS,
        **_ATTENTION,
        **_ROTATED,
        "blk.{i}.ffn_norm": f"{_LAYER}.post_attention_layernorm",
        "blk.{i}.ffn_gate_inp": f"{_MIXTRAL_EXPERT}.gate",
        "blk.{i}.ffn_gate_exps": f"{_MIXTRAL_EXPERT}.experts.{{e}}.w1",
        "blk.{i}.ffn_up_exps": f"{_MIXTRAL_EXPERT}.experts.{{e}}.w3",
        "blk.{i}.ffn_down_exps": f"{_MIXTRAL_EXPERT}.experts.{{e}}.w2",
        # files of before 2024-04 have each expert by itself
        "blk.{i}.ffn_gate.{e}": f"{_MIXTRAL_EXPERT}.experts.{{e}}.w1",
        "blk.{i}.ffn_up.{e}": f"{_MIXTRAL_EXPERT}.experts.{{e}}.w3",
        "blk.{i}.ffn_down.{e}": f"{_MIXTRAL_EXPERT}.experts.{{e}}.w2",
    },
    {**_RMS, "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
)
MISTRAL = replace(
    _LLAMA,
    model_type="mistral",
    keys={**_RMS, "attention.sliding_window": "sliding_window"},
)

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "smollm3": replace(_LLAMA, model_type="smollm3", config={"no_rope_layer_interval": 4}),
    "granite": replace(
        _LLAMA,
        model_type="granite",
        keys={
            **_RMS,
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
    ),
    "qwen2": Family("qwen2", _PLAIN, _RMS),
    "qwen3": Family("qwen3", {**_PLAIN, **_QK_NORMS}, _RMS),
    "qwen3moe": Family(
        "qwen3_moe",
        {**_PLAIN, **_QK_NORMS, **_EXPERT},
        {
            **_RMS,
            "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok",
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        {"norm_topk_prob": True},
    ),
    "olmo2": Family(
        "olmo2",
        {
            **{name: place for name, place in _PLAIN.items() if not name.endswith(("attn_norm", "ffn_norm"))},
            **_QK_NORMS,
            "blk.{i}.post_attention_norm": f"{_LAYER}.post_attention_layernorm",
            "blk.{i}.post_ffw_norm": f"{_LAYER}.post_feedforward_layernorm",
        },
        _RMS,
    ),
    "gemma": Family("gemma", _shifted(_PLAIN), _RMS, {"hidden_act": _GELU}),
    "gemma2": Family(
        "gemma2",
        _shifted(_SANDWICH),
        {
            **_RMS,
            "attention.sliding_window": "sliding_window",
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        {"hidden_activation": _GELU},
    ),
    "gemma3": Family(
        "gemma3_text",
        _shifted({**_SANDWICH, **_QK_NORMS}),
        {
            **_RMS,
            "attention.sliding_window": "sliding_window",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        {"hidden_activation": _GELU},
    ),
    "phi3": Family(
        "phi3",
        {
            **_ENDS,
            "blk.{i}.attn_norm": f"{_LAYER}.input_layernorm",
            "blk.{i}.attn_qkv": f"{_LAYER}.self_attn.qkv_proj",
            "blk.{i}.attn_output": f"{_LAYER}.self_attn.o_proj",
            "blk.{i}.ffn_norm": f"{_LAYER}.post_attention_layernorm",
            "blk.{i}.ffn_up": f"{_LAYER}.mlp.gate_up_proj",
            "blk.{i}.ffn_down": f"{_LAYER}.mlp.down_proj",
        },
        {**_RMS, "attention.sliding_window": "sliding_window"},
    ),
    "phi2": Family(
        "phi",
        {
            **_ATTENTION,
            "token_embd": "model.embed_tokens",
            "output_norm": "model.final_layernorm",
            "output": "lm_head",
            "blk.{i}.attn_output": f"{_LAYER}.self_attn.dense",
            "blk.{i}.ffn_up": f"{_LAYER}.mlp.fc1",
            "blk.{i}.ffn_down": f"{_LAYER}.mlp.fc2",
        },
        {
            **_SIZES,
            "attention.head_count_kv": "num_key_value_heads",
            "attention.layer_norm_epsilon": "layer_norm_eps",
        },
    ),
    "gpt2": _GPT2,
    "gptneox": _GPT_NEOX,
    "bloom": _BLOOM,
}
