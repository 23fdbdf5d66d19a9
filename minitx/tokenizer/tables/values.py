"""Numbers and dates in texts, and their order in the columns of a table.

The rules are those of the training of TAPAS (arXiv:2004.02349): a text has a value for each of its longest
parts that can be read as a number or a date. The cells of a column are compared if most have values of one
kind.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

Date = tuple[int | None, int | None, int | None]  # year, month, day; None where a text leaves one out
Value = float | Date

_YEARS = range(1700, 2017)
_LONGEST_DATE = 5  # words
_MOST_COMMON = 0.7  # share of a column's cells that need a value of one kind
_NUMBER = re.compile(r"(?:(?:^|\s)[+-])?(?:\.\d+|\d+(?:,\d{3})*(?:\.\d*)?)")
_CARDINALS = "zero one two three four five six seven eight nine ten eleven twelve"
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_WORDS = {word: float(n) for words in (_CARDINALS, _ORDINALS) for n, word in enumerate(words.split())}
_FORMATS = (
    *("%B", "%Y", "%Ys", "%b %Y", "%B %Y", "%B %d", "%b %d", "%d %b", "%d %B", "%B %d, %Y", "%d %B %Y"),
    *("%m-%d-%Y", "%Y-%m-%d", "%Y-%m", "%d %b %Y", "%b %d, %Y", "%d.%m.%Y", "%A, %b %d", "%A, %B %d"),
)
_FIELDS = {"%A": r"\w+", "%B": r"\w+", "%b": r"\w{3}", "%Y": r"\d{4}", "%m": r"\d{1,2}", "%d": r"\d{1,2}"}
EQUAL, LESS, GREATER = 1, 2, 4  # relations of a number in the question to a cell, as bits


def _expression(form: str) -> re.Pattern[str]:
    """Returns the regular expression of the texts that may be dates of this format."""
    parts = re.split(r"(%\w)", form)
    return re.compile("".join(_FIELDS.get(part) or re.escape(part).replace("\\ ", r"\s+") for part in parts))


_DATES = [(form, _expression(form)) for form in _FORMATS]


@lru_cache(maxsize=2**14)
def parse_date(text: str) -> Date | None:
    """Returns the date of a lower-case text by its first format that fits; None if none does."""
    for form, expression in _DATES:
        if not expression.fullmatch(text):
            continue
        try:
            date = datetime.strptime(text, form)
        except ValueError:
            continue
        if date.year in _YEARS:
            return (
                date.year if "%Y" in form else None,
                date.month if any(field in form for field in ("%B", "%b", "%m")) else None,
                date.day if "%d" in form else None,
            )
    return None


def parse_number(text: str) -> float | None:
    """Returns the number of a text of digits, which may end as an ordinal; None if it is none."""
    if text.endswith(("st", "nd", "rd", "th")):
        text = text[:-2]
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return None if math.isnan(value) or value == math.inf else value


def word_spans(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Yields start and end of each sequence of up to `most` words; a word is a run of letters and digits."""
    starts: list[int] = []
    for word in re.finditer(r"[^\W_]+", text):
        starts.append(word.start())
        for start in starts[-most:]:
            yield start, word.end()


def values(text: str) -> list[Value]:
    """Returns the values of a text, in the order of its parts."""
    text = " ".join(text.lower().split())
    spans: dict[tuple[int, int], list[Value]] = defaultdict(list)
    for match in _NUMBER.finditer(text):
        number = parse_number(match[0])
        if number is not None:
            spans[match.span()].append(number)
    for start, end in word_spans(text, 1):
        if (start, end) not in spans:
            word = text[start:end]
            number = parse_number(word)
            number = _WORDS.get(word) if number is None else number
            if number is not None:
                spans[start, end].append(number)
    for start, end in word_spans(text, _LONGEST_DATE):
        date = parse_date(text[start:end])
        if date is not None:
            spans[start, end].append(date)
    longest: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if not any(first <= start and end <= last for first, last in longest):
            longest.append((start, end))
    return [value for span in sorted(longest) for value in spans[span]]


def column_values(texts: Sequence[str]) -> dict[int, Value]:
    """Returns the value of each cell of a column, by its row, if most cells have values of one kind.

    Dates are preferred to numbers that are as common.
    """
    parsed = [values(text) for text in texts]
    counts = Counter(kind for row in parsed for kind in {type(value) for value in row})
    most = max(counts.values(), default=0)
    if not most or most < len(texts) * _MOST_COMMON:
        return {}
    kind = tuple if counts[tuple] == most else float
    firsts = {row: next((v for v in found if type(v) is kind), None) for row, found in enumerate(parsed)}
    return {row: value for row, value in firsts.items() if value is not None}


def comparable(found: Iterable[Value]) -> list[tuple[float, ...]] | None:
    """Returns values as tuples to compare: of dates, the fields that all have; None without one."""
    found = list(found)
    if len({type(value) for value in found}) != 1:
        return None
    if isinstance(found[0], float):
        return [(value,) for value in found if isinstance(value, float)]
    dates = [value for value in found if isinstance(value, tuple)]
    fields = [field for field in range(3) if all(date[field] is not None for date in dates)]
    return [tuple(float(date[field] or 0) for field in fields) for date in dates] if fields else None


def ranks(column: Mapping[int, Value]) -> dict[int, tuple[int, int]]:
    """Returns rank and inverse rank of each row's value among the different values of a column, from 1."""
    keys = comparable(column.values()) if column else None
    if keys is None:
        return {}
    order = {key: rank for rank, key in enumerate(sorted(set(keys)), 1)}
    return {row: (order[key], len(order) + 1 - order[key]) for row, key in zip(column, keys, strict=True)}


def relations(question: Sequence[Value], column: Mapping[int, Value]) -> dict[int, int]:
    """Returns the relations of a question's values to each row's value: EQUAL, LESS and GREATER, added."""
    related: dict[int, int] = defaultdict(int)
    for value in question if column else ():
        keys = comparable([*column.values(), value])
        for row, key in zip(column, keys or ()):  # noqa: B905 - the last key is the question's
            asked = keys[-1] if keys else key
            related[row] |= EQUAL if asked == key else LESS if asked < key else GREATER
    return related
