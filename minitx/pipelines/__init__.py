"""Tasks from raw inputs to results, one file each."""

from minitx.pipelines.embedding.embed import embed
from minitx.pipelines.embedding.settings import EmbeddingSettings, embedding_settings
from minitx.pipelines.example import example_model
from minitx.pipelines.generation.batches import generate_batches
from minitx.pipelines.generation.conversation import Conversation
from minitx.pipelines.generation.records import row_record
from minitx.pipelines.generation.strategies import strategy_from_options

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
