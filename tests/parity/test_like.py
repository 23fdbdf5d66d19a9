"""`Sample.like("transformers")` draws what transformers draws where nothing is configured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minitx.decoding import Sample
from minitx.decoding.generate import generate
from minitx.decoding.text.stopping import Stop
from tests.parity.reference import pair
from tests.parity.test_generate import EOS, LENGTHS, NEW, PAD, check, left_padded, prompts


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_default_values(name: str, tmp_path: Path) -> None:
    """Their top_k is 50 of the 99 tokens: `Sample()` draws others."""
    reference, model = pair(name, "causal-lm", torch.float32, tmp_path)
    rows = prompts(LENGTHS)
    ids, mask = left_padded(rows)
    torch.manual_seed(0)
    out = reference.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        max_new_tokens=NEW,
        pad_token_id=PAD,
        eos_token_id=list(EOS),
    )
    tokens = []
    for row in out[:, ids.shape[1] :].tolist():
        ends = [place for place, token in enumerate(row) if token in EOS]
        tokens.append(row[: ends[0] + 1] if ends else row)
    for strategy in (Sample.like("transformers"), Sample()):
        generator = torch.Generator().manual_seed(0)
        result = generate(model, rows, strategy, max_new_tokens=NEW, stop=Stop(eos=EOS), generator=generator)
        if strategy == Sample():
            assert [row.tolist() for row in result.sequences] != tokens
        else:
            check(result, tokens, EOS)
