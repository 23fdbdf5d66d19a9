"""Generation for many prompts, conversations, and strategies from flat options."""
