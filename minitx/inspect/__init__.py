"""Inspection of models: module summaries, comparison with transformers, explanations, pictures."""

from minitx.inspect.compare.report import Report, render_report
from minitx.inspect.compare.verify import verify
from minitx.inspect.estimate import Estimate, estimate
from minitx.inspect.summary import Summary, render, summarize
from minitx.inspect.taps import Record, Selection, ablate, freeze, patch, record, steer, tap
from minitx.inspect.trace import Entry, Step, Trace, trace
from minitx.pictures.heatmap import attention_picture, similarity_picture

__all__ = [
    "Entry",
    "Estimate",
    "Record",
    "Report",
    "Selection",
    "Step",
    "Summary",
    "Trace",
    "ablate",
    "attention_picture",
    "estimate",
    "freeze",
    "patch",
    "record",
    "render",
    "render_report",
    "similarity_picture",
    "steer",
    "summarize",
    "tap",
    "trace",
    "verify",
]
