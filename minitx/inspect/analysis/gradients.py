"""Attribution to input tokens by gradients of their word embeddings.

`saliency` (arXiv:1312.6034, section 3) is the size of the gradient, `input_x_gradient` (arXiv:1605.01713,
section 2.2) its product with the embedding, `integrated_gradients` (arXiv:1703.01365) the mean over a path
from a baseline, whose parts sum up to the difference of the metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.inspect.analysis.metrics import Metric
from minitx.inspect.analysis.table import number, pad, shorten
from minitx.inspect.inputs import Inputs, ids_of, prefix_of, prepare, run
from minitx.inspect.taps import record, tap
from minitx.inspect.taps.edit import stack_of
from minitx.inspect.tokens import TokenNames, names_of_rows
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_callable,
    check_integer,
    check_number,
    check_tensor,
)

_BAR = 20
_ENTRIES = 4096  # of the word embedding at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenAttribution:
    """A number for each input token; `print` shows them with bars.

    Attributes:
        values: (B, T).
        tokens: their names, row by row.
        metric: (B,), the metric of the inputs.
        baseline: (B,), the metric of the baseline of integrated gradients; else None.
        axes: names of the axes of `values`.
    """

    axes: ClassVar[tuple[str, ...]] = ("row", "position")
    values: Tensor
    tokens: TokenNames
    metric: Tensor
    baseline: Tensor | None = None

    @property
    def completeness_error(self) -> Tensor | None:
        """(B,), sum of the values minus the difference of the metric; None without a baseline."""
        if self.baseline is None:
            return None
        return self.values.sum(dim=1) - (self.metric - self.baseline)

    def __str__(self) -> str:
        largest = float(self.values.abs().max()) or 1.0
        blocks = []
        for names, values in zip(self.tokens, self.values.tolist(), strict=True):
            lines = [
                f"{pad(shorten(name, 20), 21)}{number(value):>9}  {_bar(value / largest)}".rstrip()
                for name, value in zip(names, values, strict=True)
            ]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)


def _bar(share: float) -> str:
    """Returns a bar; negative ones are light."""
    return ("█" if share >= 0 else "░") * round(abs(share) * _BAR)


def saliency(
    model: Model,
    inputs: Inputs,
    metric: Metric,
    *,
    stack: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> TokenAttribution:
    """Returns the Euclidean norm of the metric's gradient with respect to each word embedding.

    Args:
        model: any model whose output has logits.
        inputs: a text or texts, ids (B, T), or the arguments of a forward by name.
        metric: of the logits, one number per row; `logit_difference` returns one.
        stack: whose tokens: "encoder" or "decoder" of a model with both; None: the first, the source.
        tokenizer: for texts, and for the names of tokens.

    Returns:
        The norms.

    Raises:
        ArgumentTypeError, ArgumentValueError: inputs that do not fit the model, a metric that returns
            something else.
    """
    problem = _Problem(model, prepare(model, inputs, tokenizer), metric, stack)
    _, gradient, outcome = problem.gradient()
    return problem.result(gradient.norm(dim=-1), outcome, tokenizer)


def input_x_gradient(
    model: Model,
    inputs: Inputs,
    metric: Metric,
    *,
    stack: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> TokenAttribution:
    """Returns the scalar product of each word embedding and the metric's gradient with respect to it.

    Args:
        model, inputs, metric, stack, tokenizer: as for `saliency`.

    Returns:
        The products.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `saliency`.
    """
    problem = _Problem(model, prepare(model, inputs, tokenizer), metric, stack)
    embeddings, gradient, outcome = problem.gradient()
    return problem.result((embeddings * gradient).sum(dim=-1), outcome, tokenizer)


def integrated_gradients(
    model: Model,
    inputs: Inputs,
    metric: Metric,
    *,
    baseline: int | Tensor | None = None,
    steps: int = 32,
    tolerance: float | None = 0.05,
    stack: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> TokenAttribution:
    """Integrates the gradient along the straight path from a baseline to the word embeddings.

    The values of a row sum up to metric(inputs) - metric(baseline), but for the error of the quadrature,
    which is checked. Points are those of Gauss and Legendre.

    Args:
        model, inputs, metric, stack, tokenizer: as for `saliency`.
        baseline: id of a token that takes the place of all others, such as the mask; or embeddings that
            broadcast to (B, T, W), such as torch.zeros(1); None: the mean word embedding of the vocabulary.
            Near zero a model with RMSNorm changes too quickly for the quadrature.
        steps: number of points.
        tolerance: largest error of the sum, as a share of the sum of the absolute values; None: any.

    Returns:
        The integrals.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `saliency`; too few steps for the tolerance.

    Example:
        >>> result = minitx.inspect.integrated_gradients(model, text, metric, tokenizer=tokenizer)
        >>> print(result)
        >>> result.completeness_error
    """
    steps = check_integer("steps", steps, 1)
    problem = _Problem(model, prepare(model, inputs, tokenizer), metric, stack)
    embeddings = problem.embeddings()
    start = problem.baseline(baseline, embeddings)
    total = torch.zeros_like(embeddings)
    points, weights = gauss_legendre(steps)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        _, gradient, _ = problem.gradient(start + point * (embeddings - start))
        total += weight * gradient
    values = ((embeddings - start) * total).sum(dim=-1)
    ends = [problem.outcome(end) for end in (embeddings, start)]
    result = problem.result(values, ends[0], tokenizer, ends[1])
    if tolerance is not None:
        share = check_number("tolerance", tolerance, Interval(0, torch.inf, open_low=True))
        check_complete(result, share, steps)
    return result


def check_complete(result: TokenAttribution, tolerance: float, steps: int) -> None:
    """Checks that the values of integrated gradients sum up to the difference of the metric.

    Raises:
        ArgumentValueError: they do not, in some row.
    """
    error, baseline = result.completeness_error, result.baseline
    assert error is not None, "of integrated gradients"
    assert baseline is not None, "of integrated gradients"
    difference, size = result.metric - baseline, result.values.abs().sum(dim=1)
    wrong = error.abs() > tolerance * size + torch.finfo(error.dtype).eps ** 0.5
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        expected = (
            f"large enough for values that sum up to the difference {float(difference[row]):.4g} within "
            f"{tolerance:g} of their size; in row {row} the sum is off by {float(error[row]):.4g}"
        )
        hint = "take more steps, float32, another baseline, or tolerance=None"
        raise ArgumentValueError("steps", steps, expected, hint)


def mean_embedding(module: Any, device: torch.device) -> Tensor:
    """Returns the mean output of a word embedding over its vocabulary: (W,)."""
    ids = torch.arange(module.num_embeddings, device=device)
    with torch.no_grad():
        sums = [module.forward(part[None]).double().sum(dim=(0, 1)) for part in torch.split(ids, _ENTRIES)]
    return torch.stack(sums).sum(dim=0) / len(ids)


def gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Returns points in (0, 1) and weights of the Gauss-Legendre quadrature: (steps,) twice, in float64.

    Eigenvalues and eigenvectors of the Jacobi matrix of the Legendre polynomials (Golub and Welsch, 1969).
    """
    k = torch.arange(1, steps, dtype=torch.float64)
    beside = k / (4 * k.square() - 1).sqrt()
    matrix = torch.diag(beside, 1) + torch.diag(beside, -1)
    points, vectors = torch.linalg.eigh(matrix)
    return (points + 1) / 2, vectors[0].square()


