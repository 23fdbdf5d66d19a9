"""Summarization, translation and other tasks of encoder-decoders: a text to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch

from minitx.decoding.special_tokens import start_tokens
from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.generation.task import GenerationTask
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextInput
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError


class Text2TextGeneration(GenerationTask[Any]):
    """Text of a text, as the model was trained to give.

    Attributes:
        key: of a result, before "_text" or "_token_ids".
    """

    defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 256, "num_beams": 4}
    key: ClassVar[str] = "generated"

    def preprocess(self, request: Request, options: GenerateOptions) -> list[TextInput]:
        """Returns the prefix and the text as the encoder input."""
        text = self.prefix_of(request["text"], options) + request["text"]
        (item,) = self.with_tokenizer(options).encode(text, options=options)
        if not item.input_ids:
            raise ArgumentValueError("text", text, "a text of at least one token")
        item = replace(item, arguments={"input_ids": item.input_ids})
        new = self.plan(options).new_tokens(1, self.most_tokens(options))
        return [self.labelled(item, new, options)]

    def options(self, base: Any, values: Mapping[str, Any]) -> Any:
        """As in `GenerationTask`; `max_new_tokens` must reach `min_length`, which has the start token too."""
        options = super().options(base, values)
        least, most = options.min_length, options.max_new_tokens
        if None not in (least, most) and least > most + 1:
            raise ArgumentValueError("min_length", least, f"at most {most + 1} with max_new_tokens={most}")
        return options

    def most_tokens(self, options: Any) -> int | None:
        """Returns the most tokens of an output, the start token included; None without any limit."""
        embedder = self.model.decoder_embedder
        return int(embedder.max_tokens) + 1 if embedder.has_position_table else None  # the last is not read

    def prefix_of(self, text: str, options: GenerateOptions) -> str:
        """Returns the prefix of a text."""
        return self.plan(options).prefix

    def tokenizer_of(self, options: Any) -> Tokenizer:
        """As in `GenerationTask`; spaces before punctuation stay unless the option states otherwise."""
        if options.clean_up_tokenization_spaces is None and self.tokenizer.tidies_spaces:
            tokenizer = copy(self.tokenizer)
            tokenizer.tidies_spaces = False
            return tokenizer
        return super().tokenizer_of(options)

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: GenerateOptions,
    ) -> Any:
        """Returns a dict with the text, or with the ids of start token and output; several in a list."""
        results = [Prediction(self._record(row, options)) for row in outputs[0]]
        return results[0] if len(results) == 1 else Predictions(results)

    def _record(self, row: Any, options: GenerateOptions) -> dict[str, Any]:
        if not options.return_tensors:
            return {f"{self.key}_text": self.text_of(row, options)}
        start = start_tokens(self.model, self.tokenizer_of(options))[0]
        return {f"{self.key}_token_ids": torch.tensor([start, *row.tokens.tolist()])}

    def unwrap(self, result: Any, inputs: Any, options: Any) -> Any:
        """A single string has a list of its results."""
        listed = isinstance(result, Prediction) and not isinstance(inputs, Mapping)
        return Predictions([result], details=result.details) if listed else result


class Summarization(Text2TextGeneration):
    """Shorter text of a text."""

    key = "summary"
