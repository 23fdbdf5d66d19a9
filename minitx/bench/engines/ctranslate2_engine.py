"""CTranslate2, which runs transformers in C++ with its own weights files, in float32 and in int8."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.bench.conversions import converted
from minitx.bench.engine import PADDED_PROMPTS, PADDED_TEXTS, Rows, Setup
from minitx.bench.engines.batches import in_batches
from minitx.bench.engines.ctranslate2_files import convert, name, number
from minitx.bench.engines.texts import TextEngine, unpoolable
from minitx.bench.workloads import Call, Family, Workload
from minitx.io import read_json

KINDS: dict[Family, str] = {"decoder": "Generator", "encoder": "Encoder", "encoder-decoder": "Translator"}
MODEL_TYPES = ("bert", "gpt2", "llama", "t5")


class CTranslate2(TextEngine):
    """CTranslate2 in float32.

    It runs on the CPU with `intra_threads` of the setup and one worker.

    What its guide to performance recommends: prompts are run at once (`include_prompt_in_result=False`),
    and rows of many lengths are sorted and run in batches, as `max_batch_size` does. There a row stops at its
    own number of tokens and leaves the batch, which needs a callback for each token.

    The checkpoint is converted in `load`, through transformers; its seconds count as compilation.
    """

    name: ClassVar[str] = "ctranslate2"
    packages: ClassVar[tuple[str, ...]] = ("ctranslate2", "transformers")
    calls: ClassVar[frozenset[Call]] = frozenset(("encode", "embed", "prefill", "generate", "import"))
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    imports: ClassVar[str] = "import ctranslate2"
    quantization: ClassVar[str] = "float32"
    model: Any
    tokens: int

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why it cannot run a workload: the adapter converts a few architectures."""
        if missing := super().reason(setup, workload):
            return missing
        kind = read_json(setup.folder / "config.json").get("model_type")
        if kind not in MODEL_TYPES:
            return f"its adapter converts {', '.join(MODEL_TYPES)}, not {kind}"
        return unpoolable(setup.folder) if workload.call == "embed" else None

    def load(self, setup: Setup) -> None:
        """Converts the checkpoint and loads it."""
        import ctranslate2

        self.setup = setup
        self.tokens = int(read_json(setup.folder / "config.json")["vocab_size"])
        start = time.perf_counter()
        write = partial(convert, setup.folder, quantization=self.quantization)
        folder = converted(self.name, setup.folder, write)
        self.compile_seconds = time.perf_counter() - start
        kind = getattr(ctranslate2, KINDS[setup.family])
        threads = {"inter_threads": 1, "intra_threads": setup.threads}
        self.model = kind(str(folder), device="cpu", compute_type=self.quantization, **threads)

    def encode(self, rows: Rows) -> Tensor:
        """Returns the mean hidden states, (R, E)."""
        return in_batches(rows, self._encode, PADDED_TEXTS)

    def _encode(self, rows: Rows) -> Tensor:
        hidden = _tensor(self.model.forward_batch(rows).last_hidden_state)
        return torch.stack([states[: len(row)].mean(0) for states, row in zip(hidden, rows, strict=True)])

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        """Returns the logits of the next token, (R, V)."""
        written = written or [[] for _ in rows]
        if self.setup.family == "encoder-decoder":
            results = self._translate(rows, len(written[0]) + 1, 1, written=written, logits=True)
        else:
            prompts = [row + new for row, new in zip(rows, written, strict=True)]
            results = self._continue(prompts, 1, 1, logits=True)
        return torch.stack([_tensor(result.logits[0][-1])[: self.tokens] for result in results])

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        """Returns the new tokens; rows of many lengths sorted and in batches of 8, of a beam search alone."""
        if isinstance(new_tokens, int):
            return self._generate(rows, [new_tokens] * len(rows), num_beams)
        size = PADDED_PROMPTS if num_beams == 1 else 1
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        made: Rows = [[] for _ in rows]
        for first in range(0, len(order), size):
            batch = order[first : first + size]
            new = self._generate([rows[i] for i in batch], [new_tokens[i] for i in batch], num_beams)
            for i, tokens in zip(batch, new, strict=True):
                made[i] = tokens
        return made

    def _generate(self, rows: Rows, counts: list[int], num_beams: int) -> Rows:
        if self.setup.family == "encoder-decoder":
            results = self._translate(rows, max(counts), num_beams, stop=_stop(counts))
            return [
                [number(token) for token in result.hypotheses[0][:count]]
                for result, count in zip(results, counts, strict=True)
            ]
        shortest = min(map(len, rows))
        # A step of the longer rows is one of their prompt while shorter rows generate already.
        steps = [len(row) - shortest + count for row, count in zip(rows, counts, strict=True)]
        stop = _stop(steps) if len({*counts}) > 1 else None
        results = self._continue(rows, max(counts), num_beams, stop=stop)
        return [result.sequences_ids[0][:count] for result, count in zip(results, counts, strict=True)]

    def _continue(
        self, rows: Rows, new_tokens: int, num_beams: int, *, stop: Any = None, logits: bool = False
    ) -> list[Any]:
        results: list[Any] = self.model.generate_batch(
            _names(rows),
            max_length=new_tokens,
            beam_size=num_beams,
            length_penalty=0,
            include_prompt_in_result=False,
            return_logits_vocab=logits,
            callback=stop,
        )
        return results

    def _translate(
        self,
        rows: Rows,
        new_tokens: int,
        num_beams: int,
        *,
        stop: Any = None,
        written: Rows | None = None,
        logits: bool = False,
    ) -> list[Any]:
        results: list[Any] = self.model.translate_batch(
            _names(rows),
            target_prefix=None if written is None else _names(written),
            max_input_length=0,
            max_decoding_length=new_tokens,
            beam_size=num_beams,
            length_penalty=0,
            return_logits_vocab=logits,
            callback=stop,
        )
        return results


class CTranslate2Int8(CTranslate2):
    """CTranslate2 with int8 weights.

    `quantization="int8"`: the inputs of products are int8 too, the rest is float32.
    """

    name: ClassVar[str] = "ctranslate2-int8"
    exact: ClassVar[bool] = False
    weight_bytes: ClassVar[float | None] = 1
    quantization: ClassVar[str] = "int8"


def _names(rows: Rows) -> list[list[str]]:
    return [[name(token) for token in row] for row in rows]


def _tensor(view: Any) -> Tensor:
    import numpy

    return torch.from_numpy(numpy.array(view))


def _stop(steps: list[int]) -> Any:
    """Returns the callback that stops each row after its number of steps; None where all are equal."""
    if len({*steps}) == 1:
        return None
    return lambda result: result.step + 1 >= steps[result.batch_id]
