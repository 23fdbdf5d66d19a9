"""Strategies from flat options, such as those of a command line or of a request to a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.samplers.alternatives import Alternatives
from minitx.decoding.samplers.arithmetic import ArithmeticSample
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.base import Search
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.search.constrained import LexicalBeam
from minitx.decoding.search.diverse import DiverseBeam
from minitx.decoding.search.stochastic import StochasticBeam
from minitx.habits import ARGUMENTS, UnknownArgumentError, hint_for
from minitx.validation import ArgumentTypeError, check_flags, check_type

KINDS: tuple[type[Strategy], ...] = (Sample, Beam, DiverseBeam, LexicalBeam)  # together they have all fields
# Options that choose a strategy; at most one of them can be used.
CHOICES: dict[str, type[Strategy]] = {"greedy": Greedy, "arithmetic": ArithmeticSample}
CHOICES |= {"alternatives": Alternatives, "beam_sample": BeamSample, "stochastic_beam": StochasticBeam}
CHOICES |= {"num_beam_groups": DiverseBeam, "force_words_ids": LexicalBeam}
# Options without an effect unless another one chooses their strategy.
_BELONGS_TO = {"diversity_penalty": "num_beam_groups", "push_progress": "force_words_ids"}


def fields_of(*kinds: type[Strategy]) -> set[str]:
    """Returns the names of the fields of strategies."""
    return {field.name for kind in kinds for field in fields(kind)}


# The last two are of the call, but have an effect with some strategies only.
NAMES = fields_of(*KINDS) | CHOICES.keys() | {"seed", "num_samples"}


def strategy_from_options(options: Mapping[str, Any], base: Strategy | None = None) -> Strategy:
    """Returns the strategy that flat options choose, with their values.

    `greedy`, `arithmetic`, `alternatives`, `beam_sample` and `stochastic_beam` choose a strategy where they
    are true; `num_beams`, `num_beam_groups` and `force_words_ids` choose a beam search. Without one of these
    it is that of `base`.

    Args:
        options: by the names of fields of strategies, and the choices above; an option that is None, False or
            () is not used. Biases may be lists of pairs. Of `seed` and `num_samples` only the effect is
            checked; their values are for `generate`.
        base: the strategy that the options change, such as that of `generation_settings`; None: `Sample()`.

    Raises:
        TypeError: an unknown option, a choice that is not a bool, or another value of the wrong type.
        ValueError: options that exclude one another, that have no effect with the strategy, or a value that
            the strategy refuses.
    """
    check_type("options", options, Mapping, "a mapping of names to values")
    check_type("base", base, Strategy | None, "a Strategy or None")
    for name in [name for name in options if name not in NAMES]:
        check_type("options", name, str, "a mapping with strings as names")
        hint = hint_for(ARGUMENTS["strategy"], name, NAMES)
        raise UnknownArgumentError("strategy_from_options", name, hint)
    # Of flags, False is the same as None; of other options it may be a value, such as early_stopping=False.
    flags = CHOICES.keys() - fields_of(*KINDS)
    used = {name: value for name, value in options.items() if value is not None}
    used = {name: value for name, value in used.items() if not isinstance(value, tuple) or value}
    check_flags(**{name: value for name, value in used.items() if name in flags})
    used = {name: value for name, value in used.items() if value is not False or name not in flags}
    kind = _kind(used, base)
    _check_effect(used, kind, base or Sample())
    names = fields_of(kind)
    values = {name: getattr(base, name) for name in names & fields_of(type(base))} if base else {}
    values |= {name: value for name, value in used.items() if name in names}
    names = {"logit_bias", "sequence_bias"} & used.keys()
    return kind(**values | {name: _bias(name, used[name]) for name in names})


def _bias(name: str, value: Any) -> Mapping[Any, Any]:
    """Returns a bias as a mapping, also from a list of pairs, in which sequences may be lists.

    Raises:
        ArgumentTypeError: anything else.
    """
    if isinstance(value, Mapping):
        return value
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
        raise ArgumentTypeError(name, value, "a mapping, or a list of pairs of ids and a bias")
    return {tuple(ids) if isinstance(ids, list) else ids: bias for ids, bias in value}


def _kind(used: Mapping[str, Any], base: Strategy | None) -> type[Strategy]:
    """Returns the class of the strategy.

    Raises:
        ValueError: the options choose two.
    """
    names = [name for name in CHOICES if name in used]
    chosen = CHOICES[names[0]] if names else None
    others = [name for name in names if CHOICES[name] is not chosen]
    searches = "num_beams" in used
    if searches and chosen is not None and not issubclass(chosen, Search):
        others.append("num_beams")
    if others:
        raise ValueError(f"{names[0]}= and {others[0]}= exclude one another; leave one of them out.")
    if chosen is None and searches:
        return BeamSample if isinstance(base, Sample) else Beam
    return chosen or type(base or Sample())


def _check_effect(used: Mapping[str, Any], kind: type[Strategy], base: Strategy) -> None:
    """Checks that every option has an effect with this strategy, else raises ValueError."""
    searches = issubclass(kind, Search) and ("num_beams" in used or isinstance(base, Search))
    of_search = fields_of(*KINDS[1:]) - fields_of(Sample)
    of_search |= {name for name, choice in CHOICES.items() if issubclass(choice, Search)}
    idle = fields_of(*KINDS) - fields_of(kind) - CHOICES.keys()
    idle |= {"num_samples"} if kind is Greedy else set()
    idle |= set() if issubclass(kind, Sample) else {"seed"}
    ways = [name for name in CHOICES if CHOICES[name] is kind and name in used]
    ways.append("num_beams" if searches else "base")
    for name in sorted((of_search | idle) & used.keys()):
        if name in of_search and not searches:
            raise ValueError(f"{name}= is an option of searches; add num_beams=, such as num_beams=4.")
        if name in idle and name in _BELONGS_TO:
            raise ValueError(f"{name}= has no effect without {_BELONGS_TO[name]}=; add it.")
        if name in idle:
            raise ValueError(f"{name}= has no effect with {ways[0]}=; leave one out.")
