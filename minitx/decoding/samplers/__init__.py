"""Strategies that choose one token per row and step, each with its sampler."""
