"""The registry of pictures: a kind is one function from a `Subject` and options to a `Picture`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from minitx.inspect.inputs import Subject, Text, check_eval
from minitx.models import Model
from minitx.pictures.figure import import_figure
from minitx.pictures.picture import Picture
from minitx.tokenizer import Tokenizer
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_callable,
    check_choice,
    check_flags,
    check_strings,
    check_type,
)

Draw = Callable[..., Picture]


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        name: such as "cross-attention".
        summary: one line.
        draw: the function; its keyword-only parameters are the options.
        takes_text: whether it needs a text.
        takes_several: whether it draws several texts, as rows of a batch.
    """

    name: str
    summary: str
    draw: Draw
    takes_text: bool = True
    takes_several: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options."""
        parameters = inspect.signature(self.draw).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the options without a default."""
        parameters = inspect.signature(self.draw).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)


KINDS: dict[str, Kind] = {}


def picture_kind(
    name: str, summary: str, *, takes_text: bool = True, takes_several: bool = False
) -> Callable[[Draw], Draw]:
    """Registers a function as a kind of picture, for `picture` and `minitx picture`.

    Args:
        name: of the kind; one that exists is replaced.
        summary: one line.
        takes_text: whether it needs a text.
        takes_several: whether it draws several texts, as rows of a batch.

    Raises:
        ArgumentTypeError: a name or summary that is no string, or not a function.

    Example:
        >>> @minitx.inspect.picture_kind("norms", "norms of the hidden states")
        ... def norms(subject, *, side=None):
        ...     output, seen = subject.run("**.residual.after")
        ...     values = torch.cat([value.norm(dim=-1) for value in seen.values()])  # (layers, T)
        ...     return minitx.inspect.grid_picture(values, [*seen], subject.names(subject.side(side)))
    """
    check_strings(name=name, summary=summary)
    check_flags(takes_text=takes_text, takes_several=takes_several)

    def _register(draw: Draw) -> Draw:
        check_callable("draw", draw)
        KINDS[name] = Kind(name, summary, draw, takes_text, takes_several)
        return draw

    return _register


def picture(
    kind: str,
    model: Model,
    text: Text | Sequence[str] | Tensor | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    target: Text | None = None,
    **options: Any,
) -> Picture:
    """Draws a picture of a model at work on a text, such as its attention weights.

    Args:
        kind: such as "attention"; `minitx picture --help` and the gallery of the documentation list them.
        model: of any family, in eval mode.
        text: a text, or its token ids; several texts for kinds that compare rows of a batch. Some kinds need
            none.
        tokenizer: of the model; None: the text is ids.
        target: the decoder input of an encoder-decoder, without start token; None: the answer that the model
            generates with `Greedy()`.
        **options: of the kind, such as `layer` and `head`, which count from 0.

    Returns:
        The picture, which a notebook shows; its `save` writes a .png, .svg or .html file.

    Raises:
        ImportError: matplotlib is not installed.
        ArgumentTypeError, ArgumentValueError: an unknown kind or option, a kind that does not fit the model,
            or a text that the model cannot take.

    Example:
        >>> minitx.inspect.picture("attention", model, "A cat sat.", tokenizer=tokenizer, layer=2, head=1)
    """
    chosen = KINDS[check_choice("kind", kind, KINDS, "minitx picture --help describes them")]
    check_eval(model)
    check_type("tokenizer", tokenizer, Tokenizer | None, "a Tokenizer or None")
    for name, value in options.items():
        if name not in chosen.options:
            its = ", ".join(chosen.options)
            hint = f"its options are {its}" if its else "it has no options"
            raise ArgumentValueError(name, value, f"left out for kind={kind!r}", hint)
    for name in chosen.required:
        if name not in options:
            raise ArgumentValueError(name, None, f"passed for kind={kind!r}")
    texts = _texts(text)
    if not texts and chosen.takes_text:
        raise ArgumentValueError("text", text, f"a text for kind={kind!r}")
    if len(texts) > 1 and not chosen.takes_several:
        raise ArgumentValueError("text", text, f"one text for kind={kind!r}, not {len(texts)}")
    import_figure()  # before the forward, if matplotlib is not installed
    return chosen.draw(Subject(model, tokenizer, texts, target), **options)


def _texts(text: Any) -> tuple[Text, ...]:
    """Returns the texts of an argument, each a string or ids.

    Raises:
        ArgumentTypeError: something else.
    """
    if text is None:
        return ()
    plain = text.tolist() if hasattr(text, "tolist") else text
    if isinstance(plain, str):
        return (plain,)
    if not isinstance(plain, Sequence) or isinstance(plain, bytes):
        raise ArgumentTypeError("text", text, "a text, several texts, or token ids")
    if all(isinstance(item, str | Sequence) for item in plain):
        return tuple(plain)
    return (plain,)


def misfit(kind: str, needed: str, hint: str = "") -> ArgumentValueError:
    """Returns the error about a kind that does not fit the model."""
    return ArgumentValueError("kind", kind, f"one that fits the model; {kind} needs {needed}", hint)
