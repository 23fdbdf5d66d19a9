"""Vectors of texts for engines that run token ids: tokenized before, scaled to length 1 after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import tokenizers
from torch import Tensor
from torch.nn.functional import normalize

from minitx.bench.engine import Engine, Setup
from minitx.io import read_json

POOLING = Path("1_Pooling") / "config.json"


def unpoolable(folder: Path) -> str | None:
    """Returns why texts have no mean vectors by a checkpoint; None if they have.

    Args:
        folder: of an encoder, with or without the files of sentence-transformers.
    """
    if not (folder / "tokenizer.json").is_file():
        return "the checkpoint has no tokenizer.json"
    modes = read_json(folder / POOLING) if (folder / POOLING).is_file() else {}
    other = [key for key, on in modes.items() if key.startswith("pooling_mode_") and on is True]
    if other and other != ["pooling_mode_mean_tokens"]:
        return "its adapter only takes the mean of the tokens, and the checkpoint pools otherwise"
    return None


def text_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """Returns the tokenizer of a checkpoint, without padding, cutting texts as the checkpoint states."""
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    stated = folder / "sentence_bert_config.json"
    limit = read_json(stated).get("max_seq_length") if stated.is_file() else None
    limit = limit or read_json(folder / "config.json")["max_position_embeddings"]
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(limit))
    return cast(tokenizers.Tokenizer, tokenizer)


class TextEngine(Engine):
    """An engine that runs token ids, and texts through the tokenizer of the checkpoint.

    Attributes:
        setup: of `load`.
        tokenizer: of the checkpoint; None before the first texts.
    """

    setup: Setup
    tokenizer: Any = None

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Returns vectors of length 1, (N, E)."""
        self.tokenizer = self.tokenizer or text_tokenizer(self.setup.folder)
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        return normalize(self.encode(rows), dim=-1)
