"""The options of `generate` about grammars; `GenerationOptions` documents them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from minitx.decoding.grammar.values import TextGrammar


class GrammarOptions(TypedDict, total=False):
    """Options of `generate`, `stream` and `explain` that restrict the text."""

    grammar: TextGrammar | None
    schema: Mapping[str, Any] | type | str | None
