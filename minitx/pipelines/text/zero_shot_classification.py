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

from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Prediction
from minitx.pipelines.task import ModelInput, Options, Request, Task
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
class ZeroShotClassificationOptions(Options):
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


def hypothesis(template: str, label: str) -> str:
    """Returns the hypothesis of a label.

    Raises:
        ArgumentValueError: a template with other fields than {}.
    """
    try:
        return template.format(label)
    except (LookupError, AttributeError, ValueError):
        expected = "a sentence with one {} for the label"
        hint = "other braces are doubled: {{ and }}"
        raise ArgumentValueError("hypothesis_template", template, expected, hint) from None


def parse_labels(name: str, labels: Any) -> list[str]:
    """Returns the labels of a list, or of one string that separates them by commas.

    Raises:
        TypeError, ValueError: no labels, an empty or repeated one, or something else than strings.
    """
    value = labels
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",")]
    check_type(name, labels, list | tuple, "a list of labels, or a string, 'politics, sports'")
    for index, label in enumerate(labels):
        check_type(f"{name}[{index}]", label, str, "a string")
    if not labels or not all(labels) or len(set(labels)) < len(labels):
        raise ArgumentValueError(name, value, "at least one label, none empty and none twice")
    return list(labels)


class ZeroShotClassification(Task[ZeroShotClassificationOptions]):
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
            return None if value is None else parse_labels(f"{name}['candidate_labels']", value)
        return super().check_field(field, value, name)

    def preprocess(self, request: Request, options: ZeroShotClassificationOptions) -> list[ModelInput]:
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

    def pairs(self, text: str, label: str, options: ZeroShotClassificationOptions) -> list[ModelInput]:
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
        inputs: Sequence[ModelInput],
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


def inference_labels(model: Any) -> tuple[int, int, bool]:
    """Returns the indices of entailment and contradiction, and whether a label is named entailment.

    Entailment is the first label that begins with "entail", else the last one; contradiction is the first
    label, or the last one if entailment is the first.
    """
    config = {} if model.checkpoint is None else model.checkpoint.config
    names = {} if model.checkpoint is None else model.checkpoint.id2label
    indices = config.get("label2id") or {name: index for index, name in names.items()}
    count = model.head.config.num_labels
    named = [int(index) for name, index in indices.items() if str(name).lower().startswith("entail")]
    entailment = named[0] if named else count - 1
    if not 0 <= entailment < count:
        raise ArgumentValueError("model", entailment, f"a model whose entailment is one of {count} labels")
    return entailment, count - 1 if entailment == 0 else 0, bool(named)
