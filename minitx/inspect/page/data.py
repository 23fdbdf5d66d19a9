"""Everything that the page shows, as JSON: `minitx view` writes it into a file, `minitx lab` sends it."""

from __future__ import annotations

import json
from typing import Any

from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.inspect.page.attention import POINTS, attention_data, attention_places
from minitx.inspect.page.chain import next_token_data
from minitx.inspect.page.lens import lens_data
from minitx.inspect.page.tokens import tokens_of
from minitx.inspect.page.tree import beam_tree_data
from minitx.inspect.pictures.subject import Subject
from minitx.validation import check_integer, check_type

LARGEST = 2_850_000  # characters of the data of a page, which then has at most 3 MB
MOST_BEAMS, MOST_TOKENS = 16, 32


def page_data(
    subject: Subject,
    *,
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    num_beams: int = 4,
    max_new_tokens: int = 8,
    largest: int = LARGEST,
) -> dict[str, Any]:
    """Runs a model on a text and returns what the page shows of it.

    Args:
        subject: the model, in eval mode, and its text.
        strategy: `Sample(...)`, whose parameters the sliders begin with.
        num_beams: of the beam search whose tree is shown; 0: none.
        max_new_tokens: length of its hypotheses.
        largest: most characters of the data; above it the arrays of attention have less precision, as the
            page's notes state.

    Returns:
        A value for `json.dumps`: "model", "tokens" of each stack, "attention", "lens", "next", "tree" and
        "notes".

    Raises:
        ArgumentTypeError, ArgumentValueError: arguments out of range, a text that the model cannot read.
    """
    check_type("strategy", strategy, Sample, "a Sample(...), whose parameters the sliders begin with")
    num_beams = check_integer("num_beams", num_beams, 0, MOST_BEAMS)
    max_new_tokens = check_integer("max_new_tokens", max_new_tokens, 1, MOST_TOKENS)
    modules = [module for part in attention_places(subject).values() for module in part]
    _, seen = subject.run(*(f"{module}.{point}" for module in modules for point in POINTS))
    following, left_out = next_token_data(subject, strategy)
    rest = {
        "version": 1,
        "model": _facts(subject),
        "text": subject.text if isinstance(subject.text, str) else None,
        "tokens": {side: tokens_of(subject, side) for side in subject.model.families},
        "lens": lens_data(subject),
        "next": following,
        "tree": beam_tree_data(subject, num_beams, max_new_tokens),
    }
    attention, reduced = attention_data(subject, seen, largest - len(json.dumps(rest)))
    return {**rest, "attention": attention, "notes": [*reduced, *left_out]}


def _facts(subject: Subject) -> dict[str, Any]:
    """Returns what the head of the page states about the model."""
    model: Any = subject.model
    return {
        "architecture": getattr(model.checkpoint, "model_type", type(model).__name__),
        "stacks": list(model.families),
        "task": model.task,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
