"""sentence-transformers as a user calls it, on its PyTorch backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from minitx.bench.engine import Engine, Setup
from minitx.bench.engines.texts import unpoolable
from minitx.bench.engines.transformers_eager import quiet
from minitx.bench.workloads import Call, Family, Workload


class SentenceTransformers(Engine):
    """sentence-transformers with its defaults.

    `encode` sorts texts by length and pads batches of 32.

    A folder without its files, such as a plain BERT, gets the mean of the tokens, as there.
    """

    name: ClassVar[str] = "sentence-transformers"
    packages: ClassVar[tuple[str, ...]] = ("sentence-transformers", "transformers")
    calls: ClassVar[frozenset[Call]] = frozenset(("embed", "import"))
    families: ClassVar[tuple[Family, ...]] = ("encoder",)
    imports: ClassVar[str] = "import sentence_transformers"
    model: Any

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: texts need a tokenizer."""
        return super().reason(setup, workload) or unpoolable(setup.folder)

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint."""
        import sentence_transformers

        quiet()
        options: dict[str, Any] = {"device": setup.device, "model_kwargs": {"dtype": setup.dtype}}
        self.model = sentence_transformers.SentenceTransformer(str(setup.folder), **options)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Returns vectors of length 1, (N, E)."""
        vectors: Tensor = self.model.encode(
            list(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.float().cpu()
