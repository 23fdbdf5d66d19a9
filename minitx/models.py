"""The model families. An architecture is a configuration of these; no architecture's name is in here."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn

from minitx.cache import Cache
from minitx.config import HeadConfig, ModelConfig
from minitx.layers.attention import BACKENDS
from minitx.layers.checks import a_tensor, batch_and_time, leading_shape, one_row_per_choice, whole
from minitx.layers.embedder import Embedder
from minitx.layers.head import TASKS, Head
from minitx.layers.mask import as_bool
from minitx.layers.norm import RMSNorm
from minitx.layers.pooler import Pooler
from minitx.layers.stack import Stack

if TYPE_CHECKING:
    from minitx.weights.checkpoint import Checkpoint


class ModelOutput(NamedTuple):
    """What a forward returns; a field that the model or the call does not have is None.

    Attributes:
        last_hidden_state: (B, T, E)
        pooler_output: (B, E)
        logits: (B, T, V) masked-lm and causal-lm; (B, labels) sequence-classification and next-sentence;
            (B, T, labels) token-classification; (B, choices) multiple-choice; (B, T)
            replaced-token-detection.
        start_logits: (B, T) question-answering: the answer begins here.
        end_logits: (B, T) question-answering: the answer ends here.
        loss: scalar, if labels were given.
        cache: the one that was passed in, with these tokens added.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    loss: Tensor | None = None
    cache: Cache | None = None


class Model(nn.Module):
    """What all families have: an embedder, a stack, and where present a pooler and a head.

    Args:
        config: the numbers.
        head: the task head, or None for hidden states only.
        stack: the class of the stack; an architecture whose data flow differs brings its own.
    """

    family: str  # the name of the stack

    def __init__(
        self, config: ModelConfig, head: HeadConfig | None = None, stack: type[nn.Module] = Stack
    ) -> None:
        super().__init__()
        if getattr(config, self.family) is None:
            raise ValueError(f"{type(self).__name__} needs a config with {self.family}=StackConfig(...).")
        self.config = config
        self.checkpoint: Checkpoint | None = None  # where the weights came from, for minitx.save
        self.embedder = Embedder(config.embedder)
        self.add_module(self.family, stack(config.stack))
        self.pooler = Pooler(config.stack.hidden_size) if config.pooler else None
        size = config.stack.output_size or config.stack.hidden_size
        self.head = Head(head, size) if head is not None else None
        self.task = head.task if head is not None else None
        if not self.embedder.word_emb.weight.is_meta:  # there, weights follow
            self.initialize()
        self.tie_weights()

    @property
    def stack(self) -> nn.Module:
        """The encoder, or the decoder where that is all there is."""
        return self.get_submodule(self.family)

    def result(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        labels: Tensor | None,
        *,
        batch: torch.Size,
        logits_to_keep: int = 0,
        cache: Cache | None = None,
    ) -> ModelOutput:
        """Hidden states (B, T, E) to what the model's task makes of them."""
        pooled = None if self.pooler is None else self.pooler(hidden)
        if self.head is None:
            if labels is not None:
                raise ValueError("labels were given, but this model has no head; load it with head=.")
            return ModelOutput(hidden, pooled, cache=cache)
        config = self.head.config
        task = TASKS[config.task]
        logits = task.shape(self.head(hidden[:, -logits_to_keep:], pooled, mask), batch)
        loss = None if labels is None else task.loss(logits, a_tensor("labels", labels), mask, config)
        return ModelOutput(hidden, pooled, loss=loss, cache=cache, **task.outputs(logits))

    def tie_weights(self) -> None:
        """Lets the word embedding serve as the last projection of a language-model head."""
        if self.head is not None and self.head.config.tied:
            self.head.projection.weight = self.embedder.word_emb.weight

    def set_attention(self, backend: str) -> Self:
        """Chooses how attention is computed: "sdpa" (fused, the default) or "eager" (step by step).

        Raises:
            ValueError: an unknown name.
        """
        if backend not in BACKENDS:
            raise ValueError(f"unknown attention {backend!r}; minitx has: {', '.join(BACKENDS)}.")
        for module in self.modules():
            if hasattr(module, "backend"):
                setattr(module, "backend", BACKENDS[backend])  # noqa: B010 - parts beyond our classes have one too
        return self

    @torch.no_grad()
    def initialize(
        self, names: Collection[str] | None = None, generator: torch.Generator | None = None
    ) -> Self:
        """Draws fresh weights in place: normal with `initializer_range`, biases 0, norms 1.

        Args:
            names: the parameters to draw; None for all.
            generator: the source of randomness; None for torch's own.
        """
        drawn: set[int] = set()
        for path, module in self.named_modules():
            for leaf, parameter in module._parameters.items():
                if parameter is None or id(parameter) in drawn:  # a tied one is drawn where it is owned
                    continue
                if names is not None and f"{path}.{leaf}" not in names:
                    continue
                drawn.add(id(parameter))
                if leaf == "bias":
                    parameter.zero_()
                elif isinstance(module, nn.LayerNorm | RMSNorm):
                    parameter.fill_(1.0 - getattr(module, "offset", 0.0))
                else:
                    parameter.normal_(0.0, self.config.initializer_range, generator=generator)
                if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                    parameter[module.padding_idx].zero_()
        return self


