"""Engines: a small adapter for each library that runs a model, and their registry.

An engine loads a checkpoint folder and answers a few calls on lists of token ids. The referee compares the
answers of all engines before the runner times the same calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from minitx.bench.workloads import Call, Family, Workload
from minitx.extras import missing_extra
from minitx.validation import ArgumentValueError

Rows = list[list[int]]
TEMPERATURE, TOP_K, TOP_P = 0.8, 50, 0.95  # of `Engine.sample`
PADDED_TEXTS, PADDED_PROMPTS = 32, 8  # rows of a padded batch, of engines that pad rows of many lengths


@dataclass(frozen=True)
class Setup:
    """The model that all engines of a comparison load, and where it runs.

    Attributes:
        folder: a checkpoint in Hugging Face's layout.
        family: "decoder", "encoder" or "encoder-decoder".
        dtype: of the weights: "float32", "bfloat16", "float16" or "float64".
        threads: of the CPU.
        device: "cpu", or such as "cuda".
    """

    folder: Path
    family: Family
    dtype: str = "float32"
    threads: int = 2
    device: str = "cpu"


class UnsuitableError(Exception):
    """The machine or the model does not suit an engine; the message has the reason. For `Engine.load`."""


class Engine(ABC):
    """Runs one model of one library. Every call returns tensors on the CPU, or plain lists.

    A subclass states the names below, loads a checkpoint, and implements the calls in `calls`. Work that is
    done once, such as a compilation or a conversion of the checkpoint, belongs in `load` or in the first
    call, with its seconds added to `compile_seconds`: the first call is never timed.

    Attributes:
        name: as on the command line.
        packages: that must be installed, such as ("transformers",); their versions are reported.
        calls: methods that it implements, from `Workload.call`.
        families: kinds of models that it runs.
        dtypes: of the weights.
        devices: types of devices, such as "cuda".
        exact: whether it computes in the dtype of the setup. The answers of an engine that does not, such as
            one with int8 weights, are compared and their differences reported; they need not be the same.
        limit: of one that is not exact, the largest difference of its numbers from the reference's, as a
            share of the largest number; beyond it the referee refuses the answer.
        weight_bytes: that it reads for each weight, such as 1 for int8; None: those of the setup's dtype.
        imports: statement that imports the library.
        compile_seconds: that work done once took since `load`.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    calls: ClassVar[frozenset[Call]] = frozenset()
    families: ClassVar[tuple[Family, ...]] = ("decoder", "encoder", "encoder-decoder")
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16", "float64")
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    exact: ClassVar[bool] = True
    limit: ClassVar[float] = 0.25
    weight_bytes: ClassVar[float | None] = None
    imports: ClassVar[str] = ""
    compile_seconds: float = 0.0

    def reason(self, setup: Setup, workload: Workload) -> str | None:
        """Returns why the engine cannot run a workload; None if it can. Nothing heavy is imported.

        Subclasses check further conditions after those of this class: `super().reason(...) or ...`.
        """
        for package in self.packages:
            if not installed(package):
                return f"the package {package} is not installed; install it with: {missing_extra('bench')}"
        if workload.call not in self.calls:
            return f"it does not run {workload.call}"
        if setup.family not in self.families:
            return f"it does not run models of the family {setup.family}"
        if setup.dtype not in self.dtypes:
            return f"it does not compute in {setup.dtype}"
        device = setup.device.partition(":")[0]
        return None if device in self.devices else f"it does not run on {device}"

    def version(self) -> str:
        """Returns the versions of its packages, such as "transformers 5.23.0"."""
        return ", ".join(f"{name} {version(name)}" for name in self.packages)

    @abstractmethod
    def load(self, setup: Setup) -> None:
        """Loads the checkpoint; the number of threads of torch is that of the setup already.

        Raises:
            UnsuitableError: this machine or this model does not suit the engine.
        """

    def encode(self, rows: Rows) -> Tensor:
        """Returns the mean of the last hidden states over the tokens of each row, (R, E) float32.

        Rows of many lengths are one call; an engine that pads chooses its batches.
        """
        raise self._missing("encode")

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Returns vectors of length 1 of N texts, tokenized and pooled as the checkpoint states, (N, E)."""
        raise self._missing("embed")

    def classify(self, texts: Sequence[str]) -> Tensor:
        """Returns the scores of the labels of N texts, by the library's pipeline for them, (N, labels)."""
        raise self._missing("classify")

    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        """Returns the logits of the token after each row, (R, V) float32.

        Args:
            rows: R prompts of equal length; of an encoder-decoder the inputs of the encoder.
            written: tokens that each row has generated already, of equal numbers; None: none.
        """
        raise self._missing("prefill")

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        """Returns the new tokens of each row, greedy or by a beam search; end tokens end nothing.

        Args:
            rows: prompts of any lengths; of an encoder-decoder the inputs of the encoder.
            new_tokens: of all rows, or of each.
            num_beams: 1 is greedy; of a search the best hypothesis by its sum of log-probabilities.
        """
        raise self._missing("generate")

    def sample(self, rows: Rows, new_tokens: int) -> Rows:
        """Returns new tokens of each row, drawn with `TEMPERATURE`, `TOP_K` and `TOP_P`."""
        raise self._missing("sample")

    def train_step(self, rows: Rows) -> float:
        """Takes one step of AdamW (learning rate 1e-4, no decay) on next tokens; returns the loss before it.

        Dropout is off, so that the losses of engines can be compared.
        """
        raise self._missing("train_step")

    def program(self, setup: Setup, prompt: list[int]) -> str:
        """Returns a Python program that loads the checkpoint and prints the id of the first new token."""
        raise self._missing("program")

    def close(self) -> None:
        """Releases the model."""
        vars(self).clear()

    def _missing(self, call: str) -> ArgumentValueError:
        names = ", ".join(sorted(self.calls))
        return ArgumentValueError("call", call, f"one of those that {self.name} runs: {names}")


