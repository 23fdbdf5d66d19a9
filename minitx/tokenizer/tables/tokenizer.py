"""`TableTokenizer`: questions about a table to ids and seven kinds of token types (arXiv:2004.02349).

A row of the batch is [CLS] question [SEP] names of the columns, then cells row by row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.tokenizer.batch import Batch, Padding, check_side
from minitx.tokenizer.files import Settings
from minitx.tokenizer.tables.options import USUAL_LENGTH, TableOptions, states_length
from minitx.tokenizer.tables.table import Table, as_table, as_text
from minitx.tokenizer.tables.tokenized import Cell, Piece, TokenizedTable, check_found
from minitx.tokenizer.tables.values import column_values, ranks, relations, values
from minitx.tokenizer.tables.words import Words
from minitx.tokenizer.tokenizer import Tokenizer
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_flags,
    check_integer,
    check_type,
)

KINDS = 7  # segment, column, row, previous answer, rank, inverse rank, relation to the question
EMPTY_TEXTS = ("n/a", "?", "nan")
Row = dict[str, list[Any]]  # of a batch


class TableTokenizer(Tokenizer):
    """A tokenizer of questions about a table; from `minitx.load_tokenizer` of a TAPAS folder.

    `encode_table` is for questions about a table. Called with texts, it tokenizes them without one.

    Attributes:
        options: those of tokenizer_config.json that concern tables.
    """

    def __init__(self, backend: Any, settings: Settings, **options: Any) -> None:
        self.options = TableOptions.of(settings)
        super().__init__(backend, settings, **options)
        if not states_length(settings):
            self.model_max_length = USUAL_LENGTH
        vocabulary = self._backends.vocabulary
        special = (vocabulary.id_to_token(index) or "" for index in self.special_ids)
        self._words = Words(
            lower=settings.switch("do_lower_case", True),
            strip_accents=settings.flag("strip_accents", None),
            ideographs=settings.switch("tokenize_chinese_chars", True),
            never_split=frozenset({*settings.words("never_split"), *special}),
        )
        empty = settings.extra[0].content if settings.extra else settings.text("empty_token")
        self._empty_id = vocabulary.token_to_id(empty)

    def __call__(self, texts: Any, **options: Any) -> Batch:
        """Tokenizes texts without a table; the options are those of `Tokenizer`."""
        batch = super().__call__(texts, **options)
        types = batch.get("token_type_ids")
        if isinstance(types, Tensor):
            types = types.new_zeros(*types.shape, KINDS)
        elif types is not None:
            types = [[[0] * KINDS for _ in row] for row in types]
        return batch if types is None else batch.with_inputs(token_type_ids=types)

    def encode_table(
        self,
        table: Any,
        queries: str | Sequence[str],
        *,
        answers: Sequence[Sequence[Cell]] | None = None,
        padding: Padding = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        as_tensors: bool = True,
    ) -> Batch:
        """Tokenizes questions about one table, one row of the batch each.

        Beside the inputs of the model, the batch has `cells`: for each row, the (row, column) from 0 of each
        token that belongs to a cell, and None for the others; `table`, the table of texts; and `truncated`,
        for each row whether a part of the table was left out.

        Args:
            table: a dict of columns, a list of dicts, a list of rows that begins with the names of the
                columns, or a pandas DataFrame. Cells are strings or numbers, None is an empty cell.
            queries: one question or a list of questions.
            answers: the cells that answer each question, (row, column) from 0. They add `labels`,
                `numeric_values` and `numeric_values_scale` to the batch, and mark the previous answer in each
                question but the first.
            padding: True or "longest" pads to the longest row, "max_length" to `max_length`.
            truncation: True or "drop_rows_to_fit" shortens cells and drops rows at the end of the table.
            max_length: tokens per row; None for `model_max_length`.
            pad_to_multiple_of: pad to the next multiple.
            as_tensors: return tensors (B, T) and (B, T, 7), else lists.

        Raises:
            TypeError: something that is no table or text.
            ValueError: too many columns or rows, a table that does not fit, rows of different lengths as
                tensors, or an answer outside of the table.
        """
        check_flags(as_tensors=as_tensors)
        limit = self._limit(truncation, max_length)
        tokenized, texts = self._tokenize(as_table(table)), as_queries(queries)
        expected = None if answers is None else as_answers(answers, len(texts), tokenized.table)
        rows = []
        for number, text in enumerate(texts):
            before = expected[number - 1] if expected is not None and number else set()
            row = self._row(tokenized, text, before, limit)
            if max_length is not None and len(row["input_ids"]) > max_length:
                hint = f"question and names of the columns take {len(row['input_ids'])} tokens"
                raise ArgumentValueError("max_length", max_length, "larger for this table", hint)
            rows.append(row if expected is None else row | tokenized.targets(row["cells"], expected[number]))
        length = self._padded_length(rows, padding, max_length, pad_to_multiple_of)
        columns = self._columns(rows, length)
        whole = len(tokenized.pieces)
        truncated = [sum(types[0] for types in row["token_type_ids"]) < whole for row in rows]
        extras = {"cells": columns.pop("cells"), "table": tokenized.table, "truncated": truncated}
        return Batch(as_batch(columns) if as_tensors else columns, [], extras)

    def _limit(self, truncation: bool | str, max_length: int | None) -> int | None:
        """Returns the number of tokens to which rows are cut; None: they are not."""
        check_choice("truncation", truncation, (False, True, "do_not_truncate", "drop_rows_to_fit"))
        if max_length is not None:
            check_integer("max_length", max_length, 1)
        if truncation in (False, "do_not_truncate"):
            return None
        limit = self.model_max_length if max_length is None else max_length
        if limit is None:
            hint = "the tokenizer's files have no model_max_length"
            raise ArgumentValueError("max_length", None, "a number of tokens for truncation", hint)
        return limit

    def _pieces(self, text: str) -> list[int]:
        """Returns the ids of a question or a cell; tokens beyond the vocabulary are found within words."""
        vocabulary, model = self._backends.vocabulary, self._backends.vocabulary.model
        added = [token.content for token in vocabulary.get_added_tokens_decoder().values()]
        apart = sorted((token for token in added if model.token_to_id(token) is None), key=len, reverse=True)
        ids: list[Any] = []
        for part in re.split(f"({'|'.join(map(re.escape, apart))})", text) if apart else [text]:
            if part in apart:
                ids += [vocabulary.token_to_id(part)]
            elif part and is_empty(part):
                ids += [self._empty_id]
            else:
                ids += [token.id for word in self._words(part) for token in model.tokenize(word)]
        return ids

    def _tokenize(self, table: Table) -> TokenizedTable:
        """Tokenizes names and cells, and finds the values of the columns."""
        names = [""] * len(table.columns) if self.options.strip_column_names else table.columns
        model, pieces, longest = self._backends.vocabulary.model, [], 0
        for row, cells in enumerate((names, *table.rows)):
            for column, text in enumerate(cells):
                start, ids = -1, self._pieces(text)
                longest = max(longest, len(ids))
                for place, token in enumerate(ids):
                    start = start if (model.id_to_token(token) or "").startswith("##") else place
                    pieces.append(Piece(token, row, column, start))
        columns = [column_values([row[c] for row in table.rows]) for c in range(len(table.columns))]
        return TokenizedTable(table, pieces, longest, columns, [ranks(column) for column in columns])

    def _row(self, tokenized: TokenizedTable, text: str, before: set[Cell], limit: int | None) -> Row:
        """Returns ids, mask, token types and cells of one question.

        Args:
            tokenized: the table.
            text: the question.
            before: cells that answered the question before.
            limit: number of tokens to which it is cut; None: it is not.
        """
        question = self._pieces(text)
        if not self.options.min_question_length <= len(question) <= self.options.max_question_length:
            question, text = [], ""
        start = [self.cls_token_id, *question, self.sep_token_id]
        pieces = tokenized.fit(self.options, None if limit is None else limit - len(start))
        asked = values(text)
        related = [relations(asked, column) for column in tokenized.values]
        types: list[Any] = [[0] * KINDS for _ in start]
        cells: list[Cell | None] = [None] * len(start)
        for piece in pieces:
            row, column = piece.row - 1, piece.column
            rank, inverse = tokenized.ranks[column].get(row, (0, 0))
            answer, relation = int((row, column) in before), related[column].get(row, 0)
            types.append([1, column + 1, piece.row, answer, rank, inverse, relation])
        cells += [(piece.row - 1, piece.column) if piece.row else None for piece in pieces]
        check_found(before, cells)
        ids = [*start, *(piece.token for piece in pieces)]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types, "cells": cells}

    def _padded_length(
        self, rows: Sequence[Row], padding: Padding, max_length: int | None, multiple: int | None
    ) -> int:
        """Returns the length to which rows are padded; 0: they are not."""
        check_choice("padding", padding, (False, True, "longest", "max_length"))
        if padding is False:
            return 0
        if self.pad_token_id is None:
            raise ArgumentValueError("padding", padding, "False", "this tokenizer has no pad_token")
        length = max((len(row["input_ids"]) for row in rows), default=0)
        if padding == "max_length":
            most = self.model_max_length if max_length is None else max_length
            if most is None:
                raise ArgumentValueError("max_length", None, 'a number of tokens for padding="max_length"')
            length = max(length, most)
        if multiple is not None:
            length = -(-length // check_integer("pad_to_multiple_of", multiple, 1)) * multiple
        return length

    def _columns(self, rows: Sequence[Row], length: int) -> Row:
        """Returns the entries of all rows by name, padded to a length."""
        fill: dict[str, Any] = {
            "input_ids": self.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": [0] * KINDS,
            "cells": None,
            "labels": 0,
            "numeric_values": torch.nan,
            "numeric_values_scale": 1.0,
        }
        left = check_side("padding_side", self.padding_side) == "left"
        columns: Row = {name: [] for name in (rows[0] if rows else list(fill)[:4])}
        for row in rows:
            for name, entries in row.items():
                more = [fill[name]] * (length - len(entries))
                columns[name].append(more + entries if left else entries + more)
        return columns


def as_batch(columns: Row) -> dict[str, Tensor]:
    """Returns the entries of a batch as tensors (B, T), the token types (B, T, 7).

    Raises:
        ArgumentValueError: rows of different lengths.
    """
    lengths = {len(row) for row in columns["input_ids"]}
    if len(lengths) > 1:
        hint = "or as_tensors=False for lists"
        raise ArgumentValueError("padding", False, "True for rows of different lengths", hint)
    shape = (len(columns["input_ids"]), max(lengths, default=0))
    kinds = {"token_type_ids": (KINDS,)}
    dtypes = {"numeric_values": torch.float32, "numeric_values_scale": torch.float32}
    return {
        name: torch.tensor(rows, dtype=dtypes.get(name, torch.long)).view(*shape, *kinds.get(name, ()))
        for name, rows in columns.items()
    }


def is_empty(text: str) -> bool:
    """Whether a text means an empty cell: no letter or digit, or a word for it."""
    return text.lower().strip() in EMPTY_TEXTS or not any(map(str.isalnum, text))


def as_queries(queries: Any) -> list[str]:
    """Returns the texts of one question or several.

    Raises:
        ArgumentTypeError: anything but text.
    """
    queries = [queries] if isinstance(queries, str) else queries
    if not isinstance(queries, list | tuple) or not all(isinstance(query, str) for query in queries):
        raise ArgumentTypeError("queries", queries, "a question or a list of questions")
    return [as_text("queries", query) for query in queries]


def as_answers(answers: Any, count: int, table: Table) -> list[set[Cell]]:
    """Returns the cells that answer each question.

    Args:
        answers: a list of cells, (row, column), for each question.
        count: number of questions.
        table: that has the cells.

    Raises:
        ArgumentTypeError: something other than cells.
        ArgumentValueError: another number of answers, or a cell outside of the table.
    """
    check_type("answers", answers, list | tuple, "a list of cells for each question")
    if len(answers) != count:
        raise ArgumentValueError("answers", answers, f"one list of cells for each of {count} questions")
    known = {(row, column) for row in range(len(table.rows)) for column in range(len(table.columns))}
    result = []
    for number, cells in enumerate(answers):
        name, expected = f"answers[{number}]", "a list of cells of the table, (row, column) from 0"
        check_type(name, cells, list | tuple | set, expected)
        for cell in cells:
            check_type(name, cell, list | tuple, expected)
            if tuple(cell) not in known:
                hint = f"it has {len(table.rows)} rows and {len(table.columns)} columns"
                raise ArgumentValueError(name, cell, "cells of the table, (row, column) from 0", hint)
        result.append({(int(row), int(column)) for row, column in cells})
    return result
