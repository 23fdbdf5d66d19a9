"""llama.cpp through its Python package, in float32 and in Q8_0."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.bench.conversions import converted
from minitx.bench.engine import Engine, Rows, Setup
from minitx.bench.engines.gguf_file import unsupported, write_gguf
from minitx.bench.workloads import Call, Family, Workload
from minitx.io import read_json

SLOTS = 16  # rows of many lengths that run at once
PROMPT_TOKENS = 2048  # most tokens of a call of llama_decode, its default
ERROR_LEVEL = 4  # of log messages
KEPT: list[Any] = []  # callbacks that llama.cpp calls until the process ends


@dataclass
class Row:
    """A row that is being generated.

    Attributes:
        index: its place in the answer.
        count: number of new tokens.
        slot: number of its cache.
        length: tokens in the cache.
        feed: tokens to run next.
        made: new tokens so far.
    """

    index: int
    count: int
    slot: int
    feed: list[int]
    length: int = 0
    made: list[int] = field(default_factory=list)


class LlamaCpp(Engine):
    """llama.cpp with float32 weights and caches.

    It runs on the CPU with `n_threads` of the setup.

    Runs `llama_decode` on one batch of all rows, as its server does: each row has its own cache, and one that
    is finished makes room for the next (continuous batching, `SLOTS` rows at once where lengths differ).
    Flash attention, which computes in float16, is off; other settings are its defaults. It takes GELU from a
    table in float16, so that the logits of GPT-2 differ from float32's by about a thousandth.

    The checkpoint is written as a GGUF file in `load`, whose seconds count as compilation.
    """

    name: ClassVar[str] = "llama.cpp"
    packages: ClassVar[tuple[str, ...]] = ("llama-cpp-python", "gguf")
    calls: ClassVar[frozenset[Call]] = frozenset(("prefill", "generate", "import"))
    families: ClassVar[tuple[Family, ...]] = ("decoder",)
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    exact: ClassVar[bool] = False
    limit: ClassVar[float] = 0.05
    imports: ClassVar[str] = "import llama_cpp"
    int8: ClassVar[bool] = False
    llama: Any = None
    model: Any = None
    context: Any = None
    batch: Any = None
    room: tuple[int, int] = (0, 0)

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: it has no beam search, and not every architecture."""
        if missing := super().reason(setup, workload):
            return missing
        if workload.num_beams > 1:
            return "it has no beam search"
        return unsupported(read_json(setup.folder / "config.json"))

    def load(self, setup: Setup) -> None:
        """Writes the checkpoint as a GGUF file and loads it."""
        import llama_cpp

        self.setup, self.llama = setup, llama_cpp
        _errors()
        start = time.perf_counter()
        path = converted(self.name, setup.folder, partial(write_gguf, setup.folder, int8=self.int8))
        self.compile_seconds = time.perf_counter() - start
        parameters = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise _failed("does not load the GGUF file that was written")
        vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.tokens = int(llama_cpp.llama_vocab_n_tokens(vocabulary))

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        """Returns the logits of the next token, (R, V)."""
        written = written or [[] for _ in rows]
        waiting = [Row(i, 1, i, [*row, *new]) for i, (row, new) in enumerate(zip(rows, written, strict=True))]
        self._make_room(len(rows), max(len(row.feed) for row in waiting))
        return torch.cat([self._decode(batch).clone() for batch in _batches(waiting)])

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        """Returns the new tokens."""
        counts = [new_tokens] * len(rows) if isinstance(new_tokens, int) else new_tokens
        slots = len(rows) if isinstance(new_tokens, int) else min(SLOTS, len(rows))
        longest = max(len(row) + count for row, count in zip(rows, counts, strict=True))
        self._make_room(slots, longest)
        waiting = deque(enumerate(zip(rows, counts, strict=True)))
        free, active = list(range(slots)), list[Row]()
        made: Rows = [[] for _ in rows]
        while waiting or active:
            while waiting and free:
                index, (prompt, count) = waiting.popleft()
                active.append(Row(index, count, free.pop(), prompt))
            for batch in _batches(active):
                for row, token in zip(batch, self._decode(batch).argmax(-1).tolist(), strict=True):
                    row.feed = [token]
                    row.made.append(token)
            for row in [row for row in active if len(row.made) == row.count]:
                made[row.index] = row.made
                self._forget(row.slot)
                free.append(row.slot)
                active.remove(row)
        return made

    def close(self) -> None:
        """Releases the model and its caches."""
        self._release()
        if self.model:
            self.llama.llama_model_free(self.model)
        super().close()

    def _make_room(self, slots: int, length: int) -> None:
        """Clears the caches; makes new ones where these are not those that the rows need."""
        if self.room == (slots, length):
            memory = self.llama.llama_get_memory(self.context)
            self.llama.llama_memory_clear(memory, True)
            return
        self._release()
        parameters = self.llama.llama_context_default_params()
        step = max(PROMPT_TOKENS, length)
        parameters.n_ctx, parameters.n_seq_max, parameters.n_batch = slots * _padded(length), slots, step
        if not self.int8:
            parameters.type_k = parameters.type_v = self.llama.GGML_TYPE_F32
            if hasattr(parameters, "flash_attn_type"):
                parameters.flash_attn_type = self.llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
            else:  # until version 0.3.16
                parameters.flash_attn = False
        parameters.n_threads = parameters.n_threads_batch = self.setup.threads
        self.context = self.llama.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise _failed(f"makes no cache for {slots} rows of {length} tokens")
        self.batch = self.llama.llama_batch_init(step, 0, 1)
        self.room = slots, length

    def _release(self) -> None:
        if self.context:
            self.llama.llama_batch_free(self.batch)
            self.llama.llama_free(self.context)
        self.context, self.room = None, (0, 0)

    def _forget(self, slot: int) -> None:
        self.llama.llama_memory_seq_rm(self.llama.llama_get_memory(self.context), slot, -1, -1)

    def _decode(self, rows: list[Row]) -> Tensor:
        """Runs the tokens to feed of some rows, and returns the logits after each row, (R, V): a view."""
        batch, at = self.batch, 0
        for row in rows:
            for token in row.feed:
                batch.token[at], batch.pos[at] = token, row.length
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, row.slot
                batch.logits[at] = False
                row.length += 1
                at += 1
            batch.logits[at - 1] = True
        batch.n_tokens = at
        if status := self.llama.llama_decode(self.context, batch):
            raise _failed(f"returned {status} for a batch of {at} tokens")
        import numpy

        logits = self.llama.llama_get_logits(self.context)
        return torch.from_numpy(numpy.ctypeslib.as_array(logits, (len(rows), self.tokens)))


