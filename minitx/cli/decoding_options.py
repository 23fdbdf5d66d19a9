"""Options of generate, explain and chat, declared by the fields of the strategies and by lines of help.txt.

A field of a strategy is an option of the same name: its metavar, with which its value is read, and its help
are those of the `parameter(...)` that declares it.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import click

import minitx
from minitx.cli.options import HUB, PASSES, group, heading, option, section
from minitx.decoding import Strategy
from minitx.decoding.parameters import parameters_of
from minitx.decoding.search.base import Search
from minitx.pipelines.generation.expressions import object_from_text
from minitx.pipelines.generation.strategies import KINDS
from minitx.values import json_text, sequences

Values = dict[str, Any]  # of the options, by the names of their parameters

SHORT = {"decoder_prompts": "--decoder-prompt", "num_beams": "--beams"}
SHORT |= {"num_beam_groups": "--beam-groups", "force_words_ids": "--force-words"}
STOP = {"eos": "eos", "tokens": "stop_tokens", "strings": "stop", "include_stop": "include_stop"}
STOP |= {"regex": "stop_regex", "repetition": "stop_repetition", "seconds": "seconds"}

RENAMED = {f"Stop({field}=...)": name for field, name in STOP.items()}
# Where these are used.
RENAMED |= {
    "base": "checkpoint",
    "prompts": "ids",
    "decoder_prompts": "decoder_ids",
    "force_words_ids": "force_text",
}


def shown(name: str) -> str:
    """Returns the option of a parameter: top_p -> --top-p."""
    return SHORT.get(name, f"--{name.replace('_', '-')}")


def is_used(values: Values, name: str) -> bool:
    """Whether an option is used."""
    return values.get(name) is not None and values[name] != ()


STRUCTURE = "structure, guidance and watermarks"
# Options of the call that are its keyword arguments as they are.
CALLS = ("grammar", "schema", "guidance", "heal", "prefill_chunk", "logprobs", "top_logprobs")
# Sections of help.txt with the options of the fields whose processors are in these modules.
MODULES = {
    "choosing a token": ("temperature", "truncation", "thresholds", "reshape", "feedback", "xtc", ""),
    "penalties": ("penalties", "dry"),
}
MODULES |= {"biases, bans and forced tokens": ("bias", "constraints", "forcing", "strategy")}
MODULES |= {STRUCTURE: ("base",), "beam search": ("search",)}


def field_options(title: str, *kinds: type[Strategy]) -> list[click.Option]:
    """Returns the options of a section: those of the fields whose processors are in its modules, first."""
    options: dict[str, click.Option] = {}
    for kind in kinds:
        for name, declared in parameters_of(kind).items():
            module = getattr(declared.processor, "__module__", "").rpartition(".")[2]
            module = "search" if issubclass(kind, Search) and name not in parameters_of(Strategy) else module
            if module not in MODULES[title] or (declared.metavar is None and declared.off is not False):
                continue  # of another section, or in Python only
            spellings = ",".join(dict.fromkeys([shown(name), f"--{name.replace('_', '-')}"]))
            spec = f"{spellings} {declared.metavar or ''}".strip()
            text = re.sub(r" \((arXiv|OpenAI)[^)]*\)|\. In a list.*", "", declared.help)
            reader = object_from_text if declared.metavar == "CALL" else None
            read = sequences if name.endswith("words_ids") else reader
            options.setdefault(name, option(f"{spec}  {text}", heading(title), read))
    return list(options.values())


def strategy_options(*, searches: bool) -> list[click.Option]:
    """Returns the options of choosing tokens and of ending the text.

    Args:
        searches: with those of beam search and of several samples.
    """
    choosing, *others, beams = MODULES
    options = [*group(choosing), *field_options(choosing, minitx.Sample)]
    options += chain(*(field_options(title, minitx.Sample) for title in others))
    for line in section(STRUCTURE)[1]:
        options.append(option(line, heading(STRUCTURE), json_text if "JSON" in line else object_from_text))
    if searches:
        options += [*field_options(beams, *KINDS), *group(beams), *group("several samples")]
    return [*options, *group("where the text ends"), *group("the model", *HUB, "dtype", "device", *PASSES)]
