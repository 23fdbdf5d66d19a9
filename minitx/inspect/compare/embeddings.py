"""Embeddings of minitx and of transformers for the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitx.inspect.compare.reference import import_transformers, load_reference
from minitx.inspect.compare.verify import compare_batch, pair
from minitx.layers.token_pooling import names_of
from minitx.models import Model
from minitx.pipelines import EmbeddingSettings
from minitx.pipelines.embedding.embed import finish, prompt_length, token_limit, tokenize
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
    limit, start = token_limit(model, tokenizer, settings.max_length), prompt_length(tokenizer, settings)
    inputs: dict[str, Tensor] = dict(tokenize(tokenizer, settings.prepare(texts), limit))
    if not model.config.text_inputs.type_vocab_size:
        inputs.pop("token_type_ids", None)
    entries = compare_batch(model, reference, pair(model, reference), inputs)
    pooled = pool_reference(reference(**inputs), inputs["attention_mask"].bool(), settings, start)
    return Parity(
        import_transformers().__version__,
        float((vectors - pooled).abs().max()),
        max(entry.output.absolute for entry in entries),
    )


def pool_reference(output: Any, mask: Tensor, settings: EmbeddingSettings, start: int) -> Tensor:
    """Pools an output of transformers with the formulas of sentence-transformers, without minitx's code."""
    hidden = output.last_hidden_state
    count = mask.cumsum(1)
    mask = mask & (count > start)
    weight = mask[..., None].to(hidden.dtype)
    position = count[..., None] * weight
    total, rows = (hidden * weight).sum(1), torch.arange(len(hidden))
    formulas = {
        "mean": lambda: total / weight.sum(1),
        "mean_sqrt_len": lambda: total / weight.sum(1).sqrt(),
        "weighted_mean": lambda: (hidden * position).sum(1) / position.sum(1),
        "max": lambda: hidden.masked_fill(weight == 0, -torch.inf).max(1).values,
        "first": lambda: hidden[rows, mask.int().argmax(1)],
        "last": lambda: hidden[rows, position[..., 0].argmax(1)],
        "pooler": lambda: output.pooler_output,
    }
    vectors = torch.cat([formulas[name]() for name in names_of(settings.pooling)], dim=-1)
    return finish(vectors, settings, None)
