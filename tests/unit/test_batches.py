"""Generation in batches, its rows as plain values, and strategies from flat options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx import Beam, BeamSample, Greedy, Sample
from minitx.decoding import ArithmeticSample, Chain, StochasticBeam, Temperature
from minitx.optimize.graphs.model import static_steps
from minitx.pipelines import Conversation, generate_batches, row_record, strategy_from_options
from minitx.validation import ArgumentTypeError
from tests.unit.decoding.test_session import model_of
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


EQUAL = [[5, 6, 7], [8, 9], [5, 6, 7], [13]]
VECTORS = [torch.randn(len(prompt), 16, generator=torch.Generator().manual_seed(0)) for prompt in EQUAL]


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (Sample(), {"seed": 1}),
        (Sample(), {"seed": 1, "num_samples": 2}),
        (Sample(), {"seed": [3, 1, 3, 1]}),
        (Sample(), {"seed": torch.tensor([3, 1, 2, 1])}),
        (Sample(temperature=[0.1, 1.0, 2.0, 0.5], top_k=torch.tensor([0, 5, 9, 2])), {"seed": 1}),
        (Sample(temperature=[0.1, 0.5] * 4), {"seed": 1, "num_samples": 2}),
        (ArithmeticSample(), {"seed": 1, "num_samples": 3}),
        (StochasticBeam(num_beams=3), {"seed": 1, "num_samples": 2}),
        (Greedy(), {"min_new_tokens": [1, 2, 3, 4], "stop": minitx.Stop(tokens=range(30))}),
        (Greedy(), {"inputs_embeds": VECTORS}),
        (Greedy(repetition_penalty=[1.0, 2.0, 3.0, 0.5]), {}),
        (Beam(num_beams=2, repetition_penalty=[1.0, 2.0, 3.0, 0.5]), {"min_new_tokens": [1, 2, 3, 4]}),
        (Greedy(prefix_allowed_tokens_fn=lambda row, tokens: [20 + row, 30]), {}),
        (Beam(prefix_allowed_tokens_fn=lambda row, tokens: [20 + row, 30 + row]), {}),
    ],
)
def test_batches_give_the_rows_of_generate(
    strategy: Any, options: dict[str, Any], batch_size: int, continuous: bool
) -> None:
    """Also with equal prompts, and with values per row or per prompt."""
    model = model_of("llama")
    options = {"max_new_tokens": 5, "stop": minitx.Stop(eos=()), **options}
    results = generate_batches(
        model, EQUAL, strategy, batch_size=batch_size, continuous=continuous, **options
    )
    rows = [row.tokens.tolist() for result in results for row in result]
    assert rows == [row.tolist() for row in minitx.generate(model, EQUAL, strategy, **options).sequences]


@pytest.mark.parametrize(
    ("strategy", "options", "sizes"),
    [
        (Sample(), {"seed": 1}, [8, 1]),
        (Sample(), {"seed": 1, "num_samples": 2}, [8, 1]),
        (Beam(num_beams=2), {}, []),
        (Sample(chain=Chain(Temperature(0.5))), {"seed": 1}, []),
        (Greedy(), {"stop": minitx.Stop(seconds=100.0)}, []),
    ],
)
def test_which_prompts_share_rows(
    strategy: Any, options: dict[str, Any], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result has 8 batches, also where equal prompts are in different results."""
    model, prompts, calls = model_of("llama"), [[5, 6, 7], [8, 9], [5, 6, 7]] * 3, []

    def _spy(model: Any, prompts: Any, *others: Any, rows: int, **options: Any) -> Any:
        calls.append((len(prompts), rows))
        return minitx.generate_many(model, prompts, *others, rows=rows, **options)

    monkeypatch.setattr("minitx.pipelines.generation.batches.generate_many", _spy)
    options = {"max_new_tokens": 4, **options}
    results = generate_batches(model, prompts, strategy, batch_size=1, continuous=True, **options)
    rows = [row.tokens.tolist() for result in results for row in result]
    assert calls == [(size, options.get("num_samples", 1)) for size in sizes]
    assert rows == [row.tolist() for row in minitx.generate(model, prompts, strategy, **options).sequences]


def test_recorded_steps_are_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = static_steps(model_of("llama"))
    monkeypatch.delattr("minitx.pipelines.generation.batches.generate_many")
    results = generate_batches(model, EQUAL, Greedy(), batch_size=1, continuous=True, max_new_tokens=3)
    rows = [row.tokens.tolist() for result in results for row in result]
    assert rows == [
        row.tolist() for row in minitx.generate(model, EQUAL, Greedy(), max_new_tokens=3).sequences
    ]


def test_batches_of_an_encoder_decoder_give_the_rows_of_generate() -> None:
    """Equal sources with other decoder prompts are not equal."""
    model = model_of("t5")
    options: dict[str, Any] = {"max_new_tokens": 5, "seed": 1, "decoder_prompts": [[0], [0], [0, 3], [0]]}
    prompts = [[5, 6], [5, 6], [5, 6], [7]]
    results = generate_batches(model, prompts, batch_size=1, **options)
    rows = [row.tokens.tolist() for result in results for row in result]
    assert rows == [row.tolist() for row in minitx.generate(model, prompts, **options).sequences]


