"""Texts and ids of one's own within what is written: its beginning, and the phrases that it must hold."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minitx.cli.decoding_options import dashed
from minitx.decoding.arguments import decoder_prompts_of

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer


def beginnings_of(
    args: Namespace, model: CausalModel, prompts: int, tokenizer: Tokenizer | None
) -> list[list[int]] | None:
    """The ids that the text of each prompt begins with; None for a model without an encoder.

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
    return (
        decoder_prompts_of(model, given or None, prompts, tokenizer) if model.task == "seq2seq-lm" else None
    )


def forced(texts: Sequence[str], tokenizer: Tokenizer, *, as_target: bool) -> list[list[int]]:
    """The ids of each phrase that texts must hold.

    Raises:
        ValueError: the tokenizer makes nothing of one, or nothing that it knows.
    """
    found = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False, as_target=as_target)
        if not ids or tokenizer.unk_token_id in ids:
            raise ValueError(f"--force-text {text!r:.60}: the tokenizer has no tokens for it.")
        found.append(ids)
    return found


def check_words(args: Namespace) -> None:
    """
    Raises:
        ValueError: words where there is no tokenizer to read them.
    """
    if args.stop:
        raise ValueError("--stop looks for text, which needs a tokenizer; --stop-tokens takes ids.")
    if args.decoder_prompts:
        raise ValueError("--decoder-prompt is text, which needs a tokenizer; --decoder-ids takes ids.")
    if getattr(args, "force_text", None):
        raise ValueError("--force-text is text, which needs a tokenizer; --force-words takes ids.")
    for name in ("src_lang", "tgt_lang"):
        if getattr(args, name) is not None:
            raise ValueError(f"{dashed(name)} names a language of the tokenizer, and there is none.")
