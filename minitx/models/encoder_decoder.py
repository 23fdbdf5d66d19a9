"""The family of encoder-decoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from minitx.config import ModelConfig
from minitx.layers.attention import AttentionContext
from minitx.layers.cache import Cache
from minitx.layers.embedder import Embedder
from minitx.layers.linear import Linear
from minitx.layers.masks import as_bool, padding_mask
from minitx.layers.norm import Slot, identity
from minitx.models.decoder import CausalModel
from minitx.models.model import ModelOutput
from minitx.validation import check_integer_dtype, check_tensor, check_token_ids, values_unavailable

T = TypeVar("T")


class DecoderEmbedder(Embedder):
    """The embedder of the text that is written: what it refuses is said to be of that one."""

    def check(self, *given: Any) -> Tensor:
        return of_decoder(super().check, *given)


class EncoderDecoderModel(CausalModel):
    """An encoder that reads one text and a decoder that writes another, looking at what was read.

    The decoder's text begins with `config.decoder_start_token_id`; its layers look at the encoder's last
    hidden states, the memory, by cross-attention.
    """

    families = ("encoder", "decoder")
    encoder: nn.Module

    def make_stacks(self, stack: Callable[..., nn.Module]) -> None:
        """Makes what comes before the head: an embedder and a stack for each text."""
        config = self.config
        self.embedder = Embedder(config.inputs)
        self.encoder = stack(config.encoder)
        self.memory_projection = memory_projection(config)
        self.decoder_embedder = DecoderEmbedder(config.decoder_inputs or config.inputs)
        self.add_module("decoder", stack(config.decoder))

    @property
    def ties(self) -> dict[str, str]:
        """As for every model; and the two word embeddings, where they are shared."""
        word, own = "embedder.word_emb.weight", "decoder_embedder.word_emb.weight"
        ties = {own: word} if self.config.shared_embeddings else {}
        return ties | dict.fromkeys(super().ties, own)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        encoder_last_hidden_state: Tensor | None = None,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
        output_cross_attentions: bool = False,
    ) -> ModelOutput:
        """Runs the model.

        Args:
            input_ids: (B, S) of the text to be read. Not needed again once the cache has its memory.
            attention_mask: (B, S), 1 or True = attend.
            decoder_input_ids: (B, T) of the text that is written, or what follows the tokens in the cache.
                Not given: made of the labels (seq2seq-lm), or of `input_ids` where a head labels the text
                that was read; either is moved one place to the right, behind the start token.
            decoder_attention_mask: (B, T) of these.
            token_type_ids: (B, S); all zero if not given.
            position_ids: (B or 1, S); the architecture's own numbering if not given.
            decoder_position_ids: (B or 1, T), likewise.
            labels: what the head should have said; the losses in `layers/head.py` give the shapes.
            encoder_last_hidden_state: (B, S, E') from `encode`, instead of `input_ids`.
            cache: from `make_cache`; the tokens are added to it. With B' texts in its memory it serves B rows
                of any multiple: those of one text stand one after the other.
            logits_to_keep: only of so many tokens at the end, where the head gives logits for each; 0: all.
            output_cross_attentions: gives the weights with which each layer looked at the text that was read.

        Raises:
            TypeError: a list or anything else where a tensor is expected, a cache that is none.
            ValueError: shapes that do not fit, ids outside their table, a text longer than its table of
                positions, nothing to read, or something to read beside a cache that has read.
        """
        keep = self.kept(logits_to_keep, labels)
        if cache is not None:
            self.check_layers(cache)
        memory, read = encoder_last_hidden_state, cache is not None and cache.texts > 0
        check_one_source(input_ids, memory, read, attention_mask, token_type_ids, position_ids)
        if decoder_input_ids is None:
            source = ("labels", labels) if self.task == "seq2seq-lm" else ("input_ids", input_ids)
            decoder_input_ids = self.shifted(*source)
        written_mask = of_decoder(self.written_mask, decoder_input_ids, decoder_attention_mask, cache)
        if not read and memory is None:
            assert input_ids is not None, "it is one of the three"
            memory = self.encode(input_ids, attention_mask, token_type_ids, position_ids)
        if memory is not None:
            self.check_memory(memory, decoder_input_ids)
        ends = None
        if self.task == "sequence-classification":
            ends = self.end_tokens(input_ids, decoder_input_ids)
        watch: list[Tensor] | None = [] if output_cross_attentions else None
        try:
            cross = self.cross_context(memory, attention_mask, cache, watch)
            hidden, mask = self.run_decoder(
                decoder_input_ids, written_mask, decoder_position_ids, cache, cross
            )
            mask, batch = mask if ends is None else ends, decoder_input_ids.shape[:-1]
            found = self.result(hidden, mask, labels, batch=batch, logits_to_keep=keep, cache=cache)
        except BaseException:
            if cache is not None and not read:
                cache.forget()  # so that the same call can be made again
            raise
        weights = None if watch is None else tuple(watch)
        return found._replace(encoder_last_hidden_state=memory, cross_attentions=weights)

    def decode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache,
        logits_to_keep: int = 0,
        output_cross_attentions: bool = False,
    ) -> ModelOutput:
        """`forward` for more tokens of the text that is written; the cache remembers what was read."""
        return self.forward(
            decoder_input_ids=input_ids,
            decoder_attention_mask=attention_mask,
            decoder_position_ids=position_ids,
            cache=cache,
            logits_to_keep=logits_to_keep,
            output_cross_attentions=output_cross_attentions,
        )

    def encode_into(
        self,
        cache: Cache,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Cache:
        """Encodes a text and lets an empty cache remember it; `decode` goes on from there.

        The cache keeps the keys and values that each layer's cross-attention makes of it, so that they are
        made once.

        Args:
            cache: from `make_cache`; changed, and returned. It stays empty where this fails.
            input_ids: (B, S).
            attention_mask: (B, S), 1 or True = attend.
            token_type_ids: (B, S); all zero if not given.
            position_ids: (B or 1, S); the architecture's own numbering if not given.

        Raises:
            TypeError: a list or anything else where a tensor is expected, a cache that is none.
            ValueError: a cache for other layers or with something in it, shapes that do not fit, ids outside
                their table, a text longer than its table of positions.
        """
        self.check_layers(cache)
        if cache.texts or cache.length:
            raise ValueError("the cache holds another text already; make an empty one with make_cache().")
        memory = self.encode(input_ids, attention_mask, token_type_ids, position_ids)
        self.cross_context(memory, attention_mask, cache)
        return cache

    def cross_context(
        self,
        memory: Tensor | None,
        attention_mask: Tensor | None,
        cache: Cache | None,
        watch: list[Tensor] | None = None,
    ) -> AttentionContext:
        """What the decoder's layers share when they look at what was read; a cache remembers that first.

        Args:
            memory: (B, S, E') from `encode`; None where the cache remembers it.
            attention_mask: (B, S) of it.
            cache: of the call.
            watch: gets the weights of each layer's cross-attention, (B, H, T, S).
        """
        if memory is not None:
            mask, seen = padding_of(attention_mask, memory), self.memory_projection(memory)
            if cache is None:
                return AttentionContext(mask, memory=seen, watch=watch)
            self.decoder.remember(cache, seen, mask)
        assert cache is not None, "it has read, or there is something to read"
        return AttentionContext(cache.memory_mask, watch=watch)

    def check_memory(self, memory: Tensor, decoder_input_ids: Tensor) -> None:
        """
        Raises:
            TypeError: no tensor.
            ValueError: another width than the encoder's, or other texts than those that are written.
        """
        check_tensor("encoder_last_hidden_state", memory)
        size = self.config.encoder_size
        if memory.dim() != 3 or memory.shape[2] != size:
            raise ValueError(
                f"encoder_last_hidden_state has shape {tuple(memory.shape)}; expected (batch, time, {size}), "
                "as model.encode gives it."
            )
        if len(memory) != len(decoder_input_ids):
            raise ValueError(
                f"{len(memory)} texts were read, but decoder_input_ids has {len(decoder_input_ids)} rows; "
                "expected one text to read for each to write."
            )

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Reads a text: (B, S) -> (B, S, E'). The arguments are those of `forward`.

        Raises:
            ValueError: as `forward`.
        """
        check_tensor("input_ids", input_ids)
        position_ids = self.embedder.check(input_ids, token_type_ids, position_ids)
        mask = None if attention_mask is None else as_bool(attention_mask, *input_ids.shape)
        hidden: Tensor = self.encoder(
            self.embedder(input_ids, token_type_ids, position_ids), mask, position_ids
        )
        return hidden

    def written_mask(
        self, input_ids: Tensor, attention_mask: Tensor | None, cache: Cache | None
    ) -> Tensor | None:
        """The mask of the text that is written, (B, T) bool, which fits its ids (B, T) and the cache.

        Raises:
            TypeError: no tensors.
            ValueError: another shape, values other than 0 and 1, other rows than the cache has.
        """
        check_tensor("input_ids", input_ids)
        shape = check_token_ids("input_ids", input_ids)
        if cache is not None:
            cache.check(attention_mask, input_ids)
        return None if attention_mask is None else as_bool(attention_mask, *shape)

    def shifted(self, name: str, ids: Tensor | None) -> Tensor:
        """(B, T) -> (B, T): what the decoder is given so that it learns to write `ids`; `name` is of these.

        The start token is put before them; without one the text's last token is, which then says what
        language it is in. The label -100 becomes padding.

        Raises:
            TypeError: no tensor.
            ValueError: there is nothing to shift, no ids (B, T), or no padding to put.
        """
        start = self.config.decoder_start_token_id
        if ids is None:
            least = "the token of the language to write, [[id]]," if start is None else f"[[{start}]]"
            raise ValueError(
                f"decoder_input_ids are missing: what the decoder goes on from, at least {least} for each "
                "text."
            )
        check_integer_dtype(name, ids)
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise ValueError(
                f"{name} has shape {tuple(ids.shape)}; expected (batch, time) with at least one token per "
                "row, of which decoder_input_ids are made."
            )
        pad = self.decoder_embedder.config.pad_token_id
        if pad is None:
            raise ValueError("the config has no pad_token_id to make decoder_input_ids with; give them.")
        ids = ids.masked_fill(ids == -100, pad)
        if start is None:
            last = ((ids != pad).sum(dim=1, keepdim=True) - 1).clamp(min=0)
            first = ids.gather(1, last)
        else:
            first = ids.new_full((len(ids), 1), start)
        return torch.cat((first, ids[:, :-1]), dim=1)

    def end_tokens(self, input_ids: Tensor | None, decoder_input_ids: Tensor) -> Tensor:
        """(B, T), True at the end tokens of the text; the head reads what stands at the last one.

        Raises:
            ValueError: the text is not there or not as long as the decoder's, or has no end token.
        """
        eos = self.config.eos_token_id
        if input_ids is None or input_ids.shape != decoder_input_ids.shape or eos is None:
            raise ValueError(
                "this head reads the decoder where input_ids end; give input_ids, and decoder_input_ids of "
                "the same shape or none, and set eos_token_id in the config."
            )
        ends = input_ids == eos
        if not values_unavailable(ends) and not bool(ends.any(dim=1).all()):
            raise ValueError(f"each text must have an end token, {eos}: the head reads what stands there.")
        return ends


def of_decoder(check: Callable[..., T], *given: Any) -> T:
    """What a check gives. Both texts are checked alike, under the same names; its errors say which it is."""
    try:
        return check(*given)
    except TypeError as error:
        raise TypeError(f"the decoder's text: {error}") from error
    except ValueError as error:
        raise ValueError(f"the decoder's text: {error}") from error


def memory_projection(config: ModelConfig) -> Slot:
    """Between an encoder and a decoder of another width."""
    assert config.encoder is not None
    if not config.encoder_projection:
        return identity
    return Linear(config.encoder_size, config.stack.hidden_size, bias=True)


def check_one_source(
    input_ids: Tensor | None,
    memory: Tensor | None,
    read: bool,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
) -> None:
    """
    Raises:
        ValueError: nothing to read, or more than one thing; or something said of a text that was read before.
    """
    if (input_ids is not None) + (memory is not None) + read != 1:
        raise ValueError(
            "give one of: input_ids, the text to be read; encoder_last_hidden_state, of one that was read; "
            "or a cache that has its memory already."
        )
    said = {"token_type_ids": token_type_ids, "position_ids": position_ids}
    if read:
        said["attention_mask"] = attention_mask
    if names := [name for name, value in said.items() if value is not None and input_ids is None]:
        raise ValueError(
            f"{', '.join(names)} would be of a text to be read, but it was read before; the decoder's are "
            "decoder_attention_mask and decoder_position_ids."
        )


def padding_of(attention_mask: Tensor | None, memory: Tensor) -> Tensor | None:
    """The mask (B, S) of a text that was read, (B, 1, 1, S) as the decoder's layers need it.

    Raises:
        ValueError: another shape; which token of that text saw which is of no use here.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; expected (batch, time) of the text "
            "that is read: the decoder looks at all of it. (model.encode alone takes a mask per token.)"
        )
    return padding_mask(as_bool(attention_mask, *memory.shape[:2]))
