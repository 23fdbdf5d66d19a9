"""Pictures of a model at work: `picture` draws one of the registered kinds."""

from minitx.inspect.inputs import Subject
from minitx.inspect.pictures import attention, decoding, lens, positions, vectors, weights
from minitx.inspect.pictures.kinds import KINDS, Kind, picture, picture_kind

__all__ = [
    "KINDS",
    "Kind",
    "Subject",
    "attention",
    "decoding",
    "lens",
    "picture",
    "picture_kind",
    "positions",
    "vectors",
    "weights",
]
