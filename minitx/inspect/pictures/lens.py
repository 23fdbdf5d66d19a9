"""Pictures of predictions: the logit lens, patching, and the entropy along a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from minitx.inspect.analysis import logit_lens, patching_grid
from minitx.inspect.inputs import Subject, Text
from minitx.inspect.pictures.kinds import picture_kind
from minitx.inspect.tokens import token_name, token_names
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.pictures.heatmap import grid_picture
from minitx.pictures.maps import Cells, Scale
from minitx.pictures.picture import Picture, compose
from minitx.pictures.plots import Track
from minitx.validation import ArgumentValueError, check_integer


def lens_probabilities(subject: Subject) -> Iterator[Tensor]:
    """Yields the head's distribution at the input of the first layer, and after each: (T, V), on the CPU."""
    for logits in logit_lens(subject.model, subject.arguments).logits[:, 0]:
        yield torch.softmax(logits.double(), dim=-1).cpu()


@picture_kind("lens", "the logit lens: the most probable token after each layer")
def lens(subject: Subject) -> Picture:
    """Draws the most probable token if the head were applied after each layer.

    Args:
        subject: the model, with a head over the vocabulary, and its text.
    """
    subject.check_task(VOCABULARY_TASKS)
    best = [probabilities.max(dim=-1) for probabilities in lens_probabilities(subject)][
        ::-1
    ]  # last layer first
    texts = [token_names(layer.indices.tolist(), subject.tokenizer) for layer in best]
    shades = [layer.values.tolist() for layer in best]
    layers = [*(f"layer {i}" for i in reversed(range(len(texts) - 1))), "input"]
    names = subject.names(subject.model.families[-1])
    cells = Cells(texts, shades, layers, names, Scale(name="probability"))
    ahead = "the next token" if subject.model.task != "masked-lm" else "the token"
    note = f"bold: the text; below each token, the head's most probable guess of {ahead} after each layer"
    return compose("Logit lens", [cells], note)


@picture_kind("patching", "which layer and position carry the difference of two texts")
def patching(subject: Subject, *, other: Text, position: int | None = None) -> Picture:
    """Draws activation patching: hidden states of one text are put into the run on the other one.

    A cell is the share of the difference in the log-probability of the text's most probable token that one
    hidden state brings back: 1 restores it, 0 has no effect.

    Args:
        subject: the model, with a head over the vocabulary, and its text.
        other: a text of the same number of tokens.
        position: of the prediction; None: of the mask token, else the last one.
    """
    subject.check_task(VOCABULARY_TASKS)
    second = Subject(subject.model, subject.tokenizer, (other,), subject.target)
    if [*map(len, second.sources)] != [len(subject.sources[0])]:
        expected = (
            f"a text of {len(subject.sources[0])} tokens, as many as text has, not {len(second.sources[0])}"
        )
        raise ArgumentValueError("other", other, expected)
    side = subject.model.families[0]
    ids = subject.ids(subject.model.families[-1])
    place = (
        _predicted(subject, ids)
        if position is None
        else check_integer("position", position, -len(ids), len(ids) - 1)
    )
    shared = {name: value for name, value in subject.arguments.items() if name == "decoder_input_ids"}
    token = int(subject.logits()[place].argmax())

    def _logprob(logits: Tensor) -> Tensor:
        return logits[:, place].double().log_softmax(dim=-1)[:, token]

    model, corrupted = subject.model, second.arguments | shared
    grid = patching_grid(model, subject.arguments, corrupted, _logprob, f"{side}.layers.*.residual.after")
    if abs(grid.clean - grid.corrupted) < 1e-9:
        raise ArgumentValueError("other", other, "a text with another prediction than text")
    names = [_pair(*pair) for pair in zip(subject.names(side), second.names(side), strict=True)]
    layers = [f"layer {i}" for i in range(len(grid.places))]
    title = f"Patching: the states that restore “{token_name(token, subject.tokenizer)}”"
    return grid_picture(grid.recovered, layers, names, title=title, quantity="share restored")


def _predicted(subject: Subject, ids: Sequence[int]) -> int:
    """Returns the position of the mask token, else the last one."""
    mask = getattr(subject.tokenizer, "mask_token_id", None)
    return [*ids].index(mask) if mask is not None and mask in ids else len(ids) - 1


def _pair(token: str, other: str) -> str:
    return token if token == other else f"{token} / {other}"


@picture_kind("entropy", "uncertainty and surprise along the text")
def entropy(subject: Subject) -> Picture:
    """Draws the entropy of the prediction of each token, and minus the log-probability of the token.

    An encoder predicts each token from all others, with a mask in its place (arXiv:1910.14659).

    Args:
        subject: the model, with a head over the vocabulary, and its text.
    """
    side = subject.model.families[-1]
    ids, names = subject.ids(side), subject.names(side)
    subject.check_task(VOCABULARY_TASKS)
    logprobs = (
        _masked(subject, ids) if subject.model.task == "masked-lm" else subject.logits().log_softmax(dim=-1)
    )
    uncertain = torch.special.entr(logprobs.exp()).sum(dim=-1)  # (T,)
    following = ids if subject.model.task == "masked-lm" else ids[1:]
    surprise = -logprobs[torch.arange(len(following)), torch.tensor(following, dtype=torch.long)]
    bars, dots = uncertain.tolist(), surprise.tolist()
    if subject.model.task == "masked-lm":  # which is not trained to predict special tokens
        special = {*subject.tokenizer.special_ids} if subject.tokenizer else set()
        mask = getattr(subject.tokenizer, "mask_token_id", None)
        bars = [torch.nan if i in special - {mask} else bar for i, bar in zip(ids, bars, strict=True)]
        dots = [torch.nan if i in special else dot for i, dot in zip(ids, dots, strict=True)]
    else:  # at the token that is predicted; the last bar is of the token to come
        bars, dots, names = [torch.nan, *bars], [torch.nan, *dots, torch.nan], [*names, "…"]
    legend = ("entropy of the prediction", "surprise: minus the log-probability of the token")
    return compose("Entropy along the text", [Track(names, bars, dots, legend, "nats")])


def _masked(subject: Subject, ids: Sequence[int]) -> Tensor:
    """Returns the log-probabilities at each token with a mask in its place: (T, V)."""
    mask = getattr(subject.tokenizer, "mask_token_id", None)
    if mask is None:
        raise ArgumentValueError("tokenizer", subject.tokenizer, "one with a mask token, for an encoder")
    rows = torch.tensor([[*ids]] * len(ids), device=subject.model.device)
    rows.fill_diagonal_(mask)
    logits = []
    with torch.inference_mode():
        for start in range(0, len(ids), 32):
            part = subject.model(rows[start : start + 32]).logits
            logits.append(
                part[torch.arange(len(part)), torch.arange(start, start + len(part))].cpu().double()
            )
    return torch.cat(logits).log_softmax(dim=-1)