class EncoderModel(Model):
    """A bidirectional encoder: embedder, encoder, and where present pooler and head."""

    family = "encoder"
    encoder: nn.Module

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ModelOutput:
        """Runs the model.

        Args:
            input_ids: (B, T); for multiple-choice (B, choices, T), and the others alike.
            attention_mask: (B, T), 1 or True = attend; or (B, T, T), which query sees which key.
            token_type_ids: (B, T); all zero if not given.
            position_ids: (B or 1, T); the architecture's own numbering if not given.
            labels: what the head should have said; the losses in `layers/head.py` give the shapes.

        Raises:
            TypeError: a list or anything else where a tensor is expected.
            ValueError: shapes that do not fit, ids outside their table, a text longer than the
                model's positions.
        """
        batch = leading_shape(input_ids)
        if input_ids.dim() == 3 and self.task == "multiple-choice":
            attention_mask = one_row_per_choice("attention_mask", attention_mask, input_ids)
            token_type_ids = one_row_per_choice("token_type_ids", token_type_ids, input_ids)
            position_ids = one_row_per_choice("position_ids", position_ids, input_ids)
            input_ids = input_ids.flatten(0, 1)
        position_ids = self.embedder.check(input_ids, token_type_ids, position_ids)
        mask = None if attention_mask is None else as_bool(attention_mask, *batch_and_time(input_ids))
        hidden = self.embedder(input_ids, token_type_ids, position_ids)
        hidden = self.encoder(hidden, mask, position_ids)
        return self.result(hidden, mask, labels, batch=batch)


class DecoderModel(Model):
    """A causal decoder: embedder, decoder, and where present a head; a token sees those before it."""

    family = "decoder"
    decoder: nn.Module

    @property
    def turning_points(self) -> dict[str, int]:
        """For each kind of rotary positions that asks how long a text is: the most tokens of a short one.

        In a longer text every position turns otherwise, the first ones too, so a text is not read in pieces
        across that point. "dynamic" goes on with what a cache holds; to "longrope" it is of no use, and a
        text that comes to be longer is run anew.
        """
        ropes = (self.config.stack.rope or {}).values()
        return {
            rope.rope_type: rope.original_max_position_embeddings
            for rope in ropes
            if rope.rope_type in ("dynamic", "longrope")
        }

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
            max_length = whole("max_length", max_length, 1, "tokens to hold; None for a cache that grows")
        spare = whole("spare", spare, 0, "tokens that crop can go back")
        assert isinstance(self.decoder, Stack)
        return self.decoder.make_cache(max_length, spare)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
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

        Raises:
            TypeError: a list or anything else where a tensor is expected, a cache that is none.
            ValueError: shapes that do not fit, ids outside their table, a text longer than the
                model's positions, a cache that is of no use for these tokens, labels for logits that are
                not kept.
        """
        logits_to_keep = whole("logits_to_keep", logits_to_keep, 0, "logits at the end; 0 keeps all")
        if logits_to_keep and labels is not None:
            raise ValueError("labels need the logits of all tokens: leave out labels or logits_to_keep.")
        batch, past = leading_shape(input_ids), 0
        if cache is not None:
            self.check_cache(cache, input_ids, attention_mask)
            past = cache.length
        mask = None if attention_mask is None else as_bool(attention_mask, *batch_and_time(input_ids))
        if cache is not None:
            mask = cache.extended(mask, input_ids)
        flat = mask if mask is not None and mask.dim() == 2 else None
        position_ids = self.embedder.check(input_ids, None, position_ids, past, flat)
        hidden = self.embedder(input_ids, None, position_ids)
        if cache is not None:
            cache.begin(input_ids.shape[1])
        hidden = self.decoder(hidden, mask, position_ids, cache)
        if cache is not None:
            cache.advance(mask, input_ids.shape[1])
        keep = logits_to_keep if self.task == "causal-lm" else 0
        real = self.real_tokens(input_ids, flat) if self.task == "sequence-classification" else flat
        return self.result(hidden, real, labels, batch=batch, logits_to_keep=keep, cache=cache)

    def check_cache(self, cache: Cache, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Refuses a cache that cannot go on with these tokens (B, T).

        Raises:
            TypeError: no cache.
            ValueError: as `Cache.check`; a cache for other layers; or the tokens lead across the length at
                which LongRoPE turns all positions otherwise, or back. That length counts padding: a row of
                a padded batch which crosses it later is for the caller to run anew, as `generate` does.
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache is a {type(cache).__name__}; expected what model.make_cache() gives.")
        assert isinstance(self.decoder, Stack)
        if len(cache.layers) != len(self.decoder.schedule):
            raise ValueError(
                f"the cache has parts for {len(cache.layers)} layers, the model runs "
                f"{len(self.decoder.schedule)}: make one with the model's own make_cache()."
            )
        cache.check(attention_mask, input_ids)
        short, past = self.turning_points.get("longrope"), cache.length
        if short is None or past == 0:
            return
        length, written = past + input_ids.shape[1], cache.seen
        if (length > short) != (written > short):
            raise ValueError(
                f"the cache was filled by a text of {written} tokens, now it has {length}; above {short} "
                "every position turns otherwise (LongRoPE), and what the cache holds is of no use: run the "
                "whole text in an empty cache."
            )

    def real_tokens(self, input_ids: Tensor, mask: Tensor | None) -> Tensor | None:
        """(B, T), False at padding: what the mask says, and every padding id.

        Checkpoints that label texts were trained to read the last token whose id is not the padding's.
        """
        mask = None if mask is None else mask[:, -input_ids.shape[1] :]
        pad = self.config.embedder.pad_token_id
        if pad is None:
            return mask
        named = input_ids != pad
        return named if mask is None else named & mask
