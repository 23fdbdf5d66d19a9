"""Tasks from raw inputs to results, one file each; names are imported at first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below, for type checkers
    from minitx.pipelines.embedding.embed import embed as embed
    from minitx.pipelines.embedding.settings import EmbeddingSettings as EmbeddingSettings
    from minitx.pipelines.embedding.settings import embedding_settings as embedding_settings
    from minitx.pipelines.example import example_model as example_model
    from minitx.pipelines.generation.batches import generate_batches as generate_batches
    from minitx.pipelines.generation.compare import compare as compare
    from minitx.pipelines.generation.conversation import Conversation as Conversation
    from minitx.pipelines.generation.expressions import strategy_from_text as strategy_from_text
    from minitx.pipelines.generation.records import row_record as row_record
    from minitx.pipelines.generation.strategies import strategy_from_options as strategy_from_options

_MODULES = {
    "Conversation": "generation.conversation",
    "compare": "generation.compare",
    "EmbeddingSettings": "embedding.settings",
    "embed": "embedding.embed",
    "embedding_settings": "embedding.settings",
    "example_model": "example",
    "generate_batches": "generation.batches",
    "row_record": "generation.records",
    "strategy_from_options": "generation.strategies",
    "strategy_from_text": "generation.expressions",
}
__all__ = [
    "Conversation",
    "EmbeddingSettings",
    "compare",
    "embed",
    "embedding_settings",
    "example_model",
    "generate_batches",
    "row_record",
    "strategy_from_options",
    "strategy_from_text",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minitx.pipelines' has no attribute {name!r}")
    return getattr(import_module(f"minitx.pipelines.{_MODULES[name]}"), name)
