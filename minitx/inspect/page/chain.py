"""The distribution of the next token, and what the page needs to compute each step of the chain on it."""

from __future__ import annotations

from typing import Any

from minitx.decoding.parameters import Parameter, parameters_of
from minitx.decoding.presets.orders import DEFAULT, ORDERS, in_order
from minitx.decoding.processors.base import NumericProcessor
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.inspect.page.arrays import pack
from minitx.inspect.page.tokens import names_of
from minitx.inspect.pictures.subject import Subject
from minitx.layers.heads import VOCABULARY_TASKS

NAMED = 1500  # most probable tokens of all distributions whose names the page has


def next_token_data(subject: Subject, strategy: Strategy) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns the distributions that the page's sliders change, and notes on parameters that it leaves out.

    Args:
        subject: the model, with a head over the vocabulary, and its text.
        strategy: the sliders begin with its parameters.

    Returns:
        None for a model without such a head. Else "distributions", each with its "position", "title" and
        float32 "logits" (V,): of the next token, or of each mask token of a masked language model (without
        one, of the last token); "names" of the most probable tokens and those of the text by id; "history",
        the ids so far; "parameters" of the steps of the chain that take one number, each with the class of
        its step; and "orders", these parameters in the order of each library.
    """
    model = subject.model
    if model.task not in VOCABULARY_TASKS:
        return None, []
    ids = subject.ids(model.families[-1])
    logits = subject.logits().float()
    places = _places(subject, ids)
    each = min(max(1, NAMED // len(places)), logits.shape[-1])
    wanted = {*ids, *logits[places].topk(each).indices.flatten().tolist()}
    declared = parameters_of(Sample)
    numbers = {name: step for name, step in declared.items() if _takes_number(step)}
    changed = {name: getattr(strategy, name) for name, step in declared.items() if name != "order"}
    left_out = [
        name
        for name, value in changed.items()
        if value != declared[name].off and not (name in numbers and isinstance(value, int | float))
    ]
    return {
        "task": model.task,
        "distributions": [
            {"position": place, "title": _title(subject, place), "logits": pack(logits[place])}
            for place in places
        ],
        "history": ids,
        "names": dict(zip(map(str, wanted), names_of([*wanted], subject.tokenizer), strict=True)),
        "parameters": {
            name: {
                "step": getattr(step.processor, "__name__", name),
                "off": step.off,
                "value": step.off if name in left_out else changed[name],
                "help": step.help,
            }
            for name, step in numbers.items()
        },
        "orders": {
            order: [name for name, _ in in_order(declared, order) if name in numbers] for order in ORDERS
        },
        "order": getattr(strategy, "order", DEFAULT),
    }, [f"The page does not compute {name}; its sliders begin without it." for name in left_out]


def _takes_number(parameter: Parameter) -> bool:
    """Whether the step of a parameter takes one number, or one per row."""
    return isinstance(parameter.processor, type) and issubclass(parameter.processor, NumericProcessor)


def _places(subject: Subject, ids: list[int]) -> list[int]:
    """Returns the positions whose distributions the page shows."""
    mask = None if subject.tokenizer is None else subject.tokenizer.mask_token_id
    masked = [place for place, token in enumerate(ids) if token == mask]
    return masked if subject.model.task == "masked-lm" and masked else [len(ids) - 1]


def _title(subject: Subject, place: int) -> str:
    return f"token {place + 1}" if subject.model.task == "masked-lm" else "the next token"
