"""Question answering: the part of a context that answers a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.postprocess.spans import (
    Span,
    allow,
    merge_answers,
    rank_answers,
    span_characters,
    window_spans,
)
from minitx.pipelines.preprocess.questions import check_context_room, shorten_question
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import Overflow, TextInput, TextOptions, TextTask
from minitx.tokenizer.batch import Truncation
from minitx.validation import ArgumentValueError, check_flags, check_integer

_MOST_TOKENS, _STRIDE = 384, 128  # of transformers 4: tokens of a window, and its overlap with the next


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringOptions(TextOptions):
    """Options of question answering.

    Attributes:
        overflow: what happens to a context with more tokens than the model takes: "window" divides it into
            overlapping windows, "truncate" cuts it off, "error" refuses it.
        top_k: number of answers; 1 returns a dict, more a list, the best first.
        doc_stride: number of tokens by which windows overlap (also `stride`); None for 128, or half a window
            if it is shorter. It is half of the room beside a question that leaves no more room than that.
        stride: as doc_stride.
        max_length: as max_seq_len.
        max_answer_len: most tokens of an answer.
        max_seq_len: most tokens of question and context (also `max_length`); None for 384, or those of the
            model.
        max_question_len: most tokens of the question, which is cut off after them; None for no limit.
        handle_impossible_answer: adds the answer "", with the least score that a window has for it.
        align_to_words: extends an answer to whole words.
    """

    overflow: Overflow = "window"
    top_k: int = 1
    doc_stride: int | None = None
    max_answer_len: int = 15
    max_seq_len: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("top_k", self.top_k, 1)
        check_integer("max_answer_len", self.max_answer_len, 1)
        for name, least in (("max_seq_len", 1), ("doc_stride", 0), ("max_question_len", 1)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), least)
        for name, other in (("max_seq_len", "max_length"), ("doc_stride", "stride")):
            if getattr(self, name) is not None and getattr(self, other) is not None:
                hint = "they are the same option"
                raise ArgumentValueError(name, getattr(self, name), f"None with {other}=", hint)
        check_flags(
            handle_impossible_answer=self.handle_impossible_answer, align_to_words=self.align_to_words
        )

    def first_of(self, name: str, other: str) -> tuple[str, int | None]:
        """Returns name and value of an option that has two names: the one that is stated, else the second."""
        stated = name if getattr(self, name) is not None else other
        return stated, getattr(self, stated)


class QuestionAnswering(TextTask[QuestionAnsweringOptions]):
    """Answers from a context, by the start and end that the model gives to each."""

    Options = QuestionAnsweringOptions
    fields = ("question", "context")
    single_lists = True
    outputs = ("start_logits", "end_logits")

    def describe_inputs(self) -> str:
        """Returns a phrase about a request, for messages."""
        return "question= and context=, a dict with 'question' and 'context', or a list of dicts"

    def arguments(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """As `Task.arguments`; two strings are question and context, several requests as in a list."""
        if len(inputs) == 2 and all(isinstance(text, str) for text in inputs) and not named:
            inputs, named = (), dict(zip(self.fields, inputs, strict=True))
        elif len(inputs) > 1 and not named:
            inputs = (list(inputs),)
        return super().arguments(inputs, named)

    def is_single(self, inputs: Any) -> bool:
        """As `Task.is_single`; objects such as a SquadExample too."""
        return _is_example(inputs) or super().is_single(inputs)

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`; objects with question_text and context_text too, such as a SquadExample.

        Raises:
            ArgumentValueError: an empty question or context.
        """
        if _is_example(value):
            value = {"question": value.question_text, "context": value.context_text}
        request = super().read(value, name)
        for field, text in request.items():
            if not text:
                raise ArgumentValueError(self.name_of(field, name), text, "a text that is not empty")
        return request

    def limit(self, options: QuestionAnsweringOptions) -> int | None:
        """Returns the most tokens of question and context."""
        _, stated = options.first_of("max_seq_len", "max_length")
        limit = token_limit(self.model, self.tokenizer, stated)
        return limit if stated is not None else min(limit or _MOST_TOKENS, _MOST_TOKENS)

    @property
    def context_first(self) -> bool:
        """Whether the context precedes the question: with padding on the left, as in transformers 4."""
        return self.tokenizer.padding_side == "left"

    def preprocess(self, request: Request, options: QuestionAnsweringOptions) -> list[TextInput]:
        """Returns question and context as one sequence, or the question with each window of the context."""
        question, length = shorten_question(self.tokenizer, request["question"], options.max_question_len)
        limit = self.limit(options)
        assert limit is not None
        room = limit - length - self.num_special_tokens(pair=True)
        check_context_room(request["question"], limit, room, *options.first_of("max_seq_len", "max_length"))
        name, stride = options.first_of("doc_stride", "stride")
        if stride is None:
            stride = min(limit // 2, _STRIDE)
        elif stride >= limit:
            raise ArgumentValueError(name, stride, f"less than the {limit} tokens of a window")
        stride = stride if stride < room else room // 2
        texts, names = (question, request["context"]), self.fields
        cut: Truncation = "only_second"
        if self.context_first:
            texts, names, cut = texts[::-1], names[::-1], "only_first"
        return self.encode(*texts, options=options, cut=cut, stride=stride, names=names)

    def output_of(self, row: Mapping[str, Tensor], item: TextInput) -> Any:
        """Returns the start and end logits of one sequence: (2, T)."""
        return torch.stack([row[name][: item.size] for name in self.outputs])

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: QuestionAnsweringOptions,
    ) -> Any:
        """Returns the best answers of all windows; equal texts add their scores."""
        answers, nulls = [], []
        context = (0 if self.context_first else 1) if options.align_to_words else None
        for item, logits in zip(inputs, outputs, strict=True):
            spans, null = self.spans(item, logits, options)
            nulls.append(null)
            for span in spans:
                start, end = span_characters(item.encoding, span, words_of=context)
                text = request["context"][start:end]
                answers.append({"score": span.score, "start": start, "end": end, "answer": text})
        answers = merge_answers(answers)
        if options.handle_impossible_answer:
            answers.append({"score": min(nulls), "start": 0, "end": 0, "answer": ""})
        elif not answers:  # a context without tokens, such as spaces
            answers = [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]
        best = [Prediction(answer) for answer in rank_answers(answers, options.top_k)]
        return best[0] if len(best) == 1 else Predictions(best)

    def spans(
        self, item: TextInput, logits: Tensor, options: QuestionAnsweringOptions
    ) -> tuple[list[Span], float]:
        """Returns the best spans of a window, and its score for no answer."""
        assert item.encoding is not None
        candidates = allow(item.encoding.sequence_ids, 0 if self.context_first else 1)
        if self.context_first:  # transformers 4 then searches the question too
            candidates = torch.ones_like(candidates)
        cls_token = self.tokenizer.cls_token_id
        nulls = torch.tensor(item.input_ids) == (-1 if cls_token is None else cls_token)
        # words may merge several spans, so that more of them are needed
        count = 2 * options.top_k + 10 if options.align_to_words else options.top_k
        return window_spans(logits, candidates, nulls, top_k=count, max_answer_len=options.max_answer_len)


def _is_example(value: Any) -> bool:
    return hasattr(value, "question_text") and hasattr(value, "context_text")
