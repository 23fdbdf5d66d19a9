"""First-token alternatives: the best first tokens, each continued greedily."""

from __future__ import annotations

import pytest
import torch

from minitx.decoding import Alternatives, Greedy
from minitx.decoding.generate import generate
from minitx.decoding.samplers.alternatives import FirstRank
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.searches import PROMPT, all_texts, tiny, tokens

Z = torch.tensor([[0.1, 3.0, 2.0, 3.0, -torch.inf], [5.0, 1.0, 2.0, 0.0, 4.0]]).repeat_interleave(3, dim=0)


def test_ranks_then_the_best() -> None:
    """Of equal tokens the lowest id ranks first."""
    sampler = FirstRank(2, 3)
    assert sampler(Z, 0).tolist() == [1, 3, 2, 0, 4, 2]
    assert sampler(Z, 1).tolist() == [1, 1, 1, 0, 0, 0]
    assert sampler(Z, torch.tensor([1, 0, 0, 0, 1, 0])).tolist() == [1, 3, 2, 0, 0, 2]


def test_more_rows_than_tokens() -> None:
    with pytest.raises(ValueError, match="num_samples=6 must be at most 4; row 4 has no more"):
        FirstRank(1, 6)(Z[:1].expand(6, -1), 0)
    with pytest.raises(ValueError, match="must be at most 5; row 5"):
        FirstRank(1, 7)(Z[3:4].expand(7, -1), 0)


def test_each_continues_greedily() -> None:
    options = {"max_new_tokens": 5, "stop": Stop(eos=())}
    fields = {"repetition_penalty": 1.3, "suppress_tokens": [2]}
    prompts = [list(PROMPT), [1], [2, 2, 4]]
    result = generate(tiny(), prompts, Alternatives(**fields), num_samples=3, logprobs="processed", **options)
    rows = tokens(result)
    firsts = [logprobs[0].item() for logprobs in result.logprobs]
    for number, prompt in enumerate(prompts):
        mine = rows[number * 3 : number * 3 + 3]
        assert len({text[0] for text in mine}) == 3
        assert (
            sorted(firsts[number * 3 : number * 3 + 3], reverse=True) == firsts[number * 3 : number * 3 + 3]
        )
        assert mine[0] == tokens(generate(tiny(), [prompt], Greedy(**fields), **options))[0]
        for text in mine:
            later = {**options, "max_new_tokens": 4}
            after = generate(tiny(), [[*prompt, text[0]]], Greedy(**fields), **later)
            assert tokens(after)[0] == text[1:]


def test_all_first_tokens() -> None:
    result = generate(tiny(), [list(PROMPT)], Alternatives(), num_samples=5, max_new_tokens=1)
    ranked = sorted(all_texts(1).items(), key=lambda item: -item[1])
    assert tokens(result) == [text for text, _ in ranked]
    with pytest.raises(ValueError, match="num_samples=6 must be at most 5; row 5"):
        generate(tiny(), [list(PROMPT)], Alternatives(), num_samples=6, max_new_tokens=1)


def test_nothing_is_drawn() -> None:
    with pytest.raises(ValueError, match=r"seed=1 must be left out; Alternatives\(\) draws nothing"):
        generate(tiny(), [list(PROMPT)], Alternatives(), num_samples=2, max_new_tokens=1, seed=1)
