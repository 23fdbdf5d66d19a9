"""Strategies that choose one token at a time."""
