"""Text to ids and back: tokenizer.json, and the vocabulary files that came before it."""

from __future__ import annotations

from minitx.tokenizer.batch import Batch
from minitx.tokenizer.load import load_tokenizer
from minitx.tokenizer.tokenizer import Tokenizer

__all__ = ["Batch", "Tokenizer", "load_tokenizer"]
