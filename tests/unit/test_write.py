"""safetensors files are those of the library, byte by byte, and are written one tensor at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from safetensors.torch import save as library_save
from torch import Tensor

import minitx
from minitx.architectures.operations import Transposed
from minitx.checkpoint import save as saving
from minitx.checkpoint.files import DTYPES
from minitx.checkpoint.write import write_tensors

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
tensors = st.builds(
    lambda shape, dtype, flip: (torch.rand(shape) * 100).to(dtype).movedim(0, -1) if flip and shape else
    (torch.rand(shape) * 100).to(dtype),
    shapes,
    st.sampled_from([*DTYPES.values()]),
    st.booleans(),
)  # fmt: skip
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__" and name.isprintable())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(names, tensors, max_size=6), st.sampled_from([{}, {"format": "pt"}, {"note": 'é"\n'}]))
def test_the_bytes_of_the_library(
    tmp_path: Path, stored: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors({path: stored}, stored, [lambda: stored], metadata)
    assert path.read_bytes() == library_save({n: t.contiguous() for n, t in stored.items()}, metadata or None)


def test_values_that_torch_negates_or_conjugates_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    complex_values = torch.complex(torch.rand(3), torch.rand(3))
    stored = {"negative": torch._neg_view(torch.rand(3, 2)), "imaginary": complex_values.conj().imag}
    assert all(tensor.is_neg() for tensor in stored.values())
    write_tensors({path: stored}, stored, [lambda: stored], {})
    assert all(torch.equal(tensor, stored[name]) for name, tensor in load_file(path).items())


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_a_dtype_that_is_not_written(tmp_path: Path, dtype: torch.dtype) -> None:
    config: dict[str, Any] = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_head": 2, "n_layer": 1}
    model = minitx.from_config({**config, "n_positions": 20}, seed=0).to(dtype)
    with pytest.raises(ValueError, match=r"\.weight=torch\.\w+ must be of dtype .*float32"):
        minitx.save(model, tmp_path / "saved")
    assert not any(tmp_path.glob("saved/*"))


def test_several_files_and_groups(tmp_path: Path) -> None:
    stored = {name: torch.rand(3, 2) for name in "abcd"}
    sizes: list[int] = []
    files = {tmp_path / "one": ["a", "d"], tmp_path / "two": ["c", "b"]}
    groups = [lambda: {n: stored[n] for n in "ab"}, lambda: {"c": stored["c"]}, lambda: {"d": stored["d"]}]
    write_tensors(files, {n: t.to("meta") for n, t in stored.items()}, groups, {}, sizes.append)
    assert sizes == [24] * 4
    read = load_file(tmp_path / "one") | load_file(tmp_path / "two")
    assert all(torch.equal(read[name], stored[name]) for name in stored)


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="the limit is one of POSIX")
    stored = {f"t{i}": torch.rand(2) for i in range(100)}
    files = {tmp_path / name: [name] for name in stored}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, limits[1]))
    try:
        write_tensors(files, stored, [lambda n=n: {n: stored[n]} for n in stored], {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(torch.equal(load_file(tmp_path / name)[name], stored[name]) for name in stored)


@pytest.mark.parametrize("shards", [None, 2_000])
def test_one_copy_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int | None) -> None:
    """GPT-2 stores its matrices transposed: not more than one of the copies is alive."""
    config: dict[str, Any] = {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_head": 2, "n_layer": 3}
    model = minitx.from_config({**config, "n_positions": 20}, head="causal-lm", seed=0)
    alive: list[weakref.ref[Tensor]] = []
    most = 0
    original = Transposed.save

    def counted(self: Transposed, parameters: list[Tensor]) -> list[Tensor]:
        nonlocal most
        stored = [tensor.contiguous() for tensor in original(self, parameters)]
        alive.extend(weakref.ref(tensor) for tensor in stored if not tensor.is_meta and tensor.dim() > 1)
        most = max(most, sum(reference() is not None for reference in alive))
        return stored

    monkeypatch.setattr(Transposed, "save", counted)
    minitx.save(model, tmp_path, max_shard_size=shards)
    assert len(alive) == 12
    assert most <= 2  # that of before is let go when the next is there
    assert saving.stored_tensors(model, model.checkpoint)[0]
