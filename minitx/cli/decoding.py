"""What `minitx generate` and `minitx explain` share: from options to the library's arguments."""

from __future__ import annotations

import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from minitx.checkpoint.load import load
from minitx.cli.beginnings import beginnings_of, check_words, forced
from minitx.cli.common import architecture_of, device_of, dtype_of, read_texts, source_of, tokenizer_of
from minitx.cli.decoding_options import DEFAULT_LENGTH, SAMPLING, SEARCH, SHORT, STOP, dashed, names
from minitx.decoding.generation_config import begin_token, generation_settings
from minitx.decoding.request import TASKS, remaining_tokens
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
from minitx.decoding.stopping import Stop
from minitx.decoding.strategy import Strategy

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer

# Options that choose a strategy; at most one of them can be given.
WAYS: dict[str, type[Strategy]] = {
    "greedy": Greedy,
    "arithmetic": ArithmeticSample,
    "alternatives": Alternatives,
    "beam_sample": BeamSample,
    "stochastic_beam": StochasticBeam,
    "num_beam_groups": DiverseBeam,
    "force_words_ids": LexicalBeam,
    "force_text": LexicalBeam,
}
# Options that mean something beside one of those alone.
BESIDE = {"diversity_penalty": "num_beam_groups", "push_progress": "force_words_ids"}


@dataclass(frozen=True)
class Request:
    """What is to be generated.

    Attributes:
        prompts: as they were given, texts or ids.
        ids: the token ids of each.
        settings: arguments of `generate` and `explain` alike.
    """

    model: CausalModel
    prompts: list[str] | list[list[int]]
    ids: list[list[int]]
    strategy: Strategy
    settings: dict[str, Any]

    @property
    def tokenizer(self) -> Tokenizer | None:
        found: Tokenizer | None = self.settings["tokenizer"]
        return found


def request_of(args: Namespace) -> Request:
    """Reads and checks all options before the model is loaded.

    Raises:
        ValueError: options that contradict one another, or values out of range; a model that does not
            continue texts, or a prompt without tokens.
    """
    prompts = prompts_of(args)
    device = device_of(args)
    folder = source_of(args)
    tokenizer, phrases = optional_tokenizer(args, folder), []
    if tokenizer is None:
        check_words(args)
    else:
        for name in ("src_lang", "tgt_lang"):
            if getattr(args, name) is not None:
                setattr(tokenizer, name, getattr(args, name))
        if getattr(args, "force_text", None):
            phrases = forced(args.force_text, tokenizer, as_target=head_of(args, folder) == "seq2seq-lm")
    strategy, settings, max_length = settings_of(args, folder, phrases)
    if args.tgt_lang is not None and args.forced_bos_token_id is None:
        strategy = replace(strategy, forced_bos_token_id=None)  # that of --checkpoint is of another language
    ids = [encode(args, tokenizer, prompt) for prompt in prompts]
    model = model_of(args, folder, device)
    for number, row in enumerate(ids, 1):
        if not row:
            begin = begin_token(model, tokenizer)
            hint = "" if begin is None else f"; this model's texts begin with token {begin}: --ids {begin}"
            raise ValueError(f"prompt {number} has no tokens; there must be one to continue{hint}.")
        size = model.config.embedder.vocab_size
        unknown = next((token for token in row if not 0 <= token < size), None)
        if unknown is not None:
            hint = "" if isinstance(prompts[number - 1], list) else "; is the tokenizer another model's?"
            raise ValueError(
                f"prompt {number} holds the id {unknown}, but the model knows the ids 0 to {size - 1}{hint}."
            )
    with as_options():
        begun = beginnings_of(args, model, len(ids), tokenizer)
    if max_length is not None and begun is not None:
        settings["max_new_tokens"] = remaining_tokens(max_length, begun)
    if args.min_new_tokens is None:  # that of --checkpoint, which may be more than there are to be
        settings["min_new_tokens"] = min(settings["min_new_tokens"], settings["max_new_tokens"])
    return Request(
        model, prompts, ids, strategy, settings | {"tokenizer": tokenizer, "decoder_prompts": begun}
    )


def prompts_of(args: Namespace) -> list[str] | list[list[int]]:
    """The texts, or the ids, of the prompts."""
    if args.system is not None and not args.chat:
        raise ValueError("--system goes with --chat.")
    if args.ids is None:
        return read_texts(args)
    for option, given in (("a text", args.texts), ("--file", args.file), ("--chat", args.chat)):
        if given:
            raise ValueError(f"--ids is the prompt; {option} cannot be given beside it.")
    found: list[list[int]] = args.ids
    return found


