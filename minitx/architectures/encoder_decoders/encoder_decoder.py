"""Any encoder with any decoder (arXiv:1907.12461): BERT2BERT, BERT2GPT-2 and similar models.

Differs from BART: encoder and decoder are separate architectures, each with its own config, vocabulary and
names; the decoder's layers get cross-attention. If the two differ in width, the encoder output is projected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from types import SimpleNamespace
from typing import Any

from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.known_keys import second_names
from minitx.architectures.mapping import renamed
from minitx.config import HeadConfig, ModelConfig, replace_in
from minitx.models import Model
from minitx.models.initialization import Rules, default_draw

WORDS = ("causal-lm", "masked-lm")  # the language-modelling head of a decoder, or of an encoder used as one

# First parts of the names of each half's parameters, here and in its own architecture.
ENCODER_PARTS = {"embedder.": "embedder.", "encoder.": "encoder."}
DECODER_PARTS = {"decoder_embedder.": "embedder.", "decoder.": "decoder.", "head.": "head."}


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("tie_encoder_decoder", False)
    encoder, decoder = (part(hf, key)[0].read(part(hf, key)[1]) for key in ("encoder", "decoder"))
    if encoder.encoder is None:
        raise hf.nested("encoder").error("model_type", hf.nested("encoder").name("model_type"), "an encoder")
    if encoder.decoder is not None:
        kind = hf.nested("encoder").name("model_type")
        raise hf.nested("encoder").error("model_type", kind, 'an encoder without a decoder, such as "bert"')
    inputs, pad = decoder.text_inputs, hf.get("pad_token_id", None)
    if pad is not None:
        pad = hf.pad_token_id(inputs.vocab_size)
    if inputs.padding_is_trained:
        inputs = replace(inputs, pad_token_id=pad)
    stack = replace(replace_in(decoder.stack, "layer", cross_attention=True), causal=True)
    return ModelConfig(
        initializer_range=decoder.initializer_range,
        inputs=encoder.inputs,
        encoder=encoder.stack,
        decoder_inputs=inputs,
        decoder=stack,
        shared_embeddings=False,
        encoder_projection=encoder.stack.hidden_size != stack.hidden_size,
        decoder_start_token_id=hf.token_id("decoder_start_token_id"),
    )


def part(hf: ConfigReader, key: str) -> tuple[Architecture, ConfigReader]:
    """Returns the architecture of one half, and its config as that of a separate model."""
    half = hf.nested(key)
    half.rename(second_names(half.name("model_type")))
    if key == "decoder":
        for name in ("is_decoder", "add_cross_attention"):
            if not half.flag(name, False):
                raise half.error(name, False, "true for the decoder of an encoder-decoder")
        half.expect("is_causal", None)  # other values change the cross-attention of some architectures
        half = half.with_values(is_decoder=False, add_cross_attention=False)
    half.expect("cross_attention_hidden_size", None)
    return architecture(half.name("model_type")), half


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    _, of_decoder = (half.heads(config) for half, config in (part(hf, "encoder"), part(hf, "decoder")))
    head = next(head for task, head in of_decoder.items() if task in WORDS)
    return {"seq2seq-lm": replace(head, task="seq2seq-lm")}


def composed(config: Mapping[str, Any]) -> Architecture:
    """Returns the architecture of a config, with the weight tables of its two halves.

    Raises:
        ValueError: a missing half, or a decoder without cross-attention.
    """
    hf = ConfigReader(config)
    encoder, decoder = (architecture(hf.nested(key).name("model_type")) for key in ("encoder", "decoder"))
    if not decoder.cross_attention_weights:
        kind = hf.nested("decoder").name("model_type")
        raise hf.nested("decoder").error("model_type", kind, "a decoder with cross-attention")
    prefixes = {"embedder.": "decoder_embedder.", "encoder.": "decoder."}
    weights = renamed(
        {**decoder.weights, **decoder.cross_attention_weights}, prefixes, f"decoder.{decoder.prefix}"
    )
    head = next(table for task, table in decoder.head_weights.items() if task in WORDS)
    return replace(
        ARCHITECTURE,
        composed=None,
        weights={
            **renamed(encoder.weights, {}, "encoder."),
            **{left: right for left, right in weights.items() if "pooler.dense" not in left},
            "encoder_projection": "enc_to_dec_proj",
        },
        head_weights={"seq2seq-lm": renamed(head, prefixes, "decoder.")},
        unused_tensors=tuple(
            prefix + name.replace("{i}", i)
            for prefix, i, half in (
                ("encoder.", "{i}", encoder),
                (f"decoder.{decoder.prefix}", "{j}", decoder),
            )
            for name in half.unused_tensors
        ),
        layers=partial(layers_of_both, encoder, decoder),
        initialization=initialization,
    )


def initialization(model: Model) -> Rules:
    """Returns the rule of each parameter: that of its half, with the half's own `initializer_range`."""
    assert model.checkpoint is not None
    hf, rules = ConfigReader(model.checkpoint.config), {}
    for key, parts in (("encoder", ENCODER_PARTS), ("decoder", DECODER_PARTS)):
        half, reader = part(hf, key)
        config = half.read(reader)
        alone = SimpleNamespace(
            config=config, checkpoint=reader, task="causal-lm" if key == "decoder" else None
        )
        own = half.initialization(alone)
        for name, _ in model.named_parameters(remove_duplicate=False):
            if name.startswith(tuple(parts)):
                path, _, leaf = name.rpartition(".")
                names = [name.replace(*pair, 1) for pair in parts.items()]
                rule = next(
                    (own[pattern] for pattern in own if any(fnmatchcase(n, pattern) for n in names)), None
                )
                usual = default_draw(model.get_submodule(path), leaf, config.initializer_range)
                rules[name] = usual if rule is None else rule
    return rules


def layers_of_both(encoder: Architecture, decoder: Architecture, config: ModelConfig) -> list[dict[str, int]]:
    """Returns the placeholders of the layers of both halves: {i} in the encoder, {j} in the decoder."""
    of_decoder = decoder.layers(replace(config, encoder=None))
    return [
        *encoder.layers(replace(config, decoder=None)),
        *({"j" if key == "i" else key: value for key, value in values.items()} for values in of_decoder),
    ]


ARCHITECTURE = Architecture(
    model_types={"encoder-decoder": "EncoderDecoder"},
    classes={"seq2seq-lm": "EncoderDecoderModel"},
    read=read,
    heads=heads,
    prefix="",
    weights={},
    head_weights={"seq2seq-lm": {}},
    composed=composed,
)
