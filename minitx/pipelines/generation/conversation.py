"""A conversation with a chat model: its messages, and answers token by token."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from minitx.decoding import Strategy
from minitx.decoding.generate import stream
from minitx.decoding.output import Event
from minitx.decoding.prefix.prefix_cache import PrefixCache
from minitx.decoding.samplers.sample import Sample
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_optional_strings, check_strings, check_type


class Conversation:
    """A conversation with a chat model. Each answer runs only the tokens that the model has not run before.

    Their keys and values are kept until `reset`, in a `minitx.PrefixCache` of at most 1 GiB; `stream` takes
    another one as `prefix`, or None. With `cache` or `inputs_embeds` an answer runs all tokens.

    Args:
        model: a causal language model in eval mode; None to set it later.
        tokenizer: of the model, with a chat template.
        system: the system message before the conversation; None for none.

    Attributes:
        messages: so far, as dicts with "role" and "content".

    Raises:
        ArgumentTypeError: not a tokenizer, or a system message that is not a string.
        ValueError: a model that does not predict the next token, or in training mode.
    """

    def __init__(self, model: CausalModel | None, tokenizer: Tokenizer, system: str | None = None) -> None:
        check_type("tokenizer", tokenizer, Tokenizer, "a Tokenizer", "minitx.load_tokenizer(...) returns one")
        check_optional_strings(system=system)
        self.model: Any = model if model is None else check_causal_model(model)
        self.tokenizer, self.system = tokenizer, system
        self._prefix: PrefixCache | None
        self.messages: list[dict[str, str]]
        self.reset()

    def reset(self) -> None:
        """Removes all messages but the system message, and the keys and values."""
        self._prefix = None
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def prompt(self, text: str) -> list[int]:
        """Returns the token ids of the conversation followed by a message of the user.

        Raises:
            ArgumentTypeError: not a string.
        """
        check_strings(text=text)
        return self.tokenizer.encode_chat([*self.messages, {"role": "user", "content": text}])

    def _known(self) -> PrefixCache | None:
        """Returns the keys and values of the conversation so far; None where they depend on its length."""
        if not PrefixCache.supports(check_causal_model(self.model)):
            return None
        if self._prefix is None or self._prefix.model is not self.model:
            self._prefix = PrefixCache(self.model)
        return self._prefix

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
            strategy, **options: as for `minitx.stream`; one sample, and the tokenizer of the conversation.

        Raises:
            TypeError, ValueError: as `minitx.stream`; several samples, or a tokenizer.
        """
        if "tokenizer" in options:
            hint = "the conversation has its own"
            raise ArgumentValueError("tokenizer", options["tokenizer"], "left out", hint)
        if options.get("num_samples", 1) != 1:
            hint = "a conversation continues with one answer"
            raise ArgumentValueError("num_samples", options["num_samples"], "1", hint)
        answer, failed = "", False
        try:
            prompt = [self.prompt(text)]
            options = {"num_samples": 1} | options  # whatever the checkpoint states
            if all(options.get(name) is None for name in ("cache", "inputs_embeds")):
                options = {"prefix": self._known()} | options
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
