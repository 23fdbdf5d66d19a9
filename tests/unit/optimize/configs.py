"""Small configs whose projections are as wide as the passes need."""

from __future__ import annotations

from typing import Any


def gpt2(width: int = 256) -> dict[str, Any]:
    """Two layers; with 256 features every projection is large enough to be packed."""
    sizes = {"vocab_size": 600, "n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return {"model_type": "gpt2", **sizes}


def mixtral(width: int = 256) -> dict[str, Any]:
    """One layer of four experts."""
    return {
        "model_type": "mixtral",
        "vocab_size": 600,
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "max_position_embeddings": 64,
    }
