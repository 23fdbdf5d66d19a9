"""The model families. An architecture is a configuration of these; no architecture's name is in here.

EncoderModel          reads a text
DecoderModel          goes on with a text
EncoderDecoderModel   reads one text and writes another
"""

from minitx.models.decoder import CausalModel, DecoderModel
from minitx.models.encoder_decoder import EncoderDecoderModel
from minitx.models.model import EncoderModel, Model, ModelOutput

__all__ = ["CausalModel", "DecoderModel", "EncoderDecoderModel", "EncoderModel", "Model", "ModelOutput"]
