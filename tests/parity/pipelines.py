"""Tiny checkpoints with a tokenizer, for the tests of tasks; every weight is random and large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.parity.reference import randomise
from tests.parity.test_tokenizer import KINDS as TOKENIZERS

ENCODER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 140,
}
# Kind -> model_type, kind of the tokenizer (tests/parity/test_tokenizer.py), config.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", "cased_bert", ENCODER),
    "distilbert": (
        "distilbert",
        "distilbert",
        {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 37, "max_position_embeddings": 140},
    ),
    "roberta": ("roberta", "roberta", {**ENCODER, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "albert": ("albert", "albert", {**ENCODER, "embedding_size": 16}),
    "xlm-roberta": ("xlm-roberta", "xlm_roberta", {**ENCODER, "pad_token_id": 1}),
    "mpnet": ("mpnet", "mpnet", {**ENCODER, "pad_token_id": 1}),
    "bart": (
        "bart",
        "roberta",
        {
            "d_model": 24,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 37,
            "max_position_embeddings": 140,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
    ),
    "gpt2": (
        "gpt2",
        "roberta",
        {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 140, "bos_token_id": 0, "eos_token_id": 2}
        | {"pad_token_id": 1},
    ),
    "t5": (
        "t5",
        "xlm_roberta",
        {"d_model": 24, "d_kv": 6, "d_ff": 37, "num_layers": 2, "num_heads": 4, "n_positions": 140}
        | {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    ),
}
LIMIT = 128  # tokens of a sequence; positions of RoBERTa begin at 2

# Short and empty, emoji, combining marks, CJK, right to left, white space, special tokens; the last is long.
TEXTS = (
    "The cat sat on the mat.",
    "",
    "a",
    "Angela Merkel met Barack Obama in Berlin, at 10:30 on 2024-05-01.",
    "I ❤️ pizza 🍕🍕 and 👩‍👩‍👧‍👦 families",
    "un café à la crème; naïve; ἄνθρωπος; á ñ",
    "东京是日本的首都。我喜欢读书",
    "مرحبا بالعالم, שלום עולם",
    "  two  spaces\tand\nlines ",
    "unaffable tokenization of antidisestablishmentarianism",
)
LONG = "The quick brown fox jumps over the lazy dog near Paris, and Anna reads a book. " * 180


def folder(root: Path, kind: str, auto_class: str, *, seed: int = 0, **config: Any) -> Path:
    """Builds a checkpoint of transformers, once per kind, class and config; returns its folder.

    Args:
        root: where the folders are.
        kind: one of `KINDS`.
        auto_class: such as "AutoModelForSequenceClassification".
        seed: of the weights.
        config: further keys of config.json, such as id2label.
    """
    model_type, tokenizer_kind, values = KINDS[kind]
    path = root / f"{kind}-{auto_class}-{seed}-{abs(hash(repr(sorted(config.items()))))}"
    if path.is_dir():
        return path
    path.mkdir(parents=True)
    tokenizer = TOKENIZERS[tokenizer_kind](path)
    for file in path.iterdir():
        file.unlink()
    tokenizer.model_max_length = LIMIT
    tokenizer.save_pretrained(path)
    if kind == "albert":  # AlbertTokenizer 5 has no token types for pairs unless its file names them
        file = path / "tokenizer_config.json"
        names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        file.write_text(json.dumps(json.loads(file.read_text()) | names))
    size = max(tokenizer.get_vocab().values()) + 1
    settings = transformers.AutoConfig.for_model(model_type, **{"vocab_size": size, **values, **config})
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(settings)
    randomise(model, seed)
    model.tie_weights()
    model.eval().save_pretrained(path)
    return path


def theirs(task: str, model: Any, **options: Any) -> Any:
    """Returns the pipeline of transformers for a folder or a model, in float32 on the CPU."""
    model = str(model) if isinstance(model, Path) else model
    return transformers.pipeline(task, model=model, device="cpu", dtype=torch.float32, **options)


def close(ours: Any, theirs: Any, tolerance: float = 1e-6) -> bool:
    """Whether two results are equal, numbers up to a tolerance: the same keys, nesting, order and texts."""
    if isinstance(theirs, dict):
        same = isinstance(ours, dict) and list(ours) == list(theirs)
        return same and all(close(ours[key], theirs[key], tolerance) for key in theirs)
    if isinstance(theirs, list | tuple):
        same = isinstance(ours, list | tuple) and len(ours) == len(theirs)
        return same and all(close(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, bool) or not hasattr(theirs, "__float__"):
        return bool(ours == theirs)
    return abs(float(ours) - float(theirs)) <= tolerance * max(1.0, abs(float(theirs)))
