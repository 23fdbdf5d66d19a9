"""Strategies that search for whole sequences."""
