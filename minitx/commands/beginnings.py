"""What the texts of an encoder-decoder begin with: ids, or words of one's own."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from minitx.commands.decoding_options import dashed

if TYPE_CHECKING:
    from minitx.models import CausalModel


def beginnings(args: Namespace, model: CausalModel, prompts: int) -> list[str] | list[list[int]] | None:
    """The words or ids that texts begin with, one for all prompts or one for each; None: as the model says.

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
    found: list[str] | list[list[int]] | None = given or None
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
    for name in ("src_lang", "tgt_lang"):
        if getattr(args, name) is not None:
            raise ValueError(f"{dashed(name)} names a language of the tokenizer, and there is none.")
