"""A training step of each family on the device: loss and gradients against float64 on the CPU."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.models import inputs_of, model_of
from benchmarks.gpu.run import QUICK_TYPES, Section

TYPES = ("bert", "modernbert", "deberta-v2", "gpt2", "llama", "gemma2", "mixtral", "gpt_oss", "t5", "bart")
TOLERANCE = 1e-3


def run(section: Section) -> None:
    """Takes a step with each family."""
    types = [name for name in TYPES if not section.quick or name in QUICK_TYPES]
    for model_type in section.within_budget(types):
        section.attempt(model_type, partial(step, model_type, section.device))


def step(model_type: str, device: torch.device) -> dict[str, Any]:
    """Returns the distances of loss and gradients, and whether the loss falls."""
    model, task = model_of(model_type)
    ours = copy.deepcopy(model).to(device, torch.float32)
    expected = model(**inputs_of(task, torch.device("cpu"))).loss
    expected.backward()
    inputs = inputs_of(task, device)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-3)
    loss = ours(**inputs).loss
    loss.backward()
    pairs = [(p.grad, q.grad) for p, q in zip(ours.parameters(), model.parameters(), strict=True)]
    together = [(p.double().cpu(), q) for p, q in pairs if p is not None and q is not None]
    largest = max(float(q.abs().max()) for _, q in together)
    gradient = max(float((p - q).abs().max()) for p, q in together) / largest
    optimizer.step()
    after = ours(**inputs).loss
    before, exact = loss.item(), expected.item()
    difference = abs(before - exact) / abs(exact)
    return {
        "ok": difference < TOLERANCE and gradient < TOLERANCE and after.item() < before,
        "loss": difference,
        "gradients": gradient,
        "before": before,
        "after": after.item(),
    }
