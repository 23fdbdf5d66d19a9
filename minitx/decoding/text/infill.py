"""Infilling: text between a prefix and a suffix, by models that were trained for it (arXiv:2207.14255).

The prompt has the parts in another order, marked by sentinel tokens, so that the middle comes last:

    "psm": PREFIX prefix SUFFIX suffix MIDDLE
    "spm": PREFIX SUFFIX suffix MIDDLE prefix
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from minitx.decoding.arguments import check_names
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.prompts import check_tokenizer
from minitx.decoding.request import GenerationOptions
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.special_tokens import end_tokens
from minitx.decoding.strategy import Strategy
from minitx.decoding.text.stopping import Stop
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.subwords import token_bytes
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_strings, check_type

_MARK = "\u263a"  # stands before a text that is not the beginning of one
_NOT_HERE = ("tokenizer", "attention_mask", "decoder_prompts", "inputs_embeds")


@dataclass(frozen=True, kw_only=True)
class Sentinels:
    """The names of the sentinel tokens of a vocabulary.

    Args:
        prefix, suffix, middle: the token before each part.
        ends: tokens at which a middle ends, besides the end tokens and these three.
    """

    prefix: str
    suffix: str
    middle: str
    ends: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_strings(prefix=self.prefix, suffix=self.suffix, middle=self.middle)
        ends = (self.ends,) if isinstance(self.ends, str) else tuple(self.ends)
        check_strings(**{f"ends[{index}]": name for index, name in enumerate(ends)})
        object.__setattr__(self, "ends", ends)

    @property
    def names(self) -> tuple[str, str, str]:
        """The tokens before the parts."""
        return self.prefix, self.suffix, self.middle


# Of CodeLlama, StarCoder, SantaCoder, DeepSeek Coder, and of Qwen Coder and CodeGemma.
SENTINELS = (
    Sentinels(prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>", ends=["▁<EOT>"]),
    Sentinels(prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>", ends=["<file_sep>"]),
    Sentinels(prefix="<fim-prefix>", suffix="<fim-suffix>", middle="<fim-middle>"),
    Sentinels(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>"),
    Sentinels(
        prefix="<|fim_prefix|>",
        suffix="<|fim_suffix|>",
        middle="<|fim_middle|>",
        ends=["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>"],
    ),
)


def infill(
    model: CausalModel,
    prefix: str | Sequence[str],
    suffix: str | Sequence[str],
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    *,
    tokenizer: Tokenizer,
    order: Literal["psm", "spm"] = "psm",
    sentinels: Sentinels | None = None,
    **options: Any,
) -> Result:
    """Generates the text between a prefix and a suffix.

    The texts of the result are the middles. A middle ends at an end token or a sentinel, with the reason
    "eos", or as `stop` states.

    Args:
        model: a causal language model that was trained with sentinel tokens.
        prefix: the text before, or a list of them.
        suffix: the text after, or one for each prefix.
        strategy: as for `generate`, a `Strategy`.
        tokenizer: of the model.
        order: of the parts in the prompt: "psm", or "spm", which lets the prefix be continued directly.
        sentinels: of the vocabulary; None for those of CodeLlama, StarCoder, SantaCoder, DeepSeek Coder,
            Qwen Coder or CodeGemma, whichever the tokenizer has.
        **options: as for `generate`.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `generate`; texts that do not pair, sentinels that the
            tokenizer does not have.
    """
    check_names(
        infill, options, (name for name in GenerationOptions.__annotations__ if name not in _NOT_HERE)
    )
    check_type("tokenizer", tokenizer, Tokenizer, "a Tokenizer", "minitx.load_tokenizer(...) returns one")
    check_type("strategy", strategy, Strategy, "a Strategy such as Sample(...)")
    prompts = infill_prompts(prefix, suffix, tokenizer=tokenizer, order=order, sentinels=sentinels)
    names = find_sentinels(tokenizer, sentinels)
    stop = check_type("stop", options.get("stop"), Stop | None, "a Stop") or Stop()
    checked: Any = check_causal_model(model)
    eos: Any = end_tokens(checked, tokenizer) if stop.eos is None else stop.eos
    found = map(tokenizer.token_to_id, (*names.names, *names.ends))
    ends = [token for token in found if token is not None and token < checked.head.config.num_labels]
    options |= {"stop": replace(stop, eos=tuple(dict.fromkeys([*eos, *ends])))}
    return generate(model, prompts, strategy, tokenizer=tokenizer, **options)


def infill_prompts(
    prefix: str | Sequence[str],
    suffix: str | Sequence[str],
    *,
    tokenizer: Tokenizer,
    order: Literal["psm", "spm"] = "psm",
    sentinels: Sentinels | None = None,
) -> list[list[int]]:
    """Returns the ids of the prompts of `infill`, whose arguments these are."""
    check_tokenizer(tokenizer)
    check_choice("order", order, ("psm", "spm"))
    prefixes, suffixes = _texts("prefix", prefix), _texts("suffix", suffix)
    if len(prefixes) != len(suffixes):
        raise ArgumentValueError("suffix", suffix, f"{len(prefixes)} of them, one for each prefix")
    tokens = (tokenizer.token_to_id(name) for name in find_sentinels(tokenizer, sentinels).names)
    first, second, third = (token for token in tokens if token is not None)
    start, pieces, prompts = _start(tokenizer), token_bytes(tokenizer), []
    for before, after in zip(prefixes, suffixes, strict=True):
        head, tail = (
            tokenizer.encode(before, add_special_tokens=False),
            _continuation(tokenizer, after, pieces),
        )
        parts = (
            [first, *head, second, *tail, third] if order == "psm" else [first, second, *tail, third, *head]
        )
        prompts.append([*start, *parts])
    return prompts


def find_sentinels(tokenizer: Tokenizer, sentinels: Sentinels | None = None) -> Sentinels:
    """Returns the sentinels, or for None the known ones that the tokenizer has.

    Raises:
        ArgumentValueError: the tokenizer does not have them.
    """
    check_type("sentinels", sentinels, Sentinels | None, "Sentinels(prefix=..., suffix=..., middle=...)")
    for candidate in SENTINELS if sentinels is None else (sentinels,):
        missing = [name for name in candidate.names if tokenizer.token_to_id(name) is None]
        if not missing:
            return candidate
        if sentinels is not None:
            expected = "names of tokens that the tokenizer has"
            raise ArgumentValueError(
                "sentinels", sentinels, expected, f"it does not have {', '.join(missing)}"
            )
    known = "Sentinels(prefix=..., suffix=..., middle=...)"
    raise ArgumentValueError("sentinels", None, known, "the tokenizer has none of those that are known")


def _texts(name: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts) or not texts:
        raise ArgumentTypeError(name, value, "a string or a list of strings")
    return list(texts)


def _start(tokenizer: Tokenizer) -> list[int]:
    """Returns the special tokens that the tokenizer puts before a text."""
    special = frozenset(tokenizer.special_ids)
    with_them, plain = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    count = len(with_them) - len(plain)
    first = next((n for n in range(count + 1) if with_them[n : n + len(plain)] == plain), 0)
    return [token for token in with_them[:first] if token in special]


def _continuation(tokenizer: Tokenizer, text: str, pieces: Sequence[bytes]) -> list[int]:
    """Returns the ids of a text that goes on, without the space that some tokenizers put before a text."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if b"".join(pieces[token] for token in ids) != b" " + text.encode():
        return ids
    marked, joined = tokenizer.encode(_MARK + text, add_special_tokens=False), b""
    for place, token in enumerate(marked):
        joined += pieces[token]
        if joined.strip() == _MARK.encode():
            return marked[place + 1 :]
    return ids
