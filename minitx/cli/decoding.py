"""Options of decoding, made from the fields of the strategies, and what they ask for: a `Request`.

A field of a strategy is an option of the same name: its type follows from the annotation, its help and
metavar from the `parameter(...)` that declares it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from torch import Tensor

import minitx
from minitx.cli import options
from minitx.cli.options import grouped, option
from minitx.cli.source import Source, read_texts
from minitx.decoding import Strategy
from minitx.decoding.generation_config import begin_token
from minitx.decoding.prompts import read_prompts
from minitx.decoding.request import TASKS, beginnings, remaining_tokens
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


# --- from options to a request ---------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A model, prompts and arguments of `generate` and `explain`.

    Attributes:
        prompts: as typed, texts or ids.
        ids: the token ids of each prompt.
        settings: keyword arguments of `generate` and `explain` alike.
    """

    model: Any
    prompts: list[Any]
    ids: list[list[int]]
    strategy: Strategy
    settings: Values


def request_of(source: Source, values: Values) -> Request:
    """Reads and checks all options, the cheap checks before the model is loaded.

    Raises:
        ValueError: options that contradict one another; a model without a head for the next token, or a
            prompt without tokens.
    """
    prompts = typed_prompts(values)
    source.check_device()
    folder = source.folder()
    tokenizer = optional_tokenizer(source, folder, required=not values["ids"])
    set_languages(tokenizer, values)
    head = head_of(source, folder)
    strategy, settings, max_length = settings_of(values, folder, forced_phrases(tokenizer, values, head))
    texts = [encoded(tokenizer, prompt, values) for prompt in prompts]
    model = model_of(source, folder, head)
    size, bos = model.config.embedder.vocab_size, begin_token(model, tokenizer)
    ids = read_prompts(texts, vocab_size=size, bos=bos)
    starts = decoder_starts(model, values, len(ids), tokenizer)
    if max_length is not None and starts is not None:
        settings["max_new_tokens"] = remaining_tokens(max_length, starts)
    if values["min_new_tokens"] is None:  # that of the checkpoint may be more than the maximum
        settings["min_new_tokens"] = min(settings["min_new_tokens"], settings["max_new_tokens"])
    settings |= {"tokenizer": tokenizer, "decoder_prompts": starts}
    return Request(model, prompts, ids, strategy, settings)


def exclusive(values: Values, *names: str) -> None:
    """Raises UsageError if several of these are given."""
    used = [shown(name) for name in names if given(values, name)]
    if len(used) > 1:
        message = f"{used[0]} and {used[1]} exclude one another; leave one of them out"
        raise click.UsageError(message, click.get_current_context())


def typed_prompts(values: Values) -> list[Any]:
    """The texts, or the ids, of the prompts."""
    if values["system"] is not None and not values["chat"]:
        raise ValueError("--system goes with --chat.")
    for name in ("texts", "file", "chat"):
        if values["ids"] and given(values, name):
            other = "a text" if name == "texts" else shown(name)
            raise ValueError(f"--ids is the prompt; {other} cannot be combined with it.")
    return list(values["ids"]) or read_texts(values["texts"], values["file"])


def optional_tokenizer(source: Source, folder: Path, *, required: bool) -> minitx.Tokenizer | None:
    """The tokenizer; where it is not required it may be missing, and texts are then shown as ids."""
    try:
        return source.tokenizer(folder)
    except ValueError as error:
        if required and hasattr(error, "parameter"):
            raise
        if required:
            raise ValueError(f'{error} Prompts can also be token ids: --ids "1 2 3".') from None
        warnings.warn(f"{error} Texts are shown as ids.", stacklevel=2)
        return None


def set_languages(tokenizer: minitx.Tokenizer | None, values: Values) -> None:
    """Sets the tokenizer's languages; raises ValueError for text options where there is no tokenizer."""
    for name in ("stop", "decoder_prompts", "force_text", "src_lang", "tgt_lang"):
        if tokenizer is None and given(values, name):
            raise ValueError(
                f"{shown(name)} is text, which needs a tokenizer; there are options that take ids."
            )
    for name in ("src_lang", "tgt_lang"):
        if values.get(name) is not None:
            setattr(tokenizer, name, values[name])


def forced_phrases(tokenizer: minitx.Tokenizer | None, values: Values, head: str) -> list[list[int]]:
    """The ids of the texts that --force-text asks for; raises ValueError for one with unknown tokens."""
    phrases = []
    for text in values.get("force_text") or ():
        assert tokenizer is not None  # `set_languages` has checked
        ids = tokenizer.encode(text, add_special_tokens=False, as_target=head == "seq2seq-lm")
        if not ids or tokenizer.unk_token_id in ids:
            raise ValueError(f"--force-text {text!r:.60}: the tokenizer has no tokens for it.")
        phrases.append(ids)
    return phrases


def encoded(tokenizer: minitx.Tokenizer | None, prompt: str | list[int], values: Values) -> list[int]:
    """The token ids of one prompt."""
    if isinstance(prompt, list):
        return prompt
    assert tokenizer is not None  # else there would be no text
    if not values["chat"]:
        return tokenizer.encode(prompt)
    system = [] if values["system"] is None else [{"role": "system", "content": values["system"]}]
    return tokenizer.encode_chat([*system, {"role": "user", "content": prompt}])


def head_of(source: Source, folder: Path) -> str:
    """The task of the head for the next token, with an encoder or without."""
    architecture = source.architecture(folder)
    weights = () if architecture is None else architecture.head_weights
    return next((task for task in TASKS if task in weights), TASKS[0])


