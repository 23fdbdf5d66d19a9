"""Text ranking: the relevance of documents to a query, by a cross-encoder, which takes both as a pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from minitx.checkpoint.sentence import SETTINGS
from minitx.pipelines.checks import config_value
from minitx.pipelines.embedding.modules import read_activation
from minitx.pipelines.embedding.options import FileOptions
from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text.one_to_many import OneToManyTask, stated_prompt
from minitx.pipelines.text_task import TextInput, TextOptions
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.batch import Truncation
from minitx.validation import (
    ArgumentValueError,
    check_choice,
    check_flags,
    check_integer,
    check_optional_strings,
)

FUNCTIONS: Mapping[str, nn.Module] = {"sigmoid": nn.Sigmoid(), "none": nn.Identity()}


@dataclass(frozen=True, kw_only=True)
class TextRankingOptions(TextOptions):
    """Options of text ranking.

    Attributes:
        top_k: number of documents; None for all.
        function_to_apply: makes scores of logits: "sigmoid" or "none"; None: as the checkpoint states.
        return_documents: whether the results have the text of the documents.
        prompt: prefix of the query; None for that of `prompt_name`.
        prompt_name: name of a prompt of the checkpoint; None for its default.
    """

    top_k: int | None = None
    function_to_apply: Literal["sigmoid", "none"] | None = None
    return_documents: bool = True
    prompt: str | None = None
    prompt_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k is not None:
            check_integer("top_k", self.top_k, 1)
        check_choice("function_to_apply", self.function_to_apply, (*FUNCTIONS, None))
        check_flags(return_documents=self.return_documents)
        check_optional_strings(prompt=self.prompt, prompt_name=self.prompt_name)


class TextRanking(OneToManyTask[TextRankingOptions]):
    """Documents in the order of their relevance; of one in several windows, the best counts."""

    Options = TextRankingOptions
    fields = ("query", "documents")
    lists = ("documents",)

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__(spec, model, tokenizer)
        if model.head.config.num_labels != 1:
            number = model.head.config.num_labels
            hint = f"it has {number}; text-classification scores pairs by several labels"
            raise ArgumentValueError("model", model, "a cross-encoder, with one label", hint)
        files = {} if model.checkpoint is None else model.checkpoint.sentence_files
        folder = Path() if model.checkpoint is None else model.checkpoint.folder or Path()
        stated = FileOptions(files.get(SETTINGS), folder / SETTINGS)
        self.activation = activation_of(model, stated)
        self.prompts = stated.nested("prompts").values
        self.default_prompt = stated.take("default_prompt_name")

    def preprocess(self, request: Request, options: TextRankingOptions) -> list[TextInput]:
        """Returns the query with each document, as pairs."""
        name = options.prompt_name or self.default_prompt
        query = (stated_prompt(options.prompt, name, self.prompts) or "") + request["query"]
        cut: Truncation = "only_second" if options.overflow == "window" else True
        return [
            replace(item, label=index)
            for index, document in enumerate(request["documents"])
            for item in self.encode(
                query, document, options=options, cut=cut, names=("query", f"documents[{index}]")
            )
        ]

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: TextRankingOptions,
    ) -> Any:
        """Returns the documents with their scores, the most relevant first."""
        best: dict[int, float] = {}
        for item, logits in zip(inputs, outputs, strict=True):
            best[item.label] = max(float(logits), best.get(item.label, -math.inf))
        function = FUNCTIONS.get(options.function_to_apply or "", self.activation)
        scores = function(torch.tensor(list(best.values()))).tolist()
        ranked = sorted(zip(best, scores, strict=True), key=lambda row: -row[1])[: options.top_k]
        documents = request["documents"]
        return Predictions(
            Prediction(
                corpus_id=index,
                score=score,
                **({"text": documents[index]} if options.return_documents else {}),
            )
            for index, score in ranked
        )


def activation_of(model: Any, stated: FileOptions) -> nn.Module:
    """Returns the activation that the files of sentence-transformers state; a sigmoid if they do not.

    Args:
        model: with its config.json, where older versions state it.
        stated: config_sentence_transformers.json.

    Raises:
        ValueError: an activation that is not one of torch.nn.
    """
    config = {} if model.checkpoint is None else model.checkpoint.config
    section = config_value(config, "sentence_transformers", dict, "an object") or {}
    older = config_value(section, "activation_fn", str, "a string")
    oldest = config_value(config, "sbert_ce_default_activation_function", str, "a string")
    return read_activation(stated, "activation_fn", older or oldest or "torch.nn.Sigmoid")
