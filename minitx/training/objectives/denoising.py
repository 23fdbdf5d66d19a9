"""Denoising: restore a whole sequence from a corrupted one (BART, arXiv:1910.13461, section 2.2).

Five corruptions, each a function of its own: masking and deleting tokens, infilling (one mask token for a
span whose length has a Poisson distribution, also for one of length 0), permuting sentences, and rotating the
document to begin at a random token. The paper's large model was trained with infilling of 30 % of the tokens
and permuted sentences (section 5.1), which are the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minitx.tokenizer.batch import pad
from minitx.training.objectives.base import IGNORED, Batch, Example, Objective
from minitx.training.objectives.batching import check_optional_integers, collate, encode, padding_id
from minitx.validation import ArgumentValueError, Interval, check_flags, check_indices, check_number

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

_SHARE = Interval(0, 1)
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？")


def infill(
    ids: Tensor, mask_token_id: int, generator: torch.Generator, *, rate: float = 0.3, mean_span: float = 3.0
) -> Tensor:
    """Replaces spans by one mask token each: (T,) -> (S,).

    Lengths of spans are drawn from a Poisson distribution until they cover `rate` of the tokens, the last one
    cut to fit; spans of length 0 insert a mask token. No two spans touch.

    Args:
        ids: (T,).
        mask_token_id: id of the mask token.
        generator: source of randomness.
        rate: share of tokens in spans.
        mean_span: mean of the Poisson distribution, at least 1.
    """
    covered = round(len(ids) * rate)
    lengths = poisson_lengths(covered, mean_span, generator)
    gaps = len(ids) - covered + 1  # before, between and after the tokens that stay
    if len(lengths) > gaps:
        lengths = [*lengths[: gaps - 1], sum(lengths[gaps - 1 :])]
    places = torch.randperm(gaps, generator=generator)[: len(lengths)].sort().values.tolist()
    mask, parts, start, visible = ids.new_tensor([mask_token_id]), [], 0, 0
    for place, length in zip(places, lengths, strict=True):
        end = start + place - visible
        parts += [ids[start:end], mask]
        start, visible = end + length, place
    return torch.cat([*parts, ids[start:]])


def poisson_lengths(total: int, mean: float, generator: torch.Generator) -> list[int]:
    """Draws lengths until they add up to `total`; the last one is cut to fit.

    Args:
        total: sum of the lengths.
        mean: of the Poisson distribution.
        generator: source of randomness.
    """
    lengths: list[int] = []
    rates = torch.full((max(total, 1),), mean)
    while total > 0:
        for length in torch.poisson(rates, generator=generator).int().tolist():
            lengths.append(min(length, total))
            total -= lengths[-1]
            if not total:
                break
    return lengths


def permute_sentences(ids: Tensor, ends: Tensor, generator: torch.Generator) -> Tensor:
    """Permutes sentences: (T,) -> (T,).

    Args:
        ids: (T,).
        ends: (T,) bool, the last tokens of sentences.
        generator: source of randomness.
    """
    sentences = ids.tensor_split(ends.nonzero().flatten() + 1)
    order = torch.randperm(len(sentences), generator=generator).tolist()
    return torch.cat([sentences[index] for index in order])


def rotate_document(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Rotates a document so that it begins at a random token: (T,) -> (T,)."""
    start = int(torch.randint(len(ids), (), generator=generator))
    return ids.roll(-start)


def delete_tokens(ids: Tensor, generator: torch.Generator, *, rate: float) -> Tensor:
    """Deletes each token with probability `rate`, but not all of them: (T,) -> (S,)."""
    draws = torch.rand(len(ids), generator=generator)
    return ids[(draws >= rate) | (draws == draws.max())]


def mask_some(ids: Tensor, mask_token_id: int, generator: torch.Generator, *, rate: float) -> Tensor:
    """Replaces each token by the mask token with probability `rate`: (T,) -> (T,)."""
    return ids.masked_fill(torch.rand(len(ids), generator=generator) < rate, mask_token_id)


@dataclass(frozen=True)
class Denoising(Objective):
    """Denoising of encoder-decoders with head="seq2seq-lm"; the labels are the whole sequence.

    Examples have `input_ids` with the special tokens, or a `text`. Special tokens at both ends stay.
    Corruptions are applied in the order of the attributes.

    Attributes:
        tokenizer: with a mask token.
        permute: permute sentences, which end with a token such as ".", "?" or "!".
        rotate: rotate the document to begin at a random token.
        delete_rate: probability that a token is deleted.
        mask_rate: probability that a token becomes the mask token.
        infill_rate: share of tokens in spans that one mask token each replaces.
        mean_span: mean length of these spans.
        max_length: maximum number of tokens of a text; None: all of them.
    """

    task = "seq2seq-lm"
    tokenizer: Tokenizer
    permute: bool = True
    rotate: bool = False
    delete_rate: float = 0.0
    mask_rate: float = 0.0
    infill_rate: float = 0.3
    mean_span: float = 3.0
    max_length: int | None = None
    _ends: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_flags(permute=self.permute, rotate=self.rotate)
        for name in ("delete_rate", "mask_rate", "infill_rate"):
            check_number(name, getattr(self, name), _SHARE)
        check_number("mean_span", self.mean_span, Interval(1, float("inf"), open_high=True))
        check_optional_integers(1, max_length=self.max_length)
        if self.tokenizer.mask_token_id is None:
            hint = 'assign one, as in tokenizer.mask_token = "[MASK]"'
            raise ArgumentValueError("tokenizer", self.tokenizer, "one with a mask token", hint)
        tokens = (self.tokenizer.id_to_token(index) or "" for index in range(len(self.tokenizer)))
        object.__setattr__(self, "_ends", torch.tensor([token.endswith(_SENTENCE_ENDS) for token in tokens]))

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids` and `attention_mask` (B, S), and `labels` (B, U).

        Args:
            examples: one per row.
            generator: source of randomness.

        Raises:
            ArgumentTypeError, ArgumentValueError: neither ids nor text, or nothing but special tokens.
        """
        rows, labels = [], []
        special = {*self.tokenizer.special_ids}
        for index, example in enumerate(examples):
            ids = encode(example, index, self.tokenizer, self.max_length)["input_ids"]
            body = [place for place, token in enumerate(ids) if token not in special]
            if not body:
                expected = "an example with a token that is not special"
                raise ArgumentValueError(f"examples[{index}]", ids, expected, "leave empty examples out")
            first, last = body[0], body[-1] + 1
            text = torch.tensor(ids[first:last])
            check_indices("input_ids", text, len(self._ends), "is it another tokenizer's id?")
            source = self.corrupt(text, generator).tolist()
            rows.append({"input_ids": [*ids[:first], *source, *ids[last:]]})
            labels.append(ids)
        return collate(rows, padding_id(self.tokenizer)) | {"labels": pad(labels, IGNORED)}

    def corrupt(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Applies the corruptions: (T,) -> (S,)."""
        mask_token_id = self.tokenizer.mask_token_id
        assert mask_token_id is not None, "checked when constructed"
        if self.permute:
            ids = permute_sentences(ids, self._ends[ids], generator)
        if self.rotate:
            ids = rotate_document(ids, generator)
        if self.delete_rate:
            ids = delete_tokens(ids, generator, rate=self.delete_rate)
        if self.mask_rate:
            ids = mask_some(ids, mask_token_id, generator, rate=self.mask_rate)
        if self.infill_rate:
            rate, mean = self.infill_rate, self.mean_span
            ids = infill(ids, mask_token_id, generator, rate=rate, mean_span=mean)
        return ids
