"""The workloads of `minitx bench`: each is a small description of the inputs and the call of an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

Call = Literal[
    "encode", "embed", "classify", "prefill", "generate", "sample", "train_step", "load", "import", "start"
]
Family = Literal["decoder", "encoder", "encoder-decoder"]

FIRST_ID = 10  # of random texts: smaller ids are often special tokens
SEED = 0
TEXTS = ("embed", "classify")  # calls that take texts; the others take token ids


@dataclass(frozen=True)
class Workload:
    """The inputs of a measurement, and the method of an engine that it times.

    Attributes:
        name: as on the command line.
        summary: one line on it.
        call: method of `Engine`; "import" and "start" time a fresh process.
        families: kinds of models that it is for.
        batch: number of rows.
        length: tokens of each row, or words of each text; of rows of many lengths the largest.
        shortest: of rows of many lengths, whose lengths are log-uniform; 0: all have `length` tokens.
        new_tokens: that each row generates; of many lengths the largest.
        fewest: of many lengths, which are uniform; 0: each generates `new_tokens`.
        num_beams: of a beam search; 1: greedy.
        model: the usual one; None: that of the first family.
        quick: whether it runs where no workload is named.
    """

    name: str
    summary: str
    call: Call
    families: tuple[Family, ...]
    batch: int = 1
    length: int = 32
    shortest: int = 0
    new_tokens: int = 0
    fewest: int = 0
    num_beams: int = 1
    model: str | None = None
    quick: bool = False

    @property
    def unit(self) -> str:
        """The unit of the figure: "tokens/s", "texts/s", "steps/s", or "ms"."""
        if self.call in ("load", "import", "start") or (self.call == "generate" and self.new_tokens == 1):
            return "ms"
        return "texts/s" if self.call in TEXTS else "tokens/s"

    @property
    def higher_is_better(self) -> bool:
        """Whether the figure is a rate, and not a time."""
        return self.unit != "ms"

    @property
    def positions(self) -> int:
        """The number of positions that a model needs for it."""
        return self.length + self.new_tokens

    def lengths(self) -> list[int]:
        """Returns the number of tokens of each row."""
        if not self.shortest:
            return [self.length] * self.batch
        low, high = math.log(self.shortest), math.log(self.length)
        drawn = torch.rand(self.batch, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        return [round(math.exp(low + (high - low) * share)) for share in drawn.tolist()]

    def rows(self, vocab_size: int) -> list[list[int]]:
        """Returns random token ids, the same ones at every call.

        Args:
            vocab_size: number of tokens of the model.
        """
        generator = torch.Generator().manual_seed(SEED + 1)
        low = min(FIRST_ID, vocab_size - 1)
        drawn = (torch.randint(low, vocab_size, (n,), generator=generator) for n in self.lengths())
        return [row.tolist() for row in drawn]

    def new_lengths(self) -> int | list[int]:
        """Returns the number of new tokens: of all rows, or of each."""
        if not self.fewest:
            return self.new_tokens
        generator = torch.Generator().manual_seed(SEED + 2)
        return torch.randint(self.fewest, self.new_tokens + 1, (self.batch,), generator=generator).tolist()

    def amount(self) -> int:
        """Returns the units of work of one call: tokens, texts or steps; 1 where a time is reported."""
        if self.unit == "ms":
            return 1
        if self.unit == "texts/s":
            return self.batch
        if self.call not in ("generate", "sample"):
            return sum(self.lengths())
        new = self.new_lengths()
        return new * self.batch if isinstance(new, int) else sum(new)

    def figure(self, seconds: float) -> float:
        """Returns the figure of a call that took `seconds`, in `unit`."""
        return 1e3 * seconds if self.unit == "ms" else self.amount() / seconds

    def changed(
        self, *, batch: int | None = None, length: int | None = None, new_tokens: int | None = None
    ) -> Workload:
        """Returns the workload with another batch, another length, or another number of new tokens.

        Each leaves a workload alone that has none: one that generates nothing has no new tokens.
        """
        changed = self
        fixed = self.call in ("load", "import", "start")
        if batch is not None and not fixed:
            changed = replace(changed, batch=batch)
        if length is not None and not fixed and self.call != "embed":
            changed = replace(changed, length=length, shortest=min(self.shortest, length))
        if new_tokens is not None and self.new_tokens > 1:
            changed = replace(changed, new_tokens=new_tokens, fewest=min(self.fewest, new_tokens))
        return changed


def _table(*workloads: Workload) -> Mapping[str, Workload]:
    return {workload.name: workload for workload in workloads}


_TEXT: tuple[Family, ...] = ("decoder", "encoder-decoder")
_ALL: tuple[Family, ...] = ("decoder", "encoder", "encoder-decoder")

WORKLOADS: Mapping[str, Workload] = _table(
    Workload("import", "import in a fresh process, beyond torch's own", "import", _ALL),
    Workload("start", "fresh process, from its start to the first token", "start", _TEXT, new_tokens=1),
    Workload("load", "a checkpoint from its folder, to the first answer", "load", _ALL),
    Workload("encode", "forward of 8 texts of 128 tokens", "encode", ("encoder",), 8, 128, quick=True),
    Workload(
        "encode-mixed", "256 texts of 8 to 256 tokens, log-uniform", "encode", ("encoder",), 256, 256, 8
    ),
    Workload(
        "embed", "64 sentences to vectors, with the tokenizer", "embed", ("encoder",), 64, model="minilm"
    ),
    Workload(
        "classify",
        "64 texts of 8 to 256 words, log-uniform, by a pipeline",
        *("classify", ("encoder",), 64, 256, 8),
        model="bert-classifier",
    ),
    Workload("prefill", "logits after a prompt of 512 tokens", "prefill", ("decoder",), 1, 512),
    Workload(
        "first-token", "from a prompt of 512 tokens to a token", "generate", _TEXT, 1, 512, new_tokens=1
    ),
    Workload("decode", "greedy, batch 1", "generate", _TEXT, 1, 32, new_tokens=64, quick=True),
    Workload("decode-8", "greedy, batch 8", "generate", _TEXT, 8, 32, new_tokens=64),
    Workload("decode-32", "greedy, batch 32", "generate", _TEXT, 32, 32, new_tokens=64),
    Workload(
        "decode-deep", "greedy, batch 1, prompt of 512 tokens", "generate", _TEXT, 1, 512, new_tokens=64
    ),
    Workload("decode-deep-8", "the same, batch 8", "generate", _TEXT, 8, 512, new_tokens=64),
    Workload(
        "decode-mixed",
        "64 prompts of 8 to 512 tokens, 16 to 256 new tokens each",
        *("generate", _TEXT, 64, 512, 8, 256, 16),
    ),
    Workload("beams", "beams of 4, batch 1", "generate", _TEXT[::-1], 1, 32, new_tokens=64, num_beams=4),
    Workload("beams-8", "beams of 4, batch 8", "generate", _TEXT[::-1], 8, 32, new_tokens=64, num_beams=4),
    Workload("sample", "temperature, top-k and top-p, batch 8", "sample", _TEXT, 8, 32, new_tokens=64),
    Workload("train", "step of AdamW, 8 texts of 128 tokens", "train_step", ("decoder",), 8, 128),
)
