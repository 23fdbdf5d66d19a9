"""Objectives: how examples become a batch, and a batch a loss; `minitx.training` has the classes.

An objective is a frozen dataclass of options; `objective(examples, generator)` returns a batch and
`objective.loss(model, batch)` its loss. Each file also has its steps as functions on tensors.
"""
