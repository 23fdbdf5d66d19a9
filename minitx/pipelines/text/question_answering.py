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
    best_spans,
    merge_answers,
    rank_answers,
    span_probabilities,
)
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import Overflow, TextInput, TextOptions, TextTask
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
        for name, least, other in (("max_seq_len", 1, "max_length"), ("doc_stride", 0, "stride")):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value, least)
                if getattr(self, other) is not None:
                    raise ArgumentValueError(name, value, f"None with {other}=", "they are the same option")
        if self.max_question_len is not None:
            check_integer("max_question_len", self.max_question_len, 1)
        check_flags(
            handle_impossible_answer=self.handle_impossible_answer, align_to_words=self.align_to_words
        )


class QuestionAnswering(TextTask[QuestionAnsweringOptions]):
    """Answers from a context, by the start and end that the model gives to each."""

    Options = QuestionAnsweringOptions
    fields = ("question", "context")
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
        """Whether inputs are those of one request; as in transformers, a list of one is."""
        listed = isinstance(inputs, list | tuple) and len(inputs) == 1
        return listed or _is_example(inputs) or super().is_single(inputs)

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`; objects with question_text and context_text too, such as a SquadExample.

        Raises:
            ArgumentValueError: an empty question or context.
        """
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if _is_example(value):
            value = {"question": value.question_text, "context": value.context_text}
        request = super().read(value, name)
        for field, text in request.items():
            if not text:
                raise ArgumentValueError(field, text, "a text that is not empty")
        return request

    def limit(self, options: QuestionAnsweringOptions) -> int | None:
        """Returns the most tokens of question and context."""
        stated = options.max_length if options.max_seq_len is None else options.max_seq_len
        limit = token_limit(self.model, self.tokenizer, stated)
        return limit if stated is not None else min(limit or _MOST_TOKENS, _MOST_TOKENS)

    @property
    def context_first(self) -> bool:
        """Whether the context precedes the question: with padding on the left, as in transformers 4."""
        return self.tokenizer.padding_side == "left"

    def preprocess(self, request: Request, options: QuestionAnsweringOptions) -> list[TextInput]:
        """Returns question and context as one sequence, or the question with each window of the context."""
        question, context = request["question"], request["context"]
        question, length = self.shorten(question, options.max_question_len)
        limit = self.limit(options)
        assert limit is not None
        room = limit - length - self.num_special_tokens(pair=True)
        if room < 1:
            name = "max_length" if options.max_seq_len is None else "max_seq_len"
            if (stated := getattr(options, name)) is not None and stated == limit:
                hint = "max_question_len= cuts off a long question"
                raise ArgumentValueError(name, stated, f"more than {limit - room} for this question", hint)
            hint = "max_question_len=64 cuts it off"
            expected = f"shorter; of {limit} tokens it leaves none for the context"
            raise ArgumentValueError("question", request["question"], expected, hint)
        stride = options.stride if options.doc_stride is None else options.doc_stride
        if stride is None:
            stride = min(limit // 2, _STRIDE)
        elif stride >= limit:
            name = "stride" if options.doc_stride is None else "doc_stride"
            raise ArgumentValueError(name, stride, f"less than the {limit} tokens of a window")
        stride = stride if stride < room else room // 2
        if self.context_first:
            names = self.fields[::-1]
            return self.encode(
                context, question, options=options, cut="only_first", stride=stride, names=names
            )
        return self.encode(question, context, options=options, cut="only_second", stride=stride)

    def shorten(self, question: str, limit: int | None) -> tuple[str, int]:
        """Returns the part of a question that has at most `limit` tokens, and their number."""
        batch = self.tokenizer([question], add_special_tokens=False, as_tensors=False)
        (encoding,) = batch.encodings
        if limit is None or len(encoding) <= limit:
            return question, len(encoding)
        return question[: encoding.offsets[limit - 1][1]], limit

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
        for item, logits in zip(inputs, outputs, strict=True):
            spans, null = self.spans(item, logits, options)
            nulls.append(null)
            for span in spans:
                start, end = self.characters(item, span, align=options.align_to_words)
                text = request["context"][start:end]
                answers.append({"score": span.score, "start": start, "end": end, "answer": text})
        answers = merge_answers(answers)
        if options.handle_impossible_answer:
            answers.append({"score": min(nulls), "start": 0, "end": 0, "answer": ""})
        best = [Prediction(answer) for answer in rank_answers(answers, options.top_k)]
        return best[0] if len(best) == 1 else Predictions(best)

    def spans(
        self, item: TextInput, logits: Tensor, options: QuestionAnsweringOptions
    ) -> tuple[list[Span], float]:
        """Returns the best spans of a window, and its score for no answer, that of the first token."""
        assert item.encoding is not None
        candidates = allow(item.encoding.sequence_ids, 0 if self.context_first else 1)
        if self.context_first:  # transformers 4 then searches the question too
            candidates = torch.ones_like(candidates)
        allowed = candidates.clone()
        if self.tokenizer.cls_token_id is not None:  # where models put the probability of no answer
            allowed |= torch.tensor(item.input_ids) == self.tokenizer.cls_token_id
        start, end = span_probabilities(logits[0], logits[1], allowed)
        # words may merge several spans, so that more of them are needed
        count = 2 * options.top_k + 10 if options.align_to_words else options.top_k
        candidates[0] = False  # the first token is no answer
        spans = best_spans(start, end, candidates, top_k=count, max_answer_len=options.max_answer_len)
        return spans, float(start[0] * end[0])

    def characters(self, item: TextInput, span: Span, *, align: bool) -> tuple[int, int]:
        """Returns start and end of a span in characters of the context."""
        encoding = item.encoding
        assert encoding is not None
        if align:
            sequence = 0 if self.context_first else 1
            words = [encoding.token_to_word(index) for index in (span.first, span.last)]
            ranges = [encoding.word_to_chars(word, sequence) for word in words if word is not None]
            if len(ranges) == 2 and ranges[0] and ranges[1]:
                return ranges[0][0], ranges[1][1]
        return encoding.offsets[span.first][0], encoding.offsets[span.last][1]


def _is_example(value: Any) -> bool:
    return hasattr(value, "question_text") and hasattr(value, "context_text")
