"""The end of a turn of a conversation as an end token of the trained model."""

from __future__ import annotations

import json
from typing import Any

from minitx.decoding.special_tokens import end_tokens
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.training.objectives.base import IGNORED, Example
from minitx.training.objectives.conversation import encode_conversation


def add_turn_end(model: Any, objective: Any, tokenizer: Tokenizer, example: Example) -> None:
    """Adds the token that ends a turn to the end tokens of a model's generation settings.

    A text without a chat template, and a turn that ends in no special token, leave them as they are.

    Args:
        model: to train.
        objective: `Instruct` or `DPO`; others leave the settings as they are.
        tokenizer: of the model.
        example: of the training data.
    """
    messages = conversation(example)
    if not messages or not isinstance(model, Model) or model.checkpoint is None:
        return
    variables = {"variables": objective.variables} if hasattr(objective, "variables") else {}
    options = {"template": objective.template, "tools": example.get("tools")} | variables
    token = turn_end(tokenizer, encode_conversation(tokenizer, messages, **options).labels)
    ends = end_tokens(model, tokenizer)
    if token is None or token in ends:
        return
    checkpoint = model.checkpoint
    settings = {} if checkpoint.settings is None else checkpoint.settings.settings
    content = json.dumps(settings | {"eos_token_id": [*ends, token]}, indent=2)
    checkpoint.generation_file = f"{content}\n".encode()


def conversation(example: Example) -> list[Any]:
    """Returns the messages of an example of `Instruct` or `DPO`; none if it consists of texts."""
    if "chosen" not in example:
        return list(example.get("messages") or [])
    if isinstance(example["chosen"], str):
        return []
    return [*(example.get("prompt") or ()), *example["chosen"]]


def turn_end(tokenizer: Tokenizer, labels: list[int]) -> int | None:
    """Returns the special token that ends the last response, white space aside; None without one."""
    for token in reversed([label for label in labels if label != IGNORED]):
        if token in tokenizer.special_ids:
            return token
        if tokenizer.decode([token]).strip():
            return None
    return None
