"""Strategies: every field changes the output, and no name is ignored."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from minitx.decoding import (
    Beam,
    Chain,
    Context,
    Greedy,
    Sample,
    Strategy,
    Temperature,
    ThinkingBudget,
    TopK,
    Unigram,
)
from tests.unit.decoding.histories import history, logits_of

SIZE = 10
ROWS = [[1, 2, 3, 1, 2], [4, 4, 4]]
CONTEXT = history(ROWS, [3, 1], eos=(0, 3), max_new_tokens=3, keys=torch.tensor([5, 6]))
LOGITS = logits_of("random", 2, SIZE, seed=3)


def own(logits: Tensor, context: Context) -> Tensor:
    return logits.index_fill(1, torch.tensor([int(logits.argmax(-1)[0])]), -torch.inf)


# A value of each field that must change something, and what it is compared with.
EXAMPLES: dict[str, Any] = {
    "repetition_penalty": 1.3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "relative_frequency_penalty": 0.5,
    "penalty_window": 1,
    "dry": (0.8, 1.75, 1),
    "dry_breakers": [1],
    "encoder_repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2,
    "sequence_bias": {(1, 2, 5): 3.0},
    "bad_words_ids": [[1, 2, 5]],
    "logit_bias": {5: 2.0},
    "allowed_token_ids": [1, 5],
    "suppress_tokens": [5],
    "begin_suppress_tokens": [5],
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 3,
    "exponential_decay_length_penalty": (0, 1.5),
    "prefix_allowed_tokens_fn": lambda row, tokens: [1, 5],
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "min_length": 6,
    "processors": [own],
    "prefix_bias": ([4, 4, 5], 0.5),
    "thinking_budget": ThinkingBudget(tokens=0, begin=[1], end=[3]),
    "order": "llama.cpp",
    "chain": Chain(TopK(1)),
    "temperature": 0.5,
    "top_k": 2,
    "top_p": 0.5,
    "min_p": 0.5,
    "typical_p": 0.5,
    "epsilon_cutoff": 0.2,
    "eta_cutoff": 0.5,
    "top_h": 0.5,
    "top_n_sigma": 0.5,
    "top_a": 0.9,
    "tfs": 0.3,
    "p_less": 1.0,
    "averaged_xtc": (0.5, 0.05),
    "xtc": (1.0, 0.05),
    "mirostat": (0.5, 0.1),
    "mirostat_v1": (0.5, 0.1),
    "adaptive_p": (0.3, 0.9),
    "dynamic_temperature": (0.5, 1.5),
    "entropy_temperature": (1.0, 0.5),
    "smoothing": 0.3,
    "skew": 0.5,
    "entmax_alpha": 1.5,
    "watermark": Unigram(ratio=0.3),
}
# Fields that work only beside others, or at another place.
BESIDE: dict[str, dict[str, Any]] = {
    "order": {"temperature": 3.0, "top_p": 0.5},
    "penalty_window": {"repetition_penalty": 1.5},
    "dry_breakers": {"dry": (0.8, 1.75, 1)},
}
AT_THE_BEGINNING = history([[1, 2], [4]], [2, 1], eos=(0, 3), max_new_tokens=3)
WITH_A_HOLE = LOGITS.index_fill(1, torch.tensor([6]), -torch.inf)


@pytest.mark.parametrize("strategy", [Greedy, Sample])
def test_every_field_changes_the_output(strategy: type[Strategy]) -> None:
    """A new field without an example fails here: it could be one that nothing reads."""
    for field in dataclasses.fields(strategy):
        beside = BESIDE.get(field.name, {})
        context = (
            AT_THE_BEGINNING if field.name in ("begin_suppress_tokens", "forced_bos_token_id") else CONTEXT
        )
        logits = WITH_A_HOLE if field.name == "remove_invalid_values" else LOGITS
        without = strategy(**beside).build()(logits, context)
        changed = strategy(**beside, **{field.name: EXAMPLES[field.name]}).build()(logits, context)
        assert not torch.equal(changed, without), field.name


def test_the_order_is_no_matter_to_a_greedy_strategy() -> None:
    """Filters and temperature are what it moves; a ban is the same before and after a bias or a penalty."""
    with pytest.raises(TypeError, match=r"Greedy has no field 'order'\. Sample has it\."):
        Greedy(order="vllm")


def test_the_defaults_do_nothing() -> None:
    """No top_k=50 of its own, no penalty, nothing from a checkpoint."""
    for strategy in (
        Greedy(),
        Sample(),
        Sample(temperature=1, top_k=0, top_p=1, min_p=0, repetition_penalty=1),
    ):
        assert len(strategy.build()) == 0
        assert strategy.build()(LOGITS, CONTEXT) is LOGITS


def test_min_new_tokens_of_the_call() -> None:
    for strategy in (Greedy(), Sample(chain=Chain(Temperature(0.5)))):
        left = strategy.build(min_new_tokens=3)(LOGITS, CONTEXT)
        assert (left[:, [0, 3]] == -torch.inf).all()
        per_row = strategy.build(min_new_tokens=[3, 2])(LOGITS, CONTEXT)
        assert (per_row == -torch.inf).any(dim=-1).tolist() == [True, False]
        assert torch.equal(
            strategy.build(torch.tensor([2, 2]))(LOGITS, CONTEXT), strategy.build()(LOGITS, CONTEXT)
        )
        with pytest.raises(ValueError, match="min_new_tokens=-1 must be at least 0"):
            strategy.build(min_new_tokens=-1)


def test_a_literal_chain() -> None:
    chain = Chain(TopK(3), Temperature(0.5))
    assert Sample(chain=chain).build() is chain
    with pytest.raises(ValueError, match=r"chain=.* must be passed without top_k, order; a literal chain"):
        Sample(chain=chain, top_k=3, order="vllm")
    with pytest.raises(TypeError, match=r"chain=0\.8 must be a Chain; as in Greedy\(chain=Chain"):
        Greedy(chain=0.8)
    beam = Beam(chain=chain, num_beams=8, length_penalty=0.5)
    assert (beam.build(), beam.num_beams) == (chain, 8)
    with pytest.raises(ValueError, match=r"chain=.* must be passed without processors; a literal chain"):
        Beam(chain=chain, num_beams=8, processors=[own])


def test_own_processors_come_before_the_temperature() -> None:
    chain = Sample(processors=[own], temperature=0.5, top_k=2, suppress_tokens=[1]).build()
    assert [getattr(p, "__name__", type(p).__name__) for p in chain.processors] == [
        "SuppressTokens",
        "own",
        "Temperature",
        "TopK",
    ]
    with pytest.raises(TypeError, match="must be a list of processors"):
        Sample(processors=own)
    with pytest.raises(TypeError, match="must be processors such as"):
        Sample(processors=["top_k"])


@pytest.mark.parametrize(
    ("strategy", "name", "message"),
    [
        (Sample, "topp", "Sample has no field 'topp'. Did you mean 'top_p'?"),
        (Sample, "repetition_penality", "Did you mean 'repetition_penalty'?"),
        (Greedy, "temperature", "Greedy has no field 'temperature'. Sample has it."),
        (Sample, "max_new_tokens", "It is an argument of the call: generate(..., max_new_tokens=...)."),
        (Sample, "min_new_tokens", "It is an argument of the call: generate(..., min_new_tokens=...)."),
        (Sample, "do_sample", "Sample has no field 'do_sample'."),
    ],
)
def test_no_name_is_ignored(strategy: type[Strategy], name: str, message: str) -> None:
    with pytest.raises(TypeError) as error:
        strategy(**{name: 1})
    assert message in str(error.value)


def test_fields_are_given_by_name() -> None:
    with pytest.raises(
        TypeError, match=r"Sample takes its fields by name, as in Sample\(repetition_penalty=1\.1\)"
    ):
        Sample(0.8)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("order", "hf", ValueError, "order='hf' must be one of 'transformers', 'vllm', 'llama.cpp'"),
        ("remove_invalid_values", 1, TypeError, "remove_invalid_values=1 must be True or False"),
        ("renormalize_logits", None, TypeError, "renormalize_logits=None must be True or False"),
        ("top_k", False, TypeError, "top_k=False must be an integer"),
        ("top_k", None, TypeError, "top_k=None must be an integer"),
        ("top_p", 0, ValueError, "top_p=0 must be in (0, 1]; 1.0 keeps every token."),
        ("min_length", -1, ValueError, "min_length=-1 must be at least 0"),
        ("exponential_decay_length_penalty", 1.5, TypeError, "=1.5 must be two numbers, (start, factor)"),
        ("forced_eos_token_id", "</s>", TypeError, "forced_eos_token_id='</s>' must be a list of token ids"),
        ("logit_bias", {1: 200}, ValueError, "logit_bias[1]=200 must be in [-100, 100]"),
    ],
)
def test_values_are_checked_when_it_is_made(
    field: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        Sample(**{field: value})
    assert message in str(raised.value)


@pytest.mark.parametrize("kind", [Strategy, Sample, Context])
def test_every_field_is_explained(kind: Any) -> None:
    attributes = (kind.__doc__ or "").split("Attributes:")[1]
    for name in (name for name in kind.__annotations__ if name[0] != "_"):
        assert f"\n        {name}: " in attributes


def test_strategies_are_values() -> None:
    per_row = Sample(temperature=torch.tensor([0.5, 1.0]), top_k=[1, 2], bad_words_ids=[[1]])
    assert per_row == Sample(temperature=[0.5, 1.0], top_k=(1, 2), bad_words_ids=[[1]])
    assert per_row != Sample(temperature=[0.5, 1.0], top_k=(1, 3), bad_words_ids=[[1]])
    assert Greedy() != Sample()
    assert "temperature=(0.5, 1.0)" in repr(per_row)
    assert dataclasses.replace(per_row, top_k=3) == Sample(
        temperature=[0.5, 1.0], top_k=3, bad_words_ids=[[1]]
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        per_row.top_k = 1
    assert hash(per_row) == hash(Sample(temperature=[0.5, 1.0], top_k=(1, 2), bad_words_ids=((1,),)))
    bias = {5: 1.0}
    biased = Sample(logit_bias=bias)
    bias[5] = 200.0
    assert biased == Sample(logit_bias={5: 1.0})
    assert pickle.loads(pickle.dumps(per_row)) == per_row == copy.deepcopy(per_row)


def test_parameters_per_row() -> None:
    fields = {
        "temperature": [0.5, 2.0],
        "top_k": [3, 0],
        "top_p": [1.0, 0.6],
        "repetition_penalty": [1.0, 1.4],
    }
    together = Sample(**fields).build()(LOGITS, CONTEXT)
    for row in range(2):
        alone = Sample(**{name: values[row] for name, values in fields.items()}).build()
        context = CONTEXT.select(torch.tensor([row]))
        assert torch.equal(together[row : row + 1], alone(LOGITS[row : row + 1], context))


def test_a_strategy_shows_what_was_chosen() -> None:
    assert repr(Sample()) == "Sample()"
    assert repr(Sample(top_k=3, temperature=0.5)) == "Sample(temperature=0.5, top_k=3)"
    assert eval(repr(Greedy(no_repeat_ngram_size=2))) == Greedy(no_repeat_ngram_size=2)
