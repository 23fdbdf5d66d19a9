"""Encoder-decoders: a decoder whose layers attend to the encoder output by cross-attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minitx.config import ModelConfig
from minitx.layers.attention import AttentionContext
from minitx.layers.cache import Cache
from minitx.layers.norm import Slot, identity
from minitx.layers.recorder import Layers, Recorder
from minitx.models.base import StackMaker, rollback_on_error
from minitx.models.decoder import CausalModel
from minitx.models.inputs import Inputs, check_others, embed, make_embedder, token_ids
from minitx.models.output import ModelOutput
from minitx.models.source import check_encoder_output, check_one_source, end_tokens, source_mask
from minitx.validation import ArgumentValueError, check_integer_dtype, check_token_ids


class EncoderDecoderModel(CausalModel):
    """An encoder for the source, and a decoder for the target.

    Decoder inputs begin with `config.decoder_start_token_id`.
    """

    families = ("encoder", "decoder")
    prefix = "decoder_"
    encoder: nn.Module

    def make_stacks(self, stack: StackMaker) -> None:
        """Makes the modules before the head: an embedder and a stack on each side."""
        config = self.config
        self.embedder = make_embedder(config.inputs)
        self.encoder = stack(config.encoder)
        self.encoder_projection = _encoder_projection(config)
        self.decoder_embedder = make_embedder(config.decoder_inputs or config.inputs)
        self.decoder_embedder.prefix = self.prefix
        self.add_module("decoder", stack(config.decoder))

    @property
    def ties(self) -> dict[str, str]:
        """Returns the ties of `Model.ties`, and that of the two word embeddings if they are shared."""
        word, decoder_word = "embedder.word_emb.weight", "decoder_embedder.word_emb.weight"
        ties = {decoder_word: word} if self.config.shared_embeddings else {}
        return ties | dict.fromkeys(super().ties, decoder_word)

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
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_last_hidden_state: Tensor | None = None,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        output_attentions: Layers = False,
        output_cross_attentions: Layers = False,
        **others: Any,
    ) -> ModelOutput:
        """Encodes the source and runs the decoder, or further decoder tokens after those in a cache.

        Args:
            input_ids: (B, S) of the source. Not needed once the cache has its encoder output.
            attention_mask: (B, S), 1 or True = attend.
            decoder_input_ids: (B, T) of the target, or further ones after those in the cache. None: `labels`
                (seq2seq-lm) or `input_ids` (heads that label the source), shifted to the right by the start
                token.
            decoder_attention_mask: (B, T) of these, or (B, T, K) of all K tokens so far.
            token_type_ids: (B, S); None: all zero.
            position_ids: (B or 1, S); None: the architecture's own numbering.
            decoder_position_ids: (B or 1, T), likewise.
            labels: (B,) or (B, T) or (B, C), targets of the head's loss; `layers/losses.py` gives the shapes.
            inputs_embeds: (B, S, W), output of `embedder.word_emb`, instead of `input_ids`.
            decoder_inputs_embeds: (B, T, W), output of `decoder_embedder.word_emb`, instead of
                `decoder_input_ids`.
            encoder_last_hidden_state: (B, S, E') from `encode`, instead of `input_ids`.
            cache: from `make_cache`; the tokens are added to it. With B' sources it serves B rows, a multiple
                of B'; the rows of a source are next to each other.
            logits_to_keep: compute logits for this number of final positions only; 0: all.
            output_hidden_states: return the hidden states of all layers of both stacks.
            output_attentions: return the attention and cross-attention weights of all layers, or of those
                listed.
            output_cross_attentions: return the cross-attention weights alone.
            others: inputs of an embedder for inputs other than text.

        Raises:
            ArgumentTypeError: not a tensor, or not a cache.
            ArgumentValueError: shapes that do not fit, ids outside their table, a cache of another model.
            ValueError: no source or two, a sequence longer than the table of positions.
        """
        check_others(self.embedder, others)
        keep = self.num_logits_to_keep(logits_to_keep, labels)
        if cache is not None:
            self.check_cache(cache)
        source = Inputs(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, others)
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            ids = ("labels", labels) if self.task == "seq2seq-lm" else ("input_ids", input_ids)
            decoder_input_ids = self.shifted(*ids)
        target = Inputs(
            decoder_input_ids, decoder_attention_mask, None, decoder_position_ids, decoder_inputs_embeds
        )
        crosses = output_cross_attentions or output_attentions
        encoder_record = record = None
        if output_hidden_states or crosses:
            encoder_record = Recorder(output_hidden_states, output_attentions)
            record = Recorder(output_hidden_states, output_attentions, crosses)
        with clear_on_error(cache):
            encoded, cross = self.attend_to(source, encoder_last_hidden_state, cache, target, encoder_record)
            hidden, mask = self.run_decoder(target, cache, cross, record)
            if self.task == "sequence-classification":
                mask = end_tokens(input_ids, decoder_input_ids, self.config.eos_token_id)
            with rollback_on_error(cache, hidden.shape[1]):
                output = self.result(hidden, mask, labels, logits_to_keep=keep)
        fields = {} if encoder_record is None else encoder_record.fields("encoder_")
        fields |= {} if record is None else record.fields("decoder_")
        return output._replace(cache=cache, encoder_last_hidden_state=encoded, **fields)

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        """Runs the encoder.

        Args:
            input_ids: (B, S) of the source.
            attention_mask: (B, S) or (B, S, S), 1 or True = attend.
            token_type_ids: (B, S); None: all zero.
            position_ids: (B or 1, S); None: the architecture's own numbering.
            inputs_embeds: (B, S, W), output of `embedder.word_emb`, instead of `input_ids`.
            others: inputs of an embedder for inputs other than text.

        Returns:
            (B, S, E')

        Raises:
            ArgumentTypeError, ArgumentValueError, ValueError: as `forward`.
        """
        source = Inputs(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, others)
        return self.run_encoder(source)

    def encode_into(
        self,
        cache: Cache,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Cache:
        """Encodes a source and fills the cross-attention cache; `decode` continues from there.

        Args:
            cache: from `make_cache`, empty; changed and returned. It stays empty if this fails.
            input_ids: (B, S).
            attention_mask: (B, S), 1 or True = attend.
            more: further arguments of `encode`.

        Raises:
            ArgumentTypeError, ArgumentValueError: as `forward`; a cache of another model, or one that is not
                empty.
            ValueError: as `forward`.
        """
        self.check_cache(cache)
        if cache.num_sources or cache.length:
            hint = "it holds another source already; make one with make_cache()"
            raise ArgumentValueError("cache", cache, "empty", hint)
        encoder_hidden_states = self.encode(input_ids, attention_mask, **more)
        self.cross_context(encoder_hidden_states, attention_mask, cache)
        return cache

    def run_encoder(self, source: Inputs, record: Recorder | None = None) -> Tensor:
        """Runs embedder and encoder: (B, S) -> (B, S, E')."""
        return self.run_stack(self.encoder, *embed(self.embedder, source), record=record)

    def attend_to(
        self,
        source: Inputs,
        encoder_hidden_states: Tensor | None,
        cache: Cache | None,
        target: Inputs,
        record: Recorder | None,
    ) -> tuple[Tensor | None, AttentionContext]:
        """Encodes the source unless its output was passed or is cached.

        Args:
            source: inputs of the encoder.
            encoder_hidden_states: (B, S, E'), its output, if that was passed.
            cache: of the call.
            target: inputs of the decoder.
            record: collects hidden states and attention weights of the encoder.

        Returns:
            The encoder output (B, S, E'), None if only the cache has it, and the cross-attention's context.

        Raises:
            ArgumentTypeError, ArgumentValueError: no source or two, or other rows than the target has.
        """
        cached = cache is not None and cache.num_sources > 0
        check_one_source(source, encoder_hidden_states, cached)
        if not cached and encoder_hidden_states is None:
            encoder_hidden_states = self.run_encoder(source, record)
        if encoder_hidden_states is not None:
            ids = token_ids(self.decoder_embedder, target)
            check_encoder_output(encoder_hidden_states, self.config.encoder_size, len(ids))
        return encoder_hidden_states, self.cross_context(encoder_hidden_states, source.attention_mask, cache)

    def cross_context(
        self, encoder_hidden_states: Tensor | None, attention_mask: Tensor | None, cache: Cache | None
    ) -> AttentionContext:
        """Returns the context of the cross-attention, after filling the cache.

        Args:
            encoder_hidden_states: (B, S, E') from `encode`; None if the cache has their keys and values.
            attention_mask: (B, S) of the source.
            cache: of the call.
        """
        if encoder_hidden_states is not None:
            mask = source_mask(attention_mask, encoder_hidden_states)
            projected = self.encoder_projection(encoder_hidden_states)
            if cache is None:
                return AttentionContext(mask, encoder_hidden_states=projected)
            self.decoder.fill_cross_attention(cache, projected, mask)
        assert cache is not None, "without encoder hidden states, the cache has their keys and values"
        return AttentionContext(cache.encoder_mask)

    def shifted(self, name: str, ids: Tensor | None) -> Tensor:
        """Shifts ids to the right to make decoder inputs: (B, T) -> (B, T).

        Prepends the start token. If the config has none, prepends the last non-padding token of the row,
        which is the language token. The label -100 becomes padding.

        Args:
            name: of the parameter that the ids are of, for messages.
            ids: (B, T), or None.

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: not ids of shape (B, T), or none; the config has no padding id for them.
        """
        start = self.config.decoder_start_token_id
        if ids is None:
            first = "the token of the target language, [[id]]," if start is None else f"[[{start}]]"
            expected = "a tensor of ids, which are missing"
            raise ArgumentValueError(
                "decoder_input_ids", None, expected, f"pass at least {first} for each source"
            )
        check_integer_dtype(name, ids)
        check_token_ids(name, ids)
        pad = self.decoder_embedder.config.pad_token_id
        if pad is not None:
            ids = ids.masked_fill(ids == -100, pad)
        elif start is None or bool((ids[:, :-1] == -100).any()):
            hint = "the config has no pad_token_id to make them with; pass them"
            raise ArgumentValueError("decoder_input_ids", None, "a tensor of ids", hint)
        if start is None:
            assert pad is not None, "checked above"
            last = ((ids != pad).sum(dim=1, keepdim=True) - 1).clamp(min=0)
            prepended = ids.gather(1, last)
        else:
            prepended = ids.new_full((len(ids), 1), start)
        return torch.cat((prepended, ids[:, :-1]), dim=1)


def _encoder_projection(config: ModelConfig) -> Slot:
    """Returns the projection of the encoder output to the decoder's width, if there is one."""
    assert config.encoder is not None
    if not config.encoder_projection:
        return identity
    return nn.Linear(config.encoder_size, config.stack.hidden_size, bias=True)


@contextmanager
def clear_on_error(cache: Cache | None) -> Iterator[None]:
    """Clears the cross-attention cache if the body filled it and then failed, so that it can be run again."""
    if cache is None or cache.num_sources:
        yield
        return
    try:
        yield
    except BaseException:
        cache.clear_cross_attention()
        raise
