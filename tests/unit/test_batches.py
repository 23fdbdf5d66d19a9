"""Generation in batches, its rows as plain values, and strategies from flat options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx import Beam, BeamSample, Greedy, Sample
from minitx.pipelines import Conversation, generate_batches, row_record, strategy_from_options
from tests.unit.test_cli_generate import folder, model, tokenizer

__all__ = ["folder", "model", "tokenizer"]  # fixtures


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_batches_change_nothing(model: Any, tokenizer: minitx.Tokenizer, batch_size: int) -> None:
    prompts = ["a b", "c", "a b", "d e f"]
    options: dict[str, Any] = {"max_new_tokens": 6, "tokenizer": tokenizer, "stop": minitx.Stop(eos=())}
    results = generate_batches(model, prompts, Greedy(), batch_size=batch_size, **options)
    rows = [row.tokens.tolist() for result in results for row in result]
    assert rows == [row.tolist() for row in minitx.generate(model, prompts, Greedy(), **options).sequences]
    drawn = [
        [
            row.text
            for result in generate_batches(model, prompts, batch_size=size, seed=1, **options)
            for row in result
        ]
        for size in (batch_size, 4)
    ]
    assert drawn[0] == drawn[1]
    assert len({*drawn[0]}) == 4  # equal prompts differ


def test_batches_check_all_prompts_first(model: Any) -> None:
    for arguments, name in (
        ({"prompts": [[5], [999]]}, r"prompts\[1\]=999"),
        ({"prompts": [[5]], "batch_size": 0}, "batch_size=0"),
        ({"prompts": [[5]], "seed": 0.5}, "seed=0.5 must be an integer"),
        ({"prompts": [[5]], "decoder_prompts": [[1]]}, "decoder_prompts"),
    ):
        with pytest.raises((TypeError, ValueError), match=name):
            next(generate_batches(model, **arguments, max_new_tokens=1))


def test_rows_as_plain_values(model: Any, tokenizer: minitx.Tokenizer) -> None:
    result = minitx.generate(
        model,
        ["a"],
        Sample(top_k=1),
        max_new_tokens=2,
        tokenizer=tokenizer,
        logprobs="processed",
        top_logprobs=2,
    )
    record = row_record(result[0], tokenizer)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["tokens"] == result.sequences[0].tolist()
    assert record["top_logprobs"][0][1]["logprob"] is None  # of probability 0
    assert "score" in row_record(minitx.generate(model, [[3]], Beam(), max_new_tokens=2)[0])


def test_strategies_from_options() -> None:
    assert strategy_from_options({}) == Sample()
    assert strategy_from_options({"top_p": 0.9, "greedy": False, "num_beams": None}) == Sample(top_p=0.9)
    assert strategy_from_options({"num_beams": 4, "early_stopping": False}) == Beam(early_stopping=False)
    assert strategy_from_options({"num_beams": 2}, Sample(top_k=5)) == BeamSample(num_beams=2, top_k=5)
    assert strategy_from_options({"logit_bias": [(5, 1.0)]}) == Sample(logit_bias={5: 1.0})
    for options, message in (
        ({"greedy": True, "top_p": 0.9}, "top_p= has no effect with greedy=; leave one out"),
        ({"length_penalty": 1}, "length_penalty= is an option of searches; add num_beams="),
        ({"greedy": True, "num_beams": 2}, "greedy= and num_beams= exclude one another"),
        ({"num_beams": 2, "seed": 1}, "seed= has no effect with num_beams="),
        ({"num_beams": 2, "diversity_penalty": 1.0}, "without num_beam_groups=; add it"),
    ):
        with pytest.raises(ValueError, match=message):
            strategy_from_options(options)
    with pytest.raises(TypeError, match=r"has no argument 'top_pp'\. Did you mean 'top_p'"):
        strategy_from_options({"top_pp": 1})


def test_conversation(model: Any, tokenizer: minitx.Tokenizer) -> None:
    """An answer that is left early stays; one that fails does not."""
    conversation = Conversation(model, tokenizer, "s")
    options: dict[str, Any] = {"max_new_tokens": 3, "stop": minitx.Stop(eos=())}
    answer = "".join(event.text for event in conversation.stream("a b", Greedy(), **options))
    first = conversation.messages
    assert first == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": answer},
    ]
    events = conversation.stream("c", Greedy(), **options)
    begun = next(events).text
    events.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": begun}
    with pytest.raises(ValueError, match="max_new_tokens"):
        next(conversation.stream("d", Greedy(), max_new_tokens=-1))
    assert len(conversation.messages) == 5
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "s"}]


def test_hint_for_verify() -> None:
    with pytest.raises(AttributeError, match=r"Use minitx\.inspect\.verify"):
        minitx.verify  # type: ignore[attr-defined]  # noqa: B018


def test_default_padding_id_that_the_config_does_not_state(folder: Path) -> None:
    config = {
        "model_type": "opt",
        "vocab_size": 1,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "max_position_embeddings": 8,
    }
    with pytest.raises(ValueError, match=r"pad_token_id=1 .* it is the default of a missing key; add one"):
        minitx.from_config({**config, "num_attention_heads": 2, "ffn_dim": 8, "word_embed_proj_dim": 8})
