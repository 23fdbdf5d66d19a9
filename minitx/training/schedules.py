"""Learning rate schedules: the factor of the peak learning rate, a pure function of the step.

Every schedule begins with a linear warm-up from 0. As in transformers' `get_*_schedule`, the step is the
number of steps that are finished, so the first step of a run with a warm-up has the learning rate 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

# Progress of the decay, from 0 to 1, to the factor without a minimum.
_DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2.0,
    "wsd": lambda progress: 1.0 - math.sqrt(progress),
}
SCHEDULES = tuple(_DECAYS)


def learning_rate_factor(
    step: int,
    schedule: str,
    *,
    steps: int,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    min_lr_ratio: float = 0.0,
) -> float:
    """Returns the learning rate of a step, as a factor of the peak learning rate.

    Args:
        step: number of finished steps.
        schedule: the decay after the warm-up. "constant": none. "linear" and "cosine" (arXiv:1608.03983,
            equation 5, one period): over all steps that are left. "wsd", warm-up, stable, decay
            (arXiv:2404.06395, section 4.2): constant but for the last `decay_steps` steps, where the factor
            falls as 1 - sqrt of the progress (arXiv:2405.18392, section 3).
        steps: length of the run.
        warmup_steps: length of the warm-up.
        decay_steps: length of the decay of "wsd".
        min_lr_ratio: the factor at the end of a decay.
    """
    if step < warmup_steps:
        return step / warmup_steps
    length = max(1, decay_steps if schedule == "wsd" else steps - warmup_steps)
    progress = min(max(0.0, (step - steps) / length + 1.0), 1.0)
    return min_lr_ratio + (1.0 - min_lr_ratio) * _DECAYS[schedule](progress)