class LlamaCppQ8(LlamaCpp):
    """llama.cpp with int8 weights (Q8_0).

    Matrices are blocks of 32 int8 numbers, each block with a scale in float16. Caches and
    attention are its defaults: float16, flash attention where it decides so.
    """

    name: ClassVar[str] = "llama.cpp-q8"
    limit: ClassVar[float] = 0.25
    weight_bytes: ClassVar[float | None] = 34 / 32
    int8: ClassVar[bool] = True


def _batches(rows: list[Row]) -> list[list[Row]]:
    """Returns the rows in groups of at most `PROMPT_TOKENS` tokens to feed, or of one row."""
    groups: list[list[Row]] = []
    room = 0
    for row in rows:
        if len(row.feed) > room:
            groups.append([])
            room = PROMPT_TOKENS
        groups[-1].append(row)
        room -= len(row.feed)
    return groups


def _padded(length: int, step: int = 256) -> int:
    """Returns the next multiple of 256, as llama.cpp pads the cache of each row."""
    return -(-length // step) * step


@cache
def _errors() -> list[str]:
    """Silences the log of llama.cpp, and returns the list of its errors, to which later ones are added."""
    import llama_cpp

    errors: list[str] = []

    def _log(level: int, text: bytes, _: Any) -> None:
        if level == ERROR_LEVEL:
            errors.append(text.decode(errors="replace").strip())

    KEPT.append(llama_cpp.llama_log_callback(_log))
    llama_cpp.llama_log_set(KEPT[-1], None)
    return errors


def _failed(what: str) -> RuntimeError:
    said = "; ".join(_errors()[-2:])
    return RuntimeError(f"llama.cpp {what}{said and ': '}{said}")
