"""The model's side of a call: what follows each row, step by step, of whatever family the model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minitx.decoding.prompts import PaddedBatch, padded, padded_behind
from minitx.models import CausalModel, EncoderDecoderModel

if TYPE_CHECKING:
    from minitx.decoding.loop import Call, TokenHistory

# Room for so many new tokens is made at once; who asks for more mostly means "until it ends".
ROOM = 2**14


class Stepper:
    """Runs the model over the rows of a call; it reads a prompt once, however many rows go on from it.

    Attributes:
        cache: what the model has seen of each row.
        logits: (R, V) float32, of the next token of each row.
        looks: (R, S) float32, how much the next token looks at each token that was read: by the last layer's
            cross-attention, the mean of its heads. None if it was not asked for.
    """

    def __init__(self, call: Call, copies: int, *, watch: bool = False) -> None:
        """
        Args:
            call: whose prompts are read.
            copies: how many rows each prompt gets, one after the other.
            watch: asks for `looks`, of a model with an encoder.
        """
        self.logits: Tensor
        self.looks: Tensor | None
        self._model = call.model
        self._asked: dict[str, Any] = {"output_cross_attentions": True} if watch else {}
        self._device = call.model.device
        longest = max(map(len, call.prompts))
        # Rows that may become very long get a cache that grows.
        self._room = longest + call.max_new_tokens - 1 if call.max_new_tokens <= ROOM else None
        self.cache = call.model.make_cache(self._room)
        if call.sources is not None:
            assert isinstance(call.model, EncoderDecoderModel)
            call.model.encode_into(self.cache, *padded_sources(call.model, call.sources))
        batch = padded_rows(call.model, call.prompts)
        self._counts_itself = batch.position_ids is None
        self._prefill(batch, call.prefill_chunk)
        self.cache.repeat(copies)
        self.logits = self.logits.repeat_interleave(copies, dim=0)
        self.looks = None if self.looks is None else self.looks.repeat_interleave(copies, dim=0)

    def step(self, token: Tensor, history: TokenHistory) -> None:
        """Reads the token (R,) that each row has just got; the history has it already."""
        if history.outgrew(self._model.turning_points.get("longrope")):
            self.cache.crop(0)
            self._prefill(padded_rows(self._model, history.rows()))
            return
        ids, place = token[:, None], history.context.length[:, None] - 1
        self._run(ids, None, None if self._counts_itself else positions_of(self._model, ids, place))

    def _prefill(self, batch: PaddedBatch, chunk: int | None = None) -> None:
        """Runs prompts, (B, T), `chunk` tokens at a time."""
        ids, mask, positions = batch
        if any(ids.shape[1] > point for point in self._model.turning_points.values()):
            chunk = None  # the first chunk could not know how long the text is
        for start in range(0, ids.shape[1], chunk or ids.shape[1]):
            part = slice(start, start + (chunk or ids.shape[1]))
            self._run(
                ids[:, part],
                None if mask is None else mask[:, part],
                None if positions is None else positions[:, part],
            )

    def _run(self, ids: Tensor, mask: Tensor | None, positions: Tensor | None) -> None:
        """Reads new ids (B, T), with their mask and positions."""
        out = self._model.decode(ids, mask, positions, cache=self.cache, logits_to_keep=1, **self._asked)
        assert out.logits is not None, "a language model has logits"
        self.logits = out.logits[:, -1].float()
        weights = out.cross_attentions  # per layer (R, H, T, S)
        last = None if weights is None else weights[-1]
        self.looks = None if last is None else last[:, :, -1].float().mean(dim=1)


def padded_rows(model: CausalModel, rows: list[list[int]]) -> PaddedBatch:
    """Rows for the decoder, padded on the left, with the positions that it gives their tokens."""
    embedder = model.decoder_embedder
    batch = padded(rows, embedder.config.pad_token_id or 0, model.device)
    places = batch.position_ids
    if places is None and embedder.config.numbering == "padding":
        places = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)[None]
        places = places.expand_as(batch.input_ids)
    if places is None:
        return batch
    return batch._replace(position_ids=positions_of(model, batch.input_ids, places))


def positions_of(model: CausalModel, ids: Tensor, places: Tensor) -> Tensor:
    """The positions (B, T) of ids that stand at these places of their texts, counted from 0.

    Where positions count from behind the padding's id, a model numbers its tokens by what it is given at
    once: another number for a text in pieces, or in a batch, if it holds the padding's id. Here it is the
    same always.
    """
    embedder = model.decoder_embedder
    if embedder.config.numbering != "padding":
        return places
    padding = embedder.config.pad_token_id or 0
    return torch.where(ids == padding, padding, places + padding + 1)


def padded_sources(model: EncoderDecoderModel, sources: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    """Texts for the encoder, (B, S) padded on the right, and their mask."""
    embedder = model.embedder
    return padded_behind(sources, embedder.config.pad_token_id or 0, model.device)
