"""The model families. An architecture is a configuration of these; no architecture's name is in here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn

from minitx.cache import Cache
from minitx.config import HeadConfig, ModelConfig
from minitx.layers.attention import BACKENDS
from minitx.layers.checks import leading_shape, one_row_per_choice, values_are_unseen
from minitx.layers.embedder import Embedder
from minitx.layers.head import TASKS, Head
from minitx.layers.linear import Linear
from minitx.layers.mask import as_bool
from minitx.layers.norm import RMSNorm, Slot, identity
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
        encoder_last_hidden_state: (B, S, E') of an encoder-decoder; None where the cache has it already.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    loss: Tensor | None = None
    cache: Cache | None = None
    encoder_last_hidden_state: Tensor | None = None


class Model(nn.Module):
    """What all families have: an embedder, a stack, and where present a pooler and a head.

    Args:
        config: the numbers.
        head: the task head, or None for hidden states only.
        stack: the class of the stack; an architecture whose data flow differs brings its own.
    """

    families: tuple[str, ...]  # the names of the stacks

    def __init__(
        self,
        config: ModelConfig,
        head: HeadConfig | None = None,
        stack: Callable[..., nn.Module] = Stack,
    ) -> None:
        super().__init__()
        for name in self.families:
            if getattr(config, name) is None:
                raise ValueError(f"{type(self).__name__} needs a config with {name}=StackConfig(...).")
        self.config = config
        self.checkpoint: Checkpoint | None = None  # where the weights came from, for minitx.save
        self.embedder = Embedder(config.embedder)
        first, *second = self.families
        self.add_module(first, stack(getattr(config, first)))
        if second:
            self.decoder_embedder = Embedder(config.decoder_embedder or config.embedder)
            self.memory_projection = memory_projection(config)
            self.decoder = stack(config.stack)
        self.pooler = Pooler(config.stack.hidden_size) if config.pooler else None
        size = config.stack.output_size or config.stack.hidden_size
        self.head = Head(head, size) if head is not None else None
        self.task = head.task if head is not None else None
        if not self.embedder.word_emb.weight.is_meta:  # there, weights follow
            self.initialize()
        self.tie_weights()

    @property
    def stack(self) -> nn.Module:
        """The stack whose hidden states the head reads: the decoder, or an encoder alone."""
        return self.get_submodule(self.families[-1])

    @property
    def ties(self) -> dict[str, str]:
        """Parameters that the config makes one with another: the name of the one -> that of the other."""
        word = "embedder.word_emb.weight"
        found = {}
        if len(self.families) > 1:
            own = "decoder_embedder.word_emb.weight"
            if self.config.shared_embeddings:
                found[own] = word
            word = own
        if self.head is not None and self.head.config.tied:
            found["head.projection.weight"] = word
        return found

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
        task = TASKS[self.head.config.task]
        logits = task.shape(self.head(hidden[:, -logits_to_keep:], pooled, mask), batch)
        loss = None if labels is None else task.loss(logits, labels, mask, self.head.config)
        return ModelOutput(hidden, pooled, loss=loss, cache=cache, **task.outputs(logits))

    def tie_weights(self) -> None:
        """Lets one word embedding serve encoder, decoder and the last projection of a language-model head."""
        for name, other in self.ties.items():
            module, _, leaf = name.rpartition(".")
            self.get_submodule(module).register_parameter(leaf, self.get_parameter(other))

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

    families = ("encoder",)
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
        mask = None if attention_mask is None else as_bool(attention_mask, *input_ids.shape)
        hidden = self.embedder(input_ids, token_type_ids, position_ids)
        hidden = self.encoder(hidden, mask, position_ids)
        return self.result(hidden, mask, labels, batch=batch)


class CausalModel(Model):
    """What the families with a decoder have: a stack in which a token sees those before it, and a cache."""

    decoder: Stack
    decoder_embedder: Embedder

    @property
    def turning_point(self) -> int | None:
        """The number of tokens beyond which every position turns otherwise (LongRoPE), if there is one.

        What a cache holds from before is of no use behind it: a text that comes to be longer is run anew.
        """
        ropes = (self.config.stack.rope or {}).values()
        points = [r.original_max_position_embeddings for r in ropes if r.rope_type == "longrope"]
        return min(points, default=None)

    def make_cache(self, max_length: int | None = None, *, spare: int = 0) -> Cache:
        """An empty cache, to be passed to `forward` again and again.

        Args:
            max_length: how many tokens it must hold; room for them is made once and filled in place.
                None: it grows as it goes.
            spare: how far `Cache.crop` must be able to go back where layers see only a window.
        """
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length={max_length} must be at least 1, or None for a cache that grows.")
        if spare < 0:
            raise ValueError(f"spare={spare} must not be negative: how far crop can go back.")
        return self.decoder.make_cache(max_length, spare)

    def decode(
        self,
        input_ids: Tensor,
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
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The decoder's hidden states (B, T, E), and the mask of all its keys if that is (B, S).

        Args:
            input_ids, attention_mask, position_ids, cache: as for `DecoderModel.forward`.
            memory, memory_mask: as for `Stack.forward`.
        """
        embedder, past = self.decoder_embedder, 0 if cache is None else cache.length
        mask = None if attention_mask is None else as_bool(attention_mask, *input_ids.shape)
        if cache is not None:
            cache.check(mask, input_ids)
            mask = cache.extended(mask, input_ids)
        flat = mask if mask is not None and mask.dim() == 2 else None
        position_ids = embedder.check(input_ids, None, position_ids, past, flat)
        hidden = embedder(input_ids, None, position_ids)
        if cache is not None:
            cache.begin(input_ids.shape[1])
        hidden = self.decoder(hidden, mask, position_ids, cache, memory, memory_mask)
        if cache is not None:
            cache.advance(mask, input_ids.shape[1])
        return hidden, flat


