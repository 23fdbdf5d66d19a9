"""Generation against transformers: the same tokens, greedy and drawn, alone and in left-padded batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import minitx
from minitx.decoding import Greedy, Sample
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.text.stopping import Stop
from minitx.models import Model
from minitx.optimize.linear import LARGE, FastLinear
from tests.parity.cases import BY_NAME, CASES
from tests.parity.reference import pair, randomise

DECODERS = [case for case in CASES if "causal-lm" in case.heads]
PAD, EOS = 0, (7, 11)
NEW = 10
LENGTHS = (5, 9, 1, 7)


def prompts(lengths: tuple[int, ...], seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, 99, (length,), generator=generator).tolist() for length in lengths]


def left_padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def expected(reference: Any, rows: list[list[int]], eos: tuple[int, ...], **options: Any) -> list[list[int]]:
    """What transformers generates, each row up to its end token."""
    ids, mask = left_padded(rows)
    torch.manual_seed(0)
    options = {"max_new_tokens": NEW, "do_sample": False, "top_k": 0, **options}
    out = reference.generate(
        ids, attention_mask=mask, pad_token_id=PAD, eos_token_id=list(eos) or None, **options
    )
    found = []
    for row in out[:, ids.shape[1] :].tolist():
        ends = [place for place, token in enumerate(row) if token in eos]
        found.append(row[: ends[0] + 1] if ends else row)
    return found


def check(result: Result, tokens: list[list[int]], eos: tuple[int, ...]) -> None:
    assert [row.tolist() for row in result.sequences] == tokens
    for row, reason in zip(tokens, result.finish_reasons, strict=True):
        assert reason == ("eos" if row and row[-1] in eos else "length")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", [case.name for case in DECODERS])
def test_every_decoder(name: str, root: Path) -> None:
    """Greedy and sampling, one prompt and prompts of four lengths."""
    reference, model = pair(name, "causal-lm", torch.float32, root)
    # Where a text outgrows LongRoPE's short factors, minitx runs it anew; transformers does so for one
    # architecture alone, and for others goes on with keys that were turned by the wrong factors.
    options = {"use_cache": False} if name == "llama-longrope" else {}
    # Rows of one length come to be long together: then it does not matter that in transformers the longest
    # row says how all positions turn. That a batch gives what its rows give, test_rope.py shows.
    lengths = (6, 6, 6, 6) if BY_NAME[name].depends_on_length else LENGTHS
    for rows in (prompts((6,)), prompts(lengths)):
        tokens = expected(reference, rows, (), **options)
        check(generate(model, rows, Greedy(), max_new_tokens=NEW, stop=Stop(eos=())), tokens, ())
        tokens = expected(reference, rows, EOS, do_sample=True, **options)
        drawn = generate(model, rows, Sample(), max_new_tokens=NEW, stop=Stop(eos=EOS), generator=seeded())
        check(drawn, tokens, EOS)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "mixtral"])
def test_several_samples_share_the_prompt(name: str, root: Path) -> None:
    reference, model = pair(name, "causal-lm", torch.float32, root)
    rows = prompts((6, 4))
    tokens = expected(reference, rows, EOS, do_sample=True, num_return_sequences=3)
    result = generate(
        model,
        rows,
        Sample(),
        max_new_tokens=NEW,
        num_samples=3,
        stop=Stop(eos=EOS),
        generator=seeded(),
        prefill_chunk=4,
    )
    check(result, tokens, EOS)


def even_tokens(row: int, tokens: Tensor) -> list[int]:
    """Allowed after a token are those that are even or odd as it is."""
    return list(range(2 + int(tokens[-1]) % 2, 99, 2))


SHARED: list[dict[str, Any]] = [
    {"repetition_penalty": 1.8},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1},
    {"encoder_repetition_penalty": 0.7},
    {"encoder_no_repeat_ngram_size": 1},
    {"sequence_bias": {(5,): -3.0, (8,): 4.0, (8, 9): 20.0, (3, 4): -9.0}},
    {"bad_words_ids": [*([token] for token in range(40, 70)), [8, 9], [9, 3, 8]]},
    {"min_length": 18},
    {"min_new_tokens": 4},
    {"forced_bos_token_id": 44},
    {"forced_eos_token_id": 7},
    {"suppress_tokens": [*range(30, 60)]},
    {"begin_suppress_tokens": [*range(2, 90)]},
    {"exponential_decay_length_penalty": (3, 1.6)},
    {"prefix_allowed_tokens_fn": even_tokens},
    {"remove_invalid_values": True},
    {"renormalize_logits": True},
]
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0.6},
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"typical_p": 0.6},
    {"epsilon_cutoff": 0.02},
    {"eta_cutoff": 0.1},
    {"top_h": 0.5},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.95},
]
TOGETHER: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "temperature": 0.8, "top_p": 0.9},
    {"min_new_tokens": 5, "suppress_tokens": [20, 21, 22], "top_k": 9, "renormalize_logits": True},
    {"bad_words_ids": [[13]], "sequence_bias": {(8,): 5.0}, "forced_eos_token_id": 7, "min_p": 0.1},
]


def names(options: dict[str, Any]) -> str:
    return "-".join(options)


@pytest.mark.parametrize("options", [*SHARED, *SAMPLING, *TOGETHER], ids=names)
def test_every_parameter(options: dict[str, Any], root: Path) -> None:
    """In greedy decoding, in sampling, on two models; somewhere it changes what is generated."""
    changed = []
    for name in ("gpt2", "llama"):
        reference, model = pair(name, "causal-lm", torch.float32, root)
        for sample in (True, False) if options in SHARED else (True,):
            changed += [compare(reference, model, options, rows, sample=sample) for rows in batches(options)]
    assert any(changed) == NO_CHANGE.isdisjoint(options) or len(options) > 1


NO_CHANGE = {"remove_invalid_values", "renormalize_logits"}


def batches(options: dict[str, Any]) -> list[list[list[int]]]:
    """One prompt, and four of different lengths; with repetitions, for what looks for them."""
    if "forced_bos_token_id" in options:
        # The reference forces the first token where the batch is one token wide, minitx where the row is.
        return [prompts((1,)), prompts((1, 1))]
    rows = prompts(LENGTHS)
    rows[0] = [5, 3, 8, 9, 3, 8, 9, 3, 8]
    return [rows[:1], rows]


def compare(
    reference: Any, model: Model, options: dict[str, Any], rows: list[list[int]], *, sample: bool
) -> bool:
    """Checks the tokens; returns whether they are others than without the options."""
    fields = {key: value for key, value in options.items() if key != "min_new_tokens"}
    tokens = expected(reference, rows, EOS, do_sample=sample, **options)
    result = generate(
        model,
        rows,
        Sample(**fields) if sample else Greedy(**fields),
        max_new_tokens=NEW,
        min_new_tokens=options.get("min_new_tokens", 0),
        stop=Stop(eos=EOS),
        generator=seeded() if sample else None,
    )
    check(result, tokens, EOS)
    return tokens != expected(reference, rows, EOS, do_sample=sample)


@pytest.mark.parametrize("rows", [1, 3, 7, 17])
def test_a_model_large_enough_for_the_other_products(rows: int, tmp_path: Path) -> None:
    """The other cases are too small for `fast_linear` to choose: here every projection does."""
    config = transformers.GPT2Config(
        n_embd=256,
        n_head=4,
        n_layer=2,
        vocab_size=1856,
        n_positions=64,
        pad_token_id=PAD,
        eos_token_id=EOS[0],
    )
    reference = transformers.GPT2LMHeadModel(config)
    randomise(reference)
    reference.eval().save_pretrained(tmp_path)
    model = minitx.load(tmp_path)
    weights = [m.weight for m in model.modules() if type(m) is FastLinear]
    assert all(w.is_contiguous() and w.numel() >= LARGE for w in weights)
    assert len(weights) == 13
    texts = prompts((6,) * rows)
    tokens = expected(reference, texts, ())
    check(generate(model, texts, Greedy(), max_new_tokens=NEW, stop=Stop(eos=())), tokens, ())
    with torch.inference_mode():
        ids = torch.tensor(texts)
        theirs, ours = reference(ids).logits, torch.cat([model(x[None]).logits for x in ids])
    assert ((theirs - ours).abs().max() / theirs.abs().max()).item() <= 1e-5
