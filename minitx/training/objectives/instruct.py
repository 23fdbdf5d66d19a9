"""Instruction tuning: causal language modelling of conversations, with a loss on the responses only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from minitx.training.objectives.base import Batch, Example, Objective
from minitx.training.objectives.batching import entry, padding_id
from minitx.training.objectives.causal import Document, causal_batch, pack
from minitx.training.objectives.conversation import encode_conversation, encode_response
from minitx.validation import check_flags, check_integer, check_optional_strings, check_type

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Instruct(Objective):
    """Instruction tuning of decoders with head="causal-lm".

    Examples have any number of `messages`, and `tools` if there are any; or the texts `prompt` and
    `response`. The end token of a response is learned.

    Attributes:
        tokenizer: with a chat template, for messages.
        max_length: maximum number of tokens; the end of a longer conversation is cut off. None: all of them.
        packed: pack conversations into rows of `max_length` tokens.
        template: name of a chat template, or one in Jinja; None: the tokenizer's.
        variables: further variables of the template.
    """

    task = "causal-lm"
    tokenizer: Tokenizer
    max_length: int | None = None
    packed: bool = False
    template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_flags(packed=self.packed)
        check_optional_strings(template=self.template)
        check_type("variables", self.variables, Mapping, "a dict")
        if self.max_length is not None or self.packed:
            check_integer("max_length", self.max_length, 2)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the batch of `CausalLM`, with labels of the responses only.

        Args:
            examples: one conversation each.
            generator: not used.

        Raises:
            ImportError, TypeError, ValueError: as `response_characters`; an example without messages or
                prompt.
        """
        documents = [self.document(example, index) for index, example in enumerate(examples)]
        if self.packed:
            assert self.max_length is not None, "checked when constructed"
            return causal_batch(pack(documents, self.max_length), padding_id(self.tokenizer))
        return causal_batch([[document] for document in documents], padding_id(self.tokenizer))

    def document(self, example: Example, index: int) -> Document:
        """Returns ids and labels of one example; `index` is its place in the batch, for messages."""
        if isinstance(example, Mapping) and "prompt" in example:
            response = entry(example, "response", index)
            ids, labels = encode_response(self.tokenizer, example["prompt"], response)
        else:
            messages = entry(example, "messages", index, "or with 'prompt' and 'response'")
            options = {"template": self.template, "variables": self.variables, "tools": example.get("tools")}
            ids, labels = encode_conversation(self.tokenizer, messages, **options)
        return Document(ids[: self.max_length], labels[: self.max_length])
