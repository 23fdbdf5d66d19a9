"""Log-probabilities of given texts, by definition and as something to train on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

import minitx
from minitx.decoding.score import score
from tests.unit.decoding.test_generate import MODEL, PROMPTS, TOKENIZER


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_scores_by_definition(dtype: torch.dtype, batch_size: int) -> None:
    """Against float64, from the logits of each text alone."""
    model = MODEL if dtype == torch.float32 else minitx.from_config(CONFIG, head="causal-lm", seed=0).eval()
    model = model.to(dtype)
    scores = score(model, PROMPTS, batch_size=batch_size)  # type: ignore[arg-type]
    for row, ids in enumerate(PROMPTS):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double()
        expected = log_softmax(logits, dim=-1)[range(len(ids) - 1), ids[1:]]
        tolerance = 1e-5 if dtype == torch.float32 else 0.1  # padding changes the last bits of the logits
        found = scores.logprobs[row]
        assert found.dtype == torch.float32
        assert found[0] == 0
        torch.testing.assert_close(found[1:].double(), expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(scores.totals[row], found.sum())
        if len(ids) > 1:
            torch.testing.assert_close(scores.perplexities[row], torch.exp(-found[1:].mean()))
        else:
            assert scores.perplexities[row].isnan()


CONFIG = {
    "model_type": "gpt2",
    "vocab_size": len(TOKENIZER),
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 64,
}


def test_a_score_may_enter_a_loss() -> None:
    scores = score(MODEL, PROMPTS[:2])
    weight = torch.ones(2, requires_grad=True)
    (weight * scores.totals).sum().backward()
    assert torch.equal(weight.grad, scores.totals)  # type: ignore[arg-type]
    assert not any(values.requires_grad for values in scores.logprobs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokenizer": "gpt2"}, TypeError, "tokenizer='gpt2' must be a Tokenizer; minitx.load_tokenizer"),
        ({"batch_size": True}, TypeError, "batch_size=True"),
        ({"batch_size": 1.5}, TypeError, "batch_size=1.5 must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be at least 1; texts per forward"),
        ({"texts": None}, TypeError, "texts=None must be a string"),
        ({"texts": []}, ValueError, r"texts=\[\] must be at least one sequence"),
        ({"texts": [[]]}, ValueError, r"texts\[0\]=\[\] must be at least one token"),
        ({"texts": ["a"]}, ValueError, "or come with tokenizer="),
        (
            {"texts": [[5]], "attention_mask": torch.ones(1, 1)},
            ValueError,
            "attention_mask=.* must be None unless texts is a",
        ),
    ],
)
def test_what_cannot_be_scored(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        score(MODEL, **{"texts": PROMPTS, **options})


def test_batch_size_may_be_numpys() -> None:
    assert torch.equal(score(MODEL, PROMPTS, batch_size=np.int64(2)).totals, score(MODEL, PROMPTS).totals)
