"""Sentence similarity: how near texts are to one another, by vectors of their meaning.

`SimilarityPipeline` has the methods beside the task: `encode`, `similarity` and `search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from minitx.pipelines.embedding.embed import (
    check_model,
    finish,
    pooled_vectors,
    prompt_length,
    token_limit,
    zeros,
)
from minitx.pipelines.embedding.settings import EmbeddingSettings, model_settings
from minitx.pipelines.embedding.similarity import Similarity, similarity_matrix
from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Predictions
from minitx.pipelines.task import Request, own_storage, to_cpu
from minitx.pipelines.text.one_to_many import OneToManyTask, stated_prompt
from minitx.pipelines.text_task import TextInput, TextOptions
from minitx.tokenizer import Tokenizer
from minitx.validation import check_choice, check_flags, check_optional_strings

MOST_PAIRED = 30  # sentences whose similarities to one another are shown


@dataclass(frozen=True, kw_only=True)
class SentenceSimilarityOptions(TextOptions):
    """Options of sentence similarity.

    Attributes:
        similarity: "cosine", "dot", or the negative distances "euclidean" and "manhattan"; None: as the
            checkpoint states, mostly cosine.
        prompt: prefix of each text; None for that of `prompt_name`.
        prompt_name: name of a prompt of the checkpoint, such as "query"; None for its default.
        normalize: whether vectors have length 1; None: as the checkpoint states.
    """

    similarity: Similarity | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    normalize: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("similarity", self.similarity, (*get_args(Similarity), None))
        check_optional_strings(prompt=self.prompt, prompt_name=self.prompt_name)
        if self.normalize is not None:
            check_flags(normalize=self.normalize)


class Place(NamedTuple):
    """Label of a sequence: the number of its text, and the number of its prompt's tokens, if not pooled."""

    text: int
    prompt_length: int


class Similarities(Predictions):
    """The scores of sentences.

    Attributes:
        matrix: similarities of the source sentence and the others to one another, (N + 1, N + 1); None for a
            single sentence, and for more than `MOST_PAIRED`.
    """

    matrix: list[list[float]] | None = None


class SentenceSimilarity(OneToManyTask[SentenceSimilarityOptions]):
    """Similarities of a source sentence to others; the vector of several windows is their mean."""

    Options = SentenceSimilarityOptions
    fields = ("source_sentence", "sentences")
    lists = ("sentences",)

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__(spec, model, tokenizer)
        check_model(model, model_settings(model))

    def settings(self, options: SentenceSimilarityOptions) -> EmbeddingSettings:
        """Returns the settings of the checkpoint with the values that the options state.

        Raises:
            ArgumentValueError: a prompt that the checkpoint does not have.
        """
        settings = model_settings(self.model)
        stated: dict[str, Any] = {
            "prompt": stated_prompt(options.prompt, options.prompt_name, settings.prompts),
            "similarity": options.similarity,
            "max_length": options.max_length,
            "normalize": options.normalize,
        }
        return replace(settings, **{name: value for name, value in stated.items() if value is not None})

    def limit(self, options: SentenceSimilarityOptions) -> int | None:
        """As `Task.limit`, with the limit of the checkpoint's settings."""
        return token_limit(self.model, self.tokenizer, self.settings(options).max_length)

    def preprocess(self, request: Request, options: SentenceSimilarityOptions) -> list[TextInput]:
        """Returns the source sentence and the others."""
        others = request["sentences"]
        names = ["source_sentence", *(f"sentences[{index}]" for index in range(len(others)))]
        return self.sequences([request["source_sentence"], *others], options, names)

    def sequences(
        self, texts: Sequence[str], options: SentenceSimilarityOptions, names: Sequence[str]
    ) -> list[TextInput]:
        """Returns texts as sequences, or as windows.

        Args:
            texts: without prompts.
            options: of the call.
            names: of the texts, for messages.
        """
        settings = self.settings(options)
        start = prompt_length(self.tokenizer, replace(settings, max_length=self.limit(options)))
        sequences = []
        for index, text in enumerate(settings.prepare(texts)):
            windows = self.encode(text, options=options, names=[names[index]])
            places = [Place(index, 0 if number else start) for number in range(len(windows))]
            sequences += [replace(item, label=place) for item, place in zip(windows, places, strict=True)]
        return sequences

    @torch.inference_mode()
    def forward(self, inputs: Sequence[TextInput], options: SentenceSimilarityOptions) -> list[Any]:
        """Returns a pooled vector of each sequence."""
        settings = self.settings(options)
        if not any(item.size for item in inputs):  # empty texts without special tokens
            return [own_storage(row) for row in zeros(len(inputs), self.model, settings).cpu()]
        start = torch.tensor([[item.label.prompt_length] for item in inputs], device=self.model.device)
        pooled = pooled_vectors(self.model, self.collate(inputs), settings, start)
        return [own_storage(row) for row in to_cpu(pooled)]

    def vectors(
        self, inputs: Sequence[TextInput], outputs: Sequence[Tensor], options: SentenceSimilarityOptions
    ) -> Tensor:
        """Returns the vectors of texts, (N, E), from the pooled vectors of their sequences."""
        settings = self.settings(options)
        rows = groupby(zip(inputs, outputs, strict=True), key=lambda row: row[0].label.text)
        means = [torch.stack([vector for _, vector in group]).mean(dim=0) for _, group in rows]
        pooled = torch.stack(means) if means else zeros(0, self.model, settings).cpu()
        return finish(pooled, settings, options.normalize)

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: SentenceSimilarityOptions,
    ) -> Any:
        """Returns the similarity of the source sentence to each of the others."""
        vectors = self.vectors(inputs, outputs, options)
        kind = self.settings(options).similarity
        scores = Similarities(similarity_matrix(vectors[:1], vectors[1:], kind)[0].tolist())
        if 1 < len(scores) <= MOST_PAIRED:
            scores.matrix = similarity_matrix(vectors, vectors, kind).tolist()
        return scores
