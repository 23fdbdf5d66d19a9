"""The last steps: from logits to probabilities, and from these to tokens or labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from minitx.decoding.text.detokenize import text_of
from minitx.inspect.trace import hand
from minitx.inspect.trace.step import Step, short
from minitx.inspect.trace.tracer import Side, Tracer, quoted
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.pipelines.postprocess.scores import function_of, label_names, scores_of

BEST = 5  # tokens or labels shown


def answers(t: Tracer, output: Any, tokenizer: Any) -> Iterator[Step]:
    """Yields the steps after the logits: probabilities, and the most probable tokens, labels or spans."""
    task, side = t.model.task, [*t.sides.values()][-1]
    t.names = (side.names, side.names)
    if task in VOCABULARY_TASKS:
        yield from token_answers(t, output.logits, side, tokenizer)
    elif task == "question-answering":
        for name in ("start", "end"):
            logits = getattr(output, f"{name}_logits")
            yield distribution(t, f"{name}_probabilities", logits, "batch tokens", "softmax")
    elif task in ("sequence-classification", "next-sentence", "token-classification", "multiple-choice"):
        kind = function_of(t.model) if task == "sequence-classification" else "softmax"
        names = label_names(t.model) if task != "multiple-choice" else {}
        axes = "batch tokens labels" if output.logits.dim() == 3 else "batch labels"
        if kind != "none":
            yield distribution(t, "probabilities", output.logits, axes, kind)
        yield labels(t, scores_of(output.logits, kind), names, side)
    elif task == "replaced-token-detection":
        yield distribution(t, "probabilities", output.logits, "batch tokens", "sigmoid")


def distribution(t: Tracer, name: str, logits: Tensor, axes: str, kind: Any) -> Step:
    """Returns the step from logits to probabilities."""
    if kind == "sigmoid":
        text, recompute = "1 / (1 + exp(-logits))", lambda: hand.activated(logits, "sigmoid")
    else:
        text = "exp(logits) / sum of exp(logits)"
        recompute = lambda: hand.shares(logits[:, None, None])[:, 0, 0]  # noqa: E731 - one expression
    return t.step(name, text, scores_of(logits, kind), axes, recompute)


def token_answers(t: Tracer, logits: Tensor, side: Side, tokenizer: Any) -> Iterator[Step]:
    """Yields the probabilities of the vocabulary, and the most probable tokens at the places of interest."""
    probabilities = logits.double().softmax(dim=-1).to(logits.dtype)
    yield t.step(
        "probabilities",
        "exp(logits) / sum of exp(logits)",
        probabilities,
        "batch tokens vocabulary",
        lambda: hand.shares(logits.unsqueeze(1))[:, 0],
    )
    lines = []
    for row, index in places(t, side, tokenizer):
        best = probabilities[row, index].double().topk(min(BEST, logits.shape[-1]))
        before = side.ids[row, : index + 1].tolist()
        names = [_name(token, tokenizer, before) for token in best.indices.tolist()]
        entries = [f"{name} {p:.3f}" for name, p in zip(names, best.values.tolist(), strict=True)]
        where = f"row {row}, " if len(side.ids) > 1 else ""
        relation = "at" if t.model.task == "masked-lm" else "after"
        lines.append(f"{where}{relation} {quoted(side.names, row, index)}: {', '.join(entries)}")
    yield Step(name="answer", equation="the most probable tokens", note="\n".join(lines))


def places(t: Tracer, side: Side, tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Yields row and index of the masks, or of all tokens without one; of decoders the last token."""
    mask = getattr(tokenizer, "mask_token_id", None)
    for row, ids in enumerate(side.ids.tolist()):
        length = len(ids) if side.mask is None else int(side.mask[row].sum())
        if t.model.task != "masked-lm":
            yield row, length - 1
            continue
        masks = [index for index in range(length) if ids[index] == mask]
        yield from ((row, index) for index in masks or range(length))


def _name(token: int, tokenizer: Any, before: Sequence[int]) -> str:
    text = text_of(token, tokenizer, before)
    return f"'{text}'" if text and text.isprintable() else f"#{token}"


def labels(t: Tracer, scores: Tensor, names: dict[int, str], side: Side) -> Step:
    """Returns the step from scores to labels."""
    best = scores.double().topk(min(BEST if scores.dim() == 2 else 1, scores.shape[-1]))
    lines = []
    for row in range(len(scores)):
        places = [None] if scores.dim() == 2 else [*range(scores.shape[1])]
        for index in places:
            at = (row,) if index is None else (row, index)
            pairs = zip(best.indices[at].tolist(), best.values[at].tolist(), strict=True)
            entries = ", ".join(f"{names.get(label, label)} {short(score)}" for label, score in pairs)
            where = f"row {row}: " if len(scores) > 1 else ""
            where += "" if index is None else f"{quoted(side.names, row, index)}: "
            lines.append(where + entries)
    return Step(name="answer", equation="the best labels", note="\n".join(lines))