class DecoderModel(CausalModel):
    """A causal decoder: embedder, decoder, and where present a head; a token sees those before it."""

    families = ("decoder",)

    @property
    def decoder_embedder(self) -> Embedder:  # type: ignore[override]
        """Of the text that the decoder reads and writes: the only embedder there is."""
        return self.embedder

    def decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache,
        logits_to_keep: int = 0,
    ) -> ModelOutput:
        """`forward` for more tokens of the text."""
        return self.forward(
            input_ids, attention_mask, position_ids, cache=cache, logits_to_keep=logits_to_keep
        )

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
            ValueError: shapes that do not fit, ids outside their table, a text longer than the
                model's positions.
        """
        if logits_to_keep < 0:
            raise ValueError(f"logits_to_keep={logits_to_keep} must not be negative; 0 keeps all.")
        batch = leading_shape(input_ids)
        hidden, mask = self.run_decoder(input_ids, attention_mask, position_ids, cache)
        keep = logits_to_keep if self.task == "causal-lm" and labels is None else 0
        real = self.real_tokens(input_ids, mask) if self.task == "sequence-classification" else mask
        return self.result(hidden, real, labels, batch=batch, logits_to_keep=keep, cache=cache)

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


class EncoderDecoderModel(CausalModel):
    """An encoder that reads one text and a decoder that writes another, looking at what was read.

    The decoder's text begins with `config.decoder_start_token_id`; its layers look at the encoder's last
    hidden states, the memory, by cross-attention.
    """

    families = ("encoder", "decoder")
    encoder: nn.Module

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

        Raises:
            ValueError: shapes that do not fit, ids outside their table, a text longer than the model's
                positions, nothing to read, or something to read beside a cache that has read.
        """
        if logits_to_keep < 0:
            raise ValueError(f"logits_to_keep={logits_to_keep} must not be negative; 0 keeps all.")
        memory, read = encoder_last_hidden_state, cache is not None and cache.has_memory
        if (input_ids is not None) + (memory is not None) + read != 1:
            raise ValueError(
                "give one of: input_ids, the text to be read; encoder_last_hidden_state, of one that was "
                "read; or a cache that has its memory already."
            )
        if decoder_input_ids is None:
            decoder_input_ids = self.shifted(labels if self.task == "seq2seq-lm" else input_ids)
        batch = leading_shape(decoder_input_ids)
        if not read and memory is None:
            assert input_ids is not None, "it is one of the three"
            memory = self.encode(input_ids, attention_mask, token_type_ids, position_ids)
        seen, seen_mask = None, None
        if memory is not None:
            check_memory(memory, decoder_input_ids)
            seen = self.memory_projection(memory)
            seen_mask = None if attention_mask is None else as_bool(attention_mask, *memory.shape[:2])
        if cache is not None and seen is not None:
            self.decoder.remember(cache, seen, seen_mask)
            seen = None
        hidden, mask = self.run_decoder(
            decoder_input_ids, decoder_attention_mask, decoder_position_ids, cache, seen, seen_mask
        )
        keep = logits_to_keep if self.task == "seq2seq-lm" and labels is None else 0
        if self.task == "sequence-classification":
            mask = self.end_tokens(input_ids, decoder_input_ids)
        found = self.result(hidden, mask, labels, batch=batch, logits_to_keep=keep, cache=cache)
        return found._replace(encoder_last_hidden_state=memory)

    def decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        cache: Cache,
        logits_to_keep: int = 0,
    ) -> ModelOutput:
        """`forward` for more tokens of the text that is written; the cache remembers what was read."""
        return self.forward(
            decoder_input_ids=input_ids,
            decoder_attention_mask=attention_mask,
            decoder_position_ids=position_ids,
            cache=cache,
            logits_to_keep=logits_to_keep,
        )

    def read(
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
        """
        memory = self.encode(input_ids, attention_mask, token_type_ids, position_ids)
        mask = None if attention_mask is None else as_bool(attention_mask, *input_ids.shape)
        self.decoder.remember(cache, self.memory_projection(memory), mask)
        return cache

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
        leading_shape(input_ids)
        position_ids = self.embedder.check(input_ids, token_type_ids, position_ids)
        mask = None if attention_mask is None else as_bool(attention_mask, *input_ids.shape)
        hidden: Tensor = self.encoder(
            self.embedder(input_ids, token_type_ids, position_ids), mask, position_ids
        )
        return hidden

    def shifted(self, ids: Tensor | None) -> Tensor:
        """(B, T) -> (B, T): what the decoder is given so that it learns to write `ids`.

        The start token is put before them; without one the text's last token is, which then says what
        language it is in. The label -100 becomes padding.

        Raises:
            ValueError: there is nothing to shift, or no padding to put.
        """
        if ids is None:
            raise ValueError(
                "decoder_input_ids are missing: what the decoder goes on from, at least "
                f"[[{self.config.decoder_start_token_id}]] for each text."
            )
        pad = self.decoder_embedder.config.pad_token_id
        start = self.config.decoder_start_token_id
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
        if not values_are_unseen(ends) and not bool(ends.any(dim=1).all()):
            raise ValueError(f"each text must have an end token, {eos}: the head reads what stands there.")
        return ends


def memory_projection(config: ModelConfig) -> Slot:
    """Between an encoder and a decoder of another width."""
    assert config.encoder is not None
    if not config.memory_projection:
        return identity
    return Linear(config.encoder.hidden_size, config.stack.hidden_size, bias=True)


def check_memory(memory: Tensor, decoder_input_ids: Tensor) -> None:
    """
    Raises:
        ValueError: the texts that were read are not as many as those that are written.
    """
    if memory.dim() != 3 or len(memory) != len(decoder_input_ids):
        raise ValueError(
            f"what was read has shape {tuple(memory.shape)}, and decoder_input_ids "
            f"{tuple(decoder_input_ids.shape)}; expected one text to read for each to write."
        )
