"""Writes a checkpoint folder as a GGUF file, the format of llama.cpp, for GPT-2 and Llama.

llama.cpp's own converter reads a tokenizer; checkpoints with random weights have none, so the file states the
size of its vocabulary only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from minitx.io import read_json

MODEL_TYPES = ("gpt2", "llama")


def write_gguf(folder: Path, path: Path, *, int8: bool) -> None:
    """Writes the weights and the sizes of a checkpoint.

    Args:
        folder: of a GPT-2 or Llama in Hugging Face's layout, with safetensors files.
        path: of the file to write.
        int8: store matrices as Q8_0, blocks of 32 int8 numbers with a scale, as llama-quantize does; the
            table of positions, norms, biases and matrices that are not blocks of 32 wide stay float32.
    """
    import gguf

    config = read_json(folder / "config.json")
    kind = config["model_type"]
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                short = name.removeprefix("transformer.").removeprefix("model.")
                tensors[short] = weights.get_tensor(name).float()
    writer: Any = gguf.GGUFWriter(path, kind)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    describe, translate = KINDS[kind]
    describe(writer, config)
    for name, tensor in translate(config, tensors):
        array = tensor.contiguous().numpy()
        blocks = array.ndim == 2 and array.shape[1] % 32 == 0 and name != "position_embd.weight"
        if int8 and blocks:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- GPT-2 -----------------------------------------------------------------------------------------


def _describe_gpt2(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config.get("layer_norm_epsilon", 1e-5))


def _translate_gpt2(config: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield "token_embd.weight", tensors["wte.weight"]
    yield "position_embd.weight", tensors["wpe.weight"]
    yield "output_norm.weight", tensors["ln_f.weight"]
    yield "output_norm.bias", tensors["ln_f.bias"]
    if "lm_head.weight" in tensors:  # else llama.cpp takes the embeddings, as tied weights are
        yield "output.weight", tensors["lm_head.weight"]
    norms = {"attn_norm": "ln_1", "ffn_norm": "ln_2"}
    products = {"attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc"}
    products["ffn_down"] = "mlp.c_proj"
    for i in range(config["n_layer"]):
        for name, source in {**norms, **products}.items():
            weight = tensors[f"h.{i}.{source}.weight"]
            yield f"blk.{i}.{name}.weight", weight.T if name in products else weight
            yield f"blk.{i}.{name}.bias", tensors[f"h.{i}.{source}.bias"]


# --- Llama -----------------------------------------------------------------------------------------


def _describe_llama(writer: Any, config: dict[str, Any]) -> None:
    rope = config.get("rope_parameters") or config
    head_dim = _head_dim(config)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(_key_heads(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))


def _translate_llama(config: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield "token_embd.weight", tensors["embed_tokens.weight"]
    yield "output_norm.weight", tensors["norm.weight"]
    if "lm_head.weight" in tensors:
        yield "output.weight", tensors["lm_head.weight"]
    heads = {"q_proj": config["num_attention_heads"], "k_proj": _key_heads(config)}
    sources = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    sources |= {f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"}
    sources |= {"attn_output": "self_attn.o_proj"}
    sources |= {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    for i in range(config["num_hidden_layers"]):
        for name, source in sources.items():
            weight = tensors[f"layers.{i}.{source}.weight"]
            count = heads.get(source.rpartition(".")[2])
            yield f"blk.{i}.{name}.weight", weight if count is None else interleaved(weight, count)


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Returns rows of queries or keys in llama.cpp's order, (H x D, E).

    Rotary positions rotate pairs: Hugging Face pairs row i of a head with row i + D / 2, llama.cpp pairs
    neighbours.

    Args:
        weight: (H x D, E).
        heads: H.
    """
    rows, width = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, width)
    return halves.transpose(1, 2).reshape(rows, width)


def _key_heads(config: dict[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def _head_dim(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


Describe = Callable[[Any, dict[str, Any]], None]
Translate = Callable[[dict[str, Any], dict[str, Tensor]], Iterator[tuple[str, Tensor]]]
KINDS: dict[str, tuple[Describe, Translate]] = {
    "gpt2": (_describe_gpt2, _translate_gpt2),
    "llama": (_describe_llama, _translate_llama),
}


def unsupported(config: dict[str, Any]) -> str | None:
    """Returns why a checkpoint cannot be written; None if it can."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        return f"its adapter converts {', '.join(MODEL_TYPES)}, not {kind}"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        return f"its adapter does not convert rotary positions of type {scaling}"
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "its adapter does not convert a Llama with biases"
    if kind == "gpt2" and config.get("activation_function", "gelu_new") != "gelu_new":
        return f"it has no GPT-2 with activation {config['activation_function']}"
    return None
