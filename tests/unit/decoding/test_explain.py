"""`explain` says what `generate` does; `score` what texts are worth."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import minitx
from minitx.decoding import Chain, Greedy, SuppressTokens, Temperature, TopK
from minitx.decoding.text.detokenize import text_of
from minitx.inspect.explain import LEGEND, Candidate, Position, Step, _recent, bar, render
from tests.unit.decoding.vocabularies import byte_level, sentence_piece, word_piece

CONFIG = {
    "model_type": "llama",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
}
STRATEGY = minitx.Sample(temperature=0.8, top_k=12, top_p=0.9, repetition_penalty=1.3)
NEVER = minitx.Stop(eos=())


@pytest.fixture(scope="module")
def model() -> Any:
    return minitx.from_config(CONFIG, head="causal-lm", seed=0).eval()


def test_it_draws_what_generate_draws(model: Any) -> None:
    for strategy in (STRATEGY, minitx.Greedy(repetition_penalty=1.3)):
        seed = {} if isinstance(strategy, minitx.Greedy) else {"seed": 3}
        found = minitx.explain(model, [5, 6, 7], strategy, max_new_tokens=6, stop=NEVER, **seed)
        result = minitx.generate(model, [[5, 6, 7]], strategy, max_new_tokens=6, stop=NEVER, **seed)
        assert [p.drawn.token for p in found.positions] == result.sequences[0].tolist()
        assert [p.length for p in found.positions] == [3, 4, 5, 6, 7, 8]


def test_every_step_by_hand(model: Any) -> None:
    (position,) = minitx.explain(
        model, [5, 6], minitx.Sample(temperature=0.5, top_k=3), seed=1, top=4
    ).positions
    logits = model(torch.tensor([[5, 6]])).logits[0, -1].double()
    raw, cooler = torch.softmax(logits, -1), torch.softmax(logits / 0.5, -1)
    assert [step.name for step in position.steps] == ["model", "Temperature 0.5", "TopK 3"]
    assert [step.kept for step in position.steps] == [60, 60, 3]
    best = cooler.topk(3).values
    for step, expected in zip(position.steps, (raw, cooler, best / best.sum()), strict=True):
        assert step.entropy == pytest.approx(-(expected * expected.log()).sum().item(), abs=1e-5)
        assert step.top[0].probability == pytest.approx(expected.max().item(), abs=1e-6)
        assert len(step.top) == min(4, step.kept)  # what was removed is not among the most probable
    assert position.steps[1].mass == pytest.approx(1.0, abs=1e-12)
    assert position.steps[2].mass == pytest.approx(best.sum().item(), abs=1e-6)
    assert position.drawn.probability == pytest.approx(
        next(c.probability for c in position.steps[2].top if c.token == position.drawn.token)
    )


def test_the_table_fits_and_marks_what_was_drawn(model: Any) -> None:
    found = minitx.explain(model, [5, 6, 7], STRATEGY, max_new_tokens=3, seed=3, top=6)
    text = str(found).removesuffix(LEGEND)
    assert max(map(len, text.splitlines())) <= 80
    assert sum(line.startswith("→") for line in text.splitlines()) == 3
    for name in ("model", "RepetitionPenalty 1.3", "Temperature 0.8", "TopK 12", "TopP 0.9"):
        assert text.count(name) == 3
    assert json.loads(json.dumps(found.to_json()))["positions"][0]["steps"][0]["name"] == "model"


def test_a_table_of_awkward_tokens() -> None:
    """Line ends can be seen, long texts are cut, and what was drawn is there even if it is not on top."""
    top = (Candidate(1, "\n\t", 0.6, 0.5), Candidate(2, "x" * 50, 0.4, 0.3))
    step = Step(name="SomeVeryLongNameOfAProcessorOfOnesOwn 0.123456", kept=2, mass=1.0, entropy=0.7, top=top)
    text = render(Position(length=4, steps=(step,), drawn=Candidate(9, " drawn", 0.001, 0.002)))
    assert "'\\n\\t'" in text
    assert "→ ' drawn'" in text
    assert max(map(len, text.splitlines())) <= 80


def test_small_probabilities_have_three_digits_everywhere() -> None:
    best = Candidate(126, None, 0.004, 0.004)
    step = Step(name="model", kept=300, mass=1.0, entropy=5.7, top=(best,), chosen=0.004)
    text = render(Position(length=4, steps=(step,), drawn=best))
    assert "0.004  #126 0.004" in text
    assert "0.00 " not in text
    assert "#id   a token without printable text" in LEGEND


def test_without_a_tokenizer_ids_do_not_look_like_texts(model: Any) -> None:
    found = minitx.explain(model, [5], minitx.Greedy())
    token = found.positions[0].drawn
    assert token.text is None
    assert f"token 2: #{token.token}, probability 0." in str(found)
    assert "'" not in str(found)


def test_half_a_character_has_no_text() -> None:
    tokenizer: Any = SimpleNamespace(
        decode=lambda ids: "".join("\ufffd" if each % 2 else f"t{each}" for each in ids), special_ids=()
    )
    assert (text_of(5, tokenizer), text_of(6, tokenizer)) == (None, "t6")
    assert (text_of(5, tokenizer, [6, 6]), text_of(6, tokenizer, [6, 5])) == (None, "t6")


def test_what_is_left_is_not_mistaken_for_what_was_removed(model: Any) -> None:
    """Even where all but one probability is rounded to 0."""
    chain = Chain(SuppressTokens(range(50)), Temperature(1e-6))
    (position,) = minitx.explain(model, [5], minitx.Sample(chain=chain), top=20).positions
    assert position.steps[-1].kept == 10
    assert sorted(each.token for each in position.steps[-1].top) == [*range(50, 60)]
    assert [each.probability for each in position.steps[-1].top] == [1.0] + 9 * [0.0]


def test_the_legend_comes_once_and_fits(model: Any) -> None:
    found = minitx.explain(model, [5], minitx.Greedy(), max_new_tokens=3)
    assert str(found).count(LEGEND) == 1
    assert max(map(len, LEGEND.splitlines())) <= 80
    for column in ("kept", "mass", "nats", "was", "→"):
        assert column in LEGEND
    assert "drawn" not in str(found)  # greedy draws nothing
    assert str(minitx.explain(model, [5], max_new_tokens=0)) == ""


def test_bars() -> None:
    assert bar(0.0) == ""
    assert bar(1.0) == "█" * 24
    assert bar(0.5) == "█" * 12
    assert len(bar(1 / 48)) == 1


def test_bars_are_relative_to_the_most_probable_token() -> None:
    top = (Candidate(1, "a", 0.02, 0.02), Candidate(2, "b", 0.01, 0.01))
    step = Step(name="model", kept=60, mass=1.0, entropy=3.9, top=top)
    lines = render(Position(length=4, steps=(step,), drawn=top[1])).splitlines()
    assert [line.count("█") for line in lines[-2:]] == [24, 12]


def test_the_last_tokens_and_the_chosen_one_are_shown(model: Any) -> None:
    found = minitx.explain(model, [*range(5, 25)], STRATEGY, max_new_tokens=2, seed=3)
    first, second = found.positions
    assert first.recent == " ".join(f"#{token}" for token in range(13, 25))
    assert second.recent.endswith(f"#24 #{first.drawn.token}")
    assert str(found).count("after #") == 2
    for position in found.positions:
        assert position.steps[0].chosen == pytest.approx(position.drawn.raw)
        assert position.steps[-1].chosen == pytest.approx(position.drawn.probability)
    tokenizer: Any = SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)), special_ids=())
    assert _recent([10, 97, 98], tokenizer) == "'\\nab'"


def test_a_literal_chain_and_a_function_of_ones_own_are_named(model: Any) -> None:
    def no_even_tokens(logits: torch.Tensor, context: Any) -> torch.Tensor:
        return logits.index_fill(1, torch.arange(0, 60, 2), -torch.inf)

    chain = Chain(no_even_tokens, Temperature(0.7), TopK(4))
    (position,) = minitx.explain(model, [5], minitx.Sample(chain=chain), seed=0).positions
    assert [s.name for s in position.steps] == ["model", "no_even_tokens", "Temperature 0.7", "TopK 4"]
    assert [s.kept for s in position.steps] == [60, 30, 30, 4]
    assert position.drawn.token % 2 == 1


def test_a_prompt_may_be_a_tensor_or_array(model: Any) -> None:
    expected = minitx.explain(model, [5, 6], minitx.Greedy())
    for prompt in (torch.tensor([5, 6]), np.array([5, 6]), (5, 6)):
        assert minitx.explain(model, prompt, minitx.Greedy()) == expected


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (None, TypeError, r"prompt=None must be one string, or the ids of one prompt; e.g. \[5, 6\]\."),
        (5, TypeError, "prompt=5 must be one string, or the ids of one"),
        (b"a", TypeError, "prompt=b'a' must be one string"),
        ([[5, 6]], ValueError, r"must be a single prompt, .*; leave out the outer brackets\."),
        ([[5], [6]], ValueError, "must be a single prompt, not a list of them; explain one after"),
        (["a", "b"], ValueError, "must be a single prompt, not a list of them; explain one after"),
        (torch.tensor([[5, 6]]), ValueError, "must be a single prompt, not a list of them"),
        (torch.tensor([0.5]), TypeError, "must be a list of token ids"),
        ([5, True], TypeError, "must be a list of token ids"),
        ([], ValueError, "must be at least one token"),
        ("a", ValueError, "or come with tokenizer="),
    ],
)
def test_other_prompts_are_refused(model: Any, prompt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        minitx.explain(model, prompt)


@pytest.mark.parametrize("top", [0, -1, 1.5, True])
def test_how_many_to_show(model: Any, top: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="top="):
        minitx.explain(model, [5], top=top)


def test_every_token_shows_what_the_model_gave_it(model: Any) -> None:
    """The one that was taken too, however improbable; steps change the one probability and not the other."""
    position = minitx.explain(model, [5], Greedy(logit_bias={3: 50.0}), top=np.int64(1)).positions[0]
    logits = model(torch.tensor([[5]])).logits[0, -1]
    assert position.drawn.token == 3
    assert position.drawn.raw == pytest.approx(torch.softmax(logits.double(), 0)[3].item(), rel=1e-5)
    assert f"1.000  was {position.drawn.raw:.3f}" in str(
        minitx.explain(model, [5], Greedy(logit_bias={3: 50.0}))
    )


# --- score -----------------------------------------------------------------------------------------


def test_scores_by_hand(model: Any) -> None:
    rows = [[5, 6, 7, 8], [9], [3, 3]]
    found = minitx.score(model, rows, batch_size=2)
    for row, values, total, perplexity in zip(
        rows, found.logprobs, found.totals, found.perplexities, strict=True
    ):
        table = torch.log_softmax(model(torch.tensor([row])).logits[0], -1)
        expected = [0.0] + [table[i, token].item() for i, token in enumerate(row[1:])]
        assert values.tolist() == pytest.approx(expected, abs=1e-4)
        assert total.item() == pytest.approx(sum(expected), abs=1e-4)
        if len(row) == 1:
            assert math.isnan(perplexity.item())
        else:
            assert perplexity.item() == pytest.approx(math.exp(-sum(expected) / (len(row) - 1)), rel=1e-4)


def test_scores_of_what_was_generated_are_its_raw_logprobs(model: Any) -> None:
    result = minitx.generate(model, [[5, 6]], STRATEGY, max_new_tokens=8, stop=NEVER, seed=0, logprobs="raw")
    whole = [5, 6, *result.sequences[0].tolist()]
    found = minitx.score(model, [whole])
    assert result.logprobs is not None
    assert found.logprobs[0][2:].tolist() == pytest.approx(result.logprobs[0].tolist(), abs=1e-4)


def test_scores_of_a_padded_tensor(model: Any) -> None:
    ids, mask = torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    found = minitx.score(model, ids, attention_mask=mask)
    alone = minitx.score(model, [[5, 6], [7, 8, 9]])
    assert torch.allclose(found.totals, alone.totals, atol=1e-5)


def test_score_refuses_what_generate_refuses(model: Any) -> None:
    with pytest.raises(ValueError, match=r"texts\[0\]=60 must be"):
        minitx.score(model, [[60]])
    with pytest.raises(ValueError, match="batch_size=0"):
        minitx.score(model, [[5]], batch_size=0)
    with pytest.raises(ValueError, match="predicts the next token, not of task"):
        minitx.score(minitx.from_config({**CONFIG, "model_type": "llama"}, head="none", seed=0).eval(), [[5]])


def test_ids_beyond_the_tokenizer_are_shown_by_number() -> None:
    for tokenizer in (byte_level(), sentence_piece(), word_piece(tidy=True)):
        size = len(tokenizer)
        model = minitx.from_config(CONFIG | {"vocab_size": size + 40}, head="causal-lm", seed=0).eval()
        suppress = tuple(range(size))
        prompt, options = [4, size + 1, 5], {"max_new_tokens": 3, "stop": NEVER, "tokenizer": tokenizer}
        explanation = minitx.explain(model, prompt, minitx.Greedy(suppress_tokens=suppress), **options)
        token = explanation.positions[0].drawn.token
        assert token >= size
        assert explanation.positions[0].drawn.text == ""
        assert f"#{token}" in str(explanation)
        result = minitx.generate(
            model, [prompt], minitx.Beam(num_beams=3, suppress_tokens=tuple(range(size))), **options
        )
        assert "#" in str(result.beams[0])
        assert result.texts == [""]
        assert tokenizer.decode([4, size + 1, 5]) == tokenizer.decode([4, 5])