def model_of(source: Source, folder: Path, head: str) -> Any:
    """Loads the model with its head for the next token; raises ValueError if it has none."""
    try:
        return source.model(folder, head)
    except ValueError as error:
        if head not in str(error) and "the checkpoint lacks" not in str(error):
            raise
        raise ValueError(f"{source.name} cannot predict a next token: {error}") from None


def decoder_starts(
    model: Any, values: Values, prompts: int, tokenizer: minitx.Tokenizer | None
) -> list[list[int]] | None:
    """The ids that the decoder continues for each prompt; None for a model without an encoder."""
    exclusive(values, "decoder_prompts", "decoder_ids")
    starts = values["decoder_prompts"] or values["decoder_ids"]
    if model.task == "seq2seq-lm":
        return beginnings(model, list(starts) or None, prompts, tokenizer)
    if starts:
        option = shown("decoder_prompts" if values["decoder_prompts"] else "decoder_ids")
        raise ValueError(f"{option} is for models with an encoder; this one continues the prompt itself.")
    return None


def settings_of(
    values: Values, folder: Path, phrases: Sequence[list[int]] = ()
) -> tuple[Strategy, Values, int | None]:
    """The strategy and the other arguments: the checkpoint's if asked for, changed by the options.

    And its `max_length`, if nothing else limits the number of tokens.
    """
    exclusive(values, "greedy", "checkpoint")
    exclusive(values, "eos", "ignore_eos")
    strategy: Strategy = minitx.Sample()
    stop, most, least, max_length = minitx.Stop(), None, 0, None
    if values["checkpoint"]:
        of_file = minitx.generation_settings(folder)
        strategy, stop = of_file.strategy, of_file.stop
        most, least = of_file.max_new_tokens, of_file.min_new_tokens
        max_length = of_file.max_length if most is None and values["max_new_tokens"] is None else None
    ends = {field: values[name] for field, name in STOP.items() if given(values, name)}
    if values["ignore_eos"]:
        ends["eos"] = ()
    most = next(each for each in (values["max_new_tokens"], most, DEFAULT_LENGTH) if each is not None)
    settings = {
        "max_new_tokens": most,
        "min_new_tokens": least if values["min_new_tokens"] is None else values["min_new_tokens"],
        "stop": replace(stop, **ends),
        "seed": values["seed"],
    }
    return strategy_of(values, strategy, phrases), settings, max_length


def strategy_of(values: Values, base: Strategy, phrases: Sequence[list[int]]) -> Strategy:
    """The strategy that the options choose, else that of the checkpoint or `Sample`, with their values.

    Raises:
        ValueError: options that have no effect with it.
    """
    kind = kind_of(values, base)
    check_effect(values, kind)
    names = {field.name for field in fields(kind)}
    chosen = {field.name: getattr(base, field.name) for field in fields(base) if field.name in names}
    chosen |= {name: values[name] for name in names if values.get(name) is not None}
    chosen |= {name: dict(chosen[name]) for name in ("logit_bias", "sequence_bias") if chosen[name]}
    if phrases:
        chosen["force_words_ids"] = [*chosen.get("force_words_ids", ()), *phrases]
    if values.get("tgt_lang") is not None and values["forced_bos_token_id"] is None:
        chosen["forced_bos_token_id"] = None  # that of the checkpoint is of another language
    return kind(**chosen)


def kind_of(values: Values, base: Strategy) -> type[Strategy]:
    """The class of the strategy; raises UsageError if the options choose two, or a search without --beams."""
    names = [name for name in CHOICES if given(values, name)]
    chosen = CHOICES[names[0]] if names else None
    others = [name for name in names if CHOICES[name] is not chosen]
    searches = values.get("num_beams") is not None
    if searches and chosen is not None and not issubclass(chosen, Search):
        others.append("num_beams")
    exclusive(values, *names[:1], *others)
    if chosen is None and searches:
        return minitx.BeamSample if values["checkpoint"] and isinstance(base, minitx.Sample) else minitx.Beam
    return type(base) if chosen is None else chosen


def check_effect(values: Values, kind: type[Strategy]) -> None:
    """Raises ValueError for an option that has no effect with this strategy."""
    own, sampling = ({field.name for field in fields(each)} for each in (kind, minitx.Sample))
    of_search = {field.name for each in KINDS[1:] for field in fields(each)} - sampling
    searches = issubclass(kind, Search) and (given(values, "num_beams") or values["checkpoint"])
    own |= {"seed"} if issubclass(kind, minitx.Sample) else set()
    own |= {"num_samples"} if kind is not minitx.Greedy else set()
    search_only = {
        *of_search,
        "show_tree",
        *(name for name, each in CHOICES.items() if issubclass(each, Search)),
    }
    choice = next((name for name, each in CHOICES.items() if each is kind and given(values, name)), None)
    way = shown(choice or ("num_beams" if searches else "checkpoint"))
    for name in sorted({*search_only, *sampling, "seed", "num_samples"}):
        if not given(values, name):
            continue
        if name in search_only and not searches:
            raise ValueError(f"{shown(name)} is an option of searches; add --beams, such as --beams 4.")
        if name not in own | search_only or (name in of_search and name not in own):
            why = (
                f"without {shown(BELONGS_TO[name])}; add it"
                if name in BELONGS_TO
                else f"with {way}; leave one out"
            )
            raise ValueError(f"{shown(name)} has no effect {why}.")
