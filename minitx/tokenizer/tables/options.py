"""The options of tokenizer_config.json that concern tables."""

from __future__ import annotations

from dataclasses import dataclass

from minitx.tokenizer.files import CONFIG, Settings, wrong

NO_LIMIT = 10**9
USUAL_LENGTH = 512


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options of tokenizer_config.json for tables.

    Attributes:
        cell_trim_length: maximum number of tokens of a cell; -1: no limit but that of the table.
        max_column_id: the table has fewer columns.
        max_row_id: the table has fewer rows; further rows are dropped if truncation is allowed.
        strip_column_names: leave out the names of the columns.
        min_question_length: a question of fewer tokens is left out.
        max_question_length: a question of more tokens is left out.
    """

    cell_trim_length: int = -1
    max_column_id: int = USUAL_LENGTH
    max_row_id: int = USUAL_LENGTH
    strip_column_names: bool = False
    min_question_length: int = 0
    max_question_length: int = NO_LIMIT

    @classmethod
    def of(cls, settings: Settings) -> TableOptions:
        """Reads the options of a folder.

        Raises:
            ValueError: a value that is no option, or not implemented.
        """
        if not settings.switch("do_basic_tokenize", True):
            wrong(CONFIG, "do_basic_tokenize", False, "true")
        trim = settings.config.get("cell_trim_length")
        if trim is not None and (type(trim) is not int or trim < -1):
            wrong(CONFIG, "cell_trim_length", trim, "an integer of at least -1, or null")
        length = settings.limit() if states_length(settings) else USUAL_LENGTH
        return cls(
            cell_trim_length=-1 if trim is None else trim,
            max_column_id=settings.count("max_column_id", length or NO_LIMIT),
            max_row_id=settings.count("max_row_id", length or NO_LIMIT),
            strip_column_names=settings.switch("strip_column_names", False),
            min_question_length=settings.count("min_question_length", 0),
            max_question_length=settings.count("max_question_length", NO_LIMIT),
        )


def states_length(settings: Settings) -> bool:
    """Whether the files state the maximum length, also if it is no limit."""
    return not {"model_max_length", "max_len"}.isdisjoint(settings.config)
