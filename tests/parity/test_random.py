"""Configurations drawn at random find what chosen ones hide."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import minitx
from minitx.architectures import REGISTRY
from tests.parity.case import FULL, SLIDING, Case
from tests.parity.cases import BY_NAME
from tests.parity.reference import padded, reference_model, text
from tests.parity.test_forward import compare

CHEAP = settings(max_examples=20, suppress_health_check=list(HealthCheck))


ACTS = ["gelu", "gelu_new", "relu", "silu", "quick_gelu", "tanh", "gelu_pytorch_tanh", "mish", "gelu_fast"]

# What each architecture calls its width, heads, layers, inner width and activation
USUAL_NAMES = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "hidden_act")
NAMES = {
    "distilbert": ("dim", "n_heads", "n_layers", "hidden_dim", "activation"),
    "modernbert": (*USUAL_NAMES[:4], "hidden_activation"),
    "gemma2": (*USUAL_NAMES[:4], "hidden_activation"),
    "gemma3_text": (*USUAL_NAMES[:4], "hidden_activation"),
    "gpt2": ("n_embd", "n_head", "n_layer", "n_inner", "activation_function"),
    "bloom": ("hidden_size", "n_head", "n_layer"),  # the others cannot be chosen
    "gpt_oss": USUAL_NAMES[:4],  # its activation cannot be chosen
    "gpt_neo": ("hidden_size", "num_heads", "num_layers", "intermediate_size", "activation_function"),
    "gptj": ("n_embd", "n_head", "n_layer", "n_inner", "activation_function"),
    "opt": (*USUAL_NAMES[:3], "ffn_dim", "activation_function"),
    **dict.fromkeys(("t5", "mt5", "umt5"), ("d_model", "num_heads", "num_layers", "d_ff")),
    **dict.fromkeys(
        ("bart", "mbart", "marian", "pegasus", "m2m_100", "blenderbot"),
        ("d_model", "encoder_attention_heads", "encoder_layers", "encoder_ffn_dim", "activation_function"),
    ),
    "encoder-decoder": (),
}

# What else is drawn for each, by key of the config
FLAG, WINDOW = st.booleans(), st.integers(1, 40)
EPS = st.sampled_from([1e-12, 1e-7, 1e-3])
ROPE = st.fixed_dictionaries({"rope_type": st.just("default"), "rope_theta": st.floats(10, 1e6)})
RMS: dict[str, st.SearchStrategy[Any]] = {
    "rms_norm_eps": EPS,
    "rope_parameters": ROPE,
    "attention_bias": FLAG,
}
FREE_HEADS = {**RMS, "head_dim": st.sampled_from([2, 6, 14])}
LEARNED_DISTANCE = {
    "d_kv": st.integers(1, 9),
    "feed_forward_proj": st.sampled_from(["relu", "gated-gelu", "gated-silu", "gelu_new"]),
    "layer_norm_epsilon": EPS,
    "num_decoder_layers": st.one_of(st.none(), st.integers(1, 3)),
    "relative_attention_num_buckets": st.sampled_from([8, 12, 32]),
    "relative_attention_max_distance": st.integers(20, 60),
}
FAIRSEQ = {
    "scale_embedding": FLAG,
    "decoder_layers": st.integers(1, 3),
    "decoder_ffn_dim": st.integers(1, 50),
}
OPTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    **{name: {"layer_norm_eps": EPS} for name in ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")},
    "distilbert": {},
    "electra": {"layer_norm_eps": EPS, "embedding_size": st.integers(1, 30)},
    "albert": {
        "layer_norm_eps": EPS,
        "embedding_size": st.integers(1, 30),
        "inner_group_num": st.integers(1, 3),
    },
    "modernbert": {
        **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias"), FLAG),
        "local_attention": WINDOW,
        "classifier_pooling": st.sampled_from(["cls", "mean"]),
    },
    "tapas": {
        "layer_norm_eps": EPS,
        "type_vocab_sizes": st.lists(st.integers(1, 12), min_size=7, max_size=7),
        "reset_position_index_per_cell": FLAG,
        "max_num_rows": st.integers(1, 9),
        "max_num_columns": st.integers(1, 9),
        "num_aggregation_labels": st.integers(0, 5),
        "temperature": st.floats(0.1, 3),
        "average_logits_per_cell": FLAG,
        "allow_empty_column_selection": FLAG,
    },
    "deberta-v2": {
        "layer_norm_eps": EPS,
        "relative_attention": FLAG,
        "share_att_key": FLAG,
        "position_buckets": st.sampled_from([-1, 4, 6, 16]),
        "max_relative_positions": st.sampled_from([-1, 20, 60]),
        "pos_att_type": st.sampled_from(["c2p", "p2c", "p2c|c2p", None, ["c2p", "p2c"]]),
        "norm_rel_ebd": st.sampled_from(["none", "layer_norm"]),
        "conv_kernel_size": st.sampled_from([0, 3, 5]),
        "position_biased_input": FLAG,
        "type_vocab_size": st.sampled_from([0, 2]),
        "legacy": FLAG,
    },
    "gpt2": {
        "layer_norm_epsilon": EPS,
        "scale_attn_by_inverse_layer_idx": FLAG,
        "scale_attn_weights": FLAG,
    },
    "bloom": {"layer_norm_epsilon": EPS, "apply_residual_connection_post_layernorm": FLAG},
    "gpt_neo": {"layer_norm_epsilon": EPS, "window_size": WINDOW},
    "gptj": {"layer_norm_epsilon": EPS},
    "phi": {"layer_norm_eps": EPS, "qk_layernorm": FLAG},
    "gpt_neox": {"layer_norm_eps": EPS, "use_parallel_residual": FLAG, "attention_bias": FLAG},
    "opt": {
        **dict.fromkeys(("do_layer_norm_before", "_remove_final_layer_norm", "enable_bias"), FLAG),
        "word_embed_proj_dim": st.one_of(st.none(), st.integers(1, 30)),
    },
    "llama": {**FREE_HEADS, "mlp_bias": FLAG},
    "granite": {
        **RMS,
        "mlp_bias": FLAG,
        **dict.fromkeys(
            ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"),
            st.floats(0.1, 20),
        ),
    },
    "gemma": FREE_HEADS,
    "gemma2": {
        **FREE_HEADS,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": st.integers(1, 50),
        "attn_logit_softcapping": st.one_of(st.none(), st.floats(0.5, 50)),
        "final_logit_softcapping": st.one_of(st.none(), st.floats(0.5, 50)),
    },
    "gemma3_text": {
        **{key: values for key, values in FREE_HEADS.items() if key != "rope_parameters"},
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": st.integers(1, 50),
        "final_logit_softcapping": st.one_of(st.none(), st.floats(0.5, 50)),
    },
    "qwen2": {"use_sliding_window": FLAG, "sliding_window": WINDOW, "rms_norm_eps": EPS},
    "qwen3": {**FREE_HEADS, "use_sliding_window": FLAG, "sliding_window": WINDOW},
    "qwen3_moe": {
        **FREE_HEADS,
        "num_experts": st.integers(3, 6),
        "num_experts_per_tok": st.integers(1, 3),
        "decoder_sparse_step": st.integers(1, 3),
        "norm_topk_prob": FLAG,
        "use_sliding_window": FLAG,
        "sliding_window": WINDOW,
    },
    "olmo2": RMS,
    "smollm3": {**RMS, "mlp_bias": FLAG, "use_sliding_window": FLAG, "sliding_window": WINDOW},
    "phi3": {
        "rms_norm_eps": EPS,
        "sliding_window": st.one_of(st.none(), WINDOW),
        "original_max_position_embeddings": st.just(48),
    },
    "gpt_oss": {
        **FREE_HEADS,
        "sliding_window": WINDOW,
        "num_local_experts": st.integers(3, 6),
        "num_experts_per_tok": st.integers(1, 3),
        "swiglu_limit": st.floats(0.1, 9),
    },
    **dict.fromkeys(("t5", "mt5", "umt5"), LEARNED_DISTANCE),
    **dict.fromkeys(("bart", "mbart", "pegasus", "m2m_100", "blenderbot"), FAIRSEQ),
    "marian": {**FAIRSEQ, "share_encoder_decoder_embeddings": FLAG},
    "encoder-decoder": {},
    "mistral": {"sliding_window": st.one_of(st.none(), WINDOW), "head_dim": FREE_HEADS["head_dim"]},
    "mixtral": {
        "sliding_window": st.one_of(st.none(), WINDOW),
        "num_local_experts": st.integers(3, 6),
        "num_experts_per_tok": st.integers(1, 3),
    },
}
# Architectures whose key/value heads can be fewer, and those whose layers can be of two types
SHARED_HEADS = {
    *("llama", "gemma", "gemma2", "gemma3_text", "mistral", "mixtral", "phi", "phi3"),
    *("qwen2", "qwen3", "qwen3_moe", "olmo2", "smollm3", "gpt_oss", "granite"),
}
LAYER_TYPES = {"modernbert", "gemma2", "gemma3_text", "qwen2", "qwen3", "smollm3", "gpt_oss"}


def turning_share(turning: int, size: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": turning / size}}


# Architectures of whose heads only the first features turn: how the config says how many of how many
TURNING: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "gptj": lambda turning, size: {"rotary_dim": turning},
    "gpt_neox": turning_share,
    "phi": turning_share,
}


@st.composite
def half(draw: st.DrawFn, config: dict[str, Any]) -> dict[str, Any]:
    """One half of a glued model: the same architecture in other sizes."""
    kind = config["model_type"]
    heads = draw(st.sampled_from([1, 2, 3, 5]))
    values = (heads * draw(st.sampled_from([2, 6])), heads, draw(st.integers(1, 3)), draw(st.integers(1, 50)))
    return {**config, **dict(zip(NAMES.get(kind, USUAL_NAMES), values, strict=False))}


@st.composite
def random_case(draw: st.DrawFn, model_type: str) -> tuple[Case, str]:
    base = next(case for case in BY_NAME.values() if case.model_type == model_type)
    heads = draw(st.sampled_from([1, 2, 3, 5, 6, 7]))
    width = heads * draw(st.sampled_from([2, 4, 6, 10]))
    layers = draw(st.integers(1, 4))
    values = (width, heads, layers, draw(st.integers(1, 50)), draw(st.sampled_from(ACTS)))
    more: dict[str, Any] = dict(zip(NAMES.get(model_type, USUAL_NAMES), values, strict=False))
    more["tie_word_embeddings"] = draw(FLAG)
    more["num_labels"] = draw(st.integers(1, 6))
    more |= {key: draw(values) for key, values in OPTIONS[model_type].items()}
    if model_type in SHARED_HEADS:
        more["num_key_value_heads"] = draw(
            st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])
        )
    if model_type in LAYER_TYPES and more.get("use_sliding_window", True):
        more["layer_types"] = draw(
            st.lists(st.sampled_from([FULL, SLIDING]), min_size=layers, max_size=layers)
        )
    if model_type == "gpt_neo":
        kinds = st.sampled_from(["global", "local"])
        more["attention_types"] = [[draw(st.lists(kinds, min_size=layers, max_size=layers)), 1]]
    if model_type in TURNING:
        size = width // heads
        more |= TURNING[model_type](2 * draw(st.integers(1, size // 2)), size)
    if model_type == "m2m_100":
        assume(width > 3)  # its longest wave is 2 pi 10000 for the second of at least two pairs
    if model_type == "marian":
        more["decoder_vocab_size"] = 99 if more["share_encoder_decoder_embeddings"] else 105
    if "decoder_layers" in more:
        more["decoder_attention_heads"] = draw(st.sampled_from([n for n in (1, 2, 3, 4) if width % n == 0]))
    if model_type == "encoder-decoder":
        more = {key: draw(half(base.config[key])) for key in ("encoder", "decoder")}
    if model_type == "albert":
        more["num_hidden_groups"] = draw(st.integers(1, layers))
    if model_type == "deberta-v2" and draw(FLAG):
        more["embedding_size"] = draw(st.integers(1, 30))
        more["legacy"] = True  # the other head reads hidden_size from the embedding
    config = {**base.config, **more}
    task = draw(st.sampled_from(base.tasks))
    return Case("random", model_type, config, float64=base.float64, reference=base.reference), task


@pytest.mark.parametrize("model_type", REGISTRY)
def test_random_configurations(model_type: str) -> None:
    @CHEAP
    @given(random_case(model_type), st.integers(2, 40), st.sampled_from(["", "left", "right"]))
    def run(drawn: tuple[Case, str], length: int, side: str) -> None:
        case, task = drawn
        reference = reference_model(case, task)
        with tempfile.TemporaryDirectory() as folder:
            reference.save_pretrained(folder)
            model = minitx.load(Path(folder))
            inputs = text(case, 3, length, task)
            if side:
                inputs = padded(case, inputs, side)
            else:
                inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            difference = compare(reference, model, inputs)
        # wider layers, and more of them, than in the chosen cases sum up more rounding
        assert difference <= 10 * case.float64, (task, case.config)

    run()
