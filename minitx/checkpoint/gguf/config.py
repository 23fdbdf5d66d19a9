"""The metadata of a GGUF file -> the content of a config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minitx.architectures import architecture as find_architecture
from minitx.checkpoint.gguf.families import FAMILIES, MISTRAL, MIXTRAL, Family
from minitx.checkpoint.gguf.header import GgufFile
from minitx.checkpoint.gguf.metadata import Metadata
from minitx.checkpoint.gguf.rope import rope_keys

_EMBEDDING = "token_embd.weight"
_NUMBERS = ("epsilon", "softcapping", "scale")
_WINDOW, _OPTIONAL = "sliding_window", ("softcapping", "head_count_kv", "_scale")
# Key of the tokenizer -> key of config.json
_IDS = {"bos_token_id": "bos_token_id", "padding_token_id": "pad_token_id"}
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Architectures with heads of any width
_HEAD_DIM = frozenset(
    """
    gemma gemma2 gemma3_text granite llama mistral mixtral qwen2 qwen3 qwen3_moe smollm3
    """.split()  # noqa: SIM905 - words
)
_LARGEST_GEMMA = {"gemma2": 46, "gemma3_text": 62}  # layers of the 27B, whose queries have another scale
_PATTERN = 6  # Gemma 3: each sixth layer has no window


def find_family(file: GgufFile) -> tuple[Family, Metadata]:
    """Returns the architecture of a file, and its keys.

    Raises:
        ValueError: no model, a part of one, or an architecture that minitx does not read.
    """
    general = Metadata(file, "general")
    name, kind = general.text("architecture"), general.text("type", "model")
    if kind != "model":
        raise general.error("type", kind, "'model'")
    shards = Metadata(file, "split").size("count", 1)
    if shards != 1:
        raise ValueError(
            f"{file.path}: is one of {shards} parts; llama.cpp's llama-gguf-split --merge joins them."
        )
    if name not in FAMILIES:
        raise general.error("architecture", name, f"one of {', '.join(FAMILIES)}")
    keys = Metadata(file, name)
    family = FAMILIES[name]
    if name == "llama":
        if keys.get("expert_count", 0) != 0:
            family = MIXTRAL
        elif keys.get("attention.sliding_window", 0) != 0:
            family = MISTRAL
    return family, keys


def read_config(file: GgufFile) -> tuple[dict[str, Any], Family]:
    """Returns the content of a config.json, and the architecture.

    Raises:
        ValueError: a key that is missing, unknown, or has a value that minitx does not implement.
    """
    family, keys = find_family(file)
    kind = family.model_type
    config: dict[str, Any] = {
        "architectures": [find_architecture(kind).class_name(kind, "causal-lm")],
        "model_type": kind,
    }
    for key, name in family.keys.items():
        if key.endswith(_WINDOW) and keys.get(key, 0) == 0:
            continue  # the converter's form of no window
        read = keys.number if key.endswith(_NUMBERS) else keys.size
        value = read(key, None) if key.endswith(_OPTIONAL) else read(key)
        if value is not None:
            config[name] = value
    size, heads, layers = (keys.size(k) for k in ("embedding_length", "attention.head_count", "block_count"))
    rows = _check_sizes(file, size, heads, layers)
    keys.expect("vocab_size", rows)
    config |= {"vocab_size": rows, "tie_word_embeddings": "output.weight" not in file.tensors}
    if "num_key_value_heads" in family.keys.values():
        config.setdefault("num_key_value_heads", heads)
    else:
        keys.expect("attention.head_count_kv", heads)
    config |= family.config
    config |= _head_dim(keys, config, size, heads)
    config |= MORE.get(kind, _rope)(keys, config) | _tokens(file, rows)
    keys.expect("attention.causal", True)
    _check_experts(keys, family)
    keys.ignore(["tensor_data_layout"])  # of the files that were converted
    if unread := keys.unread():
        raise ValueError(
            f"{file.path}: has {', '.join(unread)}, unknown to minitx for this architecture; such a key may "
            "change what the model computes."
        )
    return config, family


def _check_sizes(file: GgufFile, size: int, heads: int, layers: int) -> int:
    """Returns the rows of the embedding; checks the sizes, so that nothing is built for a damaged number."""
    embedding = file.tensors.get(_EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise ValueError(f"{file.path}: has no matrix {_EMBEDDING}; it is not complete.")
    if embedding.shape[1] != size or heads > size or layers > len(file.tensors):
        raise ValueError(
            f"{file.path}: states {layers} layers, {heads} heads and {size} features, which do not fit its "
            f"{len(file.tensors)} tensors; {_EMBEDDING} has {embedding.shape[1]} features."
        )
    return embedding.shape[0]


def _check_experts(keys: Metadata, family: Family) -> None:
    """Checks the number of experts against the tensors, and that nothing unknown is stated about them."""
    if "expert_count" not in family.keys:
        keys.expect("expert_count", 0)
        keys.expect("expert_used_count", 0)
        return
    count, tensors = keys.size("expert_count"), keys.file.tensors
    stacked = tensors.get("blk.0.ffn_gate_exps.weight")
    stored = stacked.shape[0] if stacked else sum(name.startswith("blk.0.ffn_gate.") for name in tensors)
    if count != stored:
        raise keys.error("expert_count", count, f"{stored} as in the tensors")
    keys.expect("expert_gating_func", 1)  # a softmax
    keys.expect("expert_weights_norm", True)
    keys.expect("expert_shared_count", 0)
    if "expert_feed_forward_length" not in family.keys:
        keys.expect("expert_feed_forward_length", keys.size("feed_forward_length"))


def _head_dim(keys: Metadata, config: Mapping[str, Any], size: int, heads: int) -> dict[str, Any]:
    """Returns `head_dim` for architectures that have the key; checks it for the others."""
    width = keys.size("attention.key_length", None)
    if width is None and size % heads:
        raise keys.error("attention.head_count", heads, f"a divisor of embedding_length={size}")
    keys.expect("attention.value_length", width or size // heads)
    if config["model_type"] in _HEAD_DIM:
        return {"head_dim": width or size // heads}
    keys.expect("attention.key_length", size // heads)
    return {}


def _width(config: Mapping[str, Any]) -> int:
    """Returns the features per head of a config."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _rope(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the RoPE of an architecture that rotates whole heads."""
    keys.expect("rope.dimension_count", _width(config))
    return rope_keys(keys, _width(config))


