"""The distribution of the next token, and what the page needs to compute each step of the chain on it."""

from __future__ import annotations

from typing import Any

from minitx.decoding.parameters import parameters_of
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import ORDERS, Strategy, in_order
from minitx.inspect.page.arrays import pack
from minitx.inspect.pictures.subject import Subject, token_name
from minitx.layers.heads import VOCABULARY_TASKS

NAMED = 1500  # most probable tokens whose names the page has
# The steps that the page computes, with the range of their slider.
SLIDERS: dict[str, tuple[float, float, float]] = {
    "repetition_penalty": (0.5, 2.0, 0.01),
    "frequency_penalty": (-2.0, 2.0, 0.05),
    "presence_penalty": (-2.0, 2.0, 0.05),
    "temperature": (0.05, 3.0, 0.05),
    "top_h": (0.05, 1.0, 0.05),
    "top_k": (0, 200, 1),
    "top_p": (0.01, 1.0, 0.01),
    "min_p": (0.0, 1.0, 0.01),
    "typical_p": (0.01, 1.0, 0.01),
    "epsilon_cutoff": (0.0, 0.1, 0.0005),
    "eta_cutoff": (0.0, 0.1, 0.0005),
}


def next_token_data(subject: Subject, strategy: Strategy) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns the distributions that the page's sliders change, and notes on parameters that it leaves out.

    Args:
        subject: the model, with a head over the vocabulary, and its text.
        strategy: the sliders begin with its parameters.

    Returns:
        None for a model without such a head. Else "distributions", each with its "position", "title" and
        float32 "logits" (V,): of the next token, or of each mask token of a masked language model (without
        one, of the last token); "names" of the most probable tokens and those of the text by id; "history",
        the ids so far; "sliders"; and "orders", the steps in the order of each library.
    """
    model = subject.model
    if model.task not in VOCABULARY_TASKS:
        return None, []
    ids = subject.ids(model.families[-1])
    logits = subject.logits().float()
    places = _places(subject, ids)
    wanted = {*ids, *logits[places].topk(min(NAMED, logits.shape[-1])).indices.flatten().tolist()}
    distributions = [
        {"position": place, "title": _title(subject, place), "logits": pack(logits[place])}
        for place in places
    ]
    if len(places) > 1:  # fewer names each, so that a page with many masks stays small
        wanted = {
            *ids,
            *logits[places].topk(min(NAMED // len(places), logits.shape[-1])).indices.flatten().tolist(),
        }
    parameters, changed = parameters_of(Sample), _changed(strategy)
    sliders = [
        {
            "name": name,
            "low": low,
            "high": high,
            "step": step,
            "off": parameters[name].off,
            "value": changed.pop(name, parameters[name].off),
            "help": parameters[name].help,
        }
        for name, (low, high, step) in SLIDERS.items()
    ]
    orders = {order: [name for name, _ in in_order(parameters, order) if name in SLIDERS] for order in ORDERS}
    changed.pop("order", None)
    notes = [f"The page does not compute {name}; its sliders begin without it." for name in changed]
    return {
        "task": model.task,
        "distributions": distributions,
        "history": ids,
        "names": {str(id_): token_name(id_, subject.tokenizer) for id_ in sorted(wanted)},
        "sliders": sliders,
        "orders": orders,
        "order": getattr(strategy, "order", ORDERS[0]),
    }, notes


def _places(subject: Subject, ids: list[int]) -> list[int]:
    """Returns the positions whose distributions the page shows."""
    mask = None if subject.tokenizer is None else subject.tokenizer.mask_token_id
    masked = [place for place, token in enumerate(ids) if token == mask] if mask is not None else []
    return masked if subject.model.task == "masked-lm" and masked else [len(ids) - 1]


def _title(subject: Subject, place: int) -> str:
    return f"token {place + 1}" if subject.model.task == "masked-lm" else "the next token"


def _changed(strategy: Strategy) -> dict[str, Any]:
    """Returns the parameters of a strategy that are one number and not off, or that the page cannot compute."""
    declared = parameters_of(strategy)
    values = {name: getattr(strategy, name) for name in declared}
    return {name: value for name, value in values.items() if value != declared[name].off}
