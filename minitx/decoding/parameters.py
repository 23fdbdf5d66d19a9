"""Parameters of decoding strategies, each declared once, by one field.

    min_p: Numbers = parameter(MinP, off=0.0, per_row=True, help="...", metavar="P")

The chain of processors, `repr`, `help()`, the per-row checks and the command-line options follow from these
fields.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

_KEY = "parameter"


@dataclass(frozen=True)
class Parameter:
    """The declaration of a parameter, from the metadata of its dataclass field.

    Attributes:
        processor: makes the processor from the value, from nothing where the value is True; None where the
            strategy itself uses the value.
        off: the default, at which the parameter changes nothing.
        per_row: the value may be a list with one number per row.
        help: one or two sentences for `help()` and `--help`.
        metavar: name of the value in `--help`; None for a flag or a parameter without an option.
    """

    processor: Callable[..., Any] | None
    off: Any
    per_row: bool = False
    help: str = ""
    metavar: str | None = None


def parameter(
    processor: Callable[..., Any] | None,
    *,
    off: Any,
    per_row: bool = False,
    help: str,
    metavar: str | None = None,
) -> Any:
    """Returns the dataclass field of a parameter; the arguments are the attributes of `Parameter`."""
    return field(default=off, metadata={_KEY: Parameter(processor, off, per_row, help, metavar)})


def parameters_of(strategy: Any) -> dict[str, Parameter]:
    """Returns the declared parameters of a strategy or its class by name, in the order of the fields."""
    return {each.name: each.metadata[_KEY] for each in fields(strategy) if _KEY in each.metadata}


def document(cls: type) -> None:
    """Appends an "Attributes:" section with the parameters that the class itself declares to its docstring.

    Works before and after the `dataclass` decorator.
    """
    own: Iterable[tuple[str, Any]] = vars(cls).items()
    declared = getattr(cls, "__dataclass_fields__", {}) if "__dataclass_fields__" in vars(cls) else {}
    texts = [
        textwrap.fill(
            f"{name}: {each.metadata[_KEY].help}", 108, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
        for name, each in [*own, *declared.items()]
        if isinstance(each, Field) and _KEY in each.metadata and each.default is not MISSING
    ]
    if texts:
        cls.__doc__ = "\n".join([f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes:", *texts, "    "])
