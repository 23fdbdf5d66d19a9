"""Inspection of models: module summaries, comparison with transformers, explanations, pictures."""

from minitx.inspect.compare.report import Report, render_report
from minitx.inspect.compare.verify import verify
from minitx.inspect.summary import Summary, render, summarize
from minitx.pictures.heatmap import attention_picture, similarity_picture

__all__ = [
    "Report",
    "Summary",
    "attention_picture",
    "render",
    "render_report",
    "similarity_picture",
    "summarize",
    "verify",
]
