"""Tokenizers from the vocabulary files of each family, for checkpoints without tokenizer.json."""