def _llama(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns RoPE, and which biases the tensors have."""
    stored = keys.file.tensors
    biases = {"attention_bias": "blk.0.attn_q.bias" in stored, "mlp_bias": "blk.0.ffn_up.bias" in stored}
    return _rope(keys, config) | biases


def _share(keys: Metadata, config: Mapping[str, Any]) -> float:
    """Returns the share of a head's features that RoPE rotates."""
    width = _width(config)
    count = int(keys.size("rope.dimension_count", width))
    share = count / width
    return share if int(width * share) == count else (count + 0.5) / width


def _phi(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the RoPE of Phi, which rotates a part of each head."""
    share = _share(keys, config)
    return rope_keys(keys, int(_width(config) * share)) | {"partial_rotary_factor": share}


def _gpt_neox(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the RoPE of GPT-NeoX under its names, and whether the branches are parallel."""
    rope = rope_keys(keys, _width(config))
    more = {"rotary_emb_base": rope.pop("rope_theta"), "rotary_pct": _share(keys, config)}
    return rope | more | {"use_parallel_residual": keys.flag("use_parallel_residual", True)}


def _gemma(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns RoPE and the scale of the queries, which llama.cpp derives from the number of layers."""
    entries = _rope(keys, config)
    kind, width = config["model_type"], config["head_dim"]
    if kind == "gemma":
        return entries
    if config["num_hidden_layers"] == _LARGEST_GEMMA[kind]:
        width = config["hidden_size"] // config["num_attention_heads"]
    entries |= {"query_pre_attn_scalar": width}
    if kind == "gemma2":
        return entries
    every = keys.size("attention.sliding_window_pattern", _PATTERN)
    windowed = "sliding_window" in config
    entries["layer_types"] = [
        "sliding_attention" if windowed and (i + 1) % every else "full_attention"
        for i in range(config["num_hidden_layers"])
    ]
    local = keys.number("rope.freq_base_swa", 10_000.0)
    return entries | {"rope_local_base_freq": local}


def _none(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nothing: an architecture without RoPE."""
    return {}


def _bloom(keys: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns that the head is the embedding: the converter writes it twice."""
    keys.expect("attention.max_alibi_bias", 8)
    return {"tie_word_embeddings": True}


MORE: Mapping[str, Callable[[Metadata, Mapping[str, Any]], dict[str, Any]]] = {
    **dict.fromkeys(("granite", "llama", "smollm3"), _llama),
    "phi3": _phi,
    "phi": _phi,
    "gpt_neox": _gpt_neox,
    "gemma": _gemma,
    "gemma2": _gemma,
    "gemma3_text": _gemma,
    "gpt2": _none,
    "bloom": _bloom,
}


def _tokens(file: GgufFile, rows: int) -> dict[str, Any]:
    """Returns the ids of the tokens at the ends of a text; several that end one as a list."""
    keys = Metadata(file, "tokenizer.ggml")

    def _token(key: str) -> int | None:
        value = keys.get(key, None)
        if value is not None and (type(value) is not int or not 0 <= value < rows):
            raise keys.error(key, value, f"an id below {rows}")
        return value

    config: dict[str, Any] = {name: _token(key) for key, name in _IDS.items()}
    ends = [*dict.fromkeys(value for value in map(_token, _ENDS) if value is not None)]
    config["eos_token_id"] = ends if len(ends) > 1 else ends[0] if ends else None
    return {name: value for name, value in config.items() if value is not None}
