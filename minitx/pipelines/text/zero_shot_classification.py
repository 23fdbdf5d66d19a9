"""Zero-shot classification: labels of the caller's choice, by a model of natural language inference.

Each label makes a hypothesis, "This example is {label}.", and the model decides whether the text entails it.
All hypotheses of all texts share batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minitx.pipelines.postprocess.scores import inference_labels
from minitx.pipelines.preprocess.hypotheses import hypothesis, parse_labels
from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Prediction
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextInput, TextOptions, TextTask
from minitx.tokenizer import Tokenizer
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_flags,
    check_strings,
    check_type,
    warn,
)


@dataclass(frozen=True, kw_only=True)
class ZeroShotClassificationOptions(TextOptions):
    """Options of zero-shot classification.

    Attributes:
        candidate_labels: a list of labels, or one string, "politics, sports".
        hypothesis_template: sentence about a label, which replaces its {}.
        multi_label: whether several labels can hold; then the scores are independent of one another.
    """

    candidate_labels: Sequence[str] | str | None = None
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strings(hypothesis_template=self.hypothesis_template)
        check_flags(multi_label=self.multi_label)
        if hypothesis(self.hypothesis_template, "a") == hypothesis(self.hypothesis_template, "b"):
            expected = "a sentence with {} where the label belongs"
            raise ArgumentValueError("hypothesis_template", self.hypothesis_template, expected)
        if self.candidate_labels is not None:
            parse_labels("candidate_labels", self.candidate_labels)


class ZeroShotClassification(TextTask[ZeroShotClassificationOptions]):
    """Labels of a text; of a text in several windows, from the mean of their logits."""

    Options = ZeroShotClassificationOptions
    fields = ("sequence", "candidate_labels")
    optional = ("candidate_labels",)

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__(spec, model, tokenizer)
        if model.head.config.num_labels < 2:
            expected = "a model of natural language inference, with labels such as entailment"
            raise ArgumentValueError("model", "a model with one label", expected)
        self.entailment, self.contradiction, is_known = inference_labels(model)
        if not is_known:
            warn("No label of the model begins with 'entail'; its last label is taken for entailment.")

    def arguments(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """As `Task.arguments`; a second argument is the candidate labels of all texts."""
        if len(inputs) != 2 or named:
            return super().arguments(inputs, named)
        values, labels = inputs
        if isinstance(values, Path):
            hint = "name them: candidate_labels=[...]"
            raise ArgumentTypeError("inputs", inputs, "one argument for a file", hint)
        if self.is_single(values):
            return self.with_labels(values, labels)
        check_type("inputs", values, Iterable, "a text, a list of texts, or an iterable")
        rows = (self.with_labels(value, labels) for value in values)
        return list(rows) if isinstance(values, list | tuple) else rows

    def with_labels(self, value: Any, labels: Any) -> dict[str, Any]:
        """Returns a request with candidate labels, unless it has its own."""
        request = value if isinstance(value, Mapping) else {self.fields[0]: value}
        return {"candidate_labels": labels, **request}

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """As `Task.check_field`; labels are a list or a string."""
        if field == "candidate_labels":
            return None if value is None else parse_labels(self.name_of(field, name), value)
        return super().check_field(field, value, name)

    def preprocess(self, request: Request, options: ZeroShotClassificationOptions) -> list[TextInput]:
        """Returns the text with the hypothesis of each label, as pairs."""
        labels = request["candidate_labels"] or options.candidate_labels
        if labels is None:
            expected = "the labels to choose from"
            raise ArgumentTypeError(
                "candidate_labels", None, expected, "such as candidate_labels='politics, sports'"
            )
        inputs = []
        for label in parse_labels("candidate_labels", labels):
            pairs = self.pairs(request["sequence"], label, options)
            inputs += [replace(pair, label=label) for pair in pairs]
        return inputs

    def pairs(self, text: str, label: str, options: ZeroShotClassificationOptions) -> list[TextInput]:
        """Returns the text, or its windows, with the hypothesis of a label.

        Raises:
            ArgumentValueError: a hypothesis that leaves no room for text.
        """
        sentence, limit = hypothesis(options.hypothesis_template, label), self.limit(options)
        try:
            return self.encode(text, sentence, options=options, cut="only_first")
        except ValueError:
            if limit is None or len(self.tokenizer.encode("", sentence)) < limit:
                raise
        expected = f"short; with the template it leaves no room for text among {limit} tokens"
        raise ArgumentValueError("candidate_labels", label, expected)

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: ZeroShotClassificationOptions,
    ) -> Any:
        """Returns the labels and their scores, the best first."""
        windows: dict[str, list[Any]] = {}
        for item, logits in zip(inputs, outputs, strict=True):
            windows.setdefault(item.label, []).append(logits)
        table = torch.stack([torch.stack(logits).mean(dim=0) for logits in windows.values()])
        if options.multi_label or len(table) == 1:
            scores = table[:, [self.contradiction, self.entailment]].softmax(dim=1)[:, 1]
        else:
            scores = table[:, self.entailment].softmax(dim=0)
        ranked = sorted(zip(scores.tolist(), range(len(table)), windows, strict=True), reverse=True)
        return Prediction(
            sequence=request["sequence"],
            labels=[label for _, _, label in ranked],
            scores=[score for score, _, _ in ranked],
        )
