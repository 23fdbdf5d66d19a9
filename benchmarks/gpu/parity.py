"""Each architecture on the device, in float32 and bfloat16, against float64 on the CPU.

The distance is the largest difference of a logit or hidden state, of numbers above 1 as a share of the
largest. In float32, without TF32, it is at most 1e-4. In bfloat16 it is at most twice that of the CPU.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.models import FIRST, inputs_of, model_of
from benchmarks.gpu.run import QUICK_TYPES, Section

FLOAT32, BFLOAT16 = 1e-4, 2.0


def run(section: Section) -> None:
    """Compares every architecture."""
    types = [name for name in FIRST if not section.quick or name in QUICK_TYPES]
    for model_type in section.within_budget(types):
        section.attempt(model_type, partial(compare, model_type, section.device))


@torch.no_grad()
def compare(model_type: str, device: torch.device) -> dict[str, Any]:
    """Returns the distances of one architecture."""
    model, task = model_of(model_type)
    cpu = torch.device("cpu")
    exact = outputs(model, task, cpu)
    single = distance(outputs(copy.deepcopy(model).to(device, torch.float32), task, device), exact)
    half = copy.deepcopy(model).bfloat16()
    on_cpu = distance(outputs(half, task, cpu), exact)
    on_device = distance(outputs(half.to(device), task, device), exact)
    allowed = BFLOAT16 * on_cpu
    return {
        "ok": single <= FLOAT32 and on_device <= allowed,
        "float32": single,
        "bfloat16": on_device,
        "bfloat16 on the CPU": on_cpu,
    }


def outputs(model: Any, task: str, device: torch.device) -> list[Tensor]:
    """Returns logits and last hidden state at real tokens, in float64 on the CPU."""
    inputs = inputs_of(task, device)
    del inputs["labels"]
    output = model(**inputs)
    real = inputs["attention_mask"].bool() if task != "seq2seq-lm" else ...
    return [tensor[real].double().cpu() for tensor in (output.logits, output.last_hidden_state)]


def distance(ours: list[Tensor], exact: list[Tensor]) -> float:
    """Returns the largest difference."""
    pairs = zip(ours, exact, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)
