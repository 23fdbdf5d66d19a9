"""A conversation with a chat model: its messages, and answers token by token."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.generate import stream
from minitx.decoding.output import Event
from minitx.decoding.samplers.sample import Sample
from minitx.models import CausalModel
from minitx.tokenizer import Tokenizer


class Conversation:
    """A conversation with a chat model.

    Args:
        model: a causal language model in eval mode; None to set it later.
        tokenizer: of the model, with a chat template.
        system: the system message before the conversation; None for none.

    Attributes:
        messages: so far, as dicts with "role" and "content".
    """

    def __init__(self, model: CausalModel | None, tokenizer: Tokenizer, system: str | None = None) -> None:
        self.model: Any = model
        self.tokenizer, self.system = tokenizer, system
        self.messages: list[dict[str, str]]
        self.reset()

    def reset(self) -> None:
        """Removes all messages but the system message."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def prompt(self, text: str) -> list[int]:
        """Returns the token ids of the conversation followed by a message of the user."""
        return self.tokenizer.encode_chat([*self.messages, {"role": "user", "content": text}])

    def stream(
        self,
        text: str,
        strategy: Strategy = Sample(),  # noqa: B008 - frozen
        **options: Any,
    ) -> Generator[Event, None, None]:
        """Yields the answer to a message of the user, token by token, as `minitx.stream` does.

        Message and answer then belong to the conversation, also where iteration ends early; after an error
        they do not.

        Args:
            text: the message.
            strategy, **options: as for `minitx.stream`.
        """
        answer, failed = "", False
        try:
            prompt = [self.prompt(text)]
            for event in stream(self.model, prompt, strategy, tokenizer=self.tokenizer, **options):
                answer += event.text
                yield event
        except Exception:
            failed = True
            raise
        finally:
            if not failed:
                self.messages.append({"role": "user", "content": text})
                self.messages.append({"role": "assistant", "content": answer})
