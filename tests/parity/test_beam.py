"""Beam search and beam sampling against transformers: the same tokens, the same scores."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import minitx
from minitx.decoding import Beam, BeamSample
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.text.stopping import Stop
from tests.parity.cases import BY_NAME
from tests.parity.reference import pair
from tests.parity.test_generate import DECODERS, LENGTHS, PAD, left_padded, seeded

VOCABULARY = 40
EOS = (7, 11, 23)
NEW = 12
PENALTIES = (-1.0, 0.0, 0.6, 1.0, 2.0)
EARLY: tuple[Any, ...] = (True, False, "never")
# Of the scores: float32 sums of up to 30 log-probabilities, whose sizes are below 10.
TOLERANCE = 2e-5
KINDS = ("gpt2", "llama")


@cache
def models(kind: str, seed: int = 0, spread: float = 0.15) -> tuple[Any, Any]:
    """Small models that say something else at every step, so that beams differ and end tokens come."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "initializer_range": spread}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32, n_head=4, n_layer=2, n_positions=64, tie_word_embeddings=False, **sizes, **SPECIAL
        )
        reference = transformers.GPT2LMHeadModel(config).eval()
    else:
        config = transformers.LlamaConfig(
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_hidden_layers=2,
            intermediate_size=48,
            max_position_embeddings=64,
            **sizes,
            **SPECIAL,
        )
        reference = transformers.LlamaForCausalLM(config).eval()
    with TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        return reference, minitx.load(folder)


SPECIAL = {"bos_token_id": 2, "eos_token_id": 1}


def prompts(lengths: tuple[int, ...], seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def even_tokens(prompt: int, tokens: Tensor) -> list[int]:
    """Allowed after a token are those that are even or odd as it is, in every other prompt the others."""
    return list(range(2 + (int(tokens[-1]) + prompt) % 2, VOCABULARY, 2))


def expected(
    reference: Any, rows: list[list[int]], eos: tuple[int, ...], samples: int, **options: Any
) -> tuple[list[list[int]], list[float]]:
    """What transformers finds: each hypothesis up to its end token, and its score."""
    ids, mask = left_padded(rows)
    torch.manual_seed(0)
    out = reference.generate(
        ids,
        attention_mask=mask,
        pad_token_id=PAD,
        eos_token_id=list(eos) or None,
        num_return_sequences=samples,
        return_dict_in_generate=True,
        output_scores=True,
        **{"max_new_tokens": NEW, "do_sample": False, "top_k": 0, **options},
    )
    found = []
    for row in out.sequences[:, ids.shape[1] :].tolist():
        ends = [place for place, token in enumerate(row) if token in eos]
        found.append(row[: ends[0] + 1] if ends else row)
    return found, out.sequences_scores.tolist()


def check(result: Result, tokens: list[list[int]], scores: list[float]) -> None:
    assert [row.tolist() for row in result.sequences] == tokens
    assert result.scores == pytest.approx(scores, rel=TOLERANCE, abs=TOLERANCE)


def compare(
    reference: Any, model: Any, rows: list[list[int]], eos: tuple[int, ...], samples: int, **options: Any
) -> Result:
    """Both with the same options, in the words of transformers."""
    call = {name: options[name] for name in ("max_new_tokens", "min_new_tokens") if name in options}
    fields = {name: value for name, value in options.items() if name not in call}
    kind = BeamSample if fields.pop("do_sample", False) else Beam
    result = generate(
        model,
        rows,
        kind(**fields),
        num_samples=samples,
        stop=Stop(eos=eos),
        generator=seeded() if kind is BeamSample else None,
        **{"max_new_tokens": NEW, **call},
    )
    check(result, *expected(reference, rows, eos, samples, **options))
    return result


@pytest.mark.parametrize(("kind", "spread"), [("gpt2", 0.15), ("llama", 0.3)])
@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_way_to_stop(kind: str, spread: float, early: Any, penalty: float) -> None:
    """1 to 3 end tokens, one to all hypotheses returned, one prompt and four of different lengths."""
    reference, model = models(kind, 0, spread)
    for ends, samples in ((1, 4), (2, 1), (3, 3)):
        for rows in (prompts((6,)), prompts(LENGTHS, seed=ends)):
            options = {"num_beams": 4, "early_stopping": early, "length_penalty": penalty}
            options["max_new_tokens"] = 24
            compare(reference, model, rows, EOS[:ends], samples, **options)


def test_the_ways_to_stop_differ() -> None:
    """Else the test above would not see one in the place of another."""
    reference, model = models("llama", 0, 0.3)
    found = set()
    for early in EARLY:
        options = {"num_beams": 4, "early_stopping": early, "length_penalty": 1.0, "max_new_tokens": 30}
        found.add(str(compare(reference, model, prompts(LENGTHS), EOS, 4, **options).sequences))
    assert len(found) == 3


@pytest.mark.parametrize("name", [case.name for case in DECODERS])
def test_every_decoder(name: str, root: Path) -> None:
    reference, model = pair(name, "causal-lm", torch.float32, root)
    # As in test_generate.py: transformers goes on with keys that were turned by the wrong factors, and the
    # longest row says how all positions turn.
    options = {"use_cache": False} if name == "llama-longrope" else {}
    rows = prompts((6, 6, 6) if BY_NAME[name].depends_on_length else LENGTHS)
    tokens, scores = expected(reference, rows, EOS, 2, num_beams=3, **options)
    strategy = Beam(num_beams=3)
    result = generate(model, rows, strategy, num_samples=2, max_new_tokens=NEW, stop=Stop(eos=EOS))
    check(result, tokens, scores)


PROCESSORS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 0.7},
    {"encoder_no_repeat_ngram_size": 1},
    {"sequence_bias": {(5,): -3.0, (8,): 2.0, (8, 9): 4.0, (3, 4): -9.0}},
    {"bad_words_ids": [*([token] for token in range(20, 30)), [8, 9], [9, 3, 8]]},
    {"min_length": 9 + NEW},  # of the longest prompt: padding counts in the reference
    {"min_new_tokens": 4},
    {"min_new_tokens": NEW},
    {"forced_eos_token_id": 7},
    {"forced_eos_token_id": 7, "max_new_tokens": 1},
    {"suppress_tokens": [*range(20, 35)]},
    {"begin_suppress_tokens": [*range(2, 30)]},
    {"exponential_decay_length_penalty": (3, 1.6)},
    {"prefix_allowed_tokens_fn": even_tokens},
    {"renormalize_logits": True},
    {"max_new_tokens": 1},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 5, "renormalize_logits": True},
]


