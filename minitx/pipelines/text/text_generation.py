"""Text generation: continues texts and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from minitx.decoding.special_tokens import begin_token
from minitx.pipelines.generation.chats import (
    chat_prompt,
    check_messages,
    check_no_chat,
    continues,
    extended,
    is_chat,
)
from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.generation.plan import Plan
from minitx.pipelines.generation.task import GenerationTask
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextInput
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_flags, check_type


@dataclass(frozen=True, kw_only=True)
class TextGenerationOptions(GenerateOptions):
    """Options of text generation.

    Attributes:
        return_full_text: return the prompt too, or the whole conversation, which is the default.
        handle_long_generation: "hole" cuts off the start of a long prompt, as overflow="truncate" does.
        continue_final_message: continue the last message of a conversation instead of answering it; None does
            so if it is the assistant's.
        add_special_tokens: whether those of the tokenizer belong to a prompt; conversations have their own.
        tools: JSON schemas of functions for the chat template.
        documents: texts for the chat template to answer from.
        template_variables: further variables of the chat template, such as {"enable_thinking": False}.
    """

    return_full_text: bool | None = None
    handle_long_generation: Literal["hole"] | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool = True
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    template_variables: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        flags = ("return_full_text", "continue_final_message", "add_special_tokens")
        check_flags(**{name: value for name, value in self.stated().items() if name in flags})
        check_choice("handle_long_generation", self.handle_long_generation, ("hole", None))
        hint = "a dict of names and values"
        check_type("template_variables", self.template_variables, Mapping | None, hint)
        self.check_exclusive("return_full_text", "return_text")
        self.check_exclusive("return_full_text", "return_tensors")
        if self.handle_long_generation and self.overflow != "truncate":
            raise ArgumentValueError("overflow", self.overflow, '"truncate" with handle_long_generation=')


class TextGeneration(GenerationTask[TextGenerationOptions]):
    """Continuations of texts, and answers to conversations."""

    Options = TextGenerationOptions
    remedy = "their start was cut off; fewer max_new_tokens= leave more room"
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_new_tokens": 256,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 50,
    }

    def describe_inputs(self) -> str:
        """Returns a phrase about a request, for messages."""
        chat = '[{"role": "user", "content": "Hello"}]'
        return f"a string, or a conversation such as {chat}, or a list of either"

    def is_single(self, inputs: Any) -> bool:
        """Whether this is one text or one conversation."""
        return super().is_single(inputs) or is_chat(inputs)

    def is_column(self, field: str, value: Any) -> bool:
        """Whether this is a list of requests; a conversation is one request."""
        return super().is_column(field, value) and not is_chat(value)

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """Returns a text, or a conversation as a list of messages."""
        if isinstance(value, str):
            return value
        if not is_chat(value):
            raise ArgumentTypeError(name, value, self.describe_inputs())
        return check_messages(value, name)

    def preprocess(self, request: Request, options: TextGenerationOptions) -> list[TextInput]:
        """Returns the prompt, without its start if it is too long."""
        text = request["text"]
        if isinstance(text, str):
            check_no_chat(options)
            text = self.plan(options).prefix + text
            ids = self.tokenizer.encode(text, add_special_tokens=options.add_special_tokens) or self._begin()
        else:
            ids = self.tokenizer.encode(chat_prompt(self.tokenizer, text, options), add_special_tokens=False)
        limit = self.limit(options)
        new = self.plan(options).new_tokens(len(ids), limit)
        cut = limit is not None and len(ids) + new > limit
        if cut and limit is not None:
            self._check_cut(text, new, limit, options)
            ids = ids[new - limit :]
        item = TextInput(arguments={"input_ids": ids}, truncated=cut)
        return [self.labelled(item, new, options)]

    def _check_cut(self, text: Any, new: int, limit: int, options: TextGenerationOptions) -> None:
        """Checks that a prompt that leaves no room for `new` tokens may be cut off, and a part remains."""
        if new >= limit:
            hint = "the rest is for the prompt"
            raise ArgumentValueError("max_new_tokens", new, f"below the model's {limit} tokens", hint)
        if options.overflow == "error":
            expected = f"of at most {limit - new} tokens, so that {new} new ones follow"
            raise ArgumentValueError("text", text, expected, 'overflow="truncate" cuts off its start')

    def plan(self, options: Any) -> Plan:
        """As in `GenerationTask`; the tokens of the prefix do not count for total lengths."""
        if options.call.plan is None:
            plan = super().plan(options)
            extra = len(self.tokenizer.encode(plan.prefix, add_special_tokens=False))
            options.call.plan = plan.longer(extra)
        return super().plan(options)

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: TextGenerationOptions,
    ) -> Any:
        """Returns a list of dicts, each with a text, a conversation, or token ids."""
        if options.return_tensors:
            before = list(inputs[0].input_ids)
            rows = [before + row.tokens.tolist() for row in outputs[0]]
            return Predictions(Prediction(generated_token_ids=row) for row in rows)
        answers = is_chat(request["text"]) and not continues(request["text"], options.continue_final_message)
        prompt: Sequence[int] = () if answers or not request["text"] else inputs[0].input_ids
        texts: list[Any] = [self.text_of(row, options, prompt) for row in outputs[0]]
        if options.return_full_text is not False:
            texts = [extended(request["text"], text, options.continue_final_message) for text in texts]
        return Predictions(Prediction(generated_text=text) for text in texts)

    def _begin(self) -> list[int]:
        """Returns the prompt of an empty text: the token that sequences begin with."""
        bos = begin_token(self.model, self.tokenizer)
        if bos is None:
            hint = "this model has no token that begins a sequence"
            raise ArgumentValueError("text", "", "a text of at least one token", hint)
        return [bos]
