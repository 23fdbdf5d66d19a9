"""The pipeline of sentence similarity, which also returns vectors and searches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import Any, Self

import torch
from torch import Tensor

from minitx.pipelines.batching import Call, progress_bar
from minitx.pipelines.embedding.embed import check_texts
from minitx.pipelines.embedding.similarity import search_nearest, similarity_matrix
from minitx.pipelines.pipeline import CHUNK, Pipeline
from minitx.pipelines.result import Details, Prediction, Predictions
from minitx.pipelines.text.sentence_similarity import SentenceSimilarity, SentenceSimilarityOptions
from minitx.validation import ArgumentValueError, check_integer

Texts = str | Sequence[str] | Tensor
QUERY, DOCUMENT = ("query",), ("document", "passage", "corpus")  # names of prompts


class SimilarityPipeline(Pipeline):
    """A `Pipeline` of sentence similarity; from `minitx.pipeline("sentence-similarity", ...)`."""

    def encode(self, texts: str | Sequence[str], **named: Any) -> Tensor:
        """Computes a vector of each text.

        Args:
            texts: a text, or N texts.
            **named: options of the task and batch_size, for this call only.

        Returns:
            (E) of a text, (N, E) of several, on the CPU.

        Raises:
            TypeError, ValueError: something that is not text, or unknown options.
        """
        pipe, options = self._of_call(named)
        return pipe._encode(texts, options)

    def similarity(self, first: Texts, second: Texts, **named: Any) -> Tensor:
        """Compares texts or vectors, each of the first with each of the second.

        Args:
            first: N texts, or vectors (N, E).
            second: M texts, or vectors (M, E).
            **named: options of the task and batch_size, for this call only.

        Returns:
            (N, M)

        Raises:
            TypeError, ValueError: as `encode`, or vectors of different sizes.
        """
        pipe, options = self._of_call(named)
        rows, columns = (pipe._vectors(texts, options) for texts in (first, second))
        _check_sizes(rows, columns)
        return similarity_matrix(rows, columns, self._similarity_task.settings(options).similarity)

    def search(self, query: Texts, corpus: Texts, top_k: int = 10, **named: Any) -> Any:
        """Finds the texts of a corpus that are nearest to a query.

        Queries and corpus have the checkpoint's prompts for them ("query"; "document", "passage" or
        "corpus"), unless the call states a prompt. A corpus that is searched often is encoded once:
        `encode(corpus, prompt_name="document")`.

        Args:
            query: a text, several texts, or vectors of them, (E) or (N, E).
            corpus: texts, or their vectors (M, E).
            top_k: number of results.
            **named: options of the task and batch_size, for this call only.

        Returns:
            For a query a list of dicts, the nearest first: corpus_id, the index in the corpus; score; and
            text, unless the corpus is vectors. For several queries a list of such lists.

        Raises:
            TypeError, ValueError: as `encode`, or vectors of different sizes.
        """
        check_integer("top_k", top_k, 1)
        pipe, options = self._of_call(named)
        query, corpus = _as_tensor(query), _as_tensor(corpus)
        corpus = corpus if isinstance(corpus, Tensor) else check_texts(corpus)
        queries = pipe._vectors(query, self._with_prompt(options, QUERY))
        documents = pipe._vectors(corpus, self._with_prompt(options, DOCUMENT))
        _check_sizes(queries, documents)
        kind = self._similarity_task.settings(options).similarity
        scores, indices = search_nearest(queries, documents, kind, top_k)
        results = []
        for row_scores, row_indices in zip(scores.tolist(), indices.tolist(), strict=True):
            hits = [
                {"corpus_id": index, "score": score}
                | ({} if isinstance(corpus, Tensor) else {"text": corpus[index]})
                for score, index in zip(row_scores, row_indices, strict=True)
            ]
            results.append(Predictions(map(Prediction, hits)))
        is_one = isinstance(query, str) or (isinstance(query, Tensor) and query.dim() == 1)
        texts = [None] * len(results) if isinstance(query, Tensor) else [query] if is_one else list(query)
        for result, text in zip(results, texts, strict=True):
            if self._details is not False:
                result.details = Details(self.task.spec.name, {"query": text}, (), ())
        return results[0] if is_one else results

    @property
    def _similarity_task(self) -> SentenceSimilarity:
        task = self.task
        assert isinstance(task, SentenceSimilarity)
        return task

    def _of_call(self, named: dict[str, Any]) -> tuple[Self, SentenceSimilarityOptions]:
        """Returns the pipeline and the options of a call."""
        pipe = self._with_batch_size(named.pop("batch_size")) if "batch_size" in named else self
        options = self.options
        assert isinstance(options, SentenceSimilarityOptions)
        return pipe, self._similarity_task.options(options, named)

    def _with_prompt(
        self, options: SentenceSimilarityOptions, names: Sequence[str]
    ) -> SentenceSimilarityOptions:
        """Returns options with the first of these prompts that the checkpoint has, unless they state one."""
        prompts = self._similarity_task.settings(options).prompts
        name = next((name for name in names if name in prompts), None)
        stated = options.prompt is not None or options.prompt_name is not None
        return options if stated or name is None else replace(options, prompt_name=name)

    def _vectors(self, texts: Texts, options: SentenceSimilarityOptions) -> Tensor:
        """Returns (N, E) of texts or vectors, of a single one too."""
        texts = _as_tensor(texts)
        vectors = texts if isinstance(texts, Tensor) else self._encode(texts, options)
        vectors = vectors.detach().to("cpu", torch.promote_types(vectors.dtype, torch.float32))
        if vectors.dim() not in (1, 2):
            raise ArgumentValueError("vectors", vectors, "of shape (E,) or (N, E)")
        return vectors if vectors.dim() == 2 else vectors[None]

    def _encode(self, texts: str | Sequence[str], options: SentenceSimilarityOptions) -> Tensor:
        if isinstance(texts, str):
            return self._encode([texts], options)[0]
        texts, task = check_texts(texts), self._similarity_task
        parts = [task.vectors([], [], options)]
        with progress_bar(len(texts), task.spec.name, self._progress) as advance:
            call = Call(advance, total=len(texts))
            for first in range(0, len(texts), CHUNK):
                chunk = texts[first : first + CHUNK]
                names = [f"texts[{first + index}]" for index in range(len(chunk))]
                inputs = task.sequences(chunk, options, names)
                groups = [list(group) for _, group in groupby(inputs, key=lambda item: item.label.text)]
                outputs = self._outputs(task, groups, options, call)
                parts.append(task.vectors(inputs, list(chain.from_iterable(outputs)), options))
        return torch.cat(parts)


def _as_tensor(texts: Any) -> Any:
    """Returns an array of numbers, such as NumPy's, as a tensor; anything else as it is."""
    is_array = hasattr(texts, "__array__") and getattr(texts.dtype, "kind", "") == "f"
    return torch.as_tensor(texts) if is_array else texts


def _check_sizes(first: Tensor, second: Tensor) -> None:
    if first.shape[1] != second.shape[1]:
        expected = f"of {first.shape[1]} features"
        raise ArgumentValueError("vectors", second, expected, "are they of the same model?")
