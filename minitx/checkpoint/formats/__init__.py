"""The forms in which a checkpoint is stored: a folder, with quantised weights or without, or a GGUF file."""
