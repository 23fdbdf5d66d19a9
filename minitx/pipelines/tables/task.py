"""`TableTask`: requests and results of questions about a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.inputs import read_table
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextTask
from minitx.tokenizer.tables.options import NO_LIMIT
from minitx.tokenizer.tables.table import as_table
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_flags, check_type

Cut = Literal["drop_rows_to_fit", "do_not_truncate"] | bool
_CUTS = (None, True, False, "drop_rows_to_fit", "do_not_truncate")
_WHOLE = (False, "do_not_truncate")
_PLACES = ("table", "query")  # the order of transformers


def check_cut(options: Any) -> None:
    """Checks the options that all tasks on tables have."""
    check_choice("overflow", options.overflow, ("truncate", "error"), "a table is not divided into windows")
    check_choice("truncation", options.truncation, _CUTS)
    check_flags(sequential=options.sequential)


class TableTask(TextTask[Any]):
    """Requests and results of questions about a table.

    A request has a table, in any form of `as_table` or as the `Path` of a .csv or .json file, and a question
    or a list of questions.
    """

    fields = ("query", "table")
    single_lists = True
    files: ClassVar[Mapping[str, str]] = {"table": "the table, a .csv or .json file"}
    remedy = "rows were dropped or cells shortened; truncation=False refuses such tables"

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

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`; the table is a `Table`."""
        return super().read(value, "inputs" if name == self.fields[0] else name)

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
        where = self.name_of(field, name)
        texts = [value] if isinstance(value, str) else value
        check_type(where, texts, list | tuple, "a question or a list of questions")
        for text in texts:
            check_type(where, text, str, "a question or a list of questions")
        if not value:
            raise ArgumentValueError(where, value, "a question that is not empty, or a list of questions")
        return value if isinstance(value, str) else list(value)

    def name_of(self, field: str, name: str) -> str:
        """As `Task.name_of`; a question has a name in every request."""
        return field if name == "inputs" else f"{name}[{field!r}]"

    def queries(self, request: Request) -> list[str]:
        """Returns the questions of a request."""
        queries = request["query"]
        return [queries] if isinstance(queries, str) else queries

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
            raise ArgumentValueError("table", f"{length} tokens", expected, self.way_out(options))
        return True

    def way_out(self, options: Any) -> str:
        """Returns the hint about a table that is too long where options refuse it."""
        name = "overflow" if options.overflow == "error" else "truncation"
        return f"without {name}={getattr(options, name)!r} it is shortened"

    def unwrap(self, result: Any, inputs: Any, options: Any) -> Any:
        """Returns the result as it is."""
        return result
