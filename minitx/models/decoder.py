"""Decoders, and the part of encoder-decoders that is the same: a causal stack with a key/value cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minitx.habits import explain_arguments
from minitx.layers.attention import AttentionContext
from minitx.layers.cache import Cache
from minitx.layers.embedder import Embedder
from minitx.layers.masks import as_bool, as_bool_of_queries
from minitx.layers.recorder import Layers, Recorder
from minitx.layers.rotary import check_same_rotation, original_contexts
from minitx.layers.stack import Stack
from minitx.models.base import Model, rollback_on_error
from minitx.models.compiled import check_not_compiled
from minitx.models.inputs import Inputs, token_ids
from minitx.models.output import ModelOutput
from minitx.validation import ArgumentValueError, check_integer, check_type

# Tasks whose logits predict the next token
NEXT_TOKEN_TASKS = ("causal-lm", "seq2seq-lm")
_CACHE = ("a Cache", "make one with model.make_cache()")


class CausalModel(Model):
    """Base class of the families with a decoder: a causal stack and a cache.

    Attributes:
        decoder: the stack.
        decoder_embedder: embedder of its inputs.
        prefix: of the names of its inputs: "decoder_" beside an encoder.
    """

    decoder: Stack
    decoder_embedder: Embedder
    prefix = ""

    @property
    def original_contexts(self) -> dict[str, int]:
        """The original context length of each length-dependent RoPE type ("dynamic", "longrope").

        In a longer sequence every position is rotated differently, the first ones too, so a prompt is not run
        in chunks across that length. "dynamic" continues with cached keys; with "longrope" a sequence that
        grows beyond that length is run anew.
        """
        return original_contexts(self.config.stack.positions)

    def make_cache(
        self, max_length: int | None = None, *, spare: int = 0, dtype: torch.dtype | None = None
    ) -> Cache:
        """Returns an empty key/value cache, to be passed to `forward` again and again.

        Args:
            max_length: number of tokens to allocate, filled in place; None: the cache grows at every step.
            spare: how many tokens `Cache.crop` must be able to remove where layers attend to a window.
            dtype: torch.int8 stores rounded keys and values, also of layers with a window, which then keep
                all tokens; those of a cross-attention stay as they are. None: the dtype of the model.

        Raises:
            ArgumentTypeError, ArgumentValueError: not integers, or too small; another dtype.
        """
        if max_length is not None:
            max_length = check_integer("max_length", max_length, 1, hint="or None for a cache that grows")
        spare = check_integer("spare", spare)
        if dtype not in (None, torch.int8):
            raise ArgumentValueError("dtype", dtype, "torch.int8, or None for the dtype of the model")
        return self.decoder.make_cache(max_length, spare, dtype)

    def decode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> ModelOutput:
        """Runs further tokens of the decoder, whatever the family.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T) of these tokens, or (B, T, S) of all keys; 1 or True = attend.
            position_ids: (B or 1, T); None: the architecture's own numbering.
            inputs_embeds: (B, T, W), instead of `input_ids`.
            cache: with the earlier tokens, and the encoder output of an encoder-decoder.
            options: further arguments of `forward`.

        Raises:
            ArgumentTypeError, ArgumentValueError, ValueError: as `forward`, and without a cache.
        """
        check_type("cache", cache, Cache, *_CACHE)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        output: ModelOutput = self(
            **{self.prefix + name: value for name, value in inputs.items()}, cache=cache, **options
        )
        return output

    def run_decoder(
        self,
        inputs: Inputs,
        cache: Cache | None,
        cross: AttentionContext | None = None,
        record: Recorder | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Runs embedder and decoder.

        Args:
            inputs: ids or embeddings, mask and positions of the new tokens.
            cache: the tokens are added to it.
            cross: context of the cross-attention.
            record: collects hidden states and attention weights.

        Returns:
            Hidden states (B, T, E), and the mask of all keys if it is (B, S).
        """
        embedder, prefix, past = self.decoder_embedder, self.prefix, 0
        ids = token_ids(embedder, inputs)
        if cache is not None:
            self.check_cache(cache)
            cache.check(inputs.attention_mask, tuple(ids.shape), prefix)
            past = cache.length
        mask, name = inputs.attention_mask, f"{prefix}attention_mask"
        if past and mask is not None and mask.dim() == 3:
            mask = as_bool_of_queries(mask, name)
        else:
            mask = as_bool(mask, len(ids), ids.shape[1], name)
        if cache is not None:
            mask = cache.full_mask(mask, tuple(ids.shape), ids.device)
        flat = mask if mask is not None and mask.dim() == 2 else None
        if past and mask is not flat and inputs.position_ids is None:
            hint = "the mask of each query does not say where it stands"
            raise ArgumentValueError(f"{prefix}position_ids", None, "given with this attention mask", hint)
        embedder.check_ids(ids)
        position_ids = embedder.positions(ids, inputs.position_ids, past, flat)
        hidden = embedder(ids, None, position_ids, inputs.inputs_embeds)
        if cache is not None:
            positions = self.config.stack.positions
            check_same_rotation(positions, position_ids, past, cache.high_water_mark)
            if record is not None:  # refuse layers before a ring buffer is written to
                record.begin(len(self.decoder.layer_order))
            cache.reserve(ids.shape[1])
        hidden = self.run_stack(self.decoder, hidden, mask, position_ids, cache, cross, record=record)
        if cache is not None:
            cache.advance(mask, ids.shape[1])
        return hidden, flat

    def num_logits_to_keep(self, logits_to_keep: int, labels: Tensor | None) -> int:
        """Returns the number of final positions to compute logits for; 0: all.

        Args:
            logits_to_keep: as for `forward`.
            labels: (B,) or (B, T) or (B, C), or None.

        Raises:
            ArgumentTypeError, ArgumentValueError: not an integer, or labels without all logits.
        """
        logits_to_keep = check_integer("logits_to_keep", logits_to_keep, hint="0 keeps all")
        if logits_to_keep and labels is not None:
            raise ArgumentValueError(
                "logits_to_keep", logits_to_keep, "0 with labels", "the loss needs all logits"
            )
        return logits_to_keep if self.task in NEXT_TOKEN_TASKS else 0

    def check_cache(self, cache: Cache) -> None:
        """Checks that the cache is one for this model's layers.

        Raises:
            ArgumentTypeError: not a cache.
            ArgumentValueError: a cache for other layers or heads.
        """
        check_type("cache", cache, Cache, *_CACHE)
        steps, crosses = len(self.decoder.layer_order), self.config.stack.layer.cross_attention
        if (len(cache.layers), bool(cache.cross_attention)) != (steps, crosses):
            kind = ""
            if bool(cache.cross_attention) != crosses:
                kind = " with cross-attention" if crosses else " without cross-attention"
            expected = f"for the {steps} layers that the model runs{kind}, not for {len(cache.layers)}"
            raise ArgumentValueError("cache", cache, expected, _CACHE[1])
        if cache.num_sources:
            attention, (key, _) = self.config.stack.layer.attention, cache.cross_attention[0].recall()
            heads, features = attention.key_value_heads // self.head_shares, attention.head_dim
            if (key.shape[1], key.shape[3]) != (heads, features):
                raise ArgumentValueError(
                    "cache",
                    cache,
                    f"of {heads} heads of {features} features, not {key.shape[1]} of {key.shape[3]}",
                    "a cache serves the model that filled it",
                )


