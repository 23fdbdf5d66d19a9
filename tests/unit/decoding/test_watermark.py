"""Green lists: null distribution, power, and the same marks in batches, beams and detectors."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import (
    KGW,
    Alternatives,
    Beam,
    BeamSample,
    Chain,
    DiverseBeam,
    Greedy,
    Sample,
    Strategy,
    TopK,
    Unigram,
)
from minitx.decoding.generate import generate
from minitx.decoding.generation_config import read_settings
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.text.stopping import Stop
from minitx.decoding.watermark import hashing
from tests.unit.decoding.chi_square import kolmogorov_smirnov
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.searches import tiny

NEVER = Stop(eos=())
WIDE = KGW(context_width=3)
SELF = KGW(seeding="selfhash", context_width=3)
MARKS = [KGW(), WIDE, SELF, KGW(seeding="selfhash"), Unigram(), KGW(lists="transformers")]
SIZE = 60


def size_of(mark: Any, size: int = SIZE) -> dict[str, int]:
    return {"vocab_size": size} if getattr(mark, "lists", "") == "transformers" else {}


@pytest.mark.parametrize(
    "mark", [{}, {"context_width": 3}, {"seeding": "selfhash", "context_width": 4}, None]
)
def test_text_without_the_watermark_has_a_standard_normal_score(mark: dict[str, Any] | None) -> None:
    """Over keys, of a text that repeats itself."""
    generator = torch.Generator().manual_seed(5)
    scores = []
    for key in range(200):
        tokens = torch.randint(3000, (500,), generator=generator).tolist()
        tokens += tokens[100:200] * 3
        kind: Any = Unigram(ratio=0.25, key=key) if mark is None else KGW(key=key, **mark)
        scores.append(kind.detect(tokens).z_score)
    numbers = torch.tensor(scores)
    assert kolmogorov_smirnov(torch.special.ndtr(torch.tensor(scores).double())) > 1e-3
    assert abs(float(numbers.mean())) < 4 / 200**0.5
    assert abs(float(numbers.std()) - 1) < 4 / 400**0.5


def test_repeated_text_is_no_evidence() -> None:
    """Negative control: counted again and again, a few tokens reach any score."""
    tokens = [5, 9, 7, 2, 8] * 200
    scores = [KGW(key=key).detect(tokens, ignore_repeated_ngrams=False).z_score for key in range(40)]
    assert torch.tensor(scores).std() > 5
    assert all(KGW(key=key).detect(tokens).num_tokens == 5 for key in range(3))


@pytest.mark.parametrize("mark", [KGW(bias=1.0), Unigram(ratio=0.4, bias=1.0)])
def test_the_score_grows_as_predicted(mark: Any) -> None:
    """Tokens drawn from uniform logits are green with q = r e^b / (r e^b + 1 - r)."""
    size, steps, rows = 1000, 50, 150
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(size, (rows, 1), generator=generator)
    for _ in range(steps):
        context = history(texts.tolist())
        processed = mark(torch.zeros(rows, size), context).softmax(dim=-1)
        texts = torch.cat([texts, torch.multinomial(processed, 1, generator=generator)], dim=1)
    scores = [mark.detect(row, 1, ignore_repeated_ngrams=False).z_score for row in texts]
    list_ratio = float((mark(torch.zeros(rows, size), context) > 0).double().mean())
    share = list_ratio * math.e / (list_ratio * math.e + 1 - list_ratio)
    spread = (steps * mark.ratio * (1 - mark.ratio)) ** 0.5
    predicted = steps * (share - mark.ratio) / spread
    error = (steps * share * (1 - share) / rows) ** 0.5 / spread
    assert abs(float(torch.tensor(scores).mean()) - predicted) < 4 * error + 0.05


def definition(mark: KGW, row: list[int], token: int) -> bool:
    """One token alone, of a list of Python integers."""
    before = row[-mark.context_width :] if mark.seeding == "lefthash" else row[len(row) - 2 :]
    return bool(mark.is_green(torch.tensor([[*before, token]]), 0))


@pytest.mark.parametrize("mark", [KGW(), WIDE, SELF])
def test_green_tokens_get_the_bias(mark: KGW) -> None:
    """Also in rows of other lengths, and only once the context is complete."""
    rows = [[1, 2, 3, 1, 2], [4], [7, 8, 9], []]
    logits = logits_of("random", 4, SIZE)
    processed = mark(logits, history(rows))
    tried = logits.topk(40).indices.tolist()
    for number, row in enumerate(rows):
        for token in range(SIZE):
            known = len(row) >= mark.context_width
            candidate = mark.seeding == "lefthash" or token in tried[number]
            green = known and candidate and definition(mark, row, token)
            assert processed[number, token] == logits[number, token] + 2.0 * green


def test_only_the_last_tokens_decide() -> None:
    logits = logits_of("random", 2, SIZE)
    for mark in (WIDE, SELF):
        processed = mark(logits[:1].expand(2, -1), history([[9, 1, 2, 3], [5, 6, 1, 2, 3]]))
        assert torch.equal(processed[0], processed[1])
        other = mark(logits[:1], history([[1, 3, 4]]))
        assert not torch.equal(processed[0], other[0])
    swapped = WIDE(logits[:1].expand(2, -1), history([[1, 2, 3], [2, 1, 3]]))
    assert not torch.equal(swapped[0], swapped[1])


def test_hashes_are_integers() -> None:
    """Fixed values, which every device has to give; a change would make old texts undetectable."""
    keys = hashing.context_keys(15485863, torch.tensor([[1, 2], [2, 1], [-1, 70000]]))
    assert keys.dtype == torch.long
    assert keys.tolist() == KEYS
    assert hashing.hashes(keys, torch.tensor([5, 6, 7])).tolist() == HASHES
    assert hashing.anchored_hashes(7, torch.tensor([[1, 2, 3], [3, 2, 1]])).tolist() == ANCHORED


KEYS = [-2934031757029192450, -1116123028111897759, -2532963749310571596]
HASHES = [2493521920, 1091922852, 91959726]
ANCHORED = [3693210884, 2529408754]


@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_generated_text_is_detected(mark: Any) -> None:
    """Greedy, drawn and beams, with ragged prompts; a batch gives what its rows give."""
    model = tiny(SIZE)
    strong = {"bias": 6.0, "ratio": 0.25, "key": 11}
    mark = type(mark)(**{**vars(mark), **strong})
    prompts = [[3, 4, 5], [1, 2, 3, 4, 5, 6], [7, 7, 8, 9]]
    strategies: list[tuple[Strategy, dict[str, Any]]] = [
        (Greedy(watermark=mark), {}),
        (Sample(watermark=mark, temperature=1.5), {"seed": 3}),
        (Beam(num_beams=3, watermark=mark), {}),
        (DiverseBeam(num_beams=4, num_beam_groups=2, watermark=mark), {}),
        (BeamSample(num_beams=3, watermark=mark), {"seed": 1}),
        (Alternatives(watermark=mark), {}),
    ]
    for strategy, options in strategies:
        options = {"max_new_tokens": 14, "stop": NEVER, **options}
        result = generate(model, prompts, strategy, **options)
        for prompt, row in zip(prompts, result.sequences, strict=True):
            alone = generate(model, [prompt], strategy, **options).sequences[0]
            assert alone.tolist() == row.tolist()
            found = mark.detect(
                [*prompt, *row.tolist()], len(prompt), ignore_repeated_ngrams=False, **size_of(mark)
            )
            assert found.num_tokens == 14
            assert found.green_fraction > 0.6
            assert found.watermarked


def test_it_comes_after_the_filters() -> None:
    for order in ("transformers", "vllm", "llama.cpp"):
        strategy = Sample(
            order=order, watermark=KGW(), top_k=3, temperature=0.5, min_p=0.1, renormalize_logits=True
        )
        names = [type(processor).__name__ for processor in strategy.build().processors]
        assert names[-2:] == ["KGW", "Renormalize"]
    assert Greedy(watermark=Unigram(), renormalize_logits=True).build().processors[0] == Unigram()


def test_a_search_that_stops_early_knows_that_scores_may_grow() -> None:
    chain: LogitsProcessor = Chain(KGW())
    assert not chain.keeps_log_probs_nonpositive(True)
    assert Chain(KGW(bias=-1.0)).keeps_log_probs_nonpositive()


def test_explain_shows_it() -> None:
    explained = minitx.explain(
        tiny(SIZE), [3, 4, 5], Sample(watermark=KGW(), top_k=5), max_new_tokens=2, stop=NEVER, seed=0
    )
    assert "KGW" in str(explained)


def test_detection_of_a_chain() -> None:
    """A watermark is a processor; in a literal chain it stands where its user puts it."""
    mark = Unigram(bias=9.0)
    result = generate(tiny(SIZE), [[3, 4]], Sample(chain=Chain(mark, TopK(20))), seed=0, max_new_tokens=12)
    found = mark.detect(result.sequences[0], ignore_repeated_ngrams=False)
    assert found.green_fraction == 1.0


def test_a_detection_prints_as_a_sentence() -> None:
    found = Unigram().detect([*range(400)])
    assert repr(found).startswith(f"{found.num_green} of 400 tokens are green, ")
    assert repr(found).endswith("no watermark found")


def test_settings_of_a_checkpoint() -> None:
    settings = read_settings({"watermarking_config": {"bias": 2.5, "seeding_scheme": "selfhash"}, "top_k": 5})
    mark = KGW(bias=2.5, seeding="selfhash", lists="transformers")
    assert settings.strategy == Greedy(watermark=mark)
    for stated, message in (
        ({"watermarking_config": {"color": "green"}}, "minitx does not know color"),
        ({"watermarking_config": {"greenlist_ratio": 1.0}}, r"ratio=1\.0 must be in \(0, 1\)"),
        ({"watermarking_config": [1]}, r"watermarking_config=\[1\] must be an object"),
    ):
        with pytest.raises(ValueError, match=message):
            read_settings(stated)


def test_a_checkpoint_keeps_its_settings(tmp_path: Any) -> None:
    model: Any = tiny.__wrapped__(SIZE)
    stated = {"watermarking_config": {"bias": 9.0}, "max_new_tokens": 8, "eos_token_id": [59]}
    model.checkpoint.generation_file = json.dumps(stated).encode()
    minitx.save(model, tmp_path / "saved")
    loaded: Any = minitx.load(tmp_path / "saved", head="causal-lm").eval()
    kept = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert kept["watermarking_config"] == {"bias": 9.0}
    for other in (model, loaded):
        result = generate(other, [[3, 4]], "checkpoint", stop=NEVER)
        mark = KGW(bias=9.0, lists="transformers")
        assert mark.detect([4, *result.sequences[0]], vocab_size=SIZE).green_fraction == 1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: KGW(ratio=0), ValueError, r"ratio=0 must be in \(0, 1\)"),
        (lambda: KGW(ratio=True), TypeError, "ratio=True must be a number"),
        (lambda: Unigram(ratio=1), ValueError, r"ratio=1 must be in \(0, 1\)"),
        (lambda: KGW(bias=torch.inf), ValueError, "bias=inf must be in"),
        (lambda: KGW(key=-1), ValueError, "key=-1 must be from 0"),
        (lambda: Unigram(key=0.5), TypeError, "key=0.5 must be an integer"),
        (lambda: KGW(context_width=0), ValueError, "context_width=0 must be at least 1"),
        (lambda: KGW(seeding="righthash"), ValueError, "seeding='righthash' must be one of"),
        (lambda: KGW(lists="vllm"), ValueError, "lists='vllm' must be one of"),
        (lambda: Greedy(watermark=2.0), TypeError, r"watermark=2\.0 must be a watermark such as KGW\(\)"),
        (lambda: KGW().detect([5]), ValueError, "tokens=.* must be at least 2 tokens, not 1"),
        (lambda: KGW().detect([5, 6, 7], 3), ValueError, "must be at least 4 tokens, not 3"),
        (lambda: Unigram().detect([]), ValueError, "must be at least 1 tokens, not 0"),
        (lambda: KGW().detect("text"), TypeError, "tokens='text' must be a list of token ids"),
        (lambda: KGW().detect([1, 2], -1), ValueError, "prompt_length=-1 must be at least 0"),
        (
            lambda: KGW().detect([1, 2], vocab_size=9),
            ValueError,
            "vocab_size=9 must be None for lists='hash'",
        ),
        (
            lambda: KGW(lists="transformers").detect([1, 2]),
            ValueError,
            "vocab_size=None must be the number of logits of the model",
        ),
        (lambda: KGW().detect([1, 2], z_threshold="3"), TypeError, "z_threshold='3' must be a number"),
        (lambda: KGW().detect([1, 2], ignore_repeated_ngrams=1), TypeError, "must be True or False"),
    ],
)
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_marks_are_values() -> None:
    assert KGW(ratio=torch.tensor(0.5)) == KGW(ratio=0.5)
    assert hash(KGW()) == hash(KGW(bias=2)) != hash(KGW(key=3))
    assert Greedy(watermark=KGW()) == Greedy(watermark=KGW())


def test_float64_stays() -> None:
    logits: Tensor = logits_of("holes", 2, SIZE).double()
    for mark in MARKS:
        processed = mark(logits, history([[1, 2, 3], [4, 5, 6]]))
        assert processed.dtype == torch.float64
        assert torch.equal(processed == -torch.inf, logits == -torch.inf)
