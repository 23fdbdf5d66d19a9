"""Options of generate, explain and chat, declared by the fields of the strategies and by lines of the help.

A field of a strategy is an option of the same name: its metavar, with which its value is read, and its help
are those of the `parameter(...)` that declares it.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import click

import minitx
from minitx.cli.options import HUB, Group, Weights, option, sequences
from minitx.decoding import Strategy
from minitx.decoding.parameters import parameters_of
from minitx.decoding.search.base import Search

Values = dict[str, Any]  # of the options, by the names of their parameters

KINDS = (minitx.Sample, minitx.Beam, minitx.DiverseBeam, minitx.LexicalBeam)  # together they have all fields
# Options that choose a strategy; at most one of them can be given.
CHOICES: dict[str, type[Strategy]] = {"greedy": minitx.Greedy, "arithmetic": minitx.ArithmeticSample}
CHOICES |= {"alternatives": minitx.Alternatives, "beam_sample": minitx.BeamSample}
CHOICES |= {"stochastic_beam": minitx.StochasticBeam, "num_beam_groups": minitx.DiverseBeam}
CHOICES |= dict.fromkeys(("force_words_ids", "force_text"), minitx.LexicalBeam)
# Options without an effect unless another one chooses their strategy.
BELONGS_TO = {"diversity_penalty": "num_beam_groups", "push_progress": "force_words_ids"}
SHORT = {"decoder_prompts": "--decoder-prompt", "num_beams": "--beams"}
SHORT |= {"num_beam_groups": "--beam-groups", "force_words_ids": "--force-words"}
STOP = {"eos": "eos", "tokens": "stop_tokens", "strings": "stop", "include_stop": "include_stop"}

RENAMED = {f"Stop({field}=...)": name for field, name in STOP.items()}
RENAMED |= {"decoder_prompts": "decoder_ids", "force_words_ids": "force_text"}  # where these are used


def shown(name: str) -> str:
    """The option of a parameter: top_p -> --top-p."""
    return SHORT.get(name, f"--{name.replace('_', '-')}")


def given(values: Values, name: str) -> bool:
    """Whether an option is used."""
    return values.get(name) is not None and values[name] != ()


# --- groups of options -----------------------------------------------------------------------------


class Sources(Group):
    """The encoder reads the prompt. The decoder begins with its start token; what you add follows that and
    is not shown.

    --src-lang CODE  language of the prompt, such as en_XX
    --tgt-lang CODE  language of the output
    --decoder-prompt,--decoder-prompts TEXT...  the decoder continues this; one, or one per prompt
    --decoder-ids IDS...  the same as ids, start token included
    """

    title = "encoder-decoders"


class Choosing(Group):
    """These shape the distribution; try --temperature 0.8 --top-p 0.95. A value holds for all prompts; in
    Python there can be one for each.

    --greedy  the most probable token; nothing is drawn
    --checkpoint  as in generation_config.json; options change it
    --seed N  any integer: the same text every time
    """

    title, modules = "choosing a token", ("temperature", "truncation", "")


class Penalties(Group):
    """Against repetition; try --repetition-penalty 1.1."""

    title, modules = "penalties", ("penalties",)


class Bans(Group):
    """Tokens are named by their ids, which minitx tokenize shows. Try --suppress-tokens 464,50."""

    title, modules = "biases, bans and forced tokens", ("bias", "constraints", "strategy")


class Beams(Group):
    """Several hypotheses grow side by side, and the most probable one wins. Try --beams 4 --length-penalty
    0.6; --num-samples then shows several of the best.

    --force-text TEXT...  output must contain this, with its spaces: " cat"
    --beam-sample  draw the continuations of the beams
    --stochastic-beam  draw --num-samples different texts, fewer than N
    """

    title, modules = "beam search", ("search",)


class Several(Group):
    """Other ways to several texts of one prompt; add --num-samples 4.

    --arithmetic  draws that differ as much as independent draws can
    --alternatives  one for each of the most probable first tokens
    """

    title = "several samples"


class Ending(Group):
    """At an end token of the model, after --max-new-tokens, or:

    --stop TEXT...  before this text
    --eos IDS  end tokens that replace the model's own
    --ignore-eos  end tokens do not end the text
    --stop-tokens IDS  further tokens that end the text
    --include-stop  show the --stop or --stop-tokens that ended it
    """

    title = "where the text ends"


def field_options(group: Any, *kinds: type[Strategy]) -> list[click.Option]:
    """The options of a group, first those of the fields whose processors are in its modules."""
    found: dict[str, click.Option] = {}
    for kind in kinds:
        for name, declared in parameters_of(kind).items():
            module = getattr(declared.processor, "__module__", "").rpartition(".")[2]
            module = "search" if issubclass(kind, Search) and name not in parameters_of(Strategy) else module
            if module not in group.modules or (declared.metavar is None and declared.off is not False):
                continue  # of another group, or in Python only
            spellings = ",".join(dict.fromkeys([shown(name), f"--{name.replace('_', '-')}"]))
            spec = f"{spellings} {declared.metavar or ''}".strip()
            text = re.sub(r" \((arXiv|OpenAI)[^)]*\)", "", declared.help)
            read = sequences if name.endswith("words_ids") else None
            found.setdefault(name, option(f"{spec}  {text}", group.heading(), read))
    return list(found.values())


def strategy_options(*, searches: bool) -> list[click.Option]:
    """How tokens are chosen and where the text ends; with `searches` also beam search and several samples."""
    several = [*field_options(Beams, *KINDS), *Beams.options(), *Several.options()] if searches else []
    groups = [field_options(group, minitx.Sample) for group in (Choosing, Penalties, Bans)]
    weights = Weights.options(*HUB, "dtype", "device")
    return [*Choosing.options(), *chain(*groups), *several, *Ending.options(), *weights]
