"""Fresh weights: by default normal with `initializer_range`, biases 0 and norms 1.

An architecture with other rules has them in its declaration: `Rules`, from patterns of parameter names to
distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from minitx.layers.norm import RMSNorm


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The distribution of a fresh parameter.

    Attributes:
        std: standard deviation of a normal distribution with mean 0.
        bound: cuts the distribution off at -bound and bound; None: nowhere.
        value: a number for every entry, or a function of the parameter, instead of a distribution.
        padding: the row of the padding token is drawn like the others, instead of 0.
    """

    std: float = 0.0
    bound: float | None = None
    value: float | Callable[[Tensor], Tensor] | None = None
    padding: bool = False


Rules = Mapping[str, Draw]  # pattern of parameter names, with `*` -> distribution; the first that fits


def initialize(
    model: nn.Module,
    std: float,
    rules: Rules,
    names: Collection[str] | None,
    generator: torch.Generator | None,
) -> None:
    """Draws fresh weights in place, a tied parameter with its owner.

    Args:
        model: whose parameters are drawn.
        std: standard deviation of the parameters that no rule names.
        rules: of the architecture.
        names: of the parameters to draw; None: all.
        generator: source of randomness; None: torch's default.
    """
    drawn: set[int] = set()
    for path, module in model.named_modules():
        for leaf, parameter in module._parameters.items():
            name = f"{path}.{leaf}".lstrip(".")
            if parameter is None or id(parameter) in drawn or (names is not None and name not in names):
                continue
            drawn.add(id(parameter))
            rule = next((rules[pattern] for pattern in rules if fnmatchcase(name, pattern)), None)
            draw = default_draw(module, leaf, std) if rule is None else rule
            fill(parameter, draw, generator)
            padding = getattr(module, "padding_idx", None)
            if isinstance(module, nn.Embedding) and padding is not None and not draw.padding:
                parameter[padding].zero_()


def default_draw(module: nn.Module, leaf: str, std: float) -> Draw:
    """Returns the distribution of a parameter that no rule names."""
    if leaf == "bias":
        return Draw(value=0.0)
    if isinstance(module, nn.LayerNorm | RMSNorm):
        return Draw(value=1.0 - getattr(module, "offset", 0.0))
    return Draw(std=std)


def fill(parameter: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    """Draws one parameter in place.

    Args:
        parameter: (...)
        draw: its distribution.
        generator: of the random numbers; None for PyTorch's own.
    """
    if callable(draw.value):
        parameter.copy_(draw.value(parameter))
    elif draw.value is not None:
        parameter.fill_(draw.value)
    elif draw.bound is not None:
        nn.init.trunc_normal_(parameter, 0.0, draw.std, -draw.bound, draw.bound, generator=generator)
    else:
        parameter.normal_(0.0, draw.std, generator=generator)
