"""Text to ids and back: tokenizer.json, and the vocabulary files that came before it."""

from minitx.tokenizer.batch import Batch
from minitx.tokenizer.tokenizer import Tokenizer, load_tokenizer

__all__ = ["Batch", "Tokenizer", "load_tokenizer"]
