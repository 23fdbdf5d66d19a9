"""Resizing the vocabulary: word embeddings, language-modelling head and configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minitx.config import ModelConfig, TextInputs
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.validation import ArgumentValueError, check_choice, check_integer

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
INITS = ("mean", "normal")
SIDES = ("encoder", "decoder")


def resize_token_embeddings(model: Any, size: int, init: str, seed: int | None, side: str | None) -> None:
    """Resizes the word embeddings and the head of a model; the arguments are those of the model's method.

    Raises:
        ArgumentTypeError, ArgumentValueError: as the method.
    """
    size = check_integer("size", size, 1)
    check_choice("init", init, INITS)
    if seed is not None:
        check_integer("seed", seed, 0, 2**64 - 1)
        if init != "normal":
            raise ArgumentValueError("seed", seed, "None", 'only init="normal" draws')
    sides = sides_of(model.config, side)
    config = resized_config(model.config, size, sides)
    check_special_tokens(model, size, sides)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    std = config.initializer_range if init == "normal" else None
    shared: dict[int, nn.Parameter] = {}  # a tied parameter is resized once
    for module, inputs in embedders(model, config):
        if inputs != module.config:
            module.config = inputs
            module.word_emb.num_embeddings = size
            module.word_emb.weight = resized(module.word_emb.weight, size, std, generator, shared)
    model.config = config
    if model.head is not None and model.head.config.task in VOCABULARY_TASKS:
        head, outputs = model.head, embedders(model, config)[-1][1].vocab_size
        if head.config.num_labels != outputs:
            head.config = replace(head.config, num_labels=size)
            projection = head.projection
            projection.out_features = size
            projection.weight = resized(projection.weight, size, std, generator, shared)
            if projection.bias is not None:
                projection.bias = resized(
                    projection.bias, size, None if std is None else 0.0, generator, shared
                )


def sides_of(config: ModelConfig, side: str | None) -> tuple[str, ...]:
    """Returns the sides whose embeddings are resized: those of the one vocabulary, or of the one asked for.

    Raises:
        ArgumentValueError: a side of a model with one vocabulary, or none of a model with two.
    """
    first, second = config.text_inputs, config.decoder_inputs
    if config.encoder is None or config.decoder is None:
        if side is not None:
            hint = "only an encoder-decoder with two vocabularies has sides"
            raise ArgumentValueError("side", side, "None", hint)
        return SIDES
    separate = second is not None and not config.shared_embeddings
    if side is not None:
        check_choice("side", side, SIDES)
        if not separate:
            raise ArgumentValueError("side", side, "None", "encoder and decoder share one vocabulary")
        return (side,)
    if separate and isinstance(second, TextInputs) and second.vocab_size != first.vocab_size:
        expected = '"encoder" or "decoder"'
        hint = f"the vocabularies have {first.vocab_size} and {second.vocab_size} tokens"
        raise ArgumentValueError("side", side, expected, hint)
    return SIDES


def resized_config(config: ModelConfig, size: int, sides: tuple[str, ...]) -> ModelConfig:
    """Returns the config with another vocabulary size.

    Raises:
        ArgumentValueError: a size that leaves out the padding token.
    """
    changes: dict[str, Any] = {}
    for side, name in zip(SIDES, ("inputs", "decoder_inputs"), strict=True):
        inputs = getattr(config, name)
        if side in sides and isinstance(inputs, TextInputs):
            pad = inputs.pad_token_id
            if pad is not None and size <= pad:
                raise ArgumentValueError("size", size, f"more than pad_token_id={pad}")
            changes[name] = replace(inputs, vocab_size=size)
    return replace(config, **changes)


def check_special_tokens(model: Any, size: int, sides: tuple[str, ...]) -> None:
    """Checks that the vocabulary keeps the special tokens of the config and of the checkpoint's config.json.

    Args:
        model: before it is resized.
        size: of its new vocabulary.
        sides: that are resized.

    Raises:
        ArgumentValueError: a size that leaves out one of them.
    """
    (embedder, _), *_ = (
        reversed(embedders(model, model.config)) if "decoder" in sides else embedders(model, model.config)
    )
    stated = {} if model.checkpoint is None else model.checkpoint.config
    for config in (vars(model.config), stated, *(stated.get(side) for side in sides)):
        for name in SPECIAL_TOKENS if isinstance(config, Mapping) else ():
            ids = config.get(name)
            for token in ids if isinstance(ids, list | tuple) else [ids]:
                if isinstance(token, int) and size <= token < embedder.config.vocab_size:
                    raise ArgumentValueError("size", size, f"more than {name}={token}")


def embedders(model: Any, config: ModelConfig) -> list[tuple[Any, Any]]:
    """Pairs each embedder of a model with its inputs config."""
    pairs = [(model.embedder, config.inputs)]
    if len(model.families) > 1:
        pairs.append((model.decoder_embedder, config.decoder_inputs or config.inputs))
    return pairs


def resized(
    old: nn.Parameter,
    size: int,
    std: float | None,
    generator: torch.Generator | None,
    shared: dict[int, nn.Parameter],
) -> nn.Parameter:
    """Returns a parameter with `size` entries; a tied one is resized once.

    Args:
        old: (V, ...)
        size: the new V.
        std: as for `with_entries`.
        generator: as for `with_entries`.
        shared: id of an old parameter -> its new one, changed in place.
    """
    if id(old) not in shared:
        entries = with_entries(old.detach(), size, std, generator)
        shared[id(old)] = nn.Parameter(entries, requires_grad=old.requires_grad)
    return shared[id(old)]


def with_entries(
    old: Tensor, size: int, std: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Returns the first entries of a table, and new ones after them: (V, ...) -> (size, ...).

    Args:
        old: (V, ...)
        size: the new V.
        std: standard deviation of new entries; None: each is the mean of the old ones.
        generator: on the CPU; None: torch's default.
    """
    extra = max(size - len(old), 0)
    if std is None:
        mean = old.mean(dim=0, dtype=torch.promote_types(old.dtype, torch.float32))
        return torch.cat((old[:size], mean.to(old.dtype).expand(extra, *old.shape[1:])))
    drawn = torch.randn(extra, *old.shape[1:], generator=generator, dtype=torch.float32) * std
    return torch.cat((old[:size], drawn.to(old.device, old.dtype)))
