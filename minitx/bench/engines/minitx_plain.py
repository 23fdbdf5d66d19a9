"""minitx as `minitx.load` returns a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

import minitx
from minitx.bench.engine import PADDED_TEXTS, TEMPERATURE, TOP_K, TOP_P, Rows, Setup
from minitx.bench.engines.batches import in_batches, padded
from minitx.bench.torch_engine import TorchEngine
from minitx.bench.workloads import Call, Workload


class Minitx(TorchEngine):
    """minitx, as minitx.load returns a model."""

    name: ClassVar[str] = "minitx"
    calls: ClassVar[frozenset[Call]] = frozenset(
        (
            *("encode", "embed", "classify", "prefill", "generate", "sample", "train_step"),
            *("load", "import", "start"),
        )
    )
    imports: ClassVar[str] = "import minitx"
    tokenizer: Any = None

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: without a tokenizer no texts."""
        if missing := super().reason(setup, workload):
            return missing
        named = any((setup.folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
        return "the checkpoint has no tokenizer" if workload.call == "embed" and not named else None

    def version(self) -> str:
        """Returns the version of minitx."""
        return f"minitx {minitx.__version__}"

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint, an encoder without its head."""
        self.setup = setup
        head = "none" if setup.family == "encoder" else None
        self.model = minitx.load(setup.folder, head=head, dtype=setup.dtype, device=setup.device)

    @torch.inference_mode()
    def encode(self, rows: Rows) -> Tensor:
        """Returns the mean hidden states, (R, E)."""
        return in_batches(rows, self._encode, PADDED_TEXTS)

    def _encode(self, rows: Rows) -> Tensor:
        ids, mask = padded(rows, self.setup.device)
        whole = bool(mask.all())
        hidden = self.model(ids, attention_mask=None if whole else mask).last_hidden_state.float()
        mean: Tensor = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return mean.cpu()

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Returns the vectors of texts by `minitx.embed`, (N, E)."""
        if self.tokenizer is None:
            self.tokenizer = minitx.load_tokenizer(self.setup.folder)
        return minitx.embed(self.model, texts, self.tokenizer, normalize=True).float().cpu()

    def make_pipeline(self) -> Any:
        """Returns the pipeline, which chooses its batches."""
        options: dict[str, Any] = {"dtype": self.setup.dtype, "device": self.setup.device}
        return minitx.pipeline("text-classification", self.setup.folder, **options)

    @torch.inference_mode()
    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        """Returns the logits of the next token, (R, V)."""
        ids = torch.tensor(rows, device=self.setup.device)
        if self.setup.family == "encoder-decoder":
            start = [[self._start(), *tokens] for tokens in written or [[] for _ in rows]]
            target = torch.tensor(start, device=self.setup.device)
            output = self.model(ids, decoder_input_ids=target, logits_to_keep=1)
        else:
            if written is not None:
                ids = torch.cat((ids, torch.tensor(written, dtype=ids.dtype, device=ids.device)), dim=1)
            output = self.model(ids, logits_to_keep=1)
        logits: Tensor = output.logits[:, -1].float().cpu()
        return logits

    def _start(self) -> int:
        config = self.model.config
        return int(config.decoder_start_token_id)

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        """Returns the new tokens."""
        strategy = minitx.Greedy() if num_beams == 1 else minitx.Beam(num_beams=num_beams)
        return self._run(rows, new_tokens, strategy)

    def sample(self, rows: Rows, new_tokens: int) -> Rows:
        """Returns drawn tokens."""
        return self._run(rows, new_tokens, minitx.Sample(temperature=TEMPERATURE, top_k=TOP_K, top_p=TOP_P))

    def _run(self, rows: Rows, new_tokens: int | list[int], strategy: Any) -> Rows:
        """Generates a batch, or rows of many lengths by continuous batching."""
        options: dict[str, Any] = {"max_new_tokens": new_tokens, "stop": minitx.Stop(eos=())}
        generate = minitx.generate if isinstance(new_tokens, int) else minitx.generate_many
        return [row.tolist() for row in generate(self.model, rows, strategy, **options).sequences]

    def program(self, setup: Setup, prompt: list[int]) -> str:
        """Returns a program that prints the first new token."""
        return (
            "import minitx\n"
            f"model = minitx.load({str(setup.folder)!r}, dtype={setup.dtype!r}, device={setup.device!r})\n"
            f"result = minitx.generate(model, [{prompt}], minitx.Greedy(), max_new_tokens=1)\n"
            "print(int(result.sequences[0][0]))\n"
        )
