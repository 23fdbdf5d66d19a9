"""The tokenizer and the model of a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from minitx.checkpoint.build import from_config
from minitx.checkpoint.load import check_device, load
from minitx.models import Model
from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.tokenizer.chat import DEFAULT
from minitx.training.data.labels import Labels
from minitx.training.lora.adapt import add_lora
from minitx.training.objectives.replaced import GeneratorAndDiscriminator
from minitx.training.recipe.objectives import LABELLED, PAIR, ObjectiveTable, check_vocabulary
from minitx.training.recipe.tables import ModelTable, TokenizerTable, check_keys
from minitx.training.tokenizers import CHATML, train_tokenizer
from minitx.validation import ArgumentValueError, check_integer

_LORA = ("rank", "alpha", "targets", "dropout", "dora", "rslora", "bias", "modules_to_save", "seed")


def build_tokenizer(
    stated: TokenizerTable, model: ModelTable, texts: Iterable[str], progress: bool | None
) -> Tokenizer:
    """Returns the tokenizer, loaded or trained.

    Args:
        stated: its table.
        model: whose tokenizer is the default.
        texts: to train it on.
        progress: show a progress bar; None: at a terminal.

    Raises:
        ArgumentValueError: neither a name nor a style, and a model without a name.
        OSError, ValueError: files that are missing or damaged, no text.
    """
    name = stated.name or model.name
    if stated.style is not None:
        options = stated.training() | {"chat_template": stated.chat_template}
        tokenizer = train_tokenizer(texts, stated.style, progress=progress, **options)
    elif name is not None:
        tokenizer = load_tokenizer(name)
        if stated.chat_template is not None:
            template = CHATML if stated.chat_template == "chatml" else stated.chat_template
            tokenizer.chat.templates[DEFAULT] = template
    else:
        hint = 'name = "folder or Hub id" loads one, style = "gpt2" trains one on the data'
        raise ArgumentValueError("tokenizer", None, "a table [tokenizer] with name or style", hint)
    for role, token in stated.roles().items():
        if tokenizer.token_to_id(token) is None:
            hint = "add it to tokenizer.special_tokens" if stated.style else "choose one that it has"
            raise ArgumentValueError(f"tokenizer.{role}", token, "a token of the tokenizer", hint)
        setattr(tokenizer, role, token)
    return tokenizer


def build_model(
    stated: ModelTable, objective: ObjectiveTable, tokenizer: Tokenizer, labels: Labels | None, seed: int
) -> Any:
    """Returns the model on its device, in training mode, with the names of the labels; without adapters.

    Args:
        stated: its table.
        objective: which chooses the head.
        tokenizer: for the size of the vocabulary and the ids of special tokens in a config.
        labels: of the data, or None.
        seed: of random weights.

    Raises:
        ArgumentTypeError, ArgumentValueError, OSError, ValueError: as `load` and `from_config`; fewer
            embeddings than the tokenizer has tokens.
    """
    head, device = stated.head or objective.head, check_device(stated.device)
    seed = seed if stated.seed is None else check_integer("model.seed", stated.seed)
    count = 1 if objective.is_regression else None if labels is None else len(labels)
    if (objective.task.name == "replaced-tokens") != (stated.generator is not None):
        expected = 'a table [model.generator] with objective "replaced-tokens", and with it alone'
        raise ArgumentValueError("model.generator", stated.generator, expected)
    if stated.config is None:
        assert stated.name is not None, "checked by its table"
        fresh: dict[str, Any] = {"init_head": True, "seed": seed} if head in LABELLED else {}
        fresh |= {} if count is None else {"num_labels": count}
        model: nn.Module = load(stated.name, head=head, dtype=stated.dtype, device=device, **fresh).train()
    else:
        config = known_entries(tokenizer, head) | stated.config
        config |= labels.config() if labels is not None else {} if count is None else {"num_labels": count}
        options: dict[str, Any] = {"dtype": stated.dtype or torch.float32, "seed": seed}
        model = from_config(config, head=head, **options)
        if head == PAIR:
            generator = from_config(config | (stated.generator or {}), head="masked-lm", **options)
            model = GeneratorAndDiscriminator(generator, model, share_embeddings=stated.share_embeddings)
    for part in [model, *model.children()]:
        check_vocabulary(part, tokenizer, "tokenizer")
    return model.to(device)


def known_entries(tokenizer: Tokenizer, head: str) -> dict[str, Any]:
    """Returns the entries of a config.json that a tokenizer determines."""
    entries: dict[str, Any] = {"vocab_size": len(tokenizer)}
    for role in ("pad", "bos", "eos"):
        if (index := getattr(tokenizer, f"{role}_token_id")) is not None:
            entries[f"{role}_token_id"] = index
    if head == "seq2seq-lm" and "pad_token_id" in entries:
        entries["decoder_start_token_id"] = entries["pad_token_id"]  # as T5
    return entries


def name_labels(model: Any, labels: Labels) -> Labels:
    """Names the outputs of a model's head; returns the labels in the order of the model.

    Raises:
        ValueError: a head with another number of outputs.
    """
    stated = Labels.of_model(model)
    labels = stated if set(stated.names) == set(labels.names) else labels
    labels.apply(model)
    return labels


def adapt(model: Any, stated: ModelTable, seed: int) -> None:
    """Adds the adapters of [model.lora].

    Raises:
        ArgumentTypeError, ArgumentValueError: as `add_lora`, or a pair of models.
    """
    if stated.lora is None:
        return
    check_keys(stated.lora, _LORA, "model.lora")
    if not isinstance(model, Model):
        raise ArgumentValueError("model.lora", stated.lora, "left out with a pair of models")
    add_lora(model, **{"seed": seed} | stated.lora)
