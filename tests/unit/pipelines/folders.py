"""Tiny checkpoints with a WordPiece vocabulary, made by minitx alone."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import minitx

WORDS = "the cat sat on a mat dog ran to park and was not red blue good bad . ? ##s ##ed".split()  # noqa: SIM905
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = string.ascii_lowercase
VOCABULARY = list(dict.fromkeys([*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]))
LIMIT = 24
BERT = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": LIMIT,
    "initializer_range": 0.8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def bert_folder(folder: Path, head: str, *, limit: int | None = LIMIT, **config: Any) -> Path:
    """Writes a random BERT with a head and a tokenizer; returns the folder.

    Args:
        folder: created.
        head: such as "sequence-classification".
        limit: `model_max_length`; None for a tokenizer without any.
        config: further keys of config.json.
    """
    minitx.save(minitx.from_config({**BERT, **config}, head=head, seed=0), folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": limit}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
