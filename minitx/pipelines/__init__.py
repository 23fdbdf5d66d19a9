"""Tasks from raw inputs to results, one file each."""

from minitx.pipelines.text.embed import embed
from minitx.pipelines.text.settings import EmbeddingSettings, embedding_settings

__all__ = ["EmbeddingSettings", "embed", "embedding_settings"]
