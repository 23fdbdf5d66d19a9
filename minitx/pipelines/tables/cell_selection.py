"""Table question answering by models such as TAPAS, which select cells and an operation on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from minitx.pipelines.batching import BatchLimits
from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.postprocess.tables import (
    Cell,
    CellMemory,
    Turn,
    aggregation_names,
    mark_previous,
    select_cells,
    table_answer,
)
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.tables.task import Cut, TableTask, check_cut
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextInput, TextOptions
from minitx.tokenizer import TableTokenizer
from minitx.tokenizer.tables.options import NO_LIMIT
from minitx.tokenizer.tables.table import Table
from minitx.validation import ArgumentValueError, check_type


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
        check_cut(self)


class CellOutput(NamedTuple):
    """The output of a model for one question.

    Attributes:
        logits: (T,) of the tokens: whether their cell is part of the answer.
        logits_aggregation: (C,) of the operations on the cells; None of a model without them.
    """

    logits: Tensor
    logits_aggregation: Tensor | None


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
        written = GenerateOptions.__dataclass_fields__.keys() - CellOptions.__dataclass_fields__
        for name in values:
            if name in written:
                hint = "it is for models that write answers; this one selects cells"
                raise ArgumentValueError(name, values[name], "left out", hint)
        return super().options(base, values)

    def preprocess(self, request: Request, options: CellOptions) -> list[TextInput]:
        """Returns each question with the table as one sequence."""
        table, queries = request["table"], self.queries(request)
        sizes = torch.tensor(self.model.embedder.sizes)
        if len(table.columns) >= sizes[1]:
            raise ArgumentValueError("table", f"{len(table.columns)} columns", f"fewer than {int(sizes[1])}")
        batch = self._encode(table, queries, options)
        dropped = any(bool((_types(row).amax(dim=0) >= sizes).any()) for row in batch["token_type_ids"])
        if dropped:  # row or rank of a cell is not one of the model's
            most = int(sizes[[2, 4, 5]].min()) - 1
            if self.refuses(options):
                raise ArgumentValueError(
                    "table", f"{len(table.rows)} rows", f"of at most {most}", self.way_out(options)
                )
            batch = self._encode(Table(table.columns, table.rows[:most]), queries, options)
        truncated = [dropped or row for row in batch.truncated]
        inputs = zip(batch["input_ids"], batch["token_type_ids"], truncated, strict=True)
        conversation = CellMemory()
        return [
            TextInput(
                arguments={"input_ids": ids, "token_type_ids": types},
                truncated=row_truncated,
                label=Turn(number, conversation),
            )
            for number, (ids, types, row_truncated) in enumerate(inputs)
        ]

    def _encode(self, table: Table, queries: Sequence[str], options: CellOptions) -> Any:
        limit, tokenizer = self.limit(options), cast(TableTokenizer, self.tokenizer)
        cuts = limit is not None and not self.refuses(options)
        # A long question leaves no room for the names of the columns: the tokenizer's own limit is exceeded.
        own = cuts and limit == tokenizer.model_max_length and options.max_length is None
        stated = limit if cuts and not own else None
        if not cuts and len(table.rows) >= (most := tokenizer.options.max_row_id):
            rows, expected = f"{len(table.rows)} rows", f"of fewer than {most}"
            raise ArgumentValueError("table", rows, expected, self.way_out(options))
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