def settings_of(
    args: Namespace, folder: Path, phrases: Sequence[list[int]] = ()
) -> tuple[Strategy, dict[str, Any], int | None]:
    """The strategy, and the other arguments: the checkpoint's if asked for, with what the options change.

    And its `max_length`, if nothing else says how many tokens there are to be. `phrases` are those of
    --force-text.
    """
    strategy: Strategy = Sample()
    stop, most, least, max_length = Stop(), None, 0, None
    if args.checkpoint:
        if args.greedy:
            raise ValueError(
                "--greedy and --checkpoint are two ways to choose; leave one out "
                "(generation_config.json says whether the checkpoint's is greedy)."
            )
        of_file = generation_settings(folder)
        strategy, stop = of_file.strategy, of_file.stop
        most, least = of_file.max_new_tokens, of_file.min_new_tokens
        max_length = of_file.max_length if most is None and args.max_new_tokens is None else None
    kind = kind_of(args, strategy)
    check_idle(args, kind)
    most = next(each for each in (args.max_new_tokens, most, DEFAULT_LENGTH) if each is not None)
    with as_options():
        settings = {
            "max_new_tokens": most,
            "min_new_tokens": least if args.min_new_tokens is None else args.min_new_tokens,
            "stop": replace(stop, **given(args, Stop)),
            "seed": args.seed,
        }
        own = {field.name for field in fields(kind)}
        kept = {field.name: getattr(strategy, field.name) for field in fields(strategy) if field.name in own}
        stated = given(args, kind)
        if phrases:
            stated["force_words_ids"] = [*stated.get("force_words_ids", ()), *phrases]
        return kind(**kept | stated), settings, max_length


def kind_of(args: Namespace, strategy: Strategy) -> type[Strategy]:
    """The strategy that the options choose, else that of the checkpoint, or `Sample`.

    Raises:
        ValueError: they choose two, or a search without --beams.
    """
    ways = [name for name in WAYS if getattr(args, name, None) not in (None, False)]
    chosen = WAYS[ways[0]] if ways else None
    ways = [*ways[:1], *(name for name in ways if WAYS[name] is not chosen)]  # two may choose the same
    searches = getattr(args, "num_beams", None) is not None
    if searches and chosen is not None and not issubclass(chosen, Search):
        ways.append("num_beams")
    if len(ways) > 1:
        first, second = map(shown, ways[:2])
        raise ValueError(f"{first} and {second} are two ways to choose; leave one of them out.")
    if chosen is None and searches:
        return BeamSample if args.checkpoint and isinstance(strategy, Sample) else Beam
    if chosen is None:
        return type(strategy)
    if issubclass(chosen, Search) and not searches and not isinstance(strategy, Search):
        raise ValueError(f"{shown(ways[0])} is about a search; give --beams, such as --beams 4, with it.")
    return chosen


def shown(name: str) -> str:
    """The option of a parameter, the short one where it has two."""
    return SHORT.get(name, dashed(name))


def check_idle(args: Namespace, kind: type[Strategy]) -> None:
    """
    Raises:
        ValueError: an option that means nothing to this strategy.
    """
    searches, own = issubclass(kind, Search), {field.name for field in fields(kind)}
    ways = (name for name, chosen in WAYS.items() if chosen is kind and getattr(args, name, None))
    way = shown(next(ways, "num_beams"))
    used = {
        "show_tree": searches,
        "seed": issubclass(kind, Sample),
        "num_samples": kind is not Greedy,
        **{name: name in own for name in (*SEARCH, *SAMPLING, "order")},
    }
    for name in (name for name, useful in used.items() if not useful):
        if getattr(args, name, None) is None:
            continue
        if not searches and name in (*SEARCH, "show_tree"):
            raise ValueError(f"{shown(name)} is about a search; give --beams, such as --beams 4, with it.")
        if name in BESIDE:
            raise ValueError(f"{shown(name)} has no effect without {shown(BESIDE[name])}; add it.")
        why = f"with {way}; leave one of them out."
        if kind is Beam:
            why = (
                f"with {way}: a search keeps the most probable texts and draws nothing; leave it out, or add "
                "--beam-sample."
            )
        elif not searches:
            if kind is Greedy and not args.greedy:
                way = "--checkpoint, whose generation_config.json is greedy"
            why = f"with {way}: it takes the most probable token and draws nothing; leave one of them out."
        raise ValueError(f"{shown(name)} has no effect {why}")


