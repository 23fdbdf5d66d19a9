"""Linear probes: a logistic regression from activations to labels (arXiv:1610.01644).

A probe that is accurate on labels without meaning measures its own capacity, so that a control task
(arXiv:1909.03368) is part of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.validation import (
    ArgumentValueError,
    Interval,
    check_integer,
    check_number,
    check_tensor,
    check_type,
)

_STEPS = 200


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe:
    """A trained linear probe; `print` shows its accuracies.

    Attributes:
        weight: (C, E), of the activations as they are.
        bias: (C,)
        classes: the labels, in the order of the logits.
        train_accuracy: on the examples of the training.
        accuracy: on the held-out examples.
        majority: accuracy of the most frequent training label on the held-out examples.
        control_accuracy: held-out accuracy on the labels of the control task; None without one.
    """

    weight: Tensor
    bias: Tensor
    classes: tuple[Any, ...]
    train_accuracy: float
    accuracy: float
    majority: float
    control_accuracy: float | None = None

    @property
    def selectivity(self) -> float | None:
        """Accuracy minus that on the control task; None without one."""
        return None if self.control_accuracy is None else self.accuracy - self.control_accuracy

    def logits(self, activations: Tensor) -> Tensor:
        """Returns the logits of activations: (..., E) -> (..., C)."""
        logits: Tensor = activations.to(self.weight) @ self.weight.T + self.bias
        return logits

    def predict(self, activations: Tensor) -> list[Any]:
        """Returns the label of each activation: (N, E) -> N labels."""
        return [self.classes[index] for index in self.logits(activations).argmax(dim=-1).tolist()]

    def direction(self, label: Any, against: Any) -> Tensor:
        """Returns the unit vector along which a label gains most on another: (E,), for `steer`.

        Raises:
            ArgumentValueError: a label that the probe does not have.
        """
        indices = []
        for name, value in (("label", label), ("against", against)):
            if value not in self.classes:
                raise ArgumentValueError(name, value, f"one of {', '.join(map(repr, self.classes))}")
            indices.append(self.classes.index(value))
        difference = self.weight[indices[0]] - self.weight[indices[1]]
        unit: Tensor = difference / difference.norm()
        return unit

    def __str__(self) -> str:
        lines = [
            f"linear probe of {len(self.classes)} classes on {self.weight.shape[1]} features",
            f"accuracy {self.accuracy:.3f} held out, {self.train_accuracy:.3f} in training",
            f"most frequent label {self.majority:.3f}",
        ]
        if self.control_accuracy is not None:
            lines.append(f"control task {self.control_accuracy:.3f}, selectivity {self.selectivity:.3f}")
        return "\n".join(lines)


def train_probe(
    activations: Tensor,
    labels: Sequence[Any] | Tensor,
    *,
    held_out: float = 0.25,
    l2: float = 1e-2,
    seed: int = 0,
    control: Sequence[Hashable] | Tensor | None = None,
) -> Probe:
    """Trains a linear probe by L-BFGS to convergence, and measures it on held-out examples.

    Args:
        activations: (N, E), such as from `collect_activations`.
        labels: N labels of any kind.
        held_out: share of the examples that are not trained on.
        l2: penalty on the squared weights of the standardised activations, per example.
        seed: of the split, and of the control task.
        control: N groups, such as the id of each token: the control task gives every group a random label
            with the frequencies of the real ones, so that only memorised groups can be right; None: none.

    Returns:
        The probe.

    Raises:
        ArgumentTypeError, ArgumentValueError: other shapes, fewer than two labels, a share that leaves no
            examples.

    Example:
        >>> probe = minitx.inspect.train_probe(activations, labels)
        >>> print(probe)
        >>> probe.predict(more)
    """
    if check_tensor("activations", activations).dim() != 2:
        raise ArgumentValueError("activations", activations, "of shape (examples, features)")
    values = _values("labels", labels, len(activations))
    classes = tuple(sorted({*values}, key=lambda label: (str(type(label)), label)))
    if len(classes) < 2:
        raise ArgumentValueError("labels", [*classes], "of at least two kinds")
    share = check_number("held_out", held_out, Interval(0, 1, open_low=True, open_high=True))
    penalty = check_number("l2", l2, Interval(0, torch.inf, open_high=True))
    generator = torch.Generator().manual_seed(check_integer("seed", seed))
    order = torch.randperm(len(values), generator=generator)
    cut = round(share * len(values))
    if not 0 < cut < len(values):
        expected = f"a share that leaves examples for both parts of {len(values)}"
        raise ArgumentValueError("held_out", held_out, expected)
    x = activations.detach().double().cpu()
    y = torch.tensor([classes.index(value) for value in values])
    parts = order[cut:], order[:cut]
    weight, bias = fit_logistic(x[parts[0]], y[parts[0]], len(classes), penalty)
    train, test = (_accuracy(x[part], y[part], weight, bias) for part in parts)
    chance = None
    if control is not None:
        random = _control_labels(_values("control", control, len(values)), y, generator)
        chance = _accuracy(
            x[parts[1]], random[parts[1]], *fit_logistic(x[parts[0]], random[parts[0]], len(classes), penalty)
        )
    most = int(y[parts[0]].bincount().argmax())
    return Probe(
        weight=weight,
        bias=bias,
        classes=classes,
        train_accuracy=train,
        accuracy=test,
        majority=float((y[parts[1]] == most).double().mean()),
        control_accuracy=chance,
    )


def _values(parameter: str, values: Any, count: int) -> list[Any]:
    """Returns a list of labels or groups, one for each example."""
    if isinstance(values, Tensor):
        values = values.tolist()
    check_type(parameter, values, Sequence, "a sequence with one entry for each activation")
    if len(values) != count:
        raise ArgumentValueError(
            parameter, values, f"of length {count}, like the activations, not {len(values)}"
        )
    return [*values]


def fit_logistic(x: Tensor, y: Tensor, classes: int, l2: float) -> tuple[Tensor, Tensor]:
    """Returns weight (C, E) and bias (C,) of a multinomial logistic regression: (N, E), (N,) integers."""
    mean, spread = x.mean(dim=0), x.std(dim=0, unbiased=False)
    spread = torch.where(spread > 1e-12, spread, 1.0)
    standard = (x - mean) / spread
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def _loss() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(standard @ weight.T + bias, y)
        loss = loss + l2 * weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(_loss)  # type: ignore[no-untyped-call]
    scaled = weight.detach() / spread
    return scaled, bias.detach() - scaled @ mean


def _accuracy(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> float:
    return float(((x @ weight.T + bias).argmax(dim=1) == y).double().mean())


def _control_labels(groups: list[Any], y: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a random label for each group, drawn from the labels: (N,)."""
    kinds = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    drawn = y[torch.randint(len(y), (len(kinds),), generator=generator)]
    return drawn[torch.tensor([kinds[group] for group in groups])]
