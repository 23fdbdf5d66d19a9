"""Inspection of models: module summaries, comparison with transformers, explanations, pictures."""

from minitx.inspect.compare.report import Report, render_report
from minitx.inspect.compare.verify import verify
from minitx.inspect.summary import Summary, render, summarize
from minitx.pictures.heatmap import similarity_picture

__all__ = [
    "Report",
    "Summary",
    "render",
    "render_report",
    "similarity_picture",
    "summarize",
    "verify",
]
