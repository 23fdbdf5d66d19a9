"""`result.show()`: the drawing of a result, of the kind that the table of tasks states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minitx.pictures.drawings import Bars, Drawing, Mark, Marks, Plain
from minitx.pictures.grids import Grid, Matrix
from minitx.pictures.text import shorten_line
from minitx.pipelines.registry import TASKS
from minitx.tokenizer.tables.table import as_table

MARGIN = 400  # characters around an answer
# Of a text of more than LONG characters: those around an entity, and the number of entities.
LONG, NEAR, MOST_MARKS = 4000, 60, 40


def drawing_of(result: Any, details: Any) -> Drawing:
    """Returns the drawing of a result.

    Args:
        result: of a task.
        details: its `Details`.

    Raises:
        ValueError: the result has no details.
    """
    if details is None:
        raise ValueError(
            "This result has no details to draw; those of streams and files have them with "
            "pipeline(..., details=True)."
        )
    answers = result if isinstance(result, list) else [result]
    drawing: Drawing = DRAWINGS[TASKS[details.task].picture](answers, details.request)
    return drawing


def _bars(answers: Sequence[Any], request: Mapping[str, Any]) -> Drawing:
    """Draws labels with scores; of several masks, in groups."""
    values: list[tuple[str, float | None]] = []
    for number, answer in enumerate(answers, start=1):
        group = isinstance(answer, list)  # the tokens of one of several masks
        values += [(f"mask {number}", None)] if group else []
        values += [pair for part in (answer if group else [answer]) for pair in _scored(part)]
    return Bars(_title(request), values)


def _scored(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Returns labels and scores: of {label, score}, {token_str, score}, {text, score}, {labels, scores}."""
    if "labels" in answer:
        return list(zip(answer["labels"], answer["scores"], strict=True))
    name = next(answer[key] for key in ("label", "token_str", "text", "corpus_id") if key in answer)
    return [(str(name), answer["score"])]


def _marks(answers: Sequence[Any], request: Mapping[str, Any]) -> Drawing:
    """Draws entities in their text."""
    text = request["text"]
    marks = [
        Mark(entity["start"], entity["end"], entity.get("entity_group") or entity["entity"], entity["score"])
        for entity in answers
        if entity["start"] is not None
    ]
    title = "" if marks else "(no entities)"
    drawing = Marks(text if isinstance(text, str) else " ".join(text), marks, title)
    return drawing if len(drawing.content) <= LONG else drawing.excerpt(NEAR, MOST_MARKS)


def _answer(answers: Sequence[Any], request: Mapping[str, Any]) -> Drawing:
    """Draws an answer in its context; several as bars, since they may overlap."""
    if len(answers) > 1:
        pairs = [(answer["answer"] or "(no answer)", answer["score"]) for answer in answers]
        return Bars(request["question"], pairs)
    marks = [Mark(answer["start"], answer["end"], "", answer["score"]) for answer in answers]
    title = request["question"] if answers and answers[0]["answer"] else f"{request['question']} (no answer)"
    return Marks(request["context"], marks, title).excerpt(MARGIN)


def _scores(answers: Sequence[Any], request: Mapping[str, Any]) -> Drawing:
    """Draws the similarities of all pairs; of many sentences, and of a search, those to one text as bars."""
    if "query" in request:
        return _bars(answers, request)
    matrix = getattr(answers, "matrix", None)
    if matrix is not None:
        return Matrix([request["source_sentence"], *request["sentences"]], matrix)
    pairs = zip(request["sentences"], answers, strict=True)
    ranked = sorted(pairs, key=lambda pair: -pair[1])
    return Bars(_title(request), ranked)


def _table(answers: Sequence[Any], request: Mapping[str, Any]) -> Drawing:
    """Draws a table with the cells of an answer."""
    table = as_table(request["table"])
    chosen = frozenset(tuple(place) for answer in answers for place in answer.get("coordinates", ()))
    query = request["query"] if isinstance(request["query"], str) else "; ".join(request["query"])
    texts = [f"{a['answer']}{'' if a.get('coordinates', a['answer']) else '(no cell)'}" for a in answers]
    title = f"{query} → {'; '.join(texts)}"
    return Grid(title, table.columns, table.rows, chosen)


def _text(answers: Sequence[Any], request: Mapping[str, Any]) -> Drawing:
    """Draws generated texts; of a chat, its last message."""
    return Plain("\n\n".join(_last_text(answer) for answer in answers))


def _last_text(answer: Any) -> str:
    """Returns the text of an answer; of a chat, its last message; of numbers, how many there are."""
    value = next(iter(answer.values())) if isinstance(answer, dict) and answer else answer
    if not isinstance(value, list) or not value:
        return str(value)
    if isinstance(value[-1], dict):
        return str(value[-1].get("content"))
    sizes = [len(value)]
    while isinstance(value[0], list) and value[0]:
        value = value[0]
        sizes.append(len(value))
    numbers = ", ".join(f"{x:.4f}" if isinstance(x, float) else str(x) for x in value[:6])
    return f"{' x '.join(map(str, sizes))} values, begins {numbers}, ..."


def _title(request: Mapping[str, Any]) -> str:
    """Returns the fields of a request that are text."""
    texts = [value for value in request.values() if isinstance(value, str)]
    return shorten_line(" / ".join(text if text.strip() else "(empty)" for text in texts), 300)


DRAWINGS: Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], Drawing]] = {
    "bars": _bars,
    "marks": _marks,
    "answer": _answer,
    "matrix": _scores,
    "table": _table,
    "text": _text,
}