def given(args: Namespace, kind: type[Strategy | Stop]) -> dict[str, Any]:
    """The fields of a strategy, or of `Stop`, that were given as options."""
    found: dict[str, Any] = {}
    for field in fields(kind):
        value = getattr(args, STOP[field.name] if kind is Stop else field.name, None)
        if value is not None:
            found[field.name] = dict(value) if field.name in ("logit_bias", "sequence_bias") else value
    if kind is Stop and args.ignore_eos:
        found["eos"] = ()
    return found


def optional_tokenizer(args: Namespace, folder: Path) -> Tokenizer | None:
    """The tokenizer; with --ids it may be missing, and texts are then shown as ids."""
    try:
        return tokenizer_of(args, folder)
    except ValueError as error:
        # and what else there could be
        missing = any(f" has no {what}" in str(error) for what in ("tokenizer.json", "vocabulary file"))
        reason = f"{folder} has no tokenizer.json" if missing else str(error).removesuffix(".")
        if args.ids is None and missing:
            raise ValueError(f'{reason}; give token ids instead of a text: --ids "1 2 3".') from None
        if args.ids is None:
            raise
        warnings.warn(f"{reason}; texts are shown as ids.", stacklevel=2)
        return None


def encode(args: Namespace, tokenizer: Tokenizer | None, prompt: str | list[int]) -> list[int]:
    """The token ids of one prompt."""
    if isinstance(prompt, list):
        return prompt
    assert tokenizer is not None  # else there would be no text
    if not args.chat:
        return tokenizer.encode(prompt)
    system = [] if args.system is None else [{"role": "system", "content": args.system}]
    return tokenizer.encode_chat([*system, {"role": "user", "content": prompt}])


def model_of(args: Namespace, folder: Path, device: str) -> CausalModel:
    """The model, with its head for the next token.

    Raises:
        ValueError: it has none, or anything else about its files.
    """
    head = head_of(args, folder)
    try:
        model = load(folder, head=head, dtype=dtype_of(args), device=device, model_type=args.model_type)
    except ValueError as error:
        if head not in str(error) and "the checkpoint lacks" not in str(error):
            raise
        raise ValueError(f"{args.model} cannot predict a next token: {error}") from None
    return cast("CausalModel", model)


def head_of(args: Namespace, folder: Path) -> str:
    """The task of the head for the next token: another one where there is an encoder before the decoder."""
    found = architecture_of(args, folder)
    return next((task for task in TASKS if found is not None and task in found.head_weights), TASKS[0])


# What the library's messages say to callers in Python -> the same for those of the command.
WORDS = {
    "use Greedy()": "use --greedy",
    " Only in a list with one temperature per row may some be 0.": "",
    "None, the default, keeps every token": "leave it out to keep every token",
    "a key of ": "",
    "choose a tgt_lang": "choose a --tgt-lang",
    "print(generate(...).beams[0])": "minitx generate ... --show-tree",
    'True, False, "never" or "exact"': "true, false, never or exact",
    'True, False or "never"': "true, false or never",
    " Beam(...)": " --beams alone",
    "decoder_prompts=, a list of ids for each prompt": "--decoder-ids",
}
PAIR = ("START", "FACTOR")  # what --help calls the two


@contextmanager
def as_options() -> Iterator[None]:
    """Gives parameters the names of their options in the library's errors."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(with_options(str(error))) from error


def with_options(message: str) -> str:
    """An error of the library in the words of the command: top_p=2.0 is --top-p 2.0, top_p= is --top-p."""
    for python, option in WORDS.items():
        message = message.replace(python, option)
    message = re.sub(r"_penalty\[(\d)\]=", lambda found: f"_penalty=: {PAIR[int(found[1])]} ", message)
    message = re.sub(
        r"_bias\[\(?([\d, ]+)\)?\]=", lambda found: f"_bias= {found[1].replace(',', '')}=", message
    )
    for name, kind in WAYS.items():
        message = message.replace(f"{kind.__name__}(...)", shown(name))
    message = re.sub(r"Stop\((\w+)=[^)]*\)", lambda found: dashed(STOP[found[1]]), message)
    known = sorted(names(), key=len, reverse=True)
    parameters = "|".join(known)
    unmistakable = "|".join(name for name in known if "_" in name)  # "order" may be a word like others
    message = re.sub(rf"\b({parameters})=True\b", r"\1=", message)  # a flag
    message = re.sub(rf"\b({parameters})=(?=[\w'\"(\[{{-])", r"\1= ", message)
    return re.sub(
        rf"\b({parameters})=|\b({unmistakable})\b", lambda found: shown(found[1] or found[2]), message
    )