def installed(package: str) -> bool:
    """Whether a package is installed, by the name of its distribution."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


# --- registry --------------------------------------------------------------------------------------

_HERE = "minitx.bench.engines"
# name -> module and class; a module is imported when its engine is asked for.
ENGINES: dict[str, str] = {
    "transformers": f"{_HERE}.transformers_eager:Transformers",
    "transformers-unsorted": f"{_HERE}.transformers_eager:TransformersUnsorted",
    "transformers-compiled": f"{_HERE}.transformers_compiled:TransformersCompiled",
    "ctranslate2": f"{_HERE}.ctranslate2_engine:CTranslate2",
    "ctranslate2-int8": f"{_HERE}.ctranslate2_engine:CTranslate2Int8",
    "onnxruntime": f"{_HERE}.onnx_runtime:OnnxRuntime",
    "llama.cpp": f"{_HERE}.llama_cpp_engine:LlamaCpp",
    "llama.cpp-q8": f"{_HERE}.llama_cpp_engine:LlamaCppQ8",
    "sentence-transformers": f"{_HERE}.sentence_transformers_engine:SentenceTransformers",
    "minitx": f"{_HERE}.minitx_plain:Minitx",
    "minitx-optimized": f"{_HERE}.minitx_optimized:MinitxOptimized",
    "minitx-int8": f"{_HERE}.minitx_optimized:MinitxInt8",
    "minitx-compiled": f"{_HERE}.minitx_optimized:MinitxCompiled",
    "minitx-compiled-int8": f"{_HERE}.minitx_optimized:MinitxCompiledInt8",
    "minitx-bfloat16": f"{_HERE}.minitx_optimized:MinitxBfloat16",
    "minitx-int8-weights": f"{_HERE}.minitx_optimized:MinitxInt8Weights",
    "minitx-int4-weights": f"{_HERE}.minitx_optimized:MinitxInt4Weights",
}
USUAL = ("transformers", "minitx", "minitx-optimized")


def make_engine(name: str, engines: Mapping[str, str | type[Engine]] = ENGINES) -> Engine:
    """Returns a new engine that has loaded nothing yet.

    Args:
        name: one of the registry.
        engines: the registry: name -> "module:Class", or a class.

    Raises:
        ArgumentValueError: an unknown name; the message has the most similar one.
    """
    if name not in engines:
        similar = get_close_matches(name, engines, n=1)
        hint = f"did you mean {similar[0]}?" if similar else ""
        raise ArgumentValueError("engine", name, f"one of {', '.join(engines)}", hint)
    entry = engines[name]
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        entry = getattr(import_module(module), attribute)
    return entry()
