"""M2M100 (arXiv:2010.11125) and NLLB-200 (arXiv:2207.04672, dense): many languages to many.

Differs from BART: pre-norm with a final norm for each stack, no norm after the embedding, which is scaled;
fairseq's sinusoidal positions, counted from the padding id; the last projection has no bias.
"""

from __future__ import annotations

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoder_decoders import bart
from minitx.config import HeadConfig, ModelConfig, SinusoidalPositions


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.size("d_model", least=4)  # two pairs of features, for the shortest and the longest wave
    if hf.token_id("pad_token_id", 1) is None:
        raise hf.error(
            "pad_token_id", hf.config["pad_token_id"], "a token id", "positions are counted from it"
        )
    return bart.read(
        hf,
        norm="pre",
        embedding_norm=False,
        positions=SinusoidalPositions(kind="fairseq", numbering="padding"),
        activation_function="relu",
        scale_embedding=True,
        attention_dropout=0.1,
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return bart.word_head(hf, bias=False)


ARCHITECTURE = Architecture(
    model_types={"m2m_100": "M2M100"},
    read=read,
    heads=heads,
    prefix="model.",
    weights=bart.names(norm="pre", embedding_norm=False, positions=False),
    head_weights={"seq2seq-lm": {"head.projection": "lm_head"}},
    unused_tensors=(
        "encoder.version",
        "decoder.version",
        "encoder.embed_positions.weights",
        "decoder.embed_positions.weights",
    ),
)
