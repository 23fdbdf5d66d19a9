"""What the texts of an encoder-decoder begin with: a start token, a language, words of one's own."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from minitx.commands.decoding_options import dashed
from minitx.decoding.settings import start_token

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer


def beginnings(
    args: Namespace, model: CausalModel, tokenizer: Tokenizer | None, prompts: int
) -> tuple[list[list[int]] | None, int | None]:
    """The ids that texts begin with, one list for all prompts or one for each; None: the start token.

    Returns:
        These, and the token of the language that is to be forced behind a start token alone.

    Raises:
        ValueError: a beginning for a model without an encoder, another number of them than prompts, or a
            language that the tokenizer lacks.
    """
    check(args, model, prompts)
    language = None
    if tokenizer is not None and args.tgt_lang is not None:
        tokenizer.tgt_lang = args.tgt_lang
        language = tokenizer.language_id(args.tgt_lang)
    if args.decoder_ids:
        return args.decoder_ids, language
    start = start_token(model, tokenizer)
    front = [] if start is None else [start]
    if tokenizer is not None and language is not None and language_starts(model, tokenizer):
        front, language = [language], None
        if not args.decoder_prompts:
            return [front], None
    if not args.decoder_prompts:
        return None, language
    assert tokenizer is not None, "words without a tokenizer are refused before"
    front += [] if language is None else [language]
    texts = (tokenizer.encode(t, add_special_tokens=False, as_target=True) for t in args.decoder_prompts)
    return [[*front, *ids] for ids in texts], None


def check(args: Namespace, model: CausalModel, prompts: int) -> None:
    """
    Raises:
        ValueError: a beginning for a model without an encoder, or another number of them than prompts.
    """
    option, given = "--decoder-prompt", args.decoder_prompts
    if args.decoder_ids:
        option, given = "--decoder-ids", args.decoder_ids
    if given and model.task != "seq2seq-lm":
        raise ValueError(f"{option} is for models with an encoder; this one goes on with the prompt itself.")
    if given and len(given) not in (1, prompts):
        raise ValueError(
            f"{option} is given {len(given)} times for {prompts} prompts; give one, or one each."
        )


def check_words(args: Namespace) -> None:
    """
    Raises:
        ValueError: words where there is no tokenizer to read them.
    """
    if args.stop:
        raise ValueError("--stop looks for text, which needs a tokenizer; --stop-tokens takes ids.")
    if args.decoder_prompts:
        raise ValueError("--decoder-prompt is text, which needs a tokenizer; --decoder-ids takes ids.")
    for name in ("src_lang", "tgt_lang"):
        if getattr(args, name) is not None:
            raise ValueError(f"{dashed(name)} names a language of the tokenizer, and there is none.")


def language_starts(model: CausalModel, tokenizer: Tokenizer) -> bool:
    """Whether texts begin with the token of their language, and not with a start token before it."""
    stated = model.config.decoder_start_token_id
    return stated is None or stated in map(tokenizer.language_id, tokenizer.languages)