class _Problem:
    """The metric as a function of the word embeddings of one side.

    Args:
        model: in eval mode.
        arguments: of its forward.
        metric: of the logits.
        stack: whose tokens; None: the first.
    """

    def __init__(self, model: Model, arguments: Mapping[str, Any], metric: Metric, stack: str | None) -> None:
        check_callable("metric", metric, "logit_difference returns one")
        self.model, self.arguments, self.metric = model, arguments, metric
        self.stack = stack_of(model, model.families[0] if stack is None else stack)
        self.place = f"{prefix_of(model, self.stack)}embedder.word_emb"

    def embeddings(self) -> Tensor:
        """Returns the word embeddings: (B, T, W)."""
        with record(self.model, self.place) as seen, torch.no_grad():
            run(self.model, self.arguments)
        return seen.calls(self.place)[0]

    def baseline(self, baseline: int | Tensor | None, embeddings: Tensor) -> Tensor:
        """Returns the start of the path: (B, T, W)."""
        module: Any = self.model.get_submodule(self.place)
        if baseline is None:
            baseline = mean_embedding(module, embeddings.device)
        elif isinstance(baseline, int):
            token = check_integer("baseline", baseline, 0, module.num_embeddings - 1)
            with torch.no_grad():
                baseline = module.forward(torch.tensor([[token]], device=embeddings.device))
        start = check_tensor("baseline", baseline).to(embeddings)
        try:
            return start.expand_as(embeddings)
        except RuntimeError:
            expected = f"of a shape that broadcasts to {tuple(embeddings.shape)}"
            raise ArgumentValueError("baseline", start, expected) from None

    def gradient(self, embeddings: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns embeddings (B, T, W), the metric's gradient with respect to them, and the metric (B,).

        Args:
            embeddings: (B, T, W); None: those of the inputs.
        """
        leaf = (self.embeddings() if embeddings is None else embeddings).detach().requires_grad_()
        with torch.enable_grad(), tap(self.model, self.place, lambda value, call: leaf):
            outcome = self._per_row(run(self.model, self.arguments))
            (gradient,) = torch.autograd.grad(outcome.sum(), leaf)
        return leaf.detach(), gradient, outcome.detach()

    def outcome(self, embeddings: Tensor) -> Tensor:
        """Returns the metric: (B, T, W) -> (B,)."""
        with torch.no_grad(), tap(self.model, self.place, lambda value, call: embeddings):
            return self._per_row(run(self.model, self.arguments))

    def _per_row(self, logits: Tensor) -> Tensor:
        """Returns the metric of each row: (B,)."""
        value = self.metric(logits)
        if not isinstance(value, Tensor):
            raise ArgumentTypeError("the value of the metric", value, "a tensor of shape (B,)")
        if value.dim() == 0 and len(logits) == 1:
            value = value[None]
        if tuple(value.shape) != (len(logits),):
            raise ArgumentValueError("the value of the metric", value, f"of shape ({len(logits)},)")
        return value

    def result(
        self, values: Tensor, outcome: Tensor, tokenizer: Tokenizer | None, baseline: Tensor | None = None
    ) -> TokenAttribution:
        """Returns the attribution: (B, T) values, (B,) metric of the inputs and of the baseline."""
        ids = ids_of(self.model, self.arguments, self.stack)
        names = names_of_rows(ids, tokenizer, (values.shape[0], values.shape[1]))
        return TokenAttribution(values=values, tokens=names, metric=outcome, baseline=baseline)
