"""The design's rules, as far as a program can check them."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import minitx
from minitx.architectures import REGISTRY, architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.mapping import entries
from minitx.config import HeadConfig, ModelConfig, ValidatedConfig
from minitx.layers.activation import ACTIVATIONS
from minitx.layers.heads import TASKS
from minitx.layers.pooling import POOLING
from minitx.optimize import undo_fast_linear
from tests.parity.cases import CASES
from tests.parity.reference import reference_model
from tests.real import MINILM

ROOT = Path(minitx.__file__).parent
SHARED = [
    *sorted((ROOT / "layers").rglob("*.py")),
    *sorted((ROOT / "decoding").rglob("*.py")),
    *sorted((ROOT / "models").rglob("*.py")),
    *sorted((ROOT / "config").rglob("*.py")),
]
SOURCES = sorted(ROOT.rglob("*.py"))

NOTES_TREE = """
embedder: word_emb pos_emb tok_type_emb layer_norm dropout
encoder: layers
layers: attention intermediate output
attention: self_attention self_output
self_attention: Q K V dropout
self_output: dense layer_norm dropout
intermediate: dense activation
output: dense layer_norm dropout
pooler: dense activation
"""


def test_the_printed_tree_is_the_one_of_the_notes() -> None:
    """These names in this nesting and no others."""
    expected = {}
    for line in NOTES_TREE.strip().splitlines():
        parent, children = line.split(": ")
        expected[parent] = children.split()
    found: dict[str, list[str]] = {}
    path: list[tuple[int, str]] = []
    for line in str(minitx.load(MINILM)).splitlines():
        match = re.match(r"( *)\(([\w-]+)\): ", line)
        if match is None:
            continue
        indent, name = len(match[1]), match[2]
        while path and path[-1][0] >= indent:
            path.pop()
        if name == "0-5":  # N x
            path.append((indent, "layers"))
            continue
        if path:
            found.setdefault(path[-1][1], []).append(name)
        path.append((indent, name))
    assert found == expected
    assert [name for name, _ in minitx.load(MINILM).named_children()] == ["embedder", "encoder", "pooler"]


def test_no_architecture_is_named_in_the_shared_parts() -> None:
    names = {*REGISTRY, *(n for a in map(architecture, REGISTRY) for n in a.model_types.values()), "xlm"}
    names -= {"encoder-decoder"}  # the word of the whole family
    # llama.cpp is not an architecture but a library
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b(?!\.cpp)" for name in names), re.IGNORECASE)
    for path in SHARED:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not pattern.search(line), f"{path.name}:{number}: {line.strip()}"


def test_every_architecture_has_a_parity_case() -> None:
    assert {case.model_type for case in CASES} == set(REGISTRY)
    for model_type in REGISTRY:
        assert model_type in architecture(model_type).model_types


@cache
def configs() -> list[tuple[ModelConfig, dict[str, HeadConfig]]]:
    found = []
    for case in CASES:
        kind = architecture(case.model_type)
        reader = ConfigReader(reference_model(case, "none").config.to_dict())
        found.append((kind.read(reader), kind.heads(reader)))
    return found


def nested(config: ValidatedConfig) -> Iterator[ValidatedConfig]:
    """A config and all configs in it."""
    yield config
    for value in vars(config).values():
        parts = value.values() if isinstance(value, Mapping) else (value,)
        for part in parts:
            if isinstance(part, ValidatedConfig):
                yield from nested(part)


def test_every_option_is_used() -> None:
    """Each field of each config takes at least two values over the registered architectures."""
    seen: dict[tuple[type, str], set[str]] = {}
    for config, heads in configs():
        for part in (part for whole in (config, *heads.values()) for part in nested(whole)):
            for name, value in vars(part).items():
                seen.setdefault((type(part), name), set()).add(repr(value))
    always_the_same = {  # chosen by the case, or by the loader
        (minitx.ModelConfig, "initializer_range"),
        (minitx.ModelConfig, "pooler"),
        (minitx.HeadConfig, "problem_type"),
        (minitx.ExpertsConfig, "hidden_act"),
        (minitx.Disentangled, "dropout"),
    }
    for (kind, name), values in seen.items():
        assert len(values) > 1 or (kind, name) in always_the_same, (
            f"{kind.__name__}.{name} is always {values}"
        )
    custom = {minitx.CustomInputs}  # for inputs from outside the package
    assert {kind for kind, _ in seen} | {minitx.Alibi} | custom == set(own_configs())
    assert {head.pooling for _, heads in configs() for head in heads.values()} == set(POOLING)
    assert {task for _, heads in configs() for task in heads} == set(TASKS)


def own_configs() -> list[type[ValidatedConfig]]:
    """Returns the config classes of minitx, without those of other tests."""
    return [kind for kind in ValidatedConfig.__subclasses__() if kind.__module__.startswith("minitx.")]


def test_configs_stay_small() -> None:
    for kind in own_configs():
        assert len(dataclasses.fields(kind)) <= 14, kind.__name__
        assert getattr(minitx, kind.__name__) is kind


def test_every_row_of_every_weight_table_is_used(tmp_path: Path) -> None:
    """A row that no case's checkpoint has a tensor for is a misspelling, or dead."""
    unused: dict[str, set[tuple[str, str]]] = {}
    for case in CASES:
        found = architecture(case.model_type)
        for task in ("none", *found.head_weights):
            reference = reference_model(case, task)
            reference.save_pretrained(tmp_path)  # some have other names in memory
            full = {*reference.state_dict(), *load_file(tmp_path / "model.safetensors")}
            stored = {name.rsplit(".", 1)[0] for name in full} | full
            bare = {name.removeprefix(found.prefix) for name in stored} | stored
            config = reference.config.to_dict()
            found = found if found.composed is None else found.composed(config)
            table = found.weights if task == "none" else found.head_weights[task]
            layers = found.layers(found.read(ConfigReader(config)))
            for left, right in entries(table, layers):
                key = (task, re.sub(r"\d+", "N", left[0]))
                group = unused.setdefault(case.model_type, set())
                group.add(key)
                if any(name in bare for name in right.names):
                    unused.setdefault(f"{case.model_type} used", set()).add(key)
    for model_type in REGISTRY:
        assert unused[model_type] == unused[f"{model_type} used"]


