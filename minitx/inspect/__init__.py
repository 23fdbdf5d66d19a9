"""Inspection of models: module summaries, comparison with transformers, explanations, pictures."""

from minitx.inspect.compare.report import Report, render_report
from minitx.inspect.compare.verify import verify
from minitx.inspect.summary import Summary, render, summarize
from minitx.inspect.taps import Record, Selection, ablate, freeze, patch, record, steer, tap
from minitx.pictures.heatmap import attention_picture, similarity_picture

__all__ = [
    "Record",
    "Report",
    "Selection",
    "Summary",
    "ablate",
    "attention_picture",
    "freeze",
    "patch",
    "record",
    "render",
    "render_report",
    "similarity_picture",
    "steer",
    "summarize",
    "tap",
    "verify",
]
