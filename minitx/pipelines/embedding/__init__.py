"""Sentence embeddings: one vector per text, as the files of sentence-transformers state."""
