"""GGUF, the file format of llama.cpp: one file with the weights, the config and the tokenizer of a model."""
