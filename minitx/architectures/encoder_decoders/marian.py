"""Marian (arXiv:1804.00344): the OPUS translation models, one per pair of languages.

Differs from BART: sinusoidal positions, no norm after the embedding; the two languages may have separate
vocabularies; the decoder scales `inputs_embeds` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture, usual_names
from minitx.architectures.encoder_decoders import bart
from minitx.config import HeadConfig, ModelConfig, SinusoidalPositions


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    # 58100 is the padding of the vocabularies that most of these models have.
    positions = SinusoidalPositions(kind="tensor2tensor")
    tokens: dict[str, Any] = {"pad_token_id": 58100, "decoder_start_token_id": 58100, "eos_token_id": 0}
    config = bart.read(hf, embedding_norm=False, positions=positions, **tokens)
    shared = hf.flag("share_encoder_decoder_embeddings", True) and config.shared_embeddings
    inputs = replace(config.text_inputs, vocab_size=target_size(hf), scale_inputs_embeds=True)
    return replace(config, decoder_inputs=inputs, shared_embeddings=shared)


def target_size(hf: ConfigReader) -> int:
    """Returns the size of the decoder's vocabulary."""
    size = hf.size_or_none("decoder_vocab_size")
    return size if size and not hf.flag("share_encoder_decoder_embeddings", True) else hf.size("vocab_size")


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return {"seq2seq-lm": replace(bart.word_head(hf)["seq2seq-lm"], num_labels=target_size(hf))}


def fresh_names(names: tuple[str, ...], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the usual name, or the encoder's own if it shares nothing, since it then has no other."""
    shared = config.get("share_encoder_decoder_embeddings", True)
    return usual_names(names, config) if shared else names[:1]


ARCHITECTURE = Architecture(
    model_types={"marian": "Marian"},
    classes={"seq2seq-lm": "MarianMTModel"},
    read=read,
    heads=heads,
    prefix="model.",
    weights=bart.names(embedding_norm=False, positions=False),
    head_weights={"seq2seq-lm": bart.WORD_HEAD},
    unused_tensors=("encoder.embed_positions", "decoder.embed_positions"),
    canonical_names=fresh_names,
    frozen=(bart.BIAS,),
)
