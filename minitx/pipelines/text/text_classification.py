"""Text classification: labels, such as a sentiment, of a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from minitx.pipelines.postprocess.scores import FUNCTIONS, Function, function_of, label_names, scores_of
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextInput, TextOptions, TextTask
from minitx.tokenizer.batch import Truncation
from minitx.validation import check_choice, check_integer


@dataclass(frozen=True, kw_only=True)
class TextClassificationOptions(TextOptions):
    """Options of text classification.

    Attributes:
        top_k: number of labels in a list, the best first; None for all of them, "best" for the best alone.
        function_to_apply: function from logits to scores; None for that of the config.
    """

    top_k: int | Literal["best"] | None = "best"
    function_to_apply: Function | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k not in ("best", None):
            check_integer("top_k", self.top_k, 1, hint='"best" for one dict, None for all labels')
        check_choice("function_to_apply", self.function_to_apply, (*FUNCTIONS, None))


class TextClassification(TextTask[TextClassificationOptions]):
    """Labels of a text or pair; of a text in several windows, from the mean of their logits."""

    Options = TextClassificationOptions
    fields = ("text", "text_pair")
    optional = ("text_pair",)

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`; two strings are a pair."""
        if isinstance(value, list | tuple) and len(value) == 2:
            value = dict(zip(self.fields, value, strict=True))
        return super().read(value, name)

    def preprocess(self, request: Request, options: TextClassificationOptions) -> list[TextInput]:
        """Returns the text or pair as one sequence, or as windows of its last text."""
        pair = request["text_pair"] or None  # transformers too encodes an empty pair as none
        cut: Truncation = "only_second" if pair is not None and options.overflow == "window" else True
        return self.encode(request["text"], pair, options=options, cut=cut)

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: TextClassificationOptions,
    ) -> Any:
        """Returns the best labels with their scores."""
        logits = torch.stack(list(outputs)).mean(dim=0)
        scores = scores_of(logits, options.function_to_apply or function_of(self.model))
        names = label_names(self.model)
        labels = [Prediction(label=names[index], score=score) for index, score in enumerate(scores.tolist())]
        labels.sort(key=lambda label: -label["score"])
        return labels[0] if options.top_k == "best" else Predictions(labels[: options.top_k])

    def unwrap(self, result: Any, inputs: Any, options: TextClassificationOptions) -> Any:
        """A single string has a list of one label."""
        listed = options.top_k == "best" and not isinstance(inputs, Mapping)
        return Predictions([result], details=result.details) if listed else result
