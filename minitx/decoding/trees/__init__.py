"""Several candidates per position: trees of tokens, draft heads, and guesses in parallel."""
