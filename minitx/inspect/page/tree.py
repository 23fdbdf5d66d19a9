"""The tree of a beam search, for the page."""

from __future__ import annotations

from typing import Any

import minitx
from minitx.inspect.page.tokens import names_of
from minitx.inspect.pictures.subject import Subject
from minitx.models.decoder import NEXT_TOKEN_TASKS


def beam_tree_data(subject: Subject, num_beams: int, max_new_tokens: int) -> dict[str, Any] | None:
    """Returns everything that a beam search kept; None for a model that predicts no next token.

    Args:
        subject: the model and its text; an encoder-decoder begins after the target, where there is one.
        num_beams: number of beams.
        max_new_tokens: length of the hypotheses.

    Returns:
        "beams", and "nodes", each with "parent" (its number, or None), "step", "name", "logprob" of the
        token, "score" of the sequence up to it, "finished", and "rank" among the returned ones or None.
    """
    model: Any = subject.model
    if model.task not in NEXT_TOKEN_TASKS or num_beams < 1:
        return None
    prompt = [subject.text] if isinstance(subject.text, str) else [[*subject.text]]
    options: dict[str, Any] = {"tokenizer": subject.tokenizer, "max_new_tokens": max_new_tokens}
    if subject.target is not None:
        options["decoder_prompts"] = subject.targets[:1]
    search = minitx.Beam(num_beams=num_beams)
    result = minitx.generate(model, prompt, search, num_samples=num_beams, **options)
    assert result.beams is not None, "of a search"
    nodes = [
        {
            "parent": node.parent,
            "step": node.step,
            "name": names_of([node.token], subject.tokenizer)[0],
            "logprob": round(node.logprob, 6),
            "score": round(node.score, 6),
            "finished": node.finished,
            "rank": node.rank,
        }
        for node in result.beams[0]
    ]
    return {"beams": num_beams, "nodes": nodes}
