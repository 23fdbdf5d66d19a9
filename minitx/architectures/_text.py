"""Parts of a config that most architectures share: text inputs, attention, feed-forward."""

from __future__ import annotations

from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.config import AttentionConfig, FeedForwardConfig, TextInputs


def text_inputs(
    hf: ConfigReader,
    size: int,
    *,
    pad: int | None = None,
    length: str | int = "max_position_embeddings",
    **fields: Any,
) -> TextInputs:
    """Returns the text inputs of a config.json.

    Args:
        hf: the config.
        size: hidden_size, and width of the embeddings unless `fields` has another.
        pad: the padding id if the file has none.
        length: the number of positions, or its key.
        fields: other fields of `TextInputs`.
    """
    vocab_size = hf.size("vocab_size")
    positions = hf.size(length) if isinstance(length, str) else length
    return TextInputs(
        vocab_size=vocab_size,
        hidden_size=size,
        pad_token_id=hf.pad_token_id(vocab_size, pad),
        max_position_embeddings=positions,
        **{"embedding_size": size} | fields,
    )


def attention(hf: ConfigReader, size: int, heads: int, **fields: Any) -> AttentionConfig:
    """Returns an attention whose heads share hidden_size evenly by default; `fields` are other fields."""
    if "head_dim" not in fields:
        fields["head_dim"] = hf.head_dim(size, heads)
    return AttentionConfig(num_attention_heads=heads, **fields)


def feed_forward(
    size: int, act: str, output_dropout: float | None = None, **fields: Any
) -> FeedForwardConfig:
    """Returns a feed-forward network of inner width `size`; `fields` are other fields of the config."""
    return FeedForwardConfig(intermediate_size=size, hidden_act=act, output_dropout=output_dropout, **fields)
