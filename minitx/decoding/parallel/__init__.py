"""Filling masked positions in any order: several per step, by a model that attends to both sides."""
