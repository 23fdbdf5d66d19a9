"""`fill` and `mask_predict`: texts with masks, a model of both directions, and a schedule that fills them.

At each step the model runs over all rows that have not ended, `draw.py` proposes a token for their open
positions, and the schedule of `schedule.py` decides which to take.

R rows, T tokens of a row, M of them open, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parallel.draw import Proposer, contexts
from minitx.decoding.parallel.mask_predict import MaskPredict
from minitx.decoding.parallel.result import FillResult, fill_order
from minitx.decoding.parallel.schedule import FillStep, FillStrategy
from minitx.decoding.parameters import check_id, check_size
from minitx.decoding.prompts import Prompts, Rows, check_tokenizer, pad_right, read_prompts
from minitx.decoding.samplers.base import Seed
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.strategy import Strategy
from minitx.habits import explain_arguments
from minitx.models import EncoderModel
from minitx.models.compiled import check_not_compiled
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_type

_STRATEGIES = "a schedule such as MaskPredict(...), Remasking(...) or EntropyBound(...)"


@explain_arguments("generate")
@torch.inference_mode()
def fill(
    model: EncoderModel,
    prompts: Prompts,
    strategy: FillStrategy,
    *,
    max_new_tokens: int = 0,
    num_samples: int = 1,
    tokenizer: Tokenizer | None = None,
    mask_token_id: int | None = None,
    seed: Seed | None = None,
) -> FillResult:
    """Fills the masks of texts, several per step and in any order.

    A batch gives the tokens that its rows give one by one, up to the last bits of the model's logits. The
    mask token itself is never proposed.

    Args:
        model: an encoder with a masked-lm head, in eval mode.
        prompts: a string, strings, lists of ids of any lengths, or a (B, T) tensor or array of ids, with mask
            tokens at the positions to fill.
        strategy: the schedule.
        max_new_tokens: masks to add to each prompt, before the special tokens at its end.
        num_samples: rows per prompt, adjacent in the result.
        tokenizer: for prompts as text and texts in the result.
        mask_token_id: of the mask token; None for the tokenizer's.
        seed: an integer, or one per prompt, as for `generate`; None for a random one. A row depends on its
            seed and prompt alone and not on the batch.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: arguments that do not fit together, before any work; or a position whose tokens were all
            removed by processors.
    """
    _check_model(model)
    check_tokenizer(tokenizer)
    check_type("strategy", strategy, FillStrategy, _STRATEGIES)
    count = check_size("max_new_tokens", max_new_tokens, 0, "masks to add to each prompt")
    num_samples = check_size("num_samples", num_samples, 1, "rows per prompt")
    vocab_size = model.config.text_inputs.vocab_size
    mask = _mask_token(mask_token_id, tokenizer, min(vocab_size, _num_logits(model)))
    rows = read_prompts(prompts, vocab_size=vocab_size, tokenizer=tokenizer)
    rows = [_with_masks(row, count, mask, tokenizer) for row in rows]
    _check_rows(model, rows, mask)
    proposer = Proposer(strategy, rows, num_samples, seed, model.device)
    run = _Run(model, strategy, proposer, mask)
    done = run([ids for ids in rows for _ in range(num_samples)])
    with torch.inference_mode(False):
        steps = [torch.tensor(row.canvases) for row in done]
        masked = [torch.tensor(row.canvases[0]) == mask for row in done]
        order = [fill_order(*pair) for pair in zip(steps, masked, strict=True)]
        sequences = [canvases[-1].clone() for canvases in steps]
    texts = None
    if tokenizer is not None:
        texts = [tokenizer.decode(ids.tolist(), skip_special_tokens=True) for ids in sequences]
    return FillResult(sequences, texts, order, steps, mask, tokenizer)


@explain_arguments("generate")
def mask_predict(
    model: EncoderModel,
    prompts: Prompts,
    *,
    steps: int = 10,
    draw: Strategy = Greedy(),  # noqa: B008 - frozen
    max_new_tokens: int = 0,
    tokenizer: Tokenizer | None = None,
    mask_token_id: int | None = None,
    seed: Seed | None = None,
) -> FillResult:
    """Fills the masks of texts by mask-predict: `fill(model, prompts, MaskPredict(steps=...))`.

    Args:
        model, prompts, max_new_tokens, tokenizer, mask_token_id, seed: as for `fill`.
        steps, draw: as for `MaskPredict`.

    Raises:
        TypeError, ValueError: as `fill`.
    """
    return fill(
        model,
        prompts,
        MaskPredict(steps=steps, draw=draw),
        max_new_tokens=max_new_tokens,
        tokenizer=tokenizer,
        mask_token_id=mask_token_id,
        seed=seed,
    )


class _Row:
    """A row while it is filled.

    Attributes:
        number: of the row in the call.
        ids: (T,) long.
        is_open, places: (T,) bool and (M,) long, the positions that were masked at the start.
        canvases: the ids at the start and after each step.
        state: of the schedule.
    """

    def __init__(self, number: int, ids: Sequence[int], mask: int, device: torch.device) -> None:
        self.number, self.canvases = number, [list(ids)]
        self.ids = torch.tensor(ids, dtype=torch.long, device=device)
        self.is_open = self.ids == mask
        self.places = self.is_open.nonzero().squeeze(1)
        self.state: Any = None

    def counters(self, number: int) -> Tensor:
        """(M,): a different number for each position and step."""
        return number * len(self.ids) + self.places


class _Run:
    """The steps of one call."""

    def __init__(self, model: EncoderModel, strategy: FillStrategy, proposer: Proposer, mask: int) -> None:
        self.model, self.strategy, self.proposer, self.mask = model, strategy, proposer, mask
        self.pad = model.embedder.config.pad_token_id or 0

    def __call__(self, prompts: Rows) -> list[_Row]:
        """Fills all rows.

        Raises:
            ValueError: a schedule that does not fill a row within its own bound.
        """
        rows = [_Row(number, ids, self.mask, self.model.device) for number, ids in enumerate(prompts)]
        for row in rows:
            masks, size = row.ids[row.places], _num_logits(self.model)
            row.ids[row.places] = self.strategy.start(masks, size, self._random(row, 0))
        number, left = 0, rows
        while left:
            number += 1
            late = [row.number for row in left if number > self.strategy.most_steps(len(row.places))]
            if late:
                name = type(self.strategy).__name__
                raise ValueError(f"{name} did not fill row {late[0]} in the {number - 1} steps of its bound.")
            left = self._step(number, left)
        return rows

    def _step(self, number: int, rows: list[_Row]) -> list[_Row]:
        """Changes the rows; returns those that have not ended."""
        ids, attention_mask = pad_right([row.ids.tolist() for row in rows], self.pad, self.model.device)
        revises = self.strategy.revises
        places = [row.places if revises else (row.ids == self.mask).nonzero().squeeze(1) for row in rows]
        sizes = torch.tensor([len(part) for part in places], device=ids.device)
        index = torch.arange(len(rows), device=ids.device).repeat_interleave(sizes)
        logits = self.model(ids, attention_mask).logits[index, torch.cat(places)]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits[:, self.mask] = -torch.inf
        logits = logits / self.strategy.temperature(number)
        context = None
        if len(self.proposer.chain):
            open_ = [row.is_open for row in rows]
            context = contexts([row.ids for row in rows], open_, self.mask).select(index)
        lengths = torch.tensor([len(row.ids) for row in rows], device=ids.device)
        numbers = torch.tensor([row.number for row in rows], device=ids.device)[index]
        counters = number * lengths[index] + torch.cat(places)
        tokens, log_probs = self.proposer(logits, context, numbers, counters)
        parts = (values.tensor_split(sizes.cumsum(0)[:-1].tolist()) for values in (tokens, log_probs))
        columns = zip(rows, places, *parts, strict=True)
        return [row for row, *values in columns if not self._update(number, row, *values)]

    def _update(self, number: int, row: _Row, place: Tensor, token: Tensor, table: Tensor) -> bool:
        """Applies the schedule to one row; returns whether the row ends."""
        ids = row.ids[row.places]
        proposed = torch.isin(row.places, place)
        tokens = ids.masked_scatter(proposed, token)
        log_probs = table.new_zeros(len(ids), table.shape[1])
        log_probs[proposed] = table
        masked, random = ids == self.mask, self._random(row, number)
        view = FillStep(number, ids, masked, tokens, log_probs, self.mask, row.state, random)
        update = self.strategy.step(view)
        row.ids[row.places], row.state = update.ids, update.state
        row.canvases.append(row.ids.tolist())
        return update.done or not (self.strategy.revises or bool((update.ids == self.mask).any()))

    def _random(self, row: _Row, number: int) -> Any:
        return lambda name: self.proposer.random(row.number, name, row.counters(number))


def _check_model(model: Any) -> None:
    check_not_compiled(model)
    if not isinstance(model, EncoderModel) or model.task != "masked-lm":
        hint = 'load an encoder with head="masked-lm"'
        expected = f"one that predicts masked tokens, not of task {getattr(model, 'task', None)!r}"
        raise ArgumentValueError("model", model, expected, hint)
    if model.training:
        expected = "in eval mode, not in training mode with dropout active"
        raise ArgumentValueError("model", model, expected, "call model.eval() first")


def _num_logits(model: EncoderModel) -> int:
    """Returns V."""
    head: Any = model.head  # has one, as `_check_model` finds
    size: int = head.config.num_labels
    return size


def _mask_token(stated: int | None, tokenizer: Tokenizer | None, vocab_size: int) -> int:
    """Returns the id of the mask token."""
    token = tokenizer.mask_token_id if stated is None and tokenizer is not None else stated
    if token is None:
        hint = "a tokenizer with a mask_token knows it"
        raise ArgumentValueError("mask_token_id", None, "the id of the mask token", hint)
    if check_id("mask_token_id", token) >= vocab_size:
        raise ArgumentValueError("mask_token_id", token, f"an id of the model, from 0 to {vocab_size - 1}")
    return int(token)


def _with_masks(row: list[int], count: int, mask: int, tokenizer: Tokenizer | None) -> list[int]:
    """Returns a row with more masks, before the special tokens that end it."""
    special = {*(tokenizer.special_ids if tokenizer is not None else ())} - {mask}
    end = len(row)
    while end and row[end - 1] in special:
        end -= 1
    return [*row[:end], *[mask] * count, *row[end:]]


def _check_rows(model: EncoderModel, rows: Rows, mask: int) -> None:
    """Checks that each row has a mask and fits into the model."""
    embedder = model.embedder
    for number, row in enumerate(rows):
        if mask not in row:
            hint = "max_new_tokens= adds masks at the end"
            raise ArgumentValueError(f"prompts[{number}]", row, f"one with mask tokens, of id {mask}", hint)
        if embedder.has_position_table and len(row) > embedder.max_tokens:
            expected = f"of at most {embedder.max_tokens} tokens with its masks, not of {len(row)}"
            raise ArgumentValueError(f"prompts[{number}]", row, expected, "the model has no more positions")
