"""Text pipelines."""
