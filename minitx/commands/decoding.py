"""What `minitx generate` and `minitx explain` share: from options to the library's arguments."""

from __future__ import annotations

import re
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from minitx.commands.common import device_of, dtype_of, read_texts, source_of, tokenizer_of
from minitx.commands.decoding_options import DEFAULT_LENGTH, SEARCH, STOP, dashed, names
from minitx.decoding.beam import Beam
from minitx.decoding.beam_sample import BeamSample
from minitx.decoding.settings import begin_token, generation_settings
from minitx.decoding.stop import Stop
from minitx.decoding.strategy import Greedy, Sample
from minitx.weights.load import load

if TYPE_CHECKING:
    from minitx.models import DecoderModel
    from minitx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Request:
    """What is to be generated.

    Attributes:
        prompts: as they were given, texts or ids.
        ids: the token ids of each.
        settings: arguments of `generate` and `explain` alike.
    """

    model: DecoderModel
    prompts: list[str] | list[list[int]]
    ids: list[list[int]]
    strategy: Greedy | Sample | Beam
    settings: dict[str, Any]

    @property
    def tokenizer(self) -> Tokenizer | None:
        found: Tokenizer | None = self.settings["tokenizer"]
        return found

    def text_of(self, token: int) -> str | None:
        """The text of one token, special ones by their names."""
        return None if self.tokenizer is None else self.tokenizer.decode([token])


def request_of(args: Namespace) -> Request:
    """Reads and checks all options before the model is loaded.

    Raises:
        ValueError: options that contradict one another, or values out of range; a model that does not
            continue texts, or a prompt without tokens.
    """
    prompts = prompts_of(args)
    device = device_of(args)
    folder = source_of(args)
    strategy, settings = settings_of(args, folder)
    tokenizer = optional_tokenizer(args, folder)
    if tokenizer is None and args.stop:
        raise ValueError("--stop looks for text, which needs a tokenizer; --stop-tokens takes ids.")
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
    return Request(model, prompts, ids, strategy, settings | {"tokenizer": tokenizer})


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


def settings_of(args: Namespace, folder: Path) -> tuple[Greedy | Sample | Beam, dict[str, Any]]:
    """The strategy, and the other arguments: the checkpoint's if asked for, with what the options change."""
    strategy: Greedy | Sample | Beam = Greedy() if args.greedy else Sample()
    stop, most, least = Stop(), None, 0
    if args.checkpoint:
        if args.greedy:
            raise ValueError(
                "--greedy and --checkpoint are two ways to choose; leave one out "
                "(generation_config.json says whether the checkpoint's is greedy)."
            )
        of_file = generation_settings(folder)
        strategy, stop = of_file.strategy, of_file.stop
        most, least = of_file.max_new_tokens, of_file.min_new_tokens
    strategy = searching(args, strategy)
    check_idle(args, strategy)
    most = next(each for each in (args.max_new_tokens, most, DEFAULT_LENGTH) if each is not None)
    with as_options():
        settings = {
            "max_new_tokens": most,
            "min_new_tokens": min(least, most) if args.min_new_tokens is None else args.min_new_tokens,
            "stop": replace(stop, **given(args, Stop)),
            "seed": args.seed,
        }
        return replace(strategy, **given(args, type(strategy))), settings


def searching(args: Namespace, strategy: Greedy | Sample | Beam) -> Greedy | Sample | Beam:
    """The strategy, as a search if --beams asks for one.

    Raises:
        ValueError: --greedy beside it.
    """
    if getattr(args, "num_beams", None) is None:
        return strategy
    if args.greedy:
        raise ValueError("--greedy and --beams are two ways to choose; leave one of them out.")
    draws = args.beam_sample or (args.checkpoint and isinstance(strategy, Sample))
    kind = BeamSample if draws else Beam
    shared = {field.name for field in fields(kind)} & {field.name for field in fields(strategy)}
    return kind(**{name: getattr(strategy, name) for name in shared})


def check_idle(args: Namespace, strategy: Greedy | Sample | Beam) -> None:
    """
    Raises:
        ValueError: an option that means nothing to what is not drawn, or not searched.
    """
    searches = isinstance(strategy, Beam)
    for name in (*SEARCH, "beam_sample", "show_tree"):
        if not searches and getattr(args, name, None) not in (None, False):
            raise ValueError(f"{dashed(name)} is about a search; give --beams, such as --beams 4, with it.")
    if isinstance(strategy, Sample):
        return
    own = {field.name for field in fields(Greedy)}
    only_sampling = [field.name for field in fields(Sample) if field.name not in own]
    for name in (*only_sampling, "seed", *(() if searches else ("num_samples",))):
        if getattr(args, name, None) is None:
            continue
        if searches:
            raise ValueError(
                f"{dashed(name)} has no effect with --beams: a search keeps the most probable texts and "
                "draws nothing; leave it out, or add --beam-sample."
            )
        greedy = "--greedy" if args.greedy else "--checkpoint, whose generation_config.json is greedy"
        raise ValueError(
            f"{dashed(name)} has no effect with {greedy}: it takes the most probable token and draws "
            "nothing; leave one of them out."
        )


def given(args: Namespace, kind: type[Greedy | Sample | Beam | Stop]) -> dict[str, Any]:
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
        missing = " has no tokenizer.json" in str(error)  # and what else there could be, for encoders
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


def model_of(args: Namespace, folder: Path, device: str) -> DecoderModel:
    """The model, with its language-model head.

    Raises:
        ValueError: it has none, or anything else about its files.
    """
    try:
        model = load(
            folder, head="causal-lm", dtype=dtype_of(args), device=device, model_type=args.model_type
        )
    except ValueError as error:
        if "causal-lm" not in str(error):
            raise
        raise ValueError(f"{args.model} cannot predict a next token: {error}") from None
    return cast("DecoderModel", model)


# What the library's messages say to callers in Python -> the same for those of the command.
WORDS = {
    "use Greedy()": "use --greedy",
    " Only in a list with one temperature per row may some be 0.": "",
    "None, the default, keeps every token": "leave it out to keep every token",
    "a key of ": "",
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
    message = re.sub(r"Stop\((\w+)=[^)]*\)", lambda found: dashed(STOP[found[1]]), message)
    known = sorted(names(), key=len, reverse=True)
    parameters = "|".join(known)
    unmistakable = "|".join(name for name in known if "_" in name)  # "order" may be a word like others
    message = re.sub(rf"\b({parameters})=True\b", r"\1=", message)  # a flag
    message = re.sub(rf"\b({parameters})=(?=[\w'\"(\[{{-])", r"\1= ", message)
    return re.sub(
        rf"\b({parameters})=|\b({unmistakable})\b", lambda found: dashed(found[1] or found[2]), message
    )
