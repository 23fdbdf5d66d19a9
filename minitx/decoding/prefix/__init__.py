"""Keys and values of prompts that were run before, for new prompts that begin with the same tokens."""