def test_the_public_names() -> None:
    assert sorted(minitx.__all__) == minitx.__all__
    assert set(minitx.__all__) <= set(dir(minitx))
    for name in minitx.__all__:
        assert getattr(minitx, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing_like_it"):
        minitx.nothing_like_it  # noqa: B018
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]  # if TYPE_CHECKING
    imports = [node for node in ast.walk(typed) if isinstance(node, ast.ImportFrom)]
    imports = [node for node in imports if node.module != "minitx.optimize.door"]  # a package that is called
    assert sorted(alias.name for node in imports for alias in node.names) == minitx.__all__
    for node in imports:
        for alias in node.names:
            assert getattr(sys.modules[node.module or ""], alias.name) is getattr(minitx, alias.name)


def test_importing_minitx_imports_nothing_heavy() -> None:
    code = "import sys, minitx; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    heavy = ("torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "einops", "matplotlib")
    assert not modules & set(heavy)


def test_loading_and_running_needs_no_extra(tmp_path: Path) -> None:
    """Nor PyTorch's compiler, whose import takes half a second, for a decoder with joined projections."""
    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 9, "n_positions": 4}
    minitx.save(minitx.from_config(config), tmp_path / "gpt2")
    code = (
        f"import sys, minitx; m = minitx.load({str(MINILM)!r}); t = minitx.load_tokenizer({str(MINILM)!r}); "
        f"m(**t('hello')); minitx.load({str(tmp_path / 'gpt2')!r}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert not modules & {"transformers", "huggingface_hub", "matplotlib", "torch._dynamo"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "forward":
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno
            assert lines <= 40, f"{path.name}: a forward of {lines} lines is too much to take in"


def test_nothing_is_unpickled_unsafely_and_no_remote_code_runs() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                module = getattr(node, "module", None) or ""
                assert "pickle" not in names, path
                assert module != "pickle" or names == ["UnpicklingError"], path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert arguments["weights_only"] == "True", path
        assert "trust_remote_code=True" not in path.read_text()


def code_lines(node: ast.AST) -> int:
    """Lines without comments and docstrings."""
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        first = body[0] if isinstance(body, list) and len(body) > 1 else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            body.pop(0)
    return len(ast.unparse(node).splitlines())


def test_a_reader_finds_the_forward_of_an_encoder_quickly() -> None:
    """Tokens to pooled output: every function that making the modules and running them calls, and few files.

    Made as the loader makes them, on the meta device; drawing fresh weights is not on that way.
    """
    called: set[tuple[str, int]] = set()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    model, make = undo_fast_linear(minitx.load(MINILM)), minitx.EncoderModel  # a pass is no part of the model
    sys.setprofile(note)
    try:
        with torch.device("meta"):
            make(model.config)
        model(torch.arange(2, 9)[None])
    finally:
        sys.setprofile(None)
    total, files = 0, {name for name, _ in called}
    for name in files:
        for node in ast.walk(ast.parse(Path(name).read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if (name, first) in called:
                total += code_lines(node)
    # hidden states, attention weights, embeddings and inputs other than text are part of it
    assert total <= 410, total
    assert len({Path(name).name for name in files} - {"__init__.py", "config.py"}) <= 16, files


def test_activations_equal_the_reference() -> None:
    from transformers.activations import ACT2FN

    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    for name, function in ACTIVATIONS.items():
        assert torch.allclose(function(x), ACT2FN[name](x), atol=1e-12), name
