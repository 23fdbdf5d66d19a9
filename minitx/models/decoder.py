"""The family of decoders, and what encoder-decoders share with them."""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.layers.attention import AttentionContext
from minitx.layers.cache import Cache
from minitx.layers.embedder import Embedder
from minitx.layers.masks import as_bool
from minitx.layers.rotary import check_same_rotation, original_contexts
from minitx.layers.stack import Stack
from minitx.models.model import Model, ModelOutput
from minitx.validation import check_integer, check_tensor, check_token_ids


class CausalModel(Model):
    """What the families with a decoder have: a stack in which a token sees those before it, and a cache."""

    decoder: Stack
    decoder_embedder: Embedder

    @property
    def turning_points(self) -> dict[str, int]:
        """For each kind of rotary positions that asks how long a text is: the most tokens of a short one.

        In a longer text every position turns otherwise, the first ones too, so a text is not read in pieces
        across that point. "dynamic" goes on with what a cache holds; to "longrope" it is of no use, and a
        text that comes to be longer is run anew.
        """
        return original_contexts(self.config.stack.positions)

    def make_cache(self, max_length: int | None = None, *, spare: int = 0) -> Cache:
        """An empty cache, to be passed to `forward` again and again.

        Args:
            max_length: how many tokens it must hold; room for them is made once and filled in place.
                None: it grows as it goes.
            spare: how far `Cache.crop` must be able to go back where layers see only a window.

        Raises:
            TypeError, ValueError: no whole numbers, or too small ones.
        """
        if max_length is not None:
            max_length = check_integer("max_length", max_length, 1, hint="or None for a cache that grows")
        spare = check_integer("spare", spare)
        return self.decoder.make_cache(max_length, spare)

    def decode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache,
        logits_to_keep: int = 0,
    ) -> ModelOutput:
        """`forward` for more tokens of the decoder's text, whatever the family; the cache knows the rest."""
        raise NotImplementedError

    def run_decoder(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Cache | None,
        cross: AttentionContext | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The decoder's hidden states (B, T, E), and the mask of all its keys if that is (B, S).

        Args:
            input_ids, attention_mask, position_ids, cache: as for `DecoderModel.forward`.
            cross: as for `Stack.forward`.
            inputs_embeds: (B, T, E'), instead of the word embeddings of the ids.
        """
        embedder, past = self.decoder_embedder, 0
        if cache is not None:
            self.check_cache(cache, input_ids, attention_mask)
            past = cache.length
        mask = (
            None
            if attention_mask is None
            else as_bool(attention_mask, *check_token_ids("input_ids", input_ids))
        )
        if cache is not None:
            mask = cache.extended(mask, input_ids)
        flat = mask if mask is not None and mask.dim() == 2 else None
        position_ids = embedder.check(input_ids, None, position_ids, past, flat)
        hidden = embedder(input_ids, None, position_ids, inputs_embeds)
        if cache is not None:
            self.check_turning(cache, position_ids)
            cache.begin(input_ids.shape[1])
        hidden = self.decoder(hidden, mask, position_ids, cache, cross)
        if cache is not None:
            cache.advance(mask, input_ids.shape[1])
        return hidden, flat

    def kept(self, logits_to_keep: int, labels: Tensor | None) -> int:
        """Of how many tokens at the end the head is to give logits; 0: of all.

        Raises:
            TypeError, ValueError: no whole number, or labels for logits that are not kept.
        """
        logits_to_keep = check_integer("logits_to_keep", logits_to_keep, hint="0 keeps all")
        if logits_to_keep and labels is not None:
            raise ValueError("labels need the logits of all tokens: leave out labels or logits_to_keep.")
        return logits_to_keep if self.task in ("causal-lm", "seq2seq-lm") else 0

    def check_cache(self, cache: Cache, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Refuses a cache that cannot go on with these tokens (B, T).

        Raises:
            TypeError: no cache.
            ValueError: as `Cache.check`, or a cache for other layers.
        """
        self.check_layers(cache)
        cache.check(attention_mask, input_ids)
        if cache.texts:
            attention, (key, _) = self.config.stack.layer.attention, cache.memory[0].recall()
            expected = (attention.key_value_heads, attention.head_dim)
            if (key.shape[1], key.shape[3]) != expected:
                raise ValueError(
                    f"the cache remembers a text in {key.shape[1]} heads of {key.shape[3]} features, this "
                    f"model has {expected[0]} of {expected[1]}: a cache serves the model that filled it."
                )

    def check_layers(self, cache: Cache) -> None:
        """
        Raises:
            TypeError: no cache.
            ValueError: a cache for other layers.
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache is a {type(cache).__name__}; expected what model.make_cache() gives.")
        steps, crosses = len(self.decoder.layer_order), self.config.stack.layer.cross_attention
        if (len(cache.layers), bool(cache.memory)) != (steps, crosses):
            kind = (
                "" if bool(cache.memory) == crosses else " with cross-attention" if crosses else " without it"
            )
            raise ValueError(
                f"the cache has parts for {len(cache.layers)} layers, the model runs {steps}{kind}: make one "
                "with the model's own make_cache()."
            )

    def check_turning(self, cache: Cache, position_ids: Tensor) -> None:
        """Refuses tokens at positions (1 or B, T) that lead a row across the length at which LongRoPE turns.

        Waits for the device, with this kind of rotary positions alone.

        Raises:
            ValueError: they lead across it, or the cache was filled beyond it and cropped.
        """
        positions = self.config.stack.positions
        check_same_rotation(positions, position_ids, cache.length, cache.seen)


class DecoderModel(CausalModel):
    """A causal decoder: embedder, decoder, and where present a head; a token sees those before it."""

    families = ("decoder",)

    @property
    def decoder_embedder(self) -> Embedder:  # type: ignore[override]
        """Of the text that the decoder reads and writes: the only embedder there is."""
        return self.embedder

    def decode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache,
        logits_to_keep: int = 0,
        inputs_embeds: Tensor | None = None,
    ) -> ModelOutput:
        """`forward` for further tokens, given as ids or as embeddings."""
        return self.forward(
            input_ids,
            attention_mask,
            position_ids,
            cache=cache,
            logits_to_keep=logits_to_keep,
            inputs_embeds=inputs_embeds,
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
        inputs_embeds: Tensor | None = None,
    ) -> ModelOutput:
        """Runs the model.

        Args:
            input_ids: (B, T): a text, or what follows the tokens in the cache.
            attention_mask: (B, T) of these tokens, 1 or True = attend; the cache remembers which of the
                earlier ones were padding. Without a cache also (B, T, T), which query sees which key, as
                far as the order lets it.
            position_ids: (B or 1, T); the architecture's own numbering if not given. Most count padding
                too; for a text padded on the left give `(attention_mask.cumsum(1) - 1).clamp(min=0)`.
            labels: what the head should have said; the losses in `layers/head.py` give the shapes.
            cache: from `make_cache`; the tokens are added to it.
            logits_to_keep: only of so many tokens at the end, where the head gives logits for each; 0: all.
            inputs_embeds: (B, T, E'), output of `embedder.word_emb`, instead of `input_ids`.

        Raises:
            TypeError: a list or anything else where a tensor is expected, a cache that is none.
            ValueError: shapes that do not fit, ids outside their table, a text longer than the
                table of positions, where the model has one, a cache that is of no use for these tokens,
                labels for logits that are not kept.
        """
        keep = self.kept(logits_to_keep, labels)
        if inputs_embeds is not None and input_ids is None:
            input_ids = inputs_embeds.new_ones(inputs_embeds.shape[:-1], dtype=torch.long)
        batch = check_tensor("input_ids", input_ids).shape[:-1]
        assert input_ids is not None, "checked"
        hidden, mask = self.run_decoder(
            input_ids, attention_mask, position_ids, cache, inputs_embeds=inputs_embeds
        )
        real = self.real_tokens(input_ids, mask) if self.task == "sequence-classification" else mask
        return self.result(hidden, real, labels, batch=batch, logits_to_keep=keep, cache=cache)

    def real_tokens(self, input_ids: Tensor, mask: Tensor | None) -> Tensor | None:
        """(B, T), False at padding: what the mask says, and every padding id.

        Checkpoints that label texts were trained to read the last token whose id is not the padding's.
        """
        mask = None if mask is None else mask[:, -input_ids.shape[1] :]
        pad = self.config.inputs.pad_token_id
        if pad is None:
            return mask
        named = input_ids != pad
        return named if mask is None else named & mask
