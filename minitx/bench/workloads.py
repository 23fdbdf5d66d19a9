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
        template: one line on it, with the names of sizes in braces.
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
    template: str
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
    def summary(self) -> str:
        """One line on the workload with its sizes."""
        return self.template.format_map(vars(self))

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

        Each leaves a workload alone that does not take it: see `takes`.
        """
        changed = self
        if batch is not None and self.takes("batch"):
            changed = replace(changed, batch=batch)
        if length is not None and self.takes("length"):
            changed = replace(changed, length=length, shortest=min(self.shortest, length))
        if new_tokens is not None and self.takes("new_tokens"):
            changed = replace(changed, new_tokens=new_tokens, fewest=min(self.fewest, new_tokens))
        return changed

    def takes(self, size: str) -> bool:
        """Returns whether a size can be changed: one that generates nothing has no new tokens.

        Args:
            size: "batch", "length" or "new_tokens".
        """
        if size == "new_tokens":
            return self.new_tokens > 1
        return self.call not in ("load", "import", "start", *("embed",) * (size == "length"))


def _table(*workloads: Workload) -> Mapping[str, Workload]:
    return {workload.name: workload for workload in workloads}


_TEXT: tuple[Family, ...] = ("decoder", "encoder-decoder")
_ALL: tuple[Family, ...] = ("decoder", "encoder", "encoder-decoder")

WORKLOADS: Mapping[str, Workload] = _table(
    Workload("import", "import in a fresh process, beyond torch's own", "import", _ALL),
    Workload("start", "fresh process, from its start to the first token", "start", _TEXT, new_tokens=1),
    Workload("load", "a checkpoint from its folder, to the first answer", "load", _ALL),
    Workload(
        "encode", "forward of {batch} texts of {length} tokens", "encode", ("encoder",), 8, 128, quick=True
    ),
    Workload(
        "encode-mixed",
        "{batch} texts of {shortest} to {length} tokens, log-uniform",
        "encode",
        ("encoder",),
        256,
        256,
        8,
    ),
    Workload(
        "embed", "{batch} sentences to vectors, with the tokenizer", "embed", ("encoder",), 64, model="minilm"
    ),
    Workload(
        "classify",
        "{batch} texts of {shortest} to {length} words, log-uniform, by a pipeline",
        *("classify", ("encoder",), 64, 256, 8),
        model="bert-classifier",
    ),
    Workload(
        "prefill", "logits after a prompt of {length} tokens, batch {batch}", "prefill", ("decoder",), 1, 512
    ),
    Workload(
        "first-token",
        "from a prompt of {length} tokens to a token, batch {batch}",
        "generate",
        _TEXT,
        1,
        512,
        new_tokens=1,
    ),
    Workload("decode", "greedy, batch {batch}", "generate", _TEXT, 1, 32, new_tokens=64, quick=True),
    Workload("decode-8", "greedy, batch {batch}", "generate", _TEXT, 8, 32, new_tokens=64),
    Workload("decode-32", "greedy, batch {batch}", "generate", _TEXT, 32, 32, new_tokens=64),
    Workload(
        "decode-deep",
        "greedy, batch {batch}, prompt of {length} tokens",
        "generate",
        _TEXT,
        1,
        512,
        new_tokens=64,
    ),
    Workload(
        "decode-deep-8",
        "greedy, batch {batch}, prompts of {length} tokens",
        "generate",
        _TEXT,
        8,
        512,
        new_tokens=64,
    ),
    Workload(
        "decode-mixed",
        "{batch} prompts of {shortest} to {length} tokens, {fewest} to {new_tokens} new tokens each",
        *("generate", _TEXT, 64, 512, 8, 256, 16),
    ),
    Workload(
        "beams",
        "beams of {num_beams}, batch {batch}",
        "generate",
        _TEXT[::-1],
        1,
        32,
        new_tokens=64,
        num_beams=4,
    ),
    Workload(
        "beams-8",
        "beams of {num_beams}, batch {batch}",
        "generate",
        _TEXT[::-1],
        8,
        32,
        new_tokens=64,
        num_beams=4,
    ),
    Workload("sample", "temperature, top-k and top-p, batch {batch}", "sample", _TEXT, 8, 32, new_tokens=64),
    Workload("train", "step of AdamW, {batch} texts of {length} tokens", "train_step", ("decoder",), 8, 128),
)
