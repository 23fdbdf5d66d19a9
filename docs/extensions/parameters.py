"""Let mkdocstrings show parameters of strategies, which are documented at run time."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import griffe

import minitx.decoding


class Parameters(griffe.Extension):
    """Takes docstrings and defaults of strategies from the classes themselves."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Edit the classes of a loaded package."""
        if pkg.name != "minitx":
            return
        pending: list[type[minitx.decoding.Strategy]] = [minitx.decoding.Strategy]
        while pending:
            kind = pending.pop()
            pending.extend(kind.__subclasses__())
            document(
                pkg[f"{kind.__module__}.{kind.__name__}".removeprefix("minitx.")], kind
            )


def document(documented: griffe.Class, kind: type[minitx.decoding.Strategy]) -> None:
    """Copy docstring and defaults of a class to its documentation."""
    if documented.docstring is not None:
        documented.docstring.value = inspect.cleandoc(kind.__doc__ or "")
    for field in dataclasses.fields(kind):
        if field.name in documented.members:  # declared here, not inherited
            documented.members[field.name].value = repr(field.default)
