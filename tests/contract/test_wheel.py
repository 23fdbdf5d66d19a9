"""The wheel: built from the tracked folders, installed beside no source tree, used without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from minitx.decoding.catalogue import SECTIONS
from minitx.shipped import CARD, NAMES, PREFIX, WEIGHTS

ROOT = Path(__file__).parents[2]
MOST_BYTES = 20_000_000
SCRIPT = """
import sys
from pathlib import Path

import torch
import transformers

import minitx
from minitx.shipped import SHIPPED
from minitx.models import Model

assert Path(minitx.__file__).is_relative_to(sys.prefix), minitx.__file__
classes = dict(zip([model.name for model in SHIPPED], sys.argv[1:], strict=True))
for shipped in SHIPPED:
    model, tokenizer = minitx.load(shipped.name, dtype="float32"), minitx.load_tokenizer(shipped.name)
    reference = getattr(transformers, classes[shipped.name]).from_pretrained(
        shipped.folder, dtype=torch.float32
    )
    ids = torch.tensor([tokenizer.encode("hello")])
    more = {"decoder_input_ids": ids} if model.task == "seq2seq-lm" else {}
    with torch.inference_mode():
        ours, theirs = model(ids, **more), reference.eval()(ids, **more)
    name = "start_logits" if model.task == "question-answering" else "logits"
    torch.testing.assert_close(getattr(ours, name), theirs[name], rtol=0, atol=1e-4)
    print(shipped.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds in a copy, since setuptools writes beside the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "minitx", source / "minitx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "scripts"):  # neither belongs into the wheel
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    subprocess.run([sys.executable, "-m", "pip", *command, target, source], check=True)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel alone; what it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A plain path: .pth files in that folder, such as the one of this clone, have no effect.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    command = ["--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    return folder


def run(environment: Path, folder: Path, *command: str | Path) -> str:
    """Runs a program of the environment where the Hub is unreachable and its cache empty; its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    settings = {"HF_HOME": str(folder / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9", "COLUMNS": "80"}
    program, *arguments = command
    done = subprocess.run(
        [environment / "bin" / program, *arguments],
        cwd=folder,
        env=kept | settings | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_size_and_contents(wheel: Path) -> None:
    assert wheel.stat().st_size <= MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"minitx"}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "minitx").rglob("*.py")}
    assert tracked <= {*names}
    for name in NAMES:
        folder = f"minitx/shipped/{name.removeprefix(PREFIX)}"
        for file in (CARD, WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"):
            assert f"{folder}/{file}" in names
    others = [name for name in names if name.startswith("minitx/") and not name.endswith(".py")]
    expected = ("minitx/py.typed", "minitx/architectures/known_keys.json", "minitx/cli/help.txt")
    expected += ("minitx/decoding/presets/presets.toml",)
    folders = ("minitx/shipped/tiny-", "minitx/inspect/page/assets/", "minitx/decoding/catalogue/")
    assert all(name in expected or name.startswith(folders) for name in others)
    assets = {path.name for path in (ROOT / "minitx/inspect/page/assets").iterdir()}
    assert {name.rpartition("/")[2] for name in others if name.startswith(folders[1])} == assets
    tables = {f"{name}.md" for name in SECTIONS}
    assert {name.rpartition("/")[2] for name in others if name.startswith(folders[2])} == tables


def test_the_installed_checkpoints_are_loaded_here_and_in_transformers(
    environment: Path, tmp_path: Path
) -> None:
    from tests.contract.test_shipped import CLASSES

    out = run(environment, tmp_path, "python", "-c", SCRIPT, *(CLASSES[name] for name in NAMES))
    assert out.split() == list(NAMES)


def test_the_installed_demo(environment: Path, tmp_path: Path) -> None:
    out = run(environment, tmp_path, "minitx", "demo")
    assert all(name in out for name in ("tiny-encoder", "tiny-decoder", "tiny-qa", "tiny-seq2seq"))
    assert "Picture: demo-output/picture.png" in out
    assert (tmp_path / "demo-output" / "picture.png").is_file()


def test_an_installed_task_without_a_model(environment: Path, tmp_path: Path) -> None:
    out = run(
        environment, tmp_path, "minitx", "run", "question-answering", "usual", "Who?", "--context", "Ann did."
    )
    assert "Ann" in out
    assert not list((tmp_path / "hub").rglob("*.safetensors"))
