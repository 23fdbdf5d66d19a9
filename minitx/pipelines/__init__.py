"""Tasks from text to answer, one file each."""

from minitx.pipelines.text.embed import EmbeddingSettings, embed, embedding_settings

__all__ = ["EmbeddingSettings", "embed", "embedding_settings"]
