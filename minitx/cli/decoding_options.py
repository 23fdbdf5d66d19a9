"""Options of generate, explain and chat, made from the fields of the strategies.

A field of a strategy is an option of the same name: its type follows from the annotation, its help and
metavar from the `parameter(...)` that declares it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from torch import Tensor

import minitx
from minitx.cli import options
from minitx.cli.options import grouped, option
from minitx.decoding import Strategy
from minitx.decoding.search.base import Search

Values = dict[str, Any]  # of the options, by the names of their parameters

DEFAULT_LENGTH = 64  # new tokens, where neither an option nor the checkpoint has the number
KINDS = (minitx.Sample, minitx.Beam, minitx.DiverseBeam, minitx.LexicalBeam)  # together they have all fields
# Options that choose a strategy; at most one of them can be given.
CHOICES: dict[str, type[Strategy]] = {
    "greedy": minitx.Greedy,
    "arithmetic": minitx.ArithmeticSample,
    "alternatives": minitx.Alternatives,
    "beam_sample": minitx.BeamSample,
    "stochastic_beam": minitx.StochasticBeam,
    "num_beam_groups": minitx.DiverseBeam,
    "force_words_ids": minitx.LexicalBeam,
    "force_text": minitx.LexicalBeam,
}
# Options without an effect unless another one chooses their strategy.
BELONGS_TO = {"diversity_penalty": "num_beam_groups", "push_progress": "force_words_ids"}
SPELLINGS = {
    "decoder_prompts": "--decoder-prompt",
    "num_beams": "--beams,--num-beams",
    "num_beam_groups": "--beam-groups,--num-beam-groups",
    "force_words_ids": "--force-words,--force-words-ids",
}
STOP = {"eos": "eos", "tokens": "stop_tokens", "strings": "stop", "include_stop": "include_stop"}
RENAMED = {f"Stop({field}=...)": name for field, name in STOP.items()}

SAMPLING, SEARCHING, MODEL, LENGTH = "choosing a token", "beam search", "the model", "length and output"
SOURCES, ENDING, SEVERAL = "encoder-decoders", "where the text ends", "several samples"
PENALTIES, BANS = "penalties", "biases, bans and forced tokens"
GROUPS = {"penalties": PENALTIES, "bias": BANS, "constraints": BANS, "strategy": BANS}  # by module
NOTES = {
    SAMPLING: "These shape the distribution; try --temperature 0.8 --top-p 0.95. A value holds for all "
    "prompts; in Python there can be one for each.",
    PENALTIES: "Against repetition; try --repetition-penalty 1.1.",
    BANS: "Tokens are named by their ids, which minitx tokenize shows. Try --suppress-tokens 464,50.",
    SEARCHING: "Several hypotheses grow side by side, and the most probable one wins. Try --beams 4 "
    "--length-penalty 0.6; --num-samples then shows several of the best.",
    SEVERAL: "Other ways to several texts of one prompt; add --num-samples 4.",
    SOURCES: "The encoder reads the prompt. The decoder begins with its start token; what you add follows "
    "that and is not shown.",
    ENDING: "At an end token of the model, after --max-new-tokens, or:",
}
TEXTS = {"notes": NOTES, "renamed": RENAMED}  # attributes of the commands
# Parameters without an option: why. Then options of other tools.
NOT_HERE = {
    "--processors": "it takes Python functions: minitx.Sample(processors=[...])",
    "--prefix-allowed-tokens-fn": "it is a Python function: minitx.Sample(prefix_allowed_tokens_fn=...)",
    "--chain": "it is composed in Python: minitx.Sample(chain=minitx.Chain(...))",
    "--generator": "it is an object of PyTorch; --seed makes draws repeatable",
    "--inputs-embeds": "it is a tensor: minitx.generate(..., inputs_embeds=...)",
    "--attention-mask": "prompts of different lengths are padded for you",
    "--tokenizer": "it is the one beside the model",
    "--do-sample": "sampling is the default, --greedy the alternative",
    "--num-return-sequences": "it is called --num-samples",
    "--max-length": "--max-new-tokens is the number of new tokens",
    "--stop-strings": "it is called --stop",
    "--eos-token-id": "it is called --eos",
    "--n": "it is called --num-samples",
    "--strategy": "it is --greedy, or --checkpoint; sampling is the default",
    "--head": "it is always the one for the next token",
}


def shown(name: str) -> str:
    """The option of a parameter: top_p -> --top-p."""
    return SPELLINGS.get(name, f"--{name.replace('_', '-')}").partition(",")[0]


def given(values: Values, name: str) -> bool:
    """Whether an option is used."""
    return values.get(name) is not None and values[name] != ()


# --- options ---------------------------------------------------------------------------------------

# Readers of values by the types that an annotation allows; the first one counts.
READERS: dict[Any, Any] = {
    Mapping[int, float]: options.biases,
    Mapping[tuple[int, ...], float]: options.sequence_biases,
    Sequence[Sequence[int]]: options.sequences,
    Sequence[Any]: options.sequences,
    tuple[int, float]: options.start_and_factor,
    Sequence[int]: options.ids,
    int: options.integer,
    float: options.number,
}
LISTS = (options.biases, options.sequence_biases, options.sequences, options.ids)


def field_options(*kinds: type[Strategy]) -> list[click.Parameter]:
    """The options of all fields of some strategies, group by group."""
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    owners = {field.name: (kind, field) for kind in reversed(kinds) for field in fields(kind)}
    made: dict[str, list[click.Parameter]] = {SAMPLING: [], PENALTIES: [], BANS: [], SEARCHING: []}
    for name, (kind, field) in sorted(owners.items(), key=lambda item: kinds.index(item[1][0])):
        declared = field.metadata.get("parameter")
        module = getattr(getattr(declared, "processor", None), "__module__", "").rpartition(".")[2]
        group = SEARCHING if issubclass(kind, Search) else GROUPS.get(module, SAMPLING)
        read, flag = reader_of(field, hints[name])
        if read is not None or flag:
            metavar = "" if flag else f" {getattr(declared, 'metavar', None) or 'VALUE'}"
            spec = SPELLINGS.get(name, shown(name)) + metavar
            text = re.sub(r" \((arXiv|OpenAI)[^)]*\)", "", getattr(declared, "help", ""))
            made[group] += grouped(group, option(spec, text, read, name=name, joined=read in LISTS))
    return [each for group in made.values() for each in group]


def reader_of(field: Field[Any], hint: Any) -> tuple[Any, bool]:
    """How the value of a field is read, and whether its option is a flag."""
    union = get_args(hint) if get_origin(hint) not in (Literal, Mapping, Sequence, tuple) else ()
    kinds = [kind for kind in union or (hint,) if kind is not NoneType]
    if bool in kinds:
        flag = len(kinds) == 1 and field.default is False
        return None if flag else options.switch, flag
    if get_origin(kinds[0]) is Literal:
        return get_args(kinds[0]), False
    if Tensor in kinds:  # one number, or one per row
        kinds = kinds[:1]
    return next((read for kind, read in READERS.items() if kind in kinds), None), False


def prompt_options(text: str) -> list[click.Parameter]:
    """The prompts, as texts, messages or ids, and what the decoder of an encoder-decoder begins with."""
    begin = "the decoder continues this; one, or one per prompt"
    return [
        *(options.MODEL, options.texts("PROMPT", text), options.FILE),
        option("--ids IDS", 'token ids as a prompt: "464 3290"', options.ids, multiple=True),
        option("--chat", "the prompt is a message to a chat model"),
        option("--system TEXT", "a system message before it"),
        *LANGUAGES,
        *grouped(
            SOURCES,
            option("--decoder-prompt TEXT", begin, name="decoder_prompts", multiple=True),
            option("--decoder-ids IDS", "the same as ids, start token included", options.ids, multiple=True),
        ),
    ]


LANGUAGES = grouped(
    SOURCES,
    option("--src-lang CODE", "language of the prompt, such as en_XX"),
    option("--tgt-lang CODE", "language of the output"),
)
WEIGHTS = grouped(MODEL, *options.HUB, options.DTYPE, options.DEVICE)


def strategy_options(*, searches: bool) -> list[click.Parameter]:
    """How tokens are chosen and where the text ends; with `searches` also beam search and several samples."""
    forced = 'output must contain this, with its spaces: " cat"'
    return [
        *grouped(
            SAMPLING,
            option("--greedy", "the most probable token; nothing is drawn"),
            option("--checkpoint", "as in generation_config.json; options change it"),
            option("--seed N", "any integer: the same text every time", options.integer),
        ),
        *field_options(*KINDS if searches else (minitx.Sample,)),
        *grouped(
            SEARCHING,
            option("--force-text TEXT", forced, multiple=True),
            option("--beam-sample", "draw the continuations of the beams"),
            option("--stochastic-beam", "draw --num-samples different texts, fewer than N"),
        )[: None if searches else 0],
        *grouped(
            SEVERAL,
            option("--arithmetic", "draws that differ as much as independent draws can"),
            option("--alternatives", "one for each of the most probable first tokens"),
        )[: None if searches else 0],
        *grouped(
            ENDING,
            option("--stop TEXT", "before this text", multiple=True),
            option("--eos IDS", "end tokens that replace the model's own", options.ids, joined=True),
            option("--ignore-eos", "end tokens do not end the text"),
            option("--stop-tokens IDS", "further tokens that end the text", options.ids, joined=True),
            option("--include-stop", "show the --stop or --stop-tokens that ended it"),
        ),
        *WEIGHTS,
    ]


def length_options(read: Any, default: int | None, text: str) -> list[click.Parameter]:
    """How many tokens."""
    return grouped(
        LENGTH,
        option("--max-new-tokens N", text, read, default=default),
        option("--min-new-tokens N", "no end before N tokens; 0: off", options.integer),
    )
