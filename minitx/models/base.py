"""The base class of the model families: embedder, stack, and where present a pooler and a head."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from minitx.config import CustomInputs, HeadConfig, ModelConfig, StackConfig, TextInputs
from minitx.habits import ElsewhereMethod, UnknownAttributeError
from minitx.layers.attention import Backend, backend_of
from minitx.layers.cache import Cache
from minitx.layers.embedder import Embedder
from minitx.layers.feed_forward import Pooler
from minitx.layers.heads import TASKS, VOCABULARY_TASKS, head_class
from minitx.layers.recorder import Recorder
from minitx.layers.stack import make_stack
from minitx.models.initialization import Rules, initialize
from minitx.models.inputs import make_embedder
from minitx.models.output import ModelOutput
from minitx.models.resize import resize_token_embeddings
from minitx.models.taps.places import match_places
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_callable,
    check_flags,
    check_tensor,
    check_type,
)

StackMaker = Callable[..., nn.Module]  # of a StackConfig
_POOLER = "ModelConfig(pooler=True, ...) gives the model one"


@contextmanager
def rollback_on_error(cache: Cache | None, time: int) -> Iterator[None]:
    """Makes the last `time` tokens of the cache invalid again if the body fails; the call can be repeated."""
    try:
        yield
    except BaseException:
        if cache is not None:
            cache.rollback(time)
        raise


class Model(nn.Module):
    """Base class of the model families: an embedder, a stack, and where present a pooler and a head.

    Args:
        config: sizes and options.
        head: the task head; None: hidden states only.
        stack: makes a stack from its config; an architecture with another data flow has its own.

    Raises:
        ArgumentTypeError: a config, a head or a stack that is none.
        ArgumentValueError: a config without a stack of this family, or a head that does not fit it.
    """

    families: tuple[str, ...]  # names of the stacks
    head_shares = 1  # number of processes that share the attention heads, in tensor parallelism

    from_pretrained = ElsewhereMethod("model")
    generate = ElsewhereMethod("model")
    save_pretrained = ElsewhereMethod("model")

    def __init__(
        self, config: ModelConfig, head: HeadConfig | None = None, stack: StackMaker = make_stack
    ) -> None:
        super().__init__()
        if missing := [name for name in self.families if getattr(config, name, None) is None]:
            check_type("config", config, ModelConfig, "a ModelConfig", "minitx.from_config takes a dict")
            expected = f"a StackConfig in the config of a {type(self).__name__}"
            raise ArgumentValueError(f"config.{missing[0]}", None, expected)
        self.config = config
        # The record that `minitx.load` leaves for `minitx.save`. Its class is in checkpoint/, which imports
        # this package, so it is not named here.
        self.checkpoint: Any = None
        self.make_stacks(stack if stack is make_stack else partial(custom_stack, stack))
        last = getattr(config, self.families[-1])
        self.pooler = Pooler(last.output_size or last.hidden_size) if config.pooler else None
        self.head = None if head is None else make_head(head, config, self.families[-1])
        self.task = head.task if head is not None else None
        if not next(self.parameters()).is_meta:  # there, weights follow
            self.initialize()
        self.tie_weights()

    def make_stacks(self, stack: StackMaker) -> None:
        """Makes the modules before the head."""
        self.embedder: Embedder = make_embedder(self.config.inputs)
        setattr(self, self.families[0], stack(getattr(self.config, self.families[0])))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise UnknownAttributeError("model", type(self).__name__, name, self._modules) from None

    def extra_repr(self) -> str:
        """Returns number and dtypes of the parameters and the task, for the printout."""
        dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in self.parameters()})
        words = [f"{self.num_parameters():,} parameters", " and ".join(dtypes), self.task]
        return ", ".join(filter(None, words))

    # --- properties --------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device of the first parameter; a model lies on one device."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter, which is the embedder's."""
        return next(self.parameters()).dtype

    def num_parameters(self, *, trainable: bool = False) -> int:
        """Returns the number of parameters, tied ones once.

        Args:
            trainable: count only those that require gradients.

        Raises:
            ArgumentTypeError: not a bool.
        """
        check_flags(trainable=trainable)
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    @property
    def stack(self) -> nn.Module:
        """The stack whose hidden states the head takes: the decoder, or an encoder alone."""
        return self.get_submodule(self.families[-1])

    @property
    def ties(self) -> dict[str, str]:
        """Maps each tied parameter to the parameter that it shares."""
        tied = self.head is not None and self.head.config.tied
        return {"head.projection.weight": "embedder.word_emb.weight"} if tied else {}

    # --- forward -----------------------------------------------------------------------------------------

    def run_stack(self, stack: nn.Module, *inputs: Any, record: Recorder | None = None) -> Tensor:
        """Runs a stack: (B, T, E) and further inputs -> (B, T, E).

        Args:
            stack: of this model.
            inputs: of its forward.
            record: collects hidden states and attention weights; None: nothing is collected.

        Raises:
            ArgumentTypeError: one of its layers has been replaced by a module with another signature.
        """
        options = {} if record is None else {"record": record}  # a custom stack need not have it
        try:
            hidden: Tensor = stack(*inputs, **options)
        except TypeError:
            check_layers(stack)
            raise
        return hidden

    def result(
        self, hidden: Tensor, mask: Tensor | None, labels: Tensor | None = None, **options: Any
    ) -> ModelOutput:
        """Applies pooler and head to hidden states.

        Args:
            hidden: (B, T, E).
            mask: (B, S) bool for the pooling of the head, where S = T.
            labels: (B,) or (B / choices,) or (B, T) or (B, C), for the loss of the head.
            options: of `apply_head`.
        """
        pooled = None if self.pooler is None else self.pooler(hidden[:, 0])
        if self.head is None and labels is None:
            return ModelOutput(hidden, pooled)
        return self.apply_head(hidden, pooled, mask, labels, **options)

    def apply_head(
        self,
        hidden: Tensor,
        pooled: Tensor | None,
        mask: Tensor | None,
        labels: Tensor | None,
        *,
        batch: Sequence[int] = (),
        logits_to_keep: int = 0,
    ) -> ModelOutput:
        """Returns logits, and the loss if there are labels.

        Args:
            hidden: (B, T, E).
            pooled: (B, E), or None.
            mask: (B, S) bool for the pooling, where S = T; or None.
            labels: (B,) or (B / choices,) or (B, T) or (B, C), or None.
            batch: leading dimensions of the input ids of multiple choice.
            logits_to_keep: number of final positions to compute logits for; 0: all.

        Raises:
            ArgumentValueError: labels for a model without a head.
        """
        head = self.head
        if head is None:
            expected = "None for a model without a head"
            raise ArgumentValueError("labels", labels, expected, "load it with head=")
        task = TASKS[head.config.task]
        logits = task.shape(head(hidden[:, -logits_to_keep:], pooled, mask), batch)
        loss = None
        if labels is not None:
            loss = task.loss(logits, check_tensor("labels", labels), mask, head.config)
        return ModelOutput(hidden, pooled, loss=loss, **task.fields(logits))

    def taps(self, *patterns: str) -> list[str]:
        """Returns the names of the values that `minitx.inspect` can record and replace.

        Args:
            patterns: `*` stands for one part of a name, `**` for any number of parts; none: all values.

        Raises:
            ArgumentTypeError, ArgumentValueError: a pattern that matches nothing.

        Example:
            >>> model.taps("**.weights")
            ['encoder.layers.0.attention.self_attention.weights', ...
        """
        return [place.name for place in match_places(self, *(patterns or ("**",)))]

    # --- weights and attention ---------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Converts the parameters, as `to` and `half` do; some stay in float32 in a float16 model."""
        architecture = getattr(self.checkpoint, "architecture", None)
        if architecture is None or not architecture.float32_in_half:
            return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]
        stay = [p for name, p in self.named_parameters() if architecture.stays_in_float32(name)]
        wide = {id(tensor) for p in stay for tensor in (p, p.grad)}

        def _convert(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            if id(tensor) in wide and converted.dtype == torch.float16:
                return tensor.to(converted.device, torch.float32)
            return converted

        super()._apply(_convert, recurse)  # type: ignore[no-untyped-call]
        return mixed_dtypes(self)

    def tie_weights(self) -> Self:
        """Makes each parameter in `ties` the same object as its owner."""
        for name, other in self.ties.items():
            module, _, leaf = name.rpartition(".")
            self.get_submodule(module).register_parameter(leaf, self.get_parameter(other))
        return self

    def set_attention(self, attention: str | Backend) -> Self:
        """Chooses how attention is computed.

        `output_attentions` returns the weights of the standard formula with any of them.

        Args:
            attention: "sdpa" (fused, the default), "eager" (step by step), a name of
                `minitx.register_attention`, or a function with the signature of
                `minitx.layers.attention.Backend`.

        Raises:
            ArgumentTypeError: neither a name nor a function.
            ArgumentValueError: an unknown name.
        """
        backend = backend_of(attention)
        for module in self.modules():
            if hasattr(module, "backend"):
                setattr(module, "backend", backend)  # noqa: B010 - modules of other classes have one too
        return self

    def resize_token_embeddings(
        self, size: int, *, init: str = "mean", seed: int | None = None, side: str | None = None
    ) -> Self:
        """Changes the number of tokens, as after `tokenizer.add_tokens`; `save` writes it.

        A head over the vocabulary is resized too, and ties stay. Make the optimizer afterwards.

        Args:
            size: number of entries of the word embedding, such as `len(tokenizer)`; a smaller one drops the
                last.
            init: new entries: "mean" of the old ones, or "normal" with `initializer_range` (biases 0).
            seed: of "normal"; None draws from PyTorch's global generator.
            side: "encoder" or "decoder" of a model with two vocabularies.

        Raises:
            ArgumentTypeError, ArgumentValueError: a size that leaves out the padding token, inputs other than
                text, or a side of a model with one vocabulary.
        """
        resize_token_embeddings(self, size, init, seed, side)
        if self.checkpoint is not None:
            self.checkpoint.resize_vocabulary(self, side)
        return self

    @torch.no_grad()
    def initialize(
        self, names: Collection[str] | None = None, generator: torch.Generator | None = None
    ) -> Self:
        """Draws fresh weights in place by the rules of the architecture, of a plain `ModelConfig` the usual.

        The usual rules: normal with `initializer_range`, biases 0, norms 1, padding rows 0.

        Args:
            names: of the parameters to draw; None: all.
            generator: source of randomness; None: torch's default.

        Raises:
            ArgumentTypeError: names that are no collection, or not a generator.
            ArgumentValueError: a name that no parameter has.
        """
        check_type("generator", generator, torch.Generator | None, "a torch.Generator or None")
        listed = isinstance(names, Collection) and not isinstance(names, str | Tensor)
        if names is not None and not (listed and all(isinstance(name, str) for name in names)):
            raise ArgumentTypeError("names", names, "a collection of names of parameters, or None")
        known = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        if unknown := sorted(set(names or ()) - known):
            hint = "model.named_parameters() has them"
            raise ArgumentValueError("names", unknown[0], "names of parameters of the model", hint)
        architecture = getattr(self.checkpoint, "architecture", None)
        rules: Rules = {} if architecture is None else architecture.initialization(self)
        initialize(self, self.config.initializer_range, rules, names, generator)
        return self


def custom_stack(stack: StackMaker, config: StackConfig) -> nn.Module:
    """Returns the stack that a function other than `make_stack` makes from its config.

    Raises:
        ArgumentTypeError: not a function, or one that makes something other than a module.
    """
    check_callable("stack", stack)
    hint = "the function that is passed as stack= makes one from a StackConfig"
    module: nn.Module = check_type("stack", stack(config), nn.Module, "a module", hint)
    return module


def make_head(head: HeadConfig, config: ModelConfig, family: str) -> Any:
    """Returns the head of a model.

    Args:
        head: config of the head.
        config: of the model.
        family: the stack that it follows, "encoder" or "decoder".

    Raises:
        ArgumentTypeError: not a HeadConfig.
        ArgumentValueError: a head that needs token ids, on inputs other than text; one tied to another shape;
            one that needs the pooler of a model without one.
    """
    stack = getattr(config, family)
    inputs = (config.decoder_inputs if family == "decoder" else None) or config.inputs
    if (
        isinstance(head, HeadConfig)
        and head.num_labels is None
        and head.task in VOCABULARY_TASKS
        and isinstance(inputs, TextInputs)
    ):
        head = replace(head, num_labels=inputs.vocab_size)
    module: Any = head_class(head)(head, stack.output_size or stack.hidden_size)
    if head.pooling == "pooler" and not config.pooler:
        raise ArgumentValueError("HeadConfig.pooling", "pooler", "another without a pooler", _POOLER)
    if isinstance(inputs, CustomInputs):
        hint = "inputs other than text have neither a word embedding nor choices"
        if head.tied:
            raise ArgumentValueError("HeadConfig.tied", True, "False", hint)
        if head.task == "multiple-choice":
            raise ArgumentValueError("HeadConfig.task", head.task, "another", hint)
    elif head.tied:
        table, shape = (inputs.vocab_size, inputs.embedding_size), tuple(module.projection.weight.shape)
        if shape != table:
            expected = f"False for a projection of shape {shape}; the word embedding has {table}"
            raise ArgumentValueError("HeadConfig.tied", True, expected)
    return module


def check_layers(stack: nn.Module) -> None:
    """Checks that each layer of a stack can be called with the five arguments of `Layer.forward`.

    Raises:
        ArgumentTypeError: a layer that cannot.
    """
    for number, layer in enumerate(getattr(stack, "layers", ())):
        try:
            inspect.signature(layer.forward).bind(*[None] * 5)
        except TypeError:
            raise ArgumentTypeError(
                f"layers[{number}]",
                layer,
                "a module with the forward of minitx.layers.layer.Layer",
                "it is called with (hidden, context, cache, cross_context, cross_cache)",
            ) from None
