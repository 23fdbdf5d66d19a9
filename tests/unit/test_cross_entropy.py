"""Cross-entropy in blocks: PyTorch's loss and gradients, and used for large logits on a CPU alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.layers import cross_entropy as blocks
from minitx.layers.losses import cross_entropy


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows are large, in blocks of two."""
    monkeypatch.setattr(blocks, "LARGE", 35)
    monkeypatch.setattr(blocks, "BLOCK", 14)


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (4 * logits).to(dtype).requires_grad_(), torch.tensor([3, -100, 0, 6, 3])


def reference(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(blocks.widened(logits), labels)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-15), (torch.float32, 1e-6), (torch.bfloat16, 4e-3)]
)
def test_loss_and_gradient_are_those_of_pytorch(dtype: torch.dtype, limit: float) -> None:
    logits, labels = example(dtype)
    loss, expected = cross_entropy(logits, labels), reference(logits, labels)
    assert "BlockwiseCrossEntropy" in type(loss.grad_fn).__name__
    assert loss.dtype == expected.dtype
    torch.testing.assert_close(loss, expected)
    (grad,), (wanted,) = (torch.autograd.grad(3 * x, logits) for x in (loss, expected))
    assert grad.dtype == dtype
    assert (grad - wanted).abs().max() <= limit
    assert not grad[1].any()


def test_labels_that_are_all_ignored() -> None:
    logits, _ = example()
    labels = torch.full((5,), -100)
    loss, expected = cross_entropy(logits, labels), reference(logits, labels)
    assert loss.isnan()
    assert expected.isnan()
    (grad,), (wanted,) = (torch.autograd.grad(x, logits) for x in (loss, expected))
    torch.testing.assert_close(grad, wanted, equal_nan=True)


def test_gradients_of_gradients() -> None:
    logits, labels = example()
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels), logits)
    assert torch.autograd.gradgradcheck(lambda x: cross_entropy(x, labels), logits)


def test_batched_gradients() -> None:
    logits, labels = example()
    (grads,) = torch.autograd.grad(
        cross_entropy(logits, labels), logits, torch.tensor([1.0, 2.0]).double(), is_grads_batched=True
    )
    (expected,) = torch.autograd.grad(reference(logits, labels), logits)
    torch.testing.assert_close(grads, torch.stack((expected, 2 * expected)))


def test_transforms_take_pytorchs_own() -> None:
    logits, labels = example()
    (expected,) = torch.autograd.grad(reference(logits, labels), logits)
    torch.testing.assert_close(torch.func.grad(lambda x: cross_entropy(x, labels))(logits), expected)


@pytest.mark.parametrize("case", ["small", "no gradient"])
def test_other_logits_take_pytorchs_own(case: str) -> None:
    logits, labels = example()
    if case == "small":
        logits, labels = logits[:4], labels[:4]
    else:
        logits = logits.detach()
    assert torch.equal(cross_entropy(logits, labels), reference(logits, labels))
    assert "Blockwise" not in type(cross_entropy(logits, labels).grad_fn).__name__
