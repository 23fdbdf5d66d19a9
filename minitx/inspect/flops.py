"""Floating-point operations of a forward: those of its matrix products, as PyTorch's counter counts them.

A product of (n, k) and (k, m) takes 2 n k m: a multiplication and an addition for each of its terms. Sums of
vectors, norms, activations and softmax are left out; they take less than 1 % in a model of usual width.
"""

from __future__ import annotations

from minitx.layers.experts import MixtureOfExperts


def linear_flops(rows: int, inputs: int, outputs: int) -> int:
    """Returns the operations of a linear projection of `rows` vectors."""
    return 2 * rows * inputs * outputs


def product_flops(pairs: int, heads: int, head_dim: int) -> int:
    """Returns the operations of Q K^T, or of the sums of values, for pairs of a query and a key."""
    return 2 * pairs * heads * head_dim


def expert_flops(module: MixtureOfExperts, choices: int) -> int:
    """Returns the operations of the experts: `choices` tokens, counted once for each expert they use."""
    outputs, inputs = module.experts.gate.weight.shape[1:]
    return 3 * linear_flops(choices, inputs, outputs)
