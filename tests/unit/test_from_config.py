"""`minitx.from_config`: what its seed may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minitx

SIZES = {"vocab_size": 20, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 32}
GPT2: dict[str, Any] = {"model_type": "gpt2", **SIZES}


@pytest.mark.parametrize("seed", [1.5, True, "1", [1], torch.tensor(1)])
def test_seeds_that_are_no_whole_number(seed: Any) -> None:
    with pytest.raises(TypeError, match=r"^seed=.* must be an integer from 0 to \d+; None draws"):
        minitx.from_config(GPT2, seed=seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 10**400])
def test_seeds_that_are_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=r"^seed=.* must be from 0 to 18446744073709551615"):
        minitx.from_config(GPT2, seed=seed)


def test_an_empty_head_is_none_of_the_heads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^head='' must be one of 'causal-lm'"):
        minitx.from_config(GPT2, head="")
    minitx.save(minitx.from_config(GPT2, head="causal-lm"), tmp_path)
    with pytest.raises(ValueError, match=r"^head='' must be one of 'causal-lm'"):
        minitx.load(tmp_path, head="")


def test_equal_seeds_are_equal_weights() -> None:
    words = [
        minitx.from_config(GPT2, seed=seed).embedder.word_emb.weight
        for seed in (0, 7, np.int64(7), 2**64 - 1)
    ]
    assert torch.equal(words[1], words[2])
    for i, j in ((0, 1), (1, 3), (0, 3)):
        assert not torch.equal(words[i], words[j])


def test_a_misspelt_key_is_suggested() -> None:
    with pytest.raises(
        ValueError, match=r"is 'activation_fonction' a misspelling of 'activation_function'\?"
    ):
        minitx.from_config({**GPT2, "activation_fonction": "relu"})
    with pytest.raises(
        ValueError, match=r"\(is 'resid_drop' a misspelling of 'resid_pdrop'\?\); ignore_keys="
    ):
        minitx.from_config({**GPT2, "resid_drop": 0.0})
    with pytest.raises(ValueError, match=r"n_head=None must be present; is 'n_heads' a misspelling of it\?"):
        minitx.from_config(
            {"model_type": "gpt2", **{k.replace("head", "heads"): v for k, v in SIZES.items()}}
        )
    with pytest.raises(
        ValueError, match=r"for model_type 'gpt2'; ignore_keys=\('novelty',\) loads without\.$"
    ):
        minitx.from_config({**GPT2, "novelty": 1})
