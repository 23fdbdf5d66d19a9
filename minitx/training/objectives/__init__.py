"""Objectives: how examples become a batch, and a batch a loss."""
