"""The text of a generation: where it ends, ids as text one by one, healed prompts, infilling."""
