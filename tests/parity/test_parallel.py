"""Entropy-bounded steps against those of DiffusionGemma in transformers: acceptance, temperatures, ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.diffusion_gemma import generation_diffusion_gemma as reference

from minitx.decoding import EntropyBound, FillStep

VOCAB, SIZE, MASK = 20, 7, 19


def row_step(logits: Tensor, tokens: Tensor, number: int, state: Any = None) -> FillStep:
    ids = torch.full((SIZE,), MASK)
    log_probs = logits.log_softmax(-1)
    return FillStep(number, ids, ids == MASK, tokens, log_probs, MASK, state, lambda name: torch.rand(SIZE))


@pytest.mark.parametrize("bound", [1e-9, 0.1, 1.0, 4.0, 100.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_same_positions_are_accepted(bound: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(SIZE, VOCAB, generator=generator, dtype=torch.float64)
    logits[1] = logits[0].flip(0)  # equal entropies
    tokens = torch.randint(MASK, (SIZE,), generator=generator)
    config = reference.EntropyBoundSamplerConfig(entropy_bound=bound)
    sampler = reference.EntropyBoundSampler(config, SIZE, VOCAB, 8)
    canvas = torch.full((1, SIZE), MASK)
    expected = sampler.accept_canvas(canvas, tokens[None], logits[None], 8)
    strategy = EntropyBound(bound=bound, steps=8, confident_below=0.0)
    assert strategy.step(row_step(logits, tokens, 1)).ids.tolist() == expected[0].tolist()


def test_temperatures_are_equal() -> None:
    strategy = EntropyBound(t_max=0.9, t_min=0.3, steps=6)
    processor = reference.LinearTemperatureScheduleLogitsProcessor(0.3, 0.9, 6)
    one = torch.ones(1, dtype=torch.float64)
    for number in range(1, 7):  # transformers counts the steps that are left
        expected = 1 / processor(torch.zeros(1), one, 7 - number)
        assert strategy.temperature(number) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("stable_steps", [0, 1, 2])
@pytest.mark.parametrize("confident", [0.3, 5.0])
def test_rows_end_at_the_same_step(stable_steps: int, confident: float) -> None:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(SIZE, VOCAB, generator=generator, dtype=torch.float64)
    second = torch.randn(SIZE, VOCAB, generator=generator, dtype=torch.float64)
    sequence = [first, second, second, first, 4 * first, 9 * first, 20 * first, 20 * first]
    criterion = reference.StableAndConfidentStoppingCriteria(stable_steps, confident)
    strategy = EntropyBound(steps=100, stable_steps=stable_steps, confident_below=confident)
    state, ends = None, []
    for number, logits in enumerate(sequence, 1):
        update = strategy.step(row_step(logits, logits.argmax(-1), number, state))
        expected = criterion(logits.argmax(-1)[None], logits[None])
        assert update.done == bool(expected[0])
        ends.append(update.done)
        if update.done:
            assert update.ids.tolist() == logits.argmax(-1).tolist()
            break
        state = update.state
    assert ends[-1]
