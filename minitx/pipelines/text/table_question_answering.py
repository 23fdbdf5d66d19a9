"""Table question answering by models such as TAPEX, which write answers; `tables` has the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.tables.cell_selection import CellAnswering
from minitx.pipelines.tables.task import Cut, TableTask, check_cut
from minitx.pipelines.task import Request, Task
from minitx.pipelines.text.text2text import Text2TextGeneration
from minitx.pipelines.text_task import TextInput
from minitx.tokenizer.tables.linearize import LONGEST_CELL, fit_rows, linearize, shorten_cells
from minitx.tokenizer.tables.table import Table
from minitx.validation import ArgumentValueError


@dataclass(frozen=True, kw_only=True)
class TableQuestionAnsweringOptions(GenerateOptions):
    """Options of table question answering; those of generation are for models that write answers.

    Attributes:
        sequential: the questions of a request are a conversation: each sees the cells of the answer before;
            for models that select cells.
        truncation: "drop_rows_to_fit" drops rows of a table that is too long, which is the default; True cuts
            its text off; "do_not_truncate" or False refuses it.
    """

    sequential: bool = False
    truncation: Cut | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cut(self)


class TableQuestionAnswering(TableTask, Text2TextGeneration):
    """Answers that a model such as TAPEX writes, from question and table as one text."""

    Options = TableQuestionAnsweringOptions
    defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 256}

    @classmethod
    def for_model(cls, model: Any) -> type[Task[Any, Any]]:
        """Returns the class for a model: another one if it selects cells."""
        return cls if model.task == "seq2seq-lm" else CellAnswering

    def options(self, base: Any, values: Mapping[str, Any]) -> Any:
        """As in `GenerationTask`; this task has no conversations, and its results are text."""
        options = super().options(base, values)
        if options.sequential:
            raise ArgumentValueError("sequential", True, "False", "this model does not select cells")
        if options.return_tensors:
            raise ArgumentValueError("return_tensors", True, "left out", "an answer is text")
        return options

    def preprocess(self, request: Request, options: Any) -> list[TextInput]:
        """Returns each question with the table as one encoder input."""
        config = self.tokenizer.config
        lower, most = config.get("do_lower_case") is not False, config.get("max_cell_length") or LONGEST_CELL
        table = shorten_cells(request["table"], self.tokenizer, most, lower=lower)
        return [
            item
            for query in self.queries(request)
            for item in self._sequence(table, query, options, lower=lower)
        ]

    def stream(self, request: Request, options: Any) -> Iterator[str]:
        """As in `GenerationTask`, for one question.

        Raises:
            ArgumentValueError: several questions.
        """
        if not isinstance(request["query"], str) and len(request["query"]) > 1:
            raise ArgumentValueError("query", request["query"], "one question for a stream")
        return super().stream(request, options)

    def _sequence(self, table: Table, query: str, options: Any, *, lower: bool) -> list[TextInput]:
        limit, text = self.limit(options), linearize(table, query, lower=lower)
        too_long = self.check_length(len(self.tokenizer.encode(text)), limit, options)
        if too_long and options.truncation is not True:
            assert limit is not None
            table = fit_rows(table, query, self.tokenizer, limit, lower=lower)
            text = linearize(table, query, lower=lower)
        (item,) = super().preprocess({"text": text}, options)
        return [replace(item, truncated=too_long)]

    def postprocess(
        self, request: Request, inputs: Sequence[TextInput], outputs: Sequence[Any], options: Any
    ) -> Any:
        """Returns a dict with the answer; of several questions or outputs a list of them."""
        answers = [Prediction(answer=self.text_of(row, options)) for rows in outputs for row in rows]
        return answers[0] if len(answers) == 1 else Predictions(answers)
