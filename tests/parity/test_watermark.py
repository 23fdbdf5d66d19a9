"""Watermarks against transformers: processors, detectors and generation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import WatermarkDetector, WatermarkingConfig
from transformers.generation import logits_process as reference

from minitx.decoding import KGW, Beam, Greedy, Sample
from minitx.decoding.generate import generate
from minitx.decoding.generation_config import read_settings
from minitx.decoding.stopping import Stop
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
