"""Parts that the decoders' files share: the pre-norm stack, heads and layer types."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.mapping import Table
from minitx.config import (
    AttentionConfig,
    AttentionPositions,
    FeedForwardConfig,
    HeadConfig,
    LayerConfig,
    NormConfig,
    StackConfig,
)
from minitx.config.model import FULL, SLIDING


def pre_norm_decoder(
    size: int,
    layers: int,
    attention: AttentionConfig,
    feed_forward: FeedForwardConfig,
    norm: NormConfig,
    *,
    positions: AttentionPositions | None = None,
    causal: bool = True,
    **more: Any,
) -> StackConfig:
    """Returns a stack of pre-norm layers.

    Args:
        size: hidden_size.
        layers: number of layers.
        attention: of every layer.
        feed_forward: of every layer.
        norm: of every layer, and the final one.
        positions: as in `StackConfig`.
        causal: as in `StackConfig`; `is_causal` of the file, where the architecture has it.
        more: other fields of `LayerConfig`.
    """
    layer = LayerConfig(attention=attention, feed_forward=feed_forward, norm=norm, norm_placement="pre")
    return StackConfig(
        causal=causal,
        hidden_size=size,
        num_hidden_layers=layers,
        layer=replace(layer, **more),
        positions=positions,
    )


def decoder_heads(
    hf: ConfigReader,
    *,
    tied: bool = False,
    bias: bool = False,
    softcap: float | None = None,
    dropout: float | None = None,
) -> dict[str, HeadConfig]:
    """Returns the heads for the next token, for the sequence (its last token), and for every token.

    Args:
        hf: the config.
        tied: default of `tie_word_embeddings`: the projection of the first is the word embedding.
        bias: whether that projection has a bias.
        softcap: of its logits.
        dropout: before the projection of the last; None: from the usual keys, or 0.1.
    """
    labels = hf.num_labels()
    if dropout is None:
        dropout = 0.1
        for key in ("hidden_dropout", "classifier_dropout"):  # the last one wins
            if hf.get(key, None) is not None:
                dropout = hf.probability(key)
    return {
        "causal-lm": HeadConfig(
            task="causal-lm",
            num_labels=hf.size("vocab_size"),
            bias=bias,
            tied=hf.flag("tie_word_embeddings", tied),
            softcap=softcap,
        ),
        "sequence-classification": HeadConfig(
            task="sequence-classification",
            num_labels=labels,
            pooling="last",
            bias=False,
            problem_type=hf.problem_type(),
        ),
        "token-classification": HeadConfig(
            task="token-classification", num_labels=labels, classifier_dropout=dropout
        ),
    }


def tied_decoder_heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the heads of an architecture that ties its head to the word embedding by default."""
    return decoder_heads(hf, tied=True)


DECODER_HEADS: dict[str, Table] = {
    "causal-lm": {"head.projection": "lm_head"},
    "sequence-classification": {"head.projection": "score"},
    "token-classification": {"head.projection": "score"},
}
# of architectures without a head for every token
TWO_HEADS = {task: DECODER_HEADS[task] for task in ("causal-lm", "sequence-classification")}


def two_decoder_heads(hf: ConfigReader, **options: Any) -> dict[str, HeadConfig]:
    """Returns the heads of `TWO_HEADS`; the options are those of `decoder_heads`."""
    heads = decoder_heads(hf, **options)
    return {task: heads[task] for task in TWO_HEADS}


def layer_types(hf: ConfigReader, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Returns `layer_types` of the config, one per layer; `usual` if it has none.

    Raises:
        ValueError: the wrong number of types, or an unknown one.
    """
    stored = hf.get("layer_types", None)
    if stored is None:
        return usual
    if (
        not isinstance(stored, list)
        or len(stored) != len(usual)
        or any(kind not in (FULL, SLIDING) for kind in stored)
    ):
        expected = f"a list of {FULL!r} or {SLIDING!r} for each of {len(usual)} layers"
        raise hf.error("layer_types", stored, expected)
    return tuple(stored)


def with_windows(stack: StackConfig, types: tuple[str, ...], window: int | None) -> StackConfig:
    """Returns the stack with these layer types and this sliding window.

    In a causal stack the window includes the query; else it is the distance to either side, without it.

    Raises:
        ValueError: sliding layers without a window.
    """
    if window is None and SLIDING in types:
        raise ValueError(
            f"config.json: layer_types has {SLIDING!r}, but no window is in use; set sliding_window (and "
            "use_sliding_window, where the architecture has it)."
        )
    width = None if window is None else window + (not stack.causal)
    return replace(stack, layer_types=types, sliding_window=width)
