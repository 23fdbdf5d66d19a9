"""Watermarks against transformers: processors, detectors and generation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    BayesianDetectorConfig,
    BayesianDetectorModel,
    SynthIDTextWatermarkingConfig,
    SynthIDTextWatermarkLogitsProcessor,
    WatermarkDetector,
    WatermarkingConfig,
)
from transformers.generation import logits_process as reference

from minitx.decoding import KGW, Beam, Greedy, Sample, SynthID
from minitx.decoding.generate import generate
from minitx.decoding.generation_config import read_settings
from minitx.decoding.text.stopping import Stop
from tests.parity.reference import pair
from tests.parity.test_generate import expected, seeded
from tests.unit.decoding.histories import history, logits_of

EOS = (7, 11)
SCHEMES = [("lefthash", 1), ("lefthash", 3), ("selfhash", 1), ("selfhash", 4)]


def stated(seeding: str, width: int, **more: Any) -> dict[str, Any]:
    return {"seeding_scheme": seeding, "context_width": width, "hashing_key": 12_345_678_901, **more}


def ours(config: dict[str, Any]) -> KGW:
    return read_settings({"watermarking_config": config}).strategy.watermark


@pytest.mark.parametrize(("seeding", "width"), SCHEMES)
@pytest.mark.parametrize("size", [41, 300])
@pytest.mark.parametrize("kind", ["random", "holes"])
def test_green_lists(seeding: str, width: int, size: int, kind: str) -> None:
    config = stated(seeding, width, greenlist_ratio=0.4, bias=1.5)
    theirs = reference.WatermarkLogitsProcessor(size, "cpu", **config)
    rows = torch.randint(size, (5, 6), generator=torch.Generator().manual_seed(size))
    logits = logits_of(kind, 5, size)
    for length in range(1, 7):
        processed = ours(config)(logits, history(rows[:, :length].tolist()))
        assert torch.equal(processed, theirs(rows[:, :length], logits))


@pytest.mark.parametrize(("seeding", "width"), SCHEMES)
@pytest.mark.parametrize("distinct", [False, True])
def test_detector(seeding: str, width: int, distinct: bool) -> None:
    config = stated(seeding, width, greenlist_ratio=0.3)
    model = SimpleNamespace(bos_token_id=1, is_encoder_decoder=False, vocab_size=30)
    rows = torch.randint(2, 30, (3, 80), generator=torch.Generator().manual_seed(width))
    rows[1, 10:60] = rows[1, :10].repeat(5)
    detector = WatermarkDetector(model, "cpu", WatermarkingConfig(**config), ignore_repeated_ngrams=distinct)
    theirs = detector(rows, z_threshold=1.0, return_dict=True)
    for row, tokens in enumerate(rows):
        result = ours(config).detect(tokens, ignore_repeated_ngrams=distinct, z_threshold=1.0, vocab_size=30)
        assert result.num_tokens == theirs.num_tokens_scored[row]
        assert result.num_green == theirs.num_green_tokens[row]
        assert result.green_fraction == theirs.green_fraction[row]
        assert result.z_score == pytest.approx(theirs.z_score[row], abs=1e-12)
        assert result.p_value == pytest.approx(theirs.p_value[row], rel=1e-9)
        assert result.watermarked == theirs.prediction[row]
        begun = ours(config).detect(
            [1, *tokens], 1, ignore_repeated_ngrams=distinct, z_threshold=1.0, vocab_size=30
        )
        assert begun.num_tokens >= result.num_tokens


@pytest.mark.parametrize(("seeding", "width"), SCHEMES)
def test_generation(seeding: str, width: int, tmp_path: Path) -> None:
    config = stated(seeding, width, bias=3.0)
    theirs, model = pair("gpt2", "causal-lm", torch.float32, tmp_path)
    prompts = torch.randint(2, 99, (3, 5), generator=torch.Generator().manual_seed(3)).tolist()
    options: dict[str, Any] = {"max_new_tokens": 10, "stop": Stop(eos=EOS)}
    greedy = generate(model, prompts, Greedy(watermark=ours(config)), **options)
    wanted = expected(theirs, prompts, EOS, watermarking_config=WatermarkingConfig(**config))
    assert [row.tolist() for row in greedy.sequences] == wanted
    plain = generate(model, prompts, Greedy(), **options)
    assert [row.tolist() for row in plain.sequences] != wanted
    settings: dict[str, Any] = {"temperature": 0.8, "top_k": 20}
    drawn = generate(
        model, prompts, Sample(watermark=ours(config), **settings), generator=seeded(), **options
    )
    settings |= {"do_sample": True, "watermarking_config": WatermarkingConfig(**config)}
    assert [row.tolist() for row in drawn.sequences] == expected(theirs, prompts, EOS, **settings)
    beams = generate(model, prompts, Beam(num_beams=3, watermark=ours(config)), **options)
    settings = {"num_beams": 3, "watermarking_config": WatermarkingConfig(**config)}
    assert [row.tolist() for row in beams.sequences] == expected(theirs, prompts, EOS, **settings)


KEYS = [654, 400, 836, 123, 340, 443, 597, 160, 57, 29, 590, 639, 13, 715, 468, 990, 966, 226, 324, 585]
TOURNAMENTS: list[dict[str, Any]] = [
    {"keys": KEYS},
    {"keys": [7], "ngram_len": 2},
    {"keys": KEYS[:3], "ngram_len": 3, "context_history_size": 2, "sampling_table_size": 1000},
    {"keys": KEYS[:4], "sampling_table_seed": 5, "skip_first_ngram_calls": True},
]


def tournament(fields: dict[str, Any]) -> SynthIDTextWatermarkLogitsProcessor:
    config = SynthIDTextWatermarkingConfig(**{"ngram_len": 5, **fields})
    return config.construct_processor(99, "cpu")


@pytest.mark.parametrize("fields", TOURNAMENTS)
@pytest.mark.parametrize("kind", ["random", "holes"])
def test_tournament(fields: dict[str, Any], kind: str) -> None:
    """Texts of few tokens, whose contexts are repeated, after prompts of three."""
    theirs, mark = tournament(fields), SynthID(**fields)
    prompts = [[1, 2, 0], [2, 2, 2], [0, 1, 2], [5, 6, 7]]
    rows = torch.randint(3, (4, 24), generator=torch.Generator().manual_seed(1))
    logits = logits_of(kind, 4, 50)
    for steps in range(24):
        texts = [[*prompt, *row[:steps].tolist()] for prompt, row in zip(prompts, rows, strict=True)]
        processed = mark(logits, history(texts, 3))
        wanted = theirs(torch.tensor(texts), logits).masked_fill(logits == -torch.inf, -torch.inf)
        assert torch.equal(processed, wanted)


@pytest.mark.parametrize("fields", TOURNAMENTS)
def test_bits(fields: dict[str, Any]) -> None:
    theirs, mark = tournament(fields), SynthID(**fields)
    rows = torch.randint(4, (3, 90), generator=torch.Generator().manual_seed(2))
    bits, mask = theirs.compute_g_values(rows), theirs.compute_context_repetition_mask(rows)
    torch.manual_seed(0)
    depth = len(mark.keys)
    trained = BayesianDetectorModel(BayesianDetectorConfig(watermarking_depth=depth, base_rate=0.3))
    likelihood = trained.likelihood_model_watermarked
    likelihood.delta.data = torch.randn_like(likelihood.delta)
    for row in range(3):
        ours = mark.g_values([9, 9, *rows[row]], 2)
        assert torch.equal(ours, bits[row][mask[row]])
        result = mark.detect(rows[row])
        assert result.mean == pytest.approx(float(ours.double().mean()))
        if depth == 1:  # its squeeze() takes the layers for a batch
            continue
        posterior = mark.posterior(
            rows[row],
            beta=likelihood.beta.detach()[0, 0],
            delta=likelihood.delta.detach()[0, 0],
            prior=0.3,
        )
        wanted = trained(bits[row : row + 1].expand(2, -1, -1), mask[row : row + 1].expand(2, -1))[0][0]
        assert posterior == pytest.approx(wanted.item(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("fields", TOURNAMENTS)
def test_generation_with_a_tournament(fields: dict[str, Any], tmp_path: Path) -> None:
    theirs, model = pair("gpt2", "causal-lm", torch.float32, tmp_path)
    prompts = torch.randint(2, 99, (3, 5), generator=torch.Generator().manual_seed(3)).tolist()
    mark = read_settings({"watermarking_config": {"ngram_len": 5, **fields}}).strategy.watermark
    assert mark == SynthID(**fields)
    config = SynthIDTextWatermarkingConfig(**{"ngram_len": 5, **fields})
    for extra in ({}, {"temperature": 0.7, "top_k": 10}):
        strategy = Sample(watermark=mark, **extra)
        drawn = generate(model, prompts, strategy, max_new_tokens=10, stop=Stop(eos=EOS), generator=seeded())
        wanted = expected(theirs, prompts, EOS, do_sample=True, watermarking_config=config, **extra)
        assert [row.tolist() for row in drawn.sequences] == wanted
    greedy = generate(model, prompts, Greedy(watermark=mark), max_new_tokens=10, stop=Stop(eos=EOS))
    wanted = expected(theirs, prompts, EOS, watermarking_config=config)
    assert [row.tolist() for row in greedy.sequences] == wanted
