"""How a task generates: defaults of the task, settings of the checkpoint, options of the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.generation_config import read_settings
from minitx.decoding.guidance.base import Guidance
from minitx.decoding.guidance.settings import SETTINGS
from minitx.decoding.parameters import parameters_of
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.base import Search
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.text.stopping import Stop
from minitx.pipelines.checks import config_value
from minitx.pipelines.generation.options import FIELDS, GenerateOptions
from minitx.validation import ArgumentValueError

_KINDS: Mapping[tuple[bool, bool], type[Strategy]]
_KINDS = {(False, False): Greedy, (False, True): Sample, (True, False): Beam, (True, True): BeamSample}
_FIELDS = FIELDS.keys()
_OF_SAMPLES = frozenset(field.name for field in fields(Sample)) - {field.name for field in fields(Greedy)}
_LENGTHS = (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length"))  # of the output, and in total
# Options of the user that are settings of a checkpoint too
_SETTINGS = _FIELDS | {"max_new_tokens", "max_length", "min_new_tokens", "do_sample", "num_return_sequences"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task generates.

    Attributes:
        strategy: chooses the tokens.
        stop: conditions that end an output.
        max_new_tokens: most tokens of an output; None if `max_length` is stated instead.
        max_length: most tokens of prompt and output.
        min_new_tokens: least tokens of an output.
        default: most tokens of an output where the task alone states it.
        stated: options of the user.
        num_samples: outputs per text.
        prefix: text before each input.
        guidance: that the checkpoint states, if the strategy is its own too.
    """

    strategy: Strategy
    stop: Stop
    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int
    default: int
    stated: frozenset[str]
    num_samples: int
    prefix: str
    guidance: Guidance | None = None

    def new_tokens(self, prompt: int, limit: int | None) -> int:
        """Returns the most tokens of an output.

        Without a number of the user, a long prompt leaves at least half of the limit to the output, and the
        default of the task is used where a checkpoint's `max_length` leaves nothing.

        Args:
            prompt: number of tokens of the prompt of the decoder.
            limit: most tokens of prompt and output; None for none.

        Raises:
            ArgumentValueError: a `max_length` of the user that leaves no token.
        """
        most, room = self.max_new_tokens, None if limit is None else limit - prompt
        if most is None and self.max_length is not None:
            most = min(self.max_length, limit or self.max_length) - prompt
            if most < 1 and "max_length" in self.stated:
                hint = "max_new_tokens= is the number of new tokens alone"
                expected = f"above the {prompt} tokens of the prompt"
                raise ArgumentValueError("max_length", self.max_length, expected, hint)
        if most is None or most < 1:
            most = self.default
        if room is None or most <= room or "max_new_tokens" in self.stated:
            return most
        assert limit is not None
        return max(room, min(most, limit // 2), 1)

    def longer(self, extra: int) -> Plan:
        """Returns the plan with lengths of prompt and output that are longer by `extra` tokens."""
        strategy, most, least = self.strategy, self.max_length, self.strategy.min_length
        if isinstance(least, int) and least:
            strategy = replace(strategy, min_length=least + extra)
        return replace(self, strategy=strategy, max_length=None if most is None else most + extra)

    def __str__(self) -> str:
        """The strategy and the numbers, for `repr` of a pipeline."""
        shown = repr(self.strategy)
        if isinstance(self.strategy, Search) and "num_beams=" not in shown:
            more = ", " * (not shown.endswith("()"))
            shown = shown.replace("(", f"(num_beams={self.strategy.num_beams}{more}", 1)
        names = ["max_length" if self.max_new_tokens is None else "max_new_tokens"]
        names += [name for name in ("min_new_tokens", "prefix", "guidance") if getattr(self, name)]
        names += ["num_samples"] * (self.num_samples > 1)
        return ", ".join([shown, *(f"{name}={getattr(self, name)!r}" for name in names)])


def make_plan(
    checkpoint: Any,
    options: GenerateOptions,
    tasks: Iterable[str],
    defaults: Mapping[str, Any],
    ignored: Iterable[str] = (),
) -> Plan:
    """Returns the plan: options of the user, else settings of the checkpoint, else defaults of the task.

    Args:
        checkpoint: of the model; its `task_specific_params` take precedence over generation_config.json.
        options: of the user.
        tasks: names of the task in `task_specific_params`; later ones take precedence.
        defaults: of the task.
        ignored: settings of the checkpoint that are not used.

    Raises:
        ArgumentValueError, ArgumentTypeError: options of the user that exclude one another or have no effect.
        ValueError: settings of the checkpoint that minitx does not have.
    """
    config = {} if checkpoint is None else checkpoint.config
    stated = None if checkpoint is None else checkpoint.settings
    specific: dict[str, Any] = {}
    of_tasks = config_value(config, "task_specific_params", dict, "an object") or {}
    for task in tasks:
        specific |= config_value(of_tasks, task, dict, "an object of settings") or {}
    prefixes = [config_value(level, "prefix", str, "a string") for level in (specific, config)]
    prefix = prefixes[0] or prefixes[1] or ""
    specific.pop("prefix", None)
    user = {name: value for name, value in options.stated().items() if name in _SETTINGS}
    if options.num_samples is not None:
        user["num_return_sequences"] = options.num_samples
    inherited = options.call.inherited  # has no effect where the call chooses otherwise
    if options.strategy is not None:
        user = _without_strategy(user, set() if "strategy" in inherited else inherited)
    merged = _merge([defaults, {} if stated is None else stated.settings, specific], ignored)
    merged = _merge([merged, user])
    if options.strategy is not None:  # the checkpoint's own strategy is not read, nor checked
        own = _FIELDS | {"do_sample", *SETTINGS}
        merged = {name: value for name, value in merged.items() if name not in own}
    kind = _kind(merged)
    if options.strategy is None:
        _check_effect({name: value for name, value in user.items() if name not in inherited}, kind)
    settings = read_settings(merged, "the checkpoint" if stated is None else stated.file)
    strategy = settings.strategy if options.strategy is None else options.strategy
    strategy = _for_any_batch(strategy)
    samples = settings.num_samples
    if isinstance(strategy, Greedy) and samples > 1:
        hint = "the most probable tokens give one output; add do_sample=True or num_beams="
        raise ArgumentValueError("num_return_sequences", samples, "1", hint)
    strategy.sampler([[0]], 1, seed=options.seed)  # an error where a seed has no effect
    return Plan(
        strategy=strategy,
        stop=_stop(options, settings.stop),
        max_new_tokens=settings.max_new_tokens,
        max_length=settings.max_length,
        min_new_tokens=_least(settings.min_new_tokens, settings.max_new_tokens, user),
        default=defaults["max_new_tokens"],
        stated=frozenset(options.stated()),
        num_samples=samples,
        prefix=prefix if options.prefix is None else options.prefix,
        guidance=settings.guidance,
    )


def _merge(levels: Iterable[Mapping[str, Any]], ignored: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the values of all levels; later ones take precedence, and a length replaces either length."""
    merged: dict[str, Any] = {}
    for level in levels:
        values = {name: value for name, value in level.items() if value is not None}
        for new, total in _LENGTHS:
            if new in values or total in values:
                merged = {name: value for name, value in merged.items() if name not in (new, total)}
            if new in values:
                values.pop(total, None)
        merged |= values
    return {name: value for name, value in merged.items() if name not in ignored}


def _kind(merged: Mapping[str, Any]) -> type[Strategy]:
    return _KINDS[merged.get("num_beams", 1) != 1, bool(merged.get("do_sample", False))]


def _without_strategy(user: Mapping[str, Any], replaced: Set[str]) -> dict[str, Any]:
    """Returns the options that a strategy does not have; those that it has must be among `replaced`."""
    for name in user:
        if name in _FIELDS | {"do_sample"} and name not in replaced:
            hint = f"pass it to the strategy: Beam({name}=...)" if name in _FIELDS else "the strategy decides"
            raise ArgumentValueError(name, user[name], "left out with strategy=", hint)
    return {name: value for name, value in user.items() if name not in _FIELDS | {"do_sample"}}


def _check_effect(user: Mapping[str, Any], kind: type[Strategy]) -> None:
    """Checks that the options of the user have an effect, and their values."""
    known = {field.name for field in fields(kind)}
    for name in user:
        if name in _FIELDS - known and not (name == "num_beams" and user[name] == 1):
            way = "do_sample=True" if name in _OF_SAMPLES else "num_beams=, such as num_beams=4"
            hint = f"it has no effect without {way}"
            raise ArgumentValueError(name, user[name], "left out", hint)
    kind(**{name: value for name, value in user.items() if name in known})


def _for_any_batch(strategy: Strategy) -> Strategy:
    """Returns the strategy if it gives a text the same in any batch; functions get 0 as number of the row.

    Raises:
        ArgumentValueError: values per row.
    """
    for name, declared in parameters_of(strategy).items():
        value = getattr(strategy, name)
        if declared.per_row and isinstance(value, Sequence):
            hint = "for several values call the pipeline several times"
            raise ArgumentValueError(name, value, "one number for all texts", hint)
    function = strategy.prefix_allowed_tokens_fn
    if function is None:
        return strategy
    return replace(strategy, prefix_allowed_tokens_fn=lambda _, tokens: function(0, tokens))


def _least(least: int, most: int | None, user: Mapping[str, Any]) -> int:
    """Returns min_new_tokens: a checkpoint's is at most the user's max_new_tokens."""
    return least if most is None or "min_new_tokens" in user else min(least, most)


def _stop(options: GenerateOptions, stop: Stop) -> Stop:
    """Returns the conditions of the options, else those of the checkpoint."""
    if options.stop is not None:
        return options.stop
    strings = options.stop_strings if options.stop_sequence is None else options.stop_sequence
    strings = stop.strings if strings is None else strings
    return replace(stop, eos=options.eos_token_id, strings=strings, include_stop=True)
