"""The coverage penalty of beam search (arXiv:1609.08144, equation 14)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx import Beam, BeamSample, Stop

T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 2,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "initializer_factor": 2.0,
}
SOURCES = [[5, 6, 7, 8, 1], [9, 10, 1]]
MODEL: Any = minitx.from_config(T5, head="seq2seq-lm", seed=3).eval()


def by_definition(source: list[int], tokens: Tensor, length_penalty: float, coverage: float) -> float:
    written = torch.cat((torch.tensor([0]), tokens[:-1]))[None]
    with torch.no_grad():
        out = MODEL(torch.tensor([source]), decoder_input_ids=written, output_cross_attentions=True)
    logprobs = torch.log_softmax(out.logits[0], dim=-1).gather(1, tokens[:, None])
    looks = out.cross_attentions[-1][0].mean(dim=0).sum(dim=0)  # of all tokens at each of the source
    return float(logprobs.sum() / len(tokens) ** length_penalty + coverage * looks.clamp(max=1).log().sum())


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("kind", [Beam, BeamSample])
def test_scores_are_those_of_the_definition(kind: type[Beam], length_penalty: float) -> None:
    strategy = kind(num_beams=6, length_penalty=length_penalty, coverage_penalty=0.7, early_stopping="never")
    more = {"seed": 1} if kind is BeamSample else {}
    result = minitx.generate(MODEL, SOURCES, strategy, num_samples=6, max_new_tokens=5, **more)
    assert result.scores is not None
    for row, (tokens, score) in enumerate(zip(result.sequences, result.scores, strict=True)):
        expected = by_definition(SOURCES[row // 6], tokens, length_penalty, 0.7)
        assert score == pytest.approx(expected, abs=1e-4)
    assert result.scores[:6] == sorted(result.scores[:6], reverse=True)
    for prompt, tree in enumerate(result.beams or []):
        shown = {node.rank: node.score for node in tree if node.rank is not None}
        assert [shown[rank] for rank in range(6)] == result.scores[6 * prompt : 6 * prompt + 6]


def test_it_changes_what_is_chosen_and_a_batch_is_its_rows() -> None:
    plain, covering = Beam(num_beams=8), Beam(num_beams=8, coverage_penalty=3.0)
    chosen = [
        [tokens.tolist() for tokens in minitx.generate(MODEL, SOURCES, each, max_new_tokens=6).sequences]
        for each in (plain, covering)
    ]
    assert chosen[0] != chosen[1]
    alone = [minitx.generate(MODEL, [source], covering, max_new_tokens=6).sequences[0] for source in SOURCES]
    assert [tokens.tolist() for tokens in alone] == chosen[1]


def test_only_what_was_read_can_be_covered() -> None:
    decoder: Any = minitx.from_config(
        {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 20},
        head="causal-lm",
        seed=0,
    ).eval()
    with pytest.raises(ValueError, match=r"coverage_penalty=0\.5 must be 0 for models without an encoder"):
        minitx.generate(decoder, [[5]], Beam(coverage_penalty=0.5), max_new_tokens=2, stop=Stop(eos=()))
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="coverage_penalty="):
            Beam(coverage_penalty=wrong)


def test_what_a_search_returns_may_enter_a_loss() -> None:
    result = minitx.generate(MODEL, SOURCES, Beam(num_beams=2), max_new_tokens=3, logprobs="raw")
    assert result.logprobs is not None
    assert not any(each.is_inference() for each in (*result.sequences, *result.logprobs))
