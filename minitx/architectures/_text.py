"""Reading the text inputs of a model, which most architectures describe with the same keys."""

from __future__ import annotations

from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.config import TextInputs


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
