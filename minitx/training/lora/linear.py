"""A linear projection with a LoRA adapter: y = W x + b + s B A x (arXiv:2106.09685, section 4.1).

`add_lora` changes the class of a projection in place, as the passes of `minitx.optimize` do, and adds the
matrices as parameters: all other names stay, and hooks, `Model.to` and copies work as before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.optimize.mixed_dtypes import MixedLinear

PARTS = ("lora_A", "lora_B", "lora_magnitude")


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """The options of one adapter.

    Attributes:
        alpha: the update is scaled by alpha / rank.
        dropout: probability for the input of the update.
        dora: a trained magnitude per output (DoRA).
        rslora: scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732).
    """

    alpha: float = 16.0
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False

    def scale(self, rank: int) -> float:
        """Returns the factor s of an update."""
        return self.alpha / (math.sqrt(rank) if self.rslora else rank)


class LoraLinear(MixedLinear):
    """nn.Linear with an adapter; the weight and the bias have the names that they had.

    With a magnitude m it is DoRA (arXiv:2402.09353, equations 5 and 11): the rows of W + s B A are scaled to
    the norms m, and no gradient passes through their own norms.

    Attributes:
        lora_A: A, (rank, inputs).
        lora_B: B, (outputs, rank).
        lora_magnitude: m, (outputs,); None: no DoRA.
        lora_options: alpha, dropout and the kind of the scale.
        lora_origin: class of the projection without the adapter.
    """

    lora_A: nn.Parameter  # noqa: N815 - the names of PEFT and of the paper
    lora_B: nn.Parameter  # noqa: N815
    lora_magnitude: nn.Parameter | None
    lora_options: LoraOptions
    lora_origin: type[nn.Linear]

    def _get_name(self) -> str:
        return "LoraLinear"

    def extra_repr(self) -> str:
        """Returns the arguments shown in the printout."""
        return f"{super().extra_repr()}, rank={self.rank}, alpha={self.lora_options.alpha:g}"

    @property
    def rank(self) -> int:
        """The rank of the update."""
        return len(self.lora_A)

    @property
    def scale(self) -> float:
        """The factor s of the update."""
        return self.lora_options.scale(self.rank)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        # it converts by itself; the meta device has none
        autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)
        base = F.linear(x, self.weight, self.bias) if autocast else super().forward(x)
        dropped = F.dropout(x, self.lora_options.dropout, self.training)
        wide = dropped if autocast else dropped.to(self.lora_A.dtype)
        update = F.linear(F.linear(wide, self.lora_A), self.lora_B) * self.scale
        if self.lora_magnitude is None:
            return (base + update).to(base.dtype)
        factor = self.lora_magnitude / self.row_norms()
        product = F.linear(wide, self.weight if autocast else self.weight.to(wide.dtype))
        return (base + (factor - 1) * product + factor * update).to(base.dtype)

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """Returns the norm of each row of W + s B A: (outputs,)."""
        weight = self.weight.to(self.lora_A.dtype)
        norms: Tensor = torch.linalg.vector_norm(weight + self.scale * (self.lora_B @ self.lora_A), dim=1)
        return norms


def attach(module: nn.Linear, A: nn.Parameter, B: nn.Parameter, options: LoraOptions) -> LoraLinear:
    """Adds an adapter to a projection in place.

    Args:
        module: the projection.
        A: (rank, inputs); projections that are one in Hugging Face's model share it.
        B: (outputs, rank).
        options: with `dora`, the magnitude is that of W + s B A.
    """
    origin = type(module)
    module.__class__ = LoraLinear
    assert isinstance(module, LoraLinear)
    module.lora_origin, module.lora_options = origin, options
    module.lora_A, module.lora_B = A, B
    module.register_parameter("lora_magnitude", None)
    if options.dora:
        module.lora_magnitude = nn.Parameter(module.row_norms())
    return module


def detach(module: LoraLinear) -> None:
    """Removes the adapter of a projection in place; weight and bias stay as they are."""
    for name in PARTS:
        delattr(module, name)
    plain: nn.Linear = module
    origin = module.lora_origin
    del module.lora_origin, module.lora_options
    plain.__class__ = origin


def fresh_matrices(
    module: nn.Linear, outputs: int, rank: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Returns A, uniform as nn.Linear's own weights, and B, zeros, so that the adapter begins at no change.

    Both have at least the precision of float32, also in a model of half precision.

    Args:
        module: gives the number of inputs, dtype and device.
        outputs: rows of B.
        rank: of the update.
        generator: of the random numbers, on the CPU; None: torch's default.

    Returns:
        (rank, inputs) and (outputs, rank).
    """
    dtype, bound = torch.promote_types(module.weight.dtype, torch.float32), module.in_features**-0.5
    A = torch.empty(rank, module.in_features, dtype=dtype).uniform_(-bound, bound, generator=generator)
    device = module.weight.device
    return A.to(device), torch.zeros(outputs, rank, dtype=dtype, device=device)
