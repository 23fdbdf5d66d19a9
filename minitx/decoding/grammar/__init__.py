"""Structured output: grammars, their automaton over bytes, and the masks of tokens that it allows."""
