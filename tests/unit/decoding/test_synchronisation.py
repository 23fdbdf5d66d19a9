"""How often a generation waits for an accelerator: once in eight tokens, and for nothing else.

The steps run on a device without values (tests/fake_cuda.py); the results of running ahead are tested on the
CPU.
"""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx import Beam, BeamSample, DiverseBeam, Greedy, Sample, Stop
from minitx.decoding import (
    KGW,
    Alternatives,
    ArithmeticSample,
    GumbelWatermark,
    StochasticBeam,
    SynthID,
    ThinkingBudget,
    Unigram,
    request,
)
from minitx.decoding.session import DecodingSession
from tests.fake_cuda import fake_cuda, on_cuda

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
}
PROMPTS = [[1, 5, 6, 7], [1, 4]]
FILTERS: dict[str, Any] = {
    "temperature": (0.7, 0.5),
    "top_k": (9, 8),
    "top_p": (0.9, 0.8),
    "min_p": 0.01,
    "typical_p": 0.9,
    "epsilon_cutoff": 1e-4,
    "eta_cutoff": 1e-4,
    "top_n_sigma": 2.0,
    "top_a": 0.01,
    "tfs": 0.9,
    "p_less": 0.5,
    "top_h": 0.9,
    "averaged_xtc": (0.5, 0.1),
    "skew": 0.1,
    "entmax_alpha": 1.2,
    "mirostat": (5.0, 0.1),
}
OTHERS: dict[str, Any] = {
    "dynamic_temperature": (0.5, 1.5),
    "entropy_temperature": (1.0, 0.5),
    "smoothing": (0.3, 1.0),
    "xtc": (0.5, 0.1),
    "mirostat_v1": (5.0, 0.1),
    "watermark": SynthID(keys=[1, 2]),
}
PENALTIES: dict[str, Any] = {
    "repetition_penalty": 1.2,
    "encoder_repetition_penalty": 1.1,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "relative_frequency_penalty": 0.1,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "bad_words_ids": [[5], [6, 7]],
    "suppress_tokens": [8],
    "begin_suppress_tokens": [9],
    "exponential_decay_length_penalty": (2, 1.1),
    "forced_eos_token_id": 2,
    "prefix_bias": ([3, 4], 0.5),
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "thinking_budget": ThinkingBudget(tokens=3, begin=[10], end=[11, 12]),
    "watermark": KGW(seeding="selfhash", context_width=2),
}
NEW = 3  # read after 2 and after 3 tokens


@pytest.fixture(scope="module")
def model() -> Any:
    return minitx.from_config(LLAMA, head="causal-lm", seed=0).eval()


