"""Tasks from raw inputs to results, one file each."""

from minitx.pipelines.example import example_model
from minitx.pipelines.text.batches import generate_batches
from minitx.pipelines.text.conversation import Conversation
from minitx.pipelines.text.embed import embed
from minitx.pipelines.text.records import row_record
from minitx.pipelines.text.settings import EmbeddingSettings, embedding_settings
from minitx.pipelines.text.strategies import strategy_from_options

__all__ = [
    "Conversation",
    "EmbeddingSettings",
    "embed",
    "embedding_settings",
    "example_model",
    "generate_batches",
    "row_record",
    "strategy_from_options",
]