def check_causal_model(model: Any) -> CausalModel:
    """Checks that a model predicts the next token and is in eval mode, and returns it.

    Raises:
        ArgumentValueError: it does not, or is in training mode.
    """
    check_not_compiled(model)
    if isinstance(model, str):
        hint = f'minitx.load("{model}") loads it; on the command line, load("{model}")'
        raise ArgumentValueError("model", model, "one that predicts the next token, not its name", hint)
    task = getattr(model, "task", None)
    if task not in NEXT_TOKEN_TASKS:
        raise ArgumentValueError(
            "model",
            model,
            f"one that predicts the next token, not of task {task!r}",
            'load a decoder with head="causal-lm", or an encoder-decoder with head="seq2seq-lm"',
        )
    if model.training:
        expected = "in eval mode, not in training mode with dropout active"
        raise ArgumentValueError("model", model, expected, "call model.eval() first")
    checked: CausalModel = model
    return checked


class DecoderModel(CausalModel):
    """A causal decoder: embedder, decoder, and where present a head; a token attends to earlier ones only."""

    families = ("decoder",)

    @property
    def decoder_embedder(self) -> Embedder:  # type: ignore[override]
        """The embedder, the only one."""
        return self.embedder

    @explain_arguments("forward")
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        output_attentions: Layers = False,
    ) -> ModelOutput:
        """Runs a batch of sequences, or further tokens after those in a cache.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T) or (B, T, S), 1 or True = attend; the cache has the mask of earlier tokens.
                The second form lists the keys that each query attends to, itself among them, S = T without a
                cache; later keys stay masked. Beside tokens in a cache it lists those too, S = length + T,
                the keys of a query count as its sequence, and `position_ids` are needed.
            position_ids: (B or 1, T); None: the architecture's own numbering. Most number padding too; for
                left padding pass `(attention_mask.cumsum(1) - 1).clamp(min=0)`.
            labels: (B,) or (B, T) or (B, C), targets of the head's loss; `layers/losses.py` gives the shapes.
            inputs_embeds: (B, T, W), output of `embedder.word_emb`, instead of `input_ids`.
            cache: from `make_cache`; the tokens are added to it.
            logits_to_keep: compute logits for this number of final positions only; 0: all.
            output_hidden_states: return the hidden states of all layers.
            output_attentions: return the attention weights of all layers, or of the layers listed.

        Raises:
            ArgumentTypeError: not a tensor, or not a cache.
            ArgumentValueError: shapes that do not fit, ids outside their table, labels without all logits, a
                cache of another model.
            ValueError: a sequence longer than the table of positions.
        """
        keep = self.num_logits_to_keep(logits_to_keep, labels)
        inputs = Inputs(input_ids, attention_mask, None, position_ids, inputs_embeds)
        shape = inputs.shape
        record = None
        if output_hidden_states or output_attentions:
            record = Recorder(output_hidden_states, output_attentions)
        hidden, mask = self.run_decoder(inputs, cache, record=record)
        if self.task == "sequence-classification":
            mask = self.real_tokens(input_ids, mask, shape[-1])
        with rollback_on_error(cache, shape[-1]):
            output = self.result(hidden, mask, labels, logits_to_keep=keep)
        return output._replace(cache=cache, **({} if record is None else record.fields()))

    def real_tokens(self, input_ids: Tensor | None, mask: Tensor | None, time: int) -> Tensor | None:
        """Returns which tokens are neither masked nor padding ids.

        Checkpoints that classify sequences were trained to use the last token whose id is not the padding's.

        Args:
            input_ids: (B, T), or None.
            mask: (B, S), or None.
            time: T.

        Returns:
            (B, T) bool; None: all are real.
        """
        mask = None if mask is None else mask[:, -time:]
        pad = self.config.text_inputs.pad_token_id
        if pad is None or input_ids is None:
            return mask
        real = input_ids != pad
        return real if mask is None else real & mask
