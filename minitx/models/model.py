"""What all families have, an embedder, a stack, and where present a pooler and a head; and the encoders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn

from minitx.config import HeadConfig, ModelConfig
from minitx.layers.attention_kernels import BACKENDS
from minitx.layers.cache import Cache
from minitx.layers.embedder import Embedder
from minitx.layers.heads import TASKS, Head
from minitx.layers.masks import as_bool
from minitx.layers.norm import RMSNorm
from minitx.layers.pooler import Pooler
from minitx.layers.stack import make_stack
from minitx.validation import check_tensor, check_token_ids, flatten_choices

if TYPE_CHECKING:
    from minitx.checkpoint.record import Checkpoint


class ModelOutput(NamedTuple):
    """What a forward returns; a field that the model or the call does not have is None.

    Attributes:
        last_hidden_state: (B, T, E)
        pooler_output: (B, E)
        logits: (B, T, V) masked-lm, causal-lm and seq2seq-lm; (B, labels) sequence-classification and
            next-sentence; (B, T, labels) token-classification; (B, choices) multiple-choice; (B, T)
            replaced-token-detection.
        start_logits: (B, T) question-answering: the answer begins here.
        end_logits: (B, T) question-answering: the answer ends here.
        loss: scalar, if labels were given.
        cache: the one that was passed in, with these tokens added.
        encoder_last_hidden_state: (B, S, E') of an encoder-decoder; None where the cache has it already.
        cross_attentions: per layer (B, H, T, S), how much each token looked at each of the other text, if
            asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    loss: Tensor | None = None
    cache: Cache | None = None
    encoder_last_hidden_state: Tensor | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@contextmanager
def counted_if_well(cache: Cache, time: int) -> Iterator[None]:
    """Takes the last `time` tokens back out of the count of the cache, if what is done in here fails."""
    try:
        yield
    except BaseException:
        cache.withdraw(time)
        raise


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
        stack: Callable[..., nn.Module] = make_stack,
    ) -> None:
        super().__init__()
        if missing := [name for name in self.families if getattr(config, name) is None]:
            raise ValueError(f"{type(self).__name__} needs a config with {missing[0]}=StackConfig(...).")
        self.config = config
        self.checkpoint: Checkpoint | None = None  # where the weights came from, for minitx.save
        self.make_stacks(stack)
        self.pooler = Pooler(config.stack.hidden_size) if config.pooler else None
        size = config.stack.output_size or config.stack.hidden_size
        self.head = Head(head, size) if head is not None else None
        self.task = head.task if head is not None else None
        if not self.embedder.word_emb.weight.is_meta:  # there, weights follow
            self.initialize()
        self.tie_weights()

    def make_stacks(self, stack: Callable[..., nn.Module]) -> None:
        """Makes what comes before the head."""
        self.embedder = Embedder(self.config.inputs)
        self.add_module(self.families[0], stack(self.config.stack))

    @property
    def stack(self) -> nn.Module:
        """The stack whose hidden states the head reads: the decoder, or an encoder alone."""
        return self.get_submodule(self.families[-1])

    @property
    def ties(self) -> dict[str, str]:
        """Parameters that the config makes one with another: the name of the one -> that of the other."""
        tied = self.head is not None and self.head.config.tied
        return {"head.projection.weight": "embedder.word_emb.weight"} if tied else {}

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
        """Hidden states (B, T, E) to what the model's task makes of them.

        Where that fails, the tokens do not count in the cache: the same call can be made again.
        """
        with nullcontext() if cache is None else counted_if_well(cache, hidden.shape[1]):
            pooled = None if self.pooler is None else self.pooler(hidden)
            if self.head is None:
                if labels is not None:
                    raise ValueError("labels were given, but this model has no head; load it with head=.")
                return ModelOutput(hidden, pooled, cache=cache)
            config = self.head.config
            task = TASKS[config.task]
            logits = task.shape(self.head(hidden[:, -logits_to_keep:], pooled, mask), batch)
            loss = None if labels is None else task.loss(logits, check_tensor("labels", labels), mask, config)
            return ModelOutput(hidden, pooled, loss=loss, cache=cache, **task.outputs(logits))

    def tie_weights(self) -> None:
        """Lets one word embedding serve wherever the config says that it does."""
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
            TypeError: a list or anything else where a tensor is expected.
            ValueError: shapes that do not fit, ids outside their table, a text longer than the
                table of positions, where the model has one.
        """
        batch = check_tensor("input_ids", input_ids).shape[:-1]
        if input_ids.dim() == 3 and self.task == "multiple-choice":
            attention_mask = flatten_choices("attention_mask", attention_mask, input_ids)
            token_type_ids = flatten_choices("token_type_ids", token_type_ids, input_ids)
            position_ids = flatten_choices("position_ids", position_ids, input_ids)
            input_ids = input_ids.flatten(0, 1)
        position_ids = self.embedder.check(input_ids, token_type_ids, position_ids)
        mask = (
            None
            if attention_mask is None
            else as_bool(attention_mask, *check_token_ids("input_ids", input_ids))
        )
        hidden = self.embedder(input_ids, token_type_ids, position_ids)
        hidden = self.encoder(hidden, mask, position_ids)
        return self.result(hidden, mask, labels, batch=batch)
