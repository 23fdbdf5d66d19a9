"""A parameter is one processor class and one field; everything else follows from the field."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import Beam, BeamSample, Chain, Context, Greedy, Sample, Temperature, TopK
from minitx.decoding.parameters import Numbers, Rule, parameter, parameters_of
from minitx.decoding.presets.orders import ORDERS, in_order
from minitx.decoding.processors.truncation import Filter
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.sample import MultinomialSampler
from minitx.validation import ArgumentValueError, Interval
from tests.unit.decoding.histories import history, logits_of

STRATEGIES = [getattr(minitx.decoding, name) for name in minitx.decoding.__all__]
STRATEGIES = [
    each for each in STRATEGIES if inspect.isclass(each) and issubclass(each, minitx.decoding.Strategy)
]


@dataclass(frozen=True)
class Sharp(Filter):
    """Keeps tokens with at least `sharpness` times the square of the highest probability."""

    sharpness: Numbers
    rule = Rule("sharpness", "0.0 keeps every token", Interval(0, 1), 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        probabilities = logits.softmax(dim=-1)
        least = self.column(logits) * probabilities.amax(dim=-1, keepdim=True) ** 2
        return logits.masked_fill(probabilities < least, -torch.inf)


@dataclass(frozen=True, kw_only=True, repr=False)
class Custom(Sample):
    """Sampling with one more parameter."""

    sharpness: Numbers = parameter(Sharp, "a share of the best", "P")


@dataclass(frozen=True, kw_only=True, repr=False)
class CustomBeams(BeamSample, Custom):
    """The same in a search."""


def test_chain_and_order() -> None:
    strategy = Custom(sharpness=0.5, top_k=3, renormalize_logits=True)
    assert [type(each).__name__ for each in strategy.build().processors] == ["TopK", "Sharp", "Renormalize"]
    assert len(Custom(sharpness=0).build()) == 0
    order = Custom(sharpness=0.5, temperature=2.0, order="llama.cpp").build()
    assert order == Chain(Sharp(0.5), Temperature(2.0))


def test_repr_help_and_declaration() -> None:
    assert repr(Custom(sharpness=0.5)) == "Custom(sharpness=0.5)"
    assert "\n        sharpness: a share of the best.\n" in (Custom.__doc__ or "")
    declared = parameters_of(Custom)["sharpness"]
    assert (declared.processor, declared.off, declared.per_row, declared.metavar) == (Sharp, 0.0, True, "P")


def test_values_are_checked() -> None:
    with pytest.raises(
        ArgumentValueError, match=r"^sharpness=1\.5 must be in \[0, 1\]; 0\.0 keeps every token\.$"
    ) as e:
        Custom(sharpness=1.5)
    assert (e.value.parameter, e.value.value) == ("sharpness", 1.5)
    with pytest.raises(TypeError, match=r"Sample has no field 'sharpness'\. Custom has it"):
        Sample(sharpness=0.5)  # type: ignore[call-arg]


def test_per_row() -> None:
    logits = logits_of("random", 2, 10)
    context = history([[1], [1]])
    chain = Custom(sharpness=[0.0, 1.0]).build()
    both = chain(logits, context)
    assert torch.equal(both[0], logits[0])
    assert torch.equal(both[1:], Sharp(1.0)(logits[1:], context))
    assert not chain.batch_invariant
    with pytest.raises(ArgumentValueError, match=r"each of the 3 rows; it has 2 values"):
        chain.check_rows(3)


def test_searches() -> None:
    """A search repeats values per beam, and its filters keep several tokens."""
    chain = CustomBeams(sharpness=[0.0, 1.0], num_beams=2).build()
    assert chain.processors == (Sharp((0.0, 0.0, 1.0, 1.0), min_tokens_to_keep=2),)
    kept = chain(torch.tensor([[9.0, 1.0, 0.0, -1.0]] * 4), history([[1]] * 4)) > -torch.inf
    assert kept.sum(dim=-1).tolist() == [4, 4, 2, 2]
    assert CustomBeams(top_k=1).build().processors == (TopK(1, min_tokens_to_keep=2),)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_every_numeric_processor_has_the_name_of_its_field(kind: type) -> None:
    for name, declared in parameters_of(kind).items():
        rule = getattr(declared.processor, "rule", None)
        if rule is not None:
            assert (rule.parameter, rule.off, True) == (name, declared.off, declared.per_row)
        assert declared.help
        assert not declared.help.endswith(".")
        field = next(each for each in fields(kind) if each.name == name)
        assert field.default == declared.off


def test_orders_name_fields() -> None:
    """Each row of the table names fields of `Sample`, each once, and has places for all others."""
    names = {each.name for each in fields(Sample)}
    for order, row in ORDERS.items():
        named = [name for name in row if name != "..."]
        assert set(named) <= names, order
        assert len(named) == len(set(named)), order
        assert row.count("...") in (1, 2), order
        arranged = [name for name, _ in in_order(parameters_of(Sample), order)]
        assert sorted(arranged) == sorted(parameters_of(Sample)), order
        assert [name for name in arranged if name in named] == named, order
        assert arranged[-1] == "renormalize_logits", order
    assert list(ORDERS)[:3] == ["transformers", "vllm", "llama.cpp"]


def test_a_field_that_an_order_does_not_name() -> None:
    """Penalties and bans stand at the first gap, filters at the second, in the order of declaration."""
    declared = dict.fromkeys(["one", "two", "processors", "temperature", "three", "top_k", "four"])
    arranged = [name for name, _ in in_order(declared, "llama.cpp")]
    assert arranged == ["one", "two", "processors", "top_k", "three", "four", "temperature"]
    without = [name for name, _ in in_order({"three": 0, "top_k": 0, "four": 0}, "llama.cpp")]
    assert without == ["three", "four", "top_k"]  # a strategy without a temperature has no second stage


def test_a_strategy_brings_its_sampler() -> None:
    prompts = [[1, 2], [3]]
    assert isinstance(Sample().sampler(prompts, 2, seed=1), CounterGumbel)
    generator = torch.Generator()
    for kind in (Sample, BeamSample):
        sampler = kind().sampler(prompts, generator=generator)
        assert isinstance(sampler, MultinomialSampler)
        assert sampler.generator is generator
    for kind in (Greedy, Beam):
        with pytest.raises(ArgumentValueError, match=r"seed=1 must be left out; .* draws nothing") as error:
            kind().sampler(prompts, seed=1)
        assert error.value.parameter == "seed"


def test_the_help_of_a_copy_is_the_same() -> None:
    assert replace(Custom(sharpness=0.5), top_k=2) == Custom(sharpness=0.5, top_k=2)
