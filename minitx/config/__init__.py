"""Configuration of a model: frozen dataclasses, nested as the modules are, with Hugging Face's field names.

An architecture file reads a `config.json` into these; the layers are built from them alone. A choice between
alternatives (positions, feed-forward) is a union of small dataclasses, each with the fields of its kind only.
To try another arrangement, replace fields: `replace_in(config, "decoder.layer.attention", qk_norm="head")`.
"""

from minitx.config.base import (
    ValidatedConfig,
    replace_in,
)
from minitx.config.head import (
    AverageApproximation,
    CellLoss,
    CellSelection,
    HeadConfig,
    Pooling,
    ProblemType,
    TransformConfig,
)
from minitx.config.json_form import from_json, to_json
from minitx.config.layer import (
    AttentionConfig,
    ExpertsConfig,
    FeedForwardConfig,
    LayerConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    Parallel,
    QKNorm,
)
from minitx.config.model import (
    CustomInputs,
    Inputs,
    ModelConfig,
    Projection,
    StackConfig,
    TextInputs,
)
from minitx.config.positions import (
    Alibi,
    AttentionPositions,
    Disentangled,
    EmbeddedPositions,
    LearnedPositions,
    Numbering,
    Positions,
    RelativeBias,
    RopeConfig,
    RopeType,
    Rotary,
    SinusoidalPositions,
    Sinusoids,
)

__all__ = [
    "Alibi",
    "AttentionConfig",
    "AttentionPositions",
    "AverageApproximation",
    "CellLoss",
    "CellSelection",
    "CustomInputs",
    "Disentangled",
    "EmbeddedPositions",
    "ExpertsConfig",
    "FeedForwardConfig",
    "HeadConfig",
    "Inputs",
    "LayerConfig",
    "LearnedPositions",
    "ModelConfig",
    "NormConfig",
    "NormKind",
    "NormPlacement",
    "Numbering",
    "Parallel",
    "Pooling",
    "Positions",
    "ProblemType",
    "Projection",
    "QKNorm",
    "RelativeBias",
    "RopeConfig",
    "RopeType",
    "Rotary",
    "SinusoidalPositions",
    "Sinusoids",
    "StackConfig",
    "TextInputs",
    "TransformConfig",
    "ValidatedConfig",
    "from_json",
    "replace_in",
    "to_json",
]
