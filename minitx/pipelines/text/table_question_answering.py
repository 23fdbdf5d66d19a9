"""Table question answering: cells of a table that the model selects, or an answer that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from minitx.pipelines.batching import BatchLimits
from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.inputs import read_table
from minitx.pipelines.postprocess.tables import (
    Cell,
    aggregation_names,
    mark_previous,
    select_cells,
    table_answer,
)
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text.text2text import Text2TextGeneration
from minitx.pipelines.text_task import TextInput, TextOptions, TextTask
from minitx.tokenizer import TableTokenizer
from minitx.tokenizer.tables.linearize import LONGEST_CELL, fit_rows, linearize, shorten_cells
from minitx.tokenizer.tables.options import NO_LIMIT
from minitx.tokenizer.tables.table import Table, as_table
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_flags, check_type

Cut = Literal["drop_rows_to_fit", "do_not_truncate"] | bool
_CUTS = (None, True, False, "drop_rows_to_fit", "do_not_truncate")
_WHOLE = (False, "do_not_truncate")
_PLACES = ("table", "query")  # the order of transformers


def _check_cut(options: Any) -> None:
    check_choice("overflow", options.overflow, ("truncate", "error"), "a table is not divided into windows")
    check_choice("truncation", options.truncation, _CUTS)
    check_flags(sequential=options.sequential)


@dataclass(frozen=True, kw_only=True)
class CellOptions(TextOptions):
    """Options of models that select cells.

    Attributes:
        sequential: the questions of a request are a conversation: each sees the cells of the answer before.
        truncation: "drop_rows_to_fit" or True shortens cells and drops rows, which is the default;
            "do_not_truncate" or False refuses a table that is too long.
    """

    sequential: bool = False
    truncation: Cut | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_cut(self)


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
        _check_cut(self)


class TableTask(TextTask[Any]):
    """Requests and results of questions about a table.

    A request has a table, in any form of `as_table` or as the `Path` of a .csv or .json file, and a question
    or a list of questions.
    """

    fields = ("query", "table")
    files: ClassVar[Mapping[str, str]] = {"table": "the table, a .csv or .json file"}
    remedy = 'rows were dropped or cells shortened; truncation="do_not_truncate" refuses such tables'

    def describe_inputs(self) -> str:
        """Returns a phrase about a request, for messages."""
        return "table= and query=, a dict with 'table' and 'query', or a list of dicts"

    def arguments(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Returns the inputs of a call: requests, or the one of a table and a question or several.

        Raises:
            ArgumentTypeError: no inputs, or more than two.
        """
        places = [name for name in _PLACES if name not in named]
        if len(inputs) > len(places) or not (inputs or named):
            hint = f"a call has {self.describe_inputs()}"
            raise ArgumentTypeError("inputs", inputs or None, "a table and a question", hint)
        if len(inputs) + len(named) > 1:
            return dict(zip(places, inputs, strict=False)) | dict(named)
        value = inputs[0] if inputs else named.get("table")
        requests = value if isinstance(value, list | tuple) else [value]
        if inputs or (requests and all(isinstance(r, Mapping) and set(_PLACES) <= set(r) for r in requests)):
            return value
        return dict(named)

    def is_single(self, inputs: Any) -> bool:
        """Whether inputs are those of one request; as in transformers, a list of one is."""
        return (isinstance(inputs, list | tuple) and len(inputs) == 1) or super().is_single(inputs)

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`; the table is a `Table`, and a single request may be in a list."""
        if name == self.fields[0]:
            name, value = "inputs", value[0] if isinstance(value, list | tuple) else value
        return super().read(value, name)

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """Returns the table as a `Table`, and a question or a list of questions.

        Raises:
            ArgumentTypeError: neither a table nor text.
            ArgumentValueError: an empty table, or no question.
            FileNotFoundError, ValueError: of a file that cannot be read.
        """
        if field == "table":
            table = as_table(read_table(value) if isinstance(value, Path) else value)
            if not (table.rows and table.columns):
                raise ArgumentValueError("table", value, "one with at least one row and one column")
            return table
        texts = [value] if isinstance(value, str) else value
        check_type("query", texts, list | tuple, "a question or a list of questions")
        for text in texts:
            check_type("query", text, str, "a question or a list of questions")
        if not value:
            raise ArgumentValueError("query", value, "a question that is not empty, or a list of questions")
        return value if isinstance(value, str) else list(value)

    def limit(self, options: Any) -> int | None:
        """Returns the most tokens of a sequence; without truncation those of the model alone."""
        if options.truncation in _WHOLE:
            return token_limit(self.model, self.tokenizer, NO_LIMIT)
        return super().limit(options)

    def refuses(self, options: Any) -> bool:
        """Whether a table that is too long is an error."""
        return options.overflow == "error" or options.truncation in _WHOLE

    def check_length(self, length: int, limit: int | None, options: Any) -> bool:
        """Returns whether a sequence is too long.

        Raises:
            ArgumentValueError: it is, and the options refuse it.
        """
        if limit is None or length <= limit:
            return False
        if self.refuses(options):
            expected = f"of at most {limit} tokens with its question"
            raise ArgumentValueError("table", f"{length} tokens", expected, "truncation=True drops rows")
        return True

    def unwrap(self, result: Any, inputs: Any, options: Any) -> Any:
        """Returns the result as it is."""
        return result


class TableQuestionAnswering(TableTask, Text2TextGeneration):
    """Answers that a model such as TAPEX writes, from question and table as one text."""

    Options = TableQuestionAnsweringOptions
    defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 256}

    @classmethod
    def for_model(cls, model: Any) -> type[TextTask[Any]]:
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
        queries = [request["query"]] if isinstance(request["query"], str) else request["query"]
        config = self.tokenizer.config
        lower, most = config.get("do_lower_case") is not False, config.get("max_cell_length") or LONGEST_CELL
        table = shorten_cells(request["table"], self.tokenizer, most, lower=lower)
        return [item for query in queries for item in self._sequence(table, query, options, lower=lower)]

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


class CellOutput(NamedTuple):
    """The output of a model for one question.

    Attributes:
        logits: (T,) of the tokens: whether their cell is part of the answer.
        logits_aggregation: (C,) of the operations on the cells; None of a model without them.
    """

    logits: Tensor
    logits_aggregation: Tensor | None


@dataclass
class Conversation:
    """The state of the questions of a request, one after another.

    Attributes:
        cells: of the answer to the last question that was answered.
    """

    cells: list[Cell] = field(default_factory=list)


class Turn(NamedTuple):
    """The place of a question in its conversation."""

    number: int
    conversation: Conversation


class CellAnswering(TableTask):
    """Answers of cells that a model such as TAPAS selects, with an operation on them."""

    Options = CellOptions
    outputs = ("logits", "logits_aggregation")

    def __init__(self, spec: Any, model: Any, tokenizer: Any) -> None:
        super().__init__(spec, model, tokenizer)
        hint = "load that of the model's folder"
        check_type("tokenizer", tokenizer, TableTokenizer, "a tokenizer of tables", hint)
        self.operations, self.no_operation = aggregation_names(model.checkpoint.config)

    def options(self, base: Any, values: Mapping[str, Any]) -> Any:
        """As `Task.options`; options of generation are an error.

        Raises:
            ArgumentValueError: one of them.
        """
        written = TableQuestionAnsweringOptions.__dataclass_fields__.keys() - CellOptions.__dataclass_fields__
        for name in values:
            if name in written:
                hint = "it is for models that write answers; this one selects cells"
                raise ArgumentValueError(name, values[name], "left out", hint)
        return super().options(base, values)

    def preprocess(self, request: Request, options: CellOptions) -> list[TextInput]:
        """Returns each question with the table as one sequence."""
        queries = [request["query"]] if isinstance(request["query"], str) else request["query"]
        table = request["table"]
        sizes = torch.tensor(self.model.embedder.sizes)
        if len(table.columns) >= sizes[1]:
            raise ArgumentValueError("table", f"{len(table.columns)} columns", f"fewer than {int(sizes[1])}")
        batch = self._encode(table, queries, options)
        dropped = any(bool((_types(row).amax(dim=0) >= sizes).any()) for row in batch["token_type_ids"])
        if dropped:  # row or rank of a cell is not one of the model's
            most = int(sizes[[2, 4, 5]].min()) - 1
            if self.refuses(options):
                raise ArgumentValueError("table", f"{len(table.rows)} rows", f"of at most {most}")
            batch = self._encode(Table(table.columns, table.rows[:most]), queries, options)
        truncated = [dropped or row for row in batch.truncated]
        rows = zip(batch["input_ids"], batch["token_type_ids"], truncated, strict=True)
        conversation = Conversation()
        return [
            TextInput(
                arguments={"input_ids": ids, "token_type_ids": types},
                truncated=row_truncated,
                label=Turn(number, conversation),
            )
            for number, (ids, types, row_truncated) in enumerate(rows)
        ]

    def _encode(self, table: Table, queries: Sequence[str], options: CellOptions) -> Any:
        limit, tokenizer = self.limit(options), cast(TableTokenizer, self.tokenizer)
        cuts = limit is not None and not self.refuses(options)
        # A long question leaves no room for the names of the columns: the tokenizer's own limit is exceeded.
        own = cuts and limit == tokenizer.model_max_length and options.max_length is None
        stated = limit if cuts and not own else None
        batch = tokenizer.encode_table(table, queries, truncation=cuts, max_length=stated, as_tensors=False)
        if own:
            limit = token_limit(self.model, tokenizer, NO_LIMIT)
        for ids in batch["input_ids"]:
            self.check_length(len(ids), limit, options)
        for query, cells, dropped in zip(queries, batch.cells, batch.truncated, strict=True):
            if cuts and dropped and not any(cells) and limit is not None and len(query) > limit:
                expected = f"shorter; of {limit} tokens it leaves none for a row of the table"
                raise ArgumentValueError("query", query, expected)
        return batch

    def batches(
        self, inputs: Sequence[TextInput], limits: BatchLimits, options: CellOptions
    ) -> list[list[int]]:
        """As `Task.batches`; in conversations all first questions precede all second ones, and so on."""
        if not options.sequential:
            return super().batches(inputs, limits, options)
        turns: dict[int, list[int]] = {}
        for index, item in enumerate(inputs):
            turns.setdefault(item.label.number, []).append(index)
        batches = []
        for _, indices in sorted(turns.items()):
            parts = super().batches([inputs[index] for index in indices], limits, options)
            batches += [[indices[index] for index in part] for part in parts]
        return batches

    def forward(self, inputs: Sequence[TextInput], options: CellOptions) -> list[Any]:
        """As `Task.forward`; in a conversation the cells of the answer before are marked."""
        if not options.sequential:
            return super().forward(inputs, options)
        for item in inputs:
            types = cast(list[Any], item.ids["token_type_ids"])
            types[:] = mark_previous(_types(types), item.label.conversation.cells).tolist()
        outputs = super().forward(inputs, options)
        for item, output in zip(inputs, outputs, strict=True):
            item.label.conversation.cells = _cells(item, output)
        return outputs

    def output_of(self, row: Mapping[str, Tensor], item: TextInput) -> CellOutput:
        """Returns the logits of one sequence."""
        return CellOutput(row["logits"][: item.size], row.get("logits_aggregation"))

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: CellOptions,
    ) -> Any:
        """Returns a dict of the answer, of several questions a list of them."""
        answers = []
        for item, output in zip(inputs, outputs, strict=True):
            name, computes = "", True
            if self.operations and output.logits_aggregation is not None:
                operation = int(output.logits_aggregation.argmax())
                name, computes = self.operations[operation], operation != self.no_operation
            cells = _cells(item, output)
            answers.append(Prediction(table_answer(request["table"], cells, name, computes=computes)))
        return answers[0] if len(answers) == 1 else Predictions(answers)


def _types(types: Any) -> Tensor:
    return torch.tensor(types, dtype=torch.long)


def _cells(item: TextInput, output: CellOutput) -> list[Cell]:
    """Returns the selected cells, (row, column)."""
    return select_cells(output.logits, _types(item.ids["token_type_ids"]))