def test_batches_of_a_padded_tensor() -> None:
    model, ids = model_of("llama"), torch.tensor([[0, 5, 6], [7, 8, 9]])
    options: dict[str, Any] = {"max_new_tokens": 3, "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])}
    results = generate_batches(model, ids, Greedy(), batch_size=1, **options)
    rows = [row.tokens.tolist() for result in results for row in result]
    assert rows == [row.tolist() for row in minitx.generate(model, ids, Greedy(), **options).sequences]


def test_the_check_before_the_first_batch_draws_nothing() -> None:
    model = model_of("llama")
    options: dict[str, Any] = {"max_new_tokens": 3, "num_samples": 2}
    calls: Any = (minitx.generate, lambda *arguments, **kwargs: next(generate_batches(*arguments, **kwargs)))
    rows = []
    for call in calls:
        result = call(model, EQUAL, ArithmeticSample(), generator=torch.Generator().manual_seed(0), **options)
        rows.append([row.tokens.tolist() for row in result])
        torch.manual_seed(0)
        rows.append([row.tokens.tolist() for row in call(model, EQUAL, max_new_tokens=3)])
    assert rows[:2] == rows[2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[3], [3] * 100]}, "max_new_tokens=2 must be at most 0 after a prompt of 100 tokens"),
        ({"strategy": Sample(temperature=[1.0])}, "temperature=.* must be one number, or one"),
        ({"strategy": Sample(chain=Chain(Temperature([1.0, 2.0])))}, "chain=.* must be without values per"),
        ({"seed": [1]}, r"seed=\[1\] must be an integer, or one for each of the 2 prompts"),
        ({"min_new_tokens": [1, 1, 1]}, "min_new_tokens=.* must be one number, or one for each of the 2"),
        ({"tokenizer": True}, "tokenizer=True must be a Tokenizer"),
        ({"tokenizer": True, "prompts": ["a", "b"]}, "tokenizer=True must be a Tokenizer"),
        ({"strategy": None}, "strategy=None must be a Strategy"),
        ({"generator": 3}, "generator=3 must be a torch.Generator"),
    ],
)
def test_batches_check_the_whole_call_first(arguments: dict[str, Any], message: str) -> None:
    arguments = {"prompts": [[3], [4]], "max_new_tokens": 2} | arguments
    with pytest.raises((TypeError, ValueError), match=message):
        next(generate_batches(model_of("gpt2"), batch_size=1, **arguments))


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


@pytest.mark.parametrize("arguments", [(None,), (3, None)])
def test_records_are_of_rows(arguments: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"row=.* must be a row of a Result"):
        row_record(*arguments)


def test_records_take_a_tokenizer(model: Any) -> None:
    row = minitx.generate(model, [[3]], Greedy(), max_new_tokens=1)[0]
    with pytest.raises(ArgumentTypeError, match="tokenizer=True must be a Tokenizer"):
        row_record(row, True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "options=None must be a mapping"),
        (({1: 2},), "options=1 must be a mapping with strings as names"),
        (({}, True), "base=True must be a Strategy or None"),
        (({}, "checkpoint"), "base='checkpoint' must be a Strategy or None"),
        (({"greedy": 0},), "greedy=0 must be True or False"),
        (({"greedy": ""},), "greedy='' must be True or False"),
        (({"greedy": "no"},), "greedy='no' must be True or False"),
        (({"beam_sample": 0, "num_beams": 2},), "beam_sample=0 must be True or False"),
        (({"logit_bias": True},), "logit_bias=True must be a mapping, or a list of pairs"),
        (({"logit_bias": "abc"},), "logit_bias='abc' must be a mapping, or a list of pairs"),
        (({"logit_bias": torch.ones(2)},), "logit_bias=.* must be a mapping, or a list of pairs"),
        (({"logit_bias": [(1, 2.0, 3)]},), "logit_bias=.* must be a mapping, or a list of pairs"),
        (({"sequence_bias": "ab"},), "sequence_bias='ab' must be a mapping, or a list of pairs"),
    ],
)
def test_options_of_the_wrong_type(arguments: Any, message: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"^{message}"):
        strategy_from_options(*arguments)


def test_biases_as_json_has_them() -> None:
    options = json.loads('{"logit_bias": [[5, 1.0]], "sequence_bias": [[[5, 6], 1.0]]}')
    assert strategy_from_options(options) == Sample(logit_bias={5: 1.0}, sequence_bias={(5, 6): 1.0})


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, tokenizer: Conversation(model, None), "tokenizer=None must be a Tokenizer"),
        (lambda model, tokenizer: Conversation(model, tokenizer, system=3), "system=3 must be a string"),
        (lambda model, tokenizer: Conversation(object(), tokenizer), "predicts the next token, not of task"),
        (lambda model, tokenizer: next(talk(model, tokenizer).stream(None)), "text=None must be a string"),
        (lambda model, tokenizer: next(talk(model, tokenizer).stream(3)), "text=3 must be a string"),
        (
            lambda model, tokenizer: next(talk(model, tokenizer).stream("a", num_samples=3)),
            "num_samples=3 must be 1; a conversation continues with one answer",
        ),
        (
            lambda model, tokenizer: next(talk(model, tokenizer).stream("a", tokenizer=tokenizer)),
            "tokenizer=.* must be left out; the conversation has its own",
        ),
    ],
)
def test_conversations_check_their_arguments(
    model: Any, tokenizer: minitx.Tokenizer, call: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(model, tokenizer)


def talk(model: Any, tokenizer: Any) -> Any:
    return Conversation(model, tokenizer)


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
