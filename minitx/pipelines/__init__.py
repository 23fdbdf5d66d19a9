"""Tasks from raw inputs to results, one file each."""

from minitx.pipelines.text.embed import EmbeddingSettings, embed, embedding_settings

__all__ = ["EmbeddingSettings", "embed", "embedding_settings"]
