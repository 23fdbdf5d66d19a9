"""Passes that quantise the linear projections of a model, their inverse, and the distance of the outputs."""

from minitx.optimize.quantize.passes import int4_weights, int8_dynamic, int8_weights, undo_quantization
from minitx.optimize.quantize.products import int8_is_faster
from minitx.optimize.quantize.quality import Quality, quality
from minitx.optimize.quantize.report import QuantizationReport, QuantizedLayer, quantization_report

__all__ = [
    "Quality",
    "QuantizationReport",
    "QuantizedLayer",
    "int4_weights",
    "int8_dynamic",
    "int8_is_faster",
    "int8_weights",
    "quality",
    "quantization_report",
    "undo_quantization",
]
