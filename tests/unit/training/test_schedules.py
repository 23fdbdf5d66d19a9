"""Learning rates against transformers' schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from minitx.training import learning_rate_factor

STEPS, WARMUP, DECAY = 20, 5, 8


def theirs(make: Callable[..., Any], **options: Any) -> list[float]:
    """The factors of a scheduler of the reference, before each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **options)
    factors = []
    for _ in range(STEPS):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize("warmup", [0, 1, WARMUP])
def test_schedules_equal_the_reference(warmup: int) -> None:
    wsd = {"num_decay_steps": DECAY, "num_stable_steps": STEPS - DECAY - warmup, "decay_type": "1-sqrt"}
    expected = {
        "constant": theirs(get_constant_schedule_with_warmup, num_warmup_steps=warmup),
        "linear": theirs(get_linear_schedule_with_warmup, num_warmup_steps=warmup, num_training_steps=STEPS),
        "cosine": theirs(get_cosine_schedule_with_warmup, num_warmup_steps=warmup, num_training_steps=STEPS),
        "wsd": theirs(get_wsd_schedule, num_warmup_steps=warmup, **wsd),
    }
    for schedule, factors in expected.items():
        options = {"decay_steps": DECAY} if schedule == "wsd" else {}
        found = [
            learning_rate_factor(step, schedule, steps=STEPS, warmup_steps=warmup, **options)
            for step in range(STEPS)
        ]
        assert found == pytest.approx(factors, abs=1e-12), schedule


def test_the_minimum_equals_the_reference() -> None:
    wsd = {"num_decay_steps": DECAY, "num_stable_steps": STEPS - DECAY, "decay_type": "1-sqrt"}
    expected = theirs(get_wsd_schedule, num_warmup_steps=0, min_lr_ratio=0.1, **wsd)
    options: dict[str, Any] = {"steps": STEPS, "min_lr_ratio": 0.1}
    found = [learning_rate_factor(step, "wsd", decay_steps=DECAY, **options) for step in range(STEPS)]
    assert found == pytest.approx(expected, abs=1e-12)
    for schedule in ("linear", "cosine"):
        assert learning_rate_factor(STEPS, schedule, **options) == pytest.approx(0.1)
        assert learning_rate_factor(2 * STEPS, schedule, **options) == pytest.approx(0.1)
        assert learning_rate_factor(0, schedule, **options) == 1.0
