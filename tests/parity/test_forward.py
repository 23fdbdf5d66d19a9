"""Design, section 7, points 1 and 2: every layer, pooled output and logits; every length; every padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.cases import BY_NAME
from tests.parity.reference import CASES_AND_HEADS, hidden_states, logits_of, padded, pair, text


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


def compare(reference: Any, model: Any, inputs: dict[str, Tensor]) -> float:
    """The largest difference of any hidden state, pooled output or logit, at real tokens."""
    with torch.inference_mode():
        expected = reference(**inputs, output_hidden_states=True)
        states, output = hidden_states(model, inputs)
    mask = inputs.get("attention_mask")
    real = torch.ones_like(inputs["input_ids"]).bool() if mask is None else mask.bool()
    tokens = real.flatten(0, -2)
    pairs = [(a[tokens], b[tokens]) for a, b in zip(expected.hidden_states, states, strict=True)]
    if getattr(expected, "pooler_output", None) is not None:
        pairs.append((expected.pooler_output, output.pooler_output))
    for a, b in zip(logits_of(expected), logits_of(output), strict=True):
        assert a.shape == b.shape
        per_token = a.shape[: real.dim()] == real.shape
        pairs.append((a[real], b[real]) if per_token else (a, b))
    assert all(torch.isfinite(b).all() for _, b in pairs)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_layer_and_output(name: str, task: str, dtype: torch.dtype, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, task, dtype, root)
    limit = case.float64 if dtype == torch.float64 else 1e-5
    choices = 3 if task == "multiple-choice" else 0
    lengths = (1, 2, 9, 33, *case.lengths) if task == "none" else (9, 33)
    for length in lengths:
        plain = text(case, 3, length, choices, seed=length)
        if choices and case.config.get("classifier_pooling") == "mean":
            # without a mask the reference fails here (attention_mask.sum of None)
            plain["attention_mask"] = torch.ones_like(plain["input_ids"])
        variants = [plain]
        if length > 1:
            variants += [padded(case, plain, "right"), padded(case, plain, "left")]
        for inputs in variants:
            for backend in ("sdpa", "eager"):
                difference = compare(reference, model.set_attention(backend), inputs)
                assert difference <= limit, (length, backend, "attention_mask" in inputs, difference)