def watched(
    model: Any, strategy: Any, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[list[str], list[int]]:
    """Where a generation waits after its first step, and how many steps are read at a time."""
    step, reads = DecodingSession.step, list[int]()
    with fake_cuda() as waits:

        def _step(self: Any, *args: Any, **options: Any) -> None:
            step(self, *args, **options)
            waits.on = True

        def _read(tensors: list[Tensor]) -> list[Any]:
            reads.append(len(tensors))
            is_last = sum(reads) == NEW
            waits.on = waits.on and not is_last
            if tensors[0].dim() == 1:  # the tokens of the rows
                return [[3] * len(tensor) for tensor in tensors]
            return [[[is_last] * tensor.shape[1], [False] * tensor.shape[1]] for tensor in tensors]

        monkeypatch.setattr(DecodingSession, "step", _step)
        monkeypatch.setattr(request, "AHEAD", 2)
        for name in ("loop", "search.state"):
            monkeypatch.setattr(import_module(f"minitx.decoding.{name}"), "read", _read)
        minitx.generate(on_cuda(model), PROMPTS, strategy, max_new_tokens=NEW, **more)
    return waits.places, reads


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        (Greedy(), {}),
        (Sample(), {"seed": 1}),
        (Sample(**FILTERS), {"seed": 1}),
        (Sample(**OTHERS), {"seed": 1}),
        (Greedy(**PENALTIES), {"min_new_tokens": 3}),
        (Greedy(watermark=KGW(), logit_bias={5: 1.0}), {}),
        (Greedy(watermark=Unigram(), allowed_token_ids=[3, 4, 5], sequence_bias={(5, 6): 1.0}), {}),
        (Sample(watermark=GumbelWatermark()), {}),
        (Alternatives(), {"num_samples": 2}),
        (ArithmeticSample(), {"seed": 1, "num_samples": 2}),
    ],
    ids=["greedy", "sample", "filters", "others", "penalties", "kgw", "unigram", "gumbel", "first", "code"],
)
def test_tokens_are_read_once_in_many(
    model: Any, strategy: Any, more: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched(model, strategy, monkeypatch, **more) == ([], [2, 1])


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        (Beam(num_beams=3, early_stopping="exact"), {}),
        (BeamSample(num_beams=2, top_k=9), {"seed": 1}),
        (DiverseBeam(num_beams=4), {"stop": Stop(eos=2, tokens=[3])}),
        (StochasticBeam(num_beams=3), {"seed": 1, "num_samples": 2}),
    ],
    ids=["beam", "beam-sample", "diverse", "stochastic"],
)
def test_a_search_is_read_once_in_many_steps(
    model: Any, strategy: Any, more: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched(model, strategy, monkeypatch, **more) == ([], [2, 1])


def test_waits_are_noted(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests would pass if nothing was noted."""

    def custom(logits: Tensor, context: Any) -> Tensor:
        if bool((logits > 0).any()):
            logits[logits > 1] = torch.ones(3, device="cuda")[:1]
        return logits + torch.tensor([1.0] * 40).to(logits.device)

    places, _ = watched(model, Greedy(processors=[custom]), monkeypatch)
    assert len(places) == 2 * (NEW - 1)


RUNS: list[Any] = [
    (Greedy(), {}),
    (Greedy(repetition_penalty=1.3), {"min_new_tokens": 4}),
    (Sample(top_k=5, mirostat=(3.0, 0.1)), {"seed": 3, "num_samples": 3}),
    (Alternatives(), {"num_samples": 3}),
    (ArithmeticSample(), {"seed": 1, "num_samples": 4}),
    (Beam(num_beams=4), {"num_samples": 2}),
    (Beam(num_beams=3, early_stopping=True), {"stop": Stop(eos=[2, 5, 6], repetition=(2, 2))}),
    (BeamSample(num_beams=3), {"seed": 2}),
    (DiverseBeam(num_beams=4), {}),
    (StochasticBeam(num_beams=4), {"seed": 5, "num_samples": 3}),
]


@pytest.mark.parametrize(("strategy", "more"), RUNS, ids=[str(number) for number in range(len(RUNS))])
def test_running_ahead_changes_nothing(
    strategy: Any, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows end at other steps than those that are read, and what follows an end is dropped."""
    config = LLAMA | {"initializer_range": 0.4, "eos_token_id": [2, 5, 9, 13]}
    loud = minitx.from_config(config, head="causal-lm", seed=1).eval()
    generated, results = import_module("minitx.decoding.generate"), []
    for ahead in (1, 2, 5):
        monkeypatch.setattr(generated, "ahead_of", lambda *_, steps=ahead: steps)
        options = {"stop": Stop(eos=[2, 5, 9, 13]), **more}
        result = minitx.generate(loud, [*PROMPTS, [7, 8, 9]], strategy, max_new_tokens=12, **options)
        tokens, trees = [row.tolist() for row in result.sequences], [str(tree) for tree in result.beams or []]
        results.append((tokens, result.finish_reasons, result.scores, result.log_weights, trees))
    assert results[0] == results[1] == results[2]
    assert "eos" in results[0][1]


def test_a_row_without_a_token_is_reported_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def ban(logits: Tensor, context: Any) -> Tensor:
        return logits.masked_fill((context.generated == 2)[:, None], -torch.inf)

    monkeypatch.setattr(import_module("minitx.decoding.generate"), "ahead_of", lambda *_: 5)
    small = minitx.from_config(LLAMA, head="causal-lm", seed=0).eval()
    for strategy in (Greedy(processors=[ban]), Beam(num_beams=2, processors=[ban])):
        with pytest.raises(ValueError, match=r"Row 0, step 2: ban left no token"):
            minitx.generate(small, PROMPTS, strategy, max_new_tokens=9, stop=Stop(eos=()))


def test_what_is_read_at_every_step() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    open_end = Stop().resolved((), 40, None)
    plain = SimpleNamespace(sampler=None, stop=open_end, logprobs=None)
    drawing = SimpleNamespace(generator=torch.Generator())
    assert request.ahead_of(plain, cpu) == 1  # type: ignore[arg-type]
    assert request.ahead_of(plain, cuda) == request.AHEAD > 1  # type: ignore[arg-type]
    for name, value in {
        "sampler": drawing,
        "stop": Stop(seconds=9).resolved((), 40, None),
        "logprobs": "raw",
    }.items():
        changed = SimpleNamespace(**{**vars(plain), name: value})
        assert request.ahead_of(changed, cuda) == 1  # type: ignore[arg-type]
