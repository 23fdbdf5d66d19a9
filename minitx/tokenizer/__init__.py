"""Tokenizers: text to ids and back, from tokenizer.json or older vocabulary files."""

from __future__ import annotations

from minitx.tokenizer.batch import Batch
from minitx.tokenizer.load import load_tokenizer
from minitx.tokenizer.tables.tokenizer import TableTokenizer
from minitx.tokenizer.tokenizer import Tokenizer

__all__ = ["Batch", "TableTokenizer", "Tokenizer", "load_tokenizer"]
