"""A conversion takes at most 1.2 times the largest shard beside the model, whatever the files and dtypes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import minitx
from minitx.checkpoint.files import BIN, BIN_INDEX, INDEX, open_folder

CONFIG = {"model_type": "gpt2", "vocab_size": 2_000, "n_positions": 64, "n_embd": 512, "n_head": 2}
LAYERS, SHARD = 5, 13_000_000
TINY = {**CONFIG, "n_embd": 16, "n_layer": 1}

# The memory of the modules that a conversion imports is no part of the bound: a small one of the same kind is
# done before.
# Each conversion has a process of its own, a fork of this one, which has only imported them.
PROCESS = """
import json, os, re, sys
from pathlib import Path
from minitx.checkpoint.convert import convert

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])

def measure(tiny, source, target, **options):
    convert(Path(tiny), Path(target).with_name("tiny-converted"), **options)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    convert(Path(source), Path(target), **options)
    return peak() - before

for line in sys.stdin:
    child = os.fork()
    if not child:
        print(measure(**json.loads(line)), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit("a conversion failed")
"""

STORED_AS = {"bin": "safetensors", "bin-shards": "shards", "tiny-bin": "tiny"}
Sources = Callable[[str], Path]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Folders of one model by their kind: GPT-2 stores its matrices transposed."""
    place = tmp_path_factory.mktemp("sources")
    model = minitx.from_config({**CONFIG, "n_layer": LAYERS}, head="causal-lm", seed=0)
    minitx.save(model, place / "safetensors")
    minitx.save(model, place / "shards", max_shard_size=SHARD)
    minitx.save(minitx.from_config(TINY, head="causal-lm", seed=0), place / "tiny")
    return lambda kind: pickled(place, kind) if "bin" in kind else place / kind


def pickled(place: Path, kind: str) -> Path:
    """Returns a folder with `.bin` files in place of safetensors."""
    source, folder = place / STORED_AS[kind], place / kind
    if folder.exists():
        return folder
    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    weight_map = {}
    for path in source.glob("*.safetensors"):
        name = f"pytorch_{path.stem}.bin" if kind == "bin-shards" else BIN
        tensors = load_file(path)
        torch.save(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    if kind == "bin-shards":
        index = json.loads((source / INDEX).read_text())
        (folder / BIN_INDEX).write_text(json.dumps({**index, "weight_map": weight_map}))
    return folder


@pytest.fixture(scope="module")
def measured() -> Iterator[Callable[..., int]]:
    """Returns what a conversion adds to the peak of the memory."""
    command = [sys.executable, "-c", PROCESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def convert(**arguments: Any) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(arguments, default=str), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield convert


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is reset through /proc")
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["safetensors", "shards", "bin", "bin-shards"])
def test_the_largest_shard_beside_the_model(
    tmp_path: Path, sources: Sources, measured: Callable[..., int], kind: str, dtype: str | None
) -> None:
    source, options = sources(kind), {"dtype": dtype} if dtype else {}
    tiny = sources("tiny-bin" if "bin" in kind else "tiny")
    peak = measured(tiny=tiny, source=source, target=tmp_path / "converted", **options)
    written = open_folder(tmp_path / "converted")
    model = sum(tensor.nbytes for tensor in written.shapes.values())
    folders = (source, tmp_path / "converted")
    largest = max(path.stat().st_size for folder in folders for path in folder.glob("*model*"))
    assert peak <= model + 1.2 * largest
    tensors, stored = open_folder(source), next(name for name in written.shapes if "c_fc.weight" in name)
    assert torch.equal(written.read(stored), tensors.read(stored).to(written.shapes[stored].dtype))
