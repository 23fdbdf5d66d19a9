"""The model families. An architecture is a configuration of these; no architecture's name is in here.

EncoderModel          every token attends to the whole sequence
DecoderModel          every token attends to earlier ones
EncoderDecoderModel   a decoder that attends to the output of an encoder
TableModel            an encoder of a question and a table
"""

from minitx.models.base import Model
from minitx.models.decoder import CausalModel, DecoderModel
from minitx.models.encoder import EncoderModel
from minitx.models.encoder_decoder import EncoderDecoderModel
from minitx.models.output import ModelOutput
from minitx.models.table import TableModel

__all__ = [
    "CausalModel",
    "DecoderModel",
    "EncoderDecoderModel",
    "EncoderModel",
    "Model",
    "ModelOutput",
    "TableModel",
]
