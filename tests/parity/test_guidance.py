"""Classifier-free guidance against transformers: the same tokens, with and without negative prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.decoding import ClassifierFree, Greedy, Sample
from minitx.decoding.generate import generate
from minitx.decoding.text.stopping import Stop
from tests.parity.reference import pair
from tests.parity.test_generate import EOS, NEW, expected, prompts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guidance")


@pytest.mark.parametrize(
    ("name", "scale", "dtype"),
    [
        ("gpt2", 1.5, torch.float64),
        ("llama", 0.0, torch.float64),
        ("llama", 1.0, torch.float64),
        ("llama", 3.0, torch.float64),
        ("gemma2", 1.5, torch.float32),
        ("mixtral", 0.5, torch.float64),
    ],
    ids=str,
)
def test_the_last_token_is_the_unconditional_prompt(
    name: str, scale: float, dtype: torch.dtype, root: Path
) -> None:
    """A ragged batch, greedy and drawn, before a penalty and a filter."""
    reference, model = pair(name, "causal-lm", dtype, root)
    rows, guidance = prompts((5, 9, 1, 7)), ClassifierFree(scale)
    tokens = expected(reference, rows, EOS, guidance_scale=scale)
    stop: dict[str, Any] = {"max_new_tokens": NEW, "stop": Stop(eos=EOS), "guidance": guidance}
    result = generate(model, rows, Greedy(), **stop)
    assert [row.tolist() for row in result.sequences] == tokens
    options: dict[str, Any] = {"repetition_penalty": 1.3, "top_k": 20}
    tokens = expected(reference, rows, EOS, guidance_scale=scale, do_sample=True, **options)
    generator = torch.Generator().manual_seed(0)
    result = generate(model, rows, Sample(**options), generator=generator, **stop)
    assert [row.tolist() for row in result.sequences] == tokens


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_negative_prompts(name: str, root: Path) -> None:
    """Of one length: transformers numbers the padding of shorter negative prompts too."""
    reference, model = pair(name, "causal-lm", torch.float64, root)
    rows, negative = prompts((5, 9, 1, 7)), prompts((4, 4, 4, 4), seed=9)
    for scale in (-1.0, 1.5):
        ids = torch.tensor(negative)
        tokens = expected(reference, rows, EOS, guidance_scale=scale, negative_prompt_ids=ids)
        result = generate(
            model,
            rows,
            Greedy(),
            max_new_tokens=NEW,
            stop=Stop(eos=EOS),
            guidance=ClassifierFree(scale, negative),
        )
        assert [row.tolist() for row in result.sequences] == tokens


def test_the_distributions_are_equal(root: Path) -> None:
    reference, model = pair("llama", "causal-lm", torch.float64, root)
    row = prompts((6,))
    out = reference.generate(
        torch.tensor(row),
        max_new_tokens=NEW,
        do_sample=False,
        guidance_scale=2.0,
        negative_prompt_ids=torch.tensor([[3, 4]]),
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        eos_token_id=None,
    )
    theirs = torch.cat(out.scores).log_softmax(-1).float()
    result = generate(
        model,
        row,
        Greedy(),
        max_new_tokens=NEW,
        stop=Stop(eos=()),
        guidance=ClassifierFree(2.0, [[3, 4]]),
        logprobs="raw",
        top_logprobs=theirs.shape[1],
    )
    assert result.top_logprobs is not None
    ids, values = result.top_logprobs[0]
    ours = torch.empty_like(theirs).scatter_(1, ids, values)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
