"""Embeddings of minitx and of transformers for the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.inspect.compare.reference import import_transformers, load_reference
from minitx.inspect.compare.verify import compare_batch, pair
from minitx.models import Model
from minitx.pipelines import EmbeddingSettings
from minitx.tokenizer import Tokenizer


@dataclass(frozen=True)
class Parity:
    """The largest absolute differences between minitx and transformers.

    Attributes:
        transformers: its version.
        embeddings: of the embeddings.
        hidden_states: of the output of any module.
    """

    transformers: str
    embeddings: float
    hidden_states: float

    def __str__(self) -> str:
        """A sentence."""
        if self.embeddings == self.hidden_states == 0:
            return f"Against transformers {self.transformers}: every number is the same, bit for bit."
        return (
            f"Against transformers {self.transformers}: embeddings differ by at most "
            f"{self.embeddings:.1e}, hidden states by {self.hidden_states:.1e}."
        )


@torch.inference_mode()
def compare_embeddings(
    folder: Path,
    model: Model,
    tokenizer: Tokenizer,
    settings: EmbeddingSettings,
    texts: Sequence[str],
    vectors: Tensor,
) -> Parity | None:
    """Runs transformers on the same texts; None if it is not installed.

    Args:
        folder: of the checkpoint.
        model, tokenizer, settings: of minitx, loaded from the folder.
        texts: N texts.
        vectors: (N, E), their embeddings by minitx.
    """
    if find_spec("transformers") is None:
        return None
    reference: Any = load_reference(folder, model)
    inputs: dict[str, Tensor] = dict(tokenizer(settings.prepare(texts), padding=True))
    if not model.config.text_inputs.type_vocab_size:
        inputs.pop("token_type_ids", None)
    entries = compare_batch(model, reference, pair(model, reference), inputs)
    pooled = pool_reference(reference(**inputs), inputs["attention_mask"].bool(), settings)
    return Parity(
        import_transformers().__version__,
        float((vectors - pooled).abs().max()),
        max(entry.output.absolute for entry in entries),
    )


def pool_reference(output: Any, mask: Tensor, settings: EmbeddingSettings) -> Tensor:
    """Pools an output of transformers with the formulas of sentence-transformers, without minitx's code."""
    hidden = output.last_hidden_state
    if settings.pooling == "mean":
        weight = mask[..., None].to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    else:
        pooled = hidden[:, 0] if settings.pooling == "first" else output.pooler_output
    return F.normalize(pooled, dim=-1) if settings.normalize else pooled
