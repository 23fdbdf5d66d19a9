"""Inspection of models: module summaries, comparison with transformers, explanations, pictures."""

from minitx.inspect.compare.report import Report, render_report
from minitx.inspect.compare.verify import verify
from minitx.inspect.pictures.decoding import chain_picture, tree_picture
from minitx.inspect.pictures.kinds import picture, picture_kind
from minitx.inspect.pictures.subject import Subject
from minitx.inspect.summary import Summary, render, summarize
from minitx.inspect.taps import Record, Selection, ablate, freeze, patch, record, steer, tap
from minitx.pictures.heatmap import attention_picture, grid_picture, similarity_picture
from minitx.pictures.picture import Picture

__all__ = [
    "Picture",
    "Record",
    "Report",
    "Selection",
    "Subject",
    "Summary",
    "ablate",
    "attention_picture",
    "chain_picture",
    "freeze",
    "grid_picture",
    "patch",
    "picture",
    "picture_kind",
    "record",
    "render",
    "render_report",
    "similarity_picture",
    "steer",
    "summarize",
    "tap",
    "tree_picture",
    "verify",
]
