"""Results as plain values, for JSON: a row of a generation as a dict."""

from __future__ import annotations

import math
from typing import Any

from minitx.decoding.output import Row
from minitx.decoding.prompts import check_tokenizer
from minitx.decoding.text.detokenize import text_of
from minitx.tokenizer import Tokenizer
from minitx.validation import check_type


def row_record(row: Row, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Returns a row of a `Result` as plain values; infinite log-probabilities, which JSON lacks, are None.

    Args:
        row: of a `Result`.
        tokenizer: for the texts of `top_logprobs`.

    Raises:
        ArgumentTypeError: not a row or a tokenizer.
    """
    check_type("row", row, Row, "a row of a Result", "result[0] is its first")
    check_tokenizer(tokenizer)
    record: dict[str, Any] = {"tokens": row.tokens.tolist(), "text": row.text}
    record["finish_reason"] = row.finish_reason
    scores = {name: getattr(row, name) for name in ("score", "log_weight")}
    record |= {name: finite(score) for name, score in scores.items() if score is not None}
    if row.logprobs is not None:
        record["logprobs"] = [finite(value) for value in row.logprobs.tolist()]
    if row.top_logprobs is not None:
        record["top_logprobs"] = []
        for ids, values in zip(*(each.tolist() for each in row.top_logprobs), strict=True):
            best = zip(ids, values, strict=True)
            step = [{"token": t, "text": text_of(t, tokenizer), "logprob": finite(p)} for t, p in best]
            record["top_logprobs"].append(step)
    return record


def finite(value: float) -> float | None:
    """Returns None for infinity and NaN, which JSON lacks."""
    return value if math.isfinite(value) else None
