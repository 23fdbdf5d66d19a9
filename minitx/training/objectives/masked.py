"""Masked language modelling: predict tokens that are hidden from the encoder (BERT, arXiv:1810.04805).

Section 3.1 of the paper, task 1: of 15 % of the tokens, 80 % become [MASK], 10 % another token and 10 % stay;
the loss is over these 15 %. With whole words (the authors' release of May 2019) all tokens of a word are
chosen together, and each then becomes [MASK], another token or stays by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minitx.tokenizer.subwords import subword_prefix
from minitx.training.objectives.base import IGNORED, Batch, Example, Objective
from minitx.training.objectives.batching import check_optional_integers, collate, encode, padding_id
from minitx.validation import (
    ArgumentValueError,
    Interval,
    check_flags,
    check_indices,
    check_number,
)

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

_SHARE = Interval(0, 1)
_WORD_MARKS = ("Ġ", "▁", "Ċ")  # first characters of tokens that begin a word, or a line


def mask_tokens(
    ids: Tensor,
    maskable: Tensor,
    mask_token_id: int,
    vocabulary: Tensor,
    generator: torch.Generator,
    *,
    probability: float = 0.15,
    words: Tensor | None = None,
    shares: tuple[float, float] = (0.8, 0.1),
) -> tuple[Tensor, Tensor]:
    """Hides tokens: (B, T) -> inputs (B, T) and labels (B, T), -100 where nothing is to be predicted.

    Args:
        ids: (B, T).
        maskable: (B, T) bool, False at special tokens and padding.
        mask_token_id: id of the mask token.
        vocabulary: (N,) ids from which the other tokens are drawn, all equally likely.
        generator: source of randomness.
        probability: that a token, or a word, is chosen.
        words: (B, T) number of each token's word within its row, from 0 and below T; None: each token is
            chosen by itself.
        shares: of the chosen tokens that become the mask token, and another token; the rest stays.
    """
    chosen = torch.rand(ids.shape, generator=generator) < probability
    if words is not None:
        chosen = chosen.gather(1, words)
    chosen &= maskable
    kind = torch.rand(ids.shape, generator=generator)
    masked, replaced = kind < shares[0], kind < sum(shares)
    others = vocabulary[torch.randint(len(vocabulary), ids.shape, generator=generator)]
    inputs = torch.where(masked, mask_token_id, torch.where(replaced, others, ids))
    return torch.where(chosen, inputs, ids), ids.masked_fill(~chosen, IGNORED)


def word_numbers(starts: Tensor) -> Tensor:
    """Numbers the words of each row from 0, by the tokens that begin one: (B, T) bool -> (B, T)."""
    return (starts.cumsum(dim=1) - 1).clamp(min=0)


def word_beginnings(tokenizer: Tokenizer) -> Tensor:
    """Returns which tokens of the vocabulary begin a word: (V,) bool.

    Raises:
        ArgumentValueError: a tokenizer whose tokens do not show it.
    """
    tokens = [tokenizer.id_to_token(index) or "" for index in range(len(tokenizer))]
    if prefix := subword_prefix(tokenizer):
        return torch.tensor([not token.startswith(prefix) for token in tokens])
    begins = torch.tensor([token.startswith(_WORD_MARKS) for token in tokens])
    if not bool(begins.any()):
        expected = "False for a tokenizer whose tokens do not show where words begin"
        raise ArgumentValueError("whole_words", True, expected)
    return begins


@dataclass(frozen=True)
class MaskedLM(Objective):
    """Masked language modelling of encoders with head="masked-lm".

    Examples have `input_ids` with the special tokens, or a `text`.

    Attributes:
        tokenizer: its special tokens are never masked, and are no replacements.
        probability: that a token, or a word, is to be predicted.
        whole_words: choose words, not tokens.
        mask_share: of the chosen tokens that become the mask token.
        random_share: of the chosen tokens that become another token.
        max_length: maximum number of tokens of a text; None: all of them.
    """

    task = "masked-lm"
    tokenizer: Tokenizer
    probability: float = 0.15
    whole_words: bool = False
    mask_share: float = 0.8
    random_share: float = 0.1
    max_length: int | None = None
    _vocabulary: Tensor = field(init=False, repr=False, compare=False)
    _special: Tensor = field(init=False, repr=False, compare=False)
    _begins: Tensor | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number("probability", self.probability, Interval(0, 1, open_low=True))
        check_flags(whole_words=self.whole_words)
        check_number("mask_share", self.mask_share, _SHARE)
        hint = "mask_share and random_share add up to at most 1"
        check_number("random_share", self.random_share, Interval(0, 1 - self.mask_share + 1e-9), hint)
        check_optional_integers(1, max_length=self.max_length)
        if self.tokenizer.mask_token_id is None:
            hint = 'assign one, as in tokenizer.mask_token = "[MASK]"'
            raise ArgumentValueError("tokenizer", self.tokenizer, "one with a mask token", hint)
        special = torch.zeros(len(self.tokenizer), dtype=torch.bool)
        special[[index for index in self.tokenizer.special_ids if index < len(special)]] = True
        object.__setattr__(self, "_special", special)
        object.__setattr__(self, "_vocabulary", (~special).nonzero().flatten())
        begins = word_beginnings(self.tokenizer) if self.whole_words else None
        object.__setattr__(self, "_begins", begins)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids` with hidden tokens, `attention_mask` and `labels`, (B, T) each.

        Args:
            examples: one per row.
            generator: source of randomness.

        Raises:
            ArgumentTypeError, ArgumentValueError: neither ids nor text, or ids outside of the vocabulary.
        """
        rows = [encode(x, i, self.tokenizer, self.max_length) for i, x in enumerate(examples)]
        batch = collate(rows, padding_id(self.tokenizer))
        ids, attended = batch["input_ids"], batch["attention_mask"].bool()
        check_indices("input_ids", ids, len(self._special), "is it another tokenizer's id?")
        special = self._special[ids] | ~attended
        words = None
        if self._begins is not None:
            after_special = torch.nn.functional.pad(special[:, :-1], (1, 0), value=True)
            words = word_numbers(self._begins[ids] | special | after_special)
        mask_token_id = self.tokenizer.mask_token_id
        assert mask_token_id is not None, "checked above"
        batch["input_ids"], batch["labels"] = mask_tokens(
            ids,
            ~special,
            mask_token_id,
            self._vocabulary,
            generator,
            probability=self.probability,
            words=words,
            shares=(self.mask_share, self.random_share),
        )
        return batch