@pytest.mark.parametrize("options", PROCESSORS, ids="-".join)
def test_processors_inside(options: dict[str, Any]) -> None:
    for kind in KINDS:
        reference, model = models(kind)
        for rows in (prompts((9,)), prompts(LENGTHS)):
            samples = 1 if "forced_eos_token_id" in options else 3
            compare(reference, model, rows, EOS[:2], samples, num_beams=3, **options)


@pytest.mark.parametrize("seed", range(40))
def test_random_settings(seed: int) -> None:
    draw = random.Random(seed)
    reference, model = models(draw.choice(KINDS), seed % 3, draw.choice((0.15, 0.3)))
    beams = draw.randint(2, 6)
    options = {
        "num_beams": beams,
        "early_stopping": draw.choice(EARLY),
        "length_penalty": draw.choice((*PENALTIES, draw.uniform(-3, 3))),
        "max_new_tokens": draw.choice((1, 3, 8, 20, 30)),
    }
    if draw.random() < 0.5:
        options |= draw.choice(
            [each for each in PROCESSORS if each.keys().isdisjoint(("max_new_tokens", "min_length"))]
        )
    options["min_new_tokens"] = min(options.get("min_new_tokens", 0), options["max_new_tokens"])
    eos = tuple(draw.sample(range(2, VOCABULARY), draw.choice((1, 2, 3, 9))))
    if "forced_eos_token_id" in options:
        options["forced_eos_token_id"] = eos[0]
    rows = prompts(tuple(draw.randint(1, 9) for _ in range(draw.choice((1, 2, 5)))), seed)
    # Where one token is left at the only step, there are no others to return.
    samples = 1 if options["max_new_tokens"] == 1 else draw.randint(1, beams)
    compare(reference, model, rows, eos, samples, **options)


SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"top_k": 1},
    {"top_k": 5},
    {"top_p": 0.1},
    {"min_p": 0.9},
    {"typical_p": 0.1},
    {"epsilon_cutoff": 0.5},
    {"eta_cutoff": 0.9},
    {"top_h": 0.6},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.95},
    {"repetition_penalty": 1.3, "renormalize_logits": True, "early_stopping": True},
    {"early_stopping": "never", "length_penalty": 2.0},
]


@pytest.mark.parametrize("options", SAMPLING, ids=lambda options: "-".join(options) or "plain")
def test_beam_sampling_draws_the_same(options: dict[str, Any]) -> None:
    """With few end tokens and several: the filters keep more tokens, the more there are."""
    for kind, rows in (("gpt2", prompts((6,))), ("llama", prompts(LENGTHS))):
        reference, model = models(kind)
        for eos in (EOS[:1], EOS):
            compare(reference, model, rows, eos, 2, num_beams=3, do_sample=True, **options)


def test_a_vocabulary_of_usual_size(tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        n_embd=32, n_head=4, n_layer=2, vocab_size=32128, n_positions=64, pad_token_id=PAD, eos_token_id=7
    )
    torch.manual_seed(0)
    reference = transformers.GPT2LMHeadModel(config).eval()
    reference.save_pretrained(tmp_path)
    compare(reference, minitx.load(tmp_path), prompts((5, 3)), (7,), 4, num_beams=4)
