#!/usr/bin/env python
"""Prints how much there is to read: lines, files, fields, parameters, cycles, docstrings and words.

Counts are of plain code lines: no blank lines, no comments, no docstrings; wrapped lines count as they stand.

    .venv/bin/python scripts/measure_house.py           # this checkout
    .venv/bin/python scripts/measure_house.py FOLDER    # another one, such as a worktree of an old commit
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
# Words of a private English, per 1,000 words of docstrings; "what" is counted as a paraphrase of a noun.
WORDS = {
    "what": r"\bwhat\b",
    "behind": r"\bbehind\b",
    "says": r"\bsays\b",
    "turn": r"\bturn(s|ed|ing)?\b",
    "looks at": r"\blook(s|ed|ing)? at\b",
    "goes on": r"\bgo(es|ne|ing)? on\b|\bwent on\b",
    "to be had": r"\bto be had\b",
    "there is none": r"\bthere (is|are|were|was) (none|no such)\b|\bsuch place\b",
    "of one's own": r"\bof (one's|your) own\b",
}
FIELD = {
    "sequence": r"\bsequences?\b",
    "attention": r"\battention\b",
    "rotate": r"\brotat\w+",
    "batch": r"\bbatch(es)?\b",
    "encoder output": r"\bencoder (output|hidden)",
}


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    package = root / "minitx"
    for name, value in measures(root, package):
        print(f"{name:<66} {value}")


def measures(root: Path, package: Path) -> Iterator[tuple[str, str]]:
    forward, both = executed(root)
    yield "BERT forward with a mask, executed: files / lines", counted(forward)
    yield "BERT construction and forward, executed: files / lines", counted(both)
    sizes = {name: len(fields) for name, fields in config_classes(package / "config").items()}
    largest = max(sizes, key=lambda name: sizes[name])
    yield "largest config class: fields", f"{sizes[largest]} ({largest}), {sum(sizes.values())} in all"
    longest = max(functions(package), key=lambda found: code_lines(found[0], found[1]))
    yield "longest function: lines", f"{code_lines(longest[0], longest[1])} ({where(package, longest)})"
    wide = sorted(functions(package), key=lambda found: -len(parameters(found[1])))
    yield "most parameters", ", ".join(f"{len(parameters(f[1]))} {where(package, f)}" for f in wide[:12])
    for folder in ("decoding", "cli", "commands", "architectures", "layers", "models", "checkpoint"):
        if (package / folder).is_dir():
            lines = sum(code_lines(path) for path in (package / folder).rglob("*.py"))
            lines += code_lines(package / "cli.py") if folder == "commands" else 0
            yield f"{folder}/: lines", f"{lines:,}"
    yield (
        "all of minitx: lines / files",
        (f"{sum(map(code_lines, package.rglob('*.py'))):,} / {len(list(package.rglob('*.py')))}"),
    )
    yield "places that name a sampling parameter (min_p)", str(len(places_of(package, "min_p", "MinP")))
    modules = import_graph(package)
    yield "import cycles: modules / folders", f"{len(cycles(modules))} / {len(cycles(by_folder(modules)))}"
    (qwen3,) = package.rglob("qwen3.py")
    yield "Qwen3's file: lines", str(code_lines(qwen3))
    folders: dict[Path, int] = {}
    for path in package.rglob("*.py"):
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    fullest = max(folders, key=lambda folder: folders[folder])
    yield "most files in one folder", f"{folders[fullest]} ({fullest.relative_to(package)})"
    public = [found for found in functions(package) if is_public(found[1])]
    documented = [found for found in public if ast.get_docstring(found[1])]
    yield "public functions with a docstring", f"{100 * len(documented) / len(public):.0f} % of {len(public)}"
    opening = [f for f in documented if (ast.get_docstring(f[1]) or "").startswith("Raises")]
    yield "docstrings that begin with Raises", str(len(opening))
    words, text = docstrings(package)
    home = {name: len(re.findall(pattern, text, re.IGNORECASE)) for name, pattern in WORDS.items()}
    yield "words in docstrings", f"{words:,}"
    for name, count in home.items():
        yield f'"{name}" per 1,000 words', f"{1000 * count / words:.1f}"
    yield "home-made words per 1,000 words, all together", f"{1000 * sum(home.values()) / words:.1f}"
    for name, pattern in FIELD.items():
        count = len(re.findall(pattern, text, re.IGNORECASE))
        yield f'"{name}" per 1,000 words', f"{1000 * count / words:.1f}"


# --- lines -----------------------------------------------------------------------------------------


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def code_line_numbers(path: Path) -> frozenset[int]:
    """The lines of a file that hold code."""
    text = path.read_text(encoding="utf-8")
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*skipped, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree_of(path)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | FUNCTION) and body:
            first = body[0]
            constant = first.value if isinstance(first, ast.Expr) else None
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                lines -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return frozenset(lines)


def code_lines(path: Path, node: ast.AST | None = None) -> int:
    """Plain code lines of a file, or of one function in it, decorators included."""
    lines = code_line_numbers(path)
    if node is None:
        return len(lines)
    assert isinstance(node, FUNCTION)
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return len(lines & set(range(start, (node.end_lineno or start) + 1)))


def functions(package: Path) -> Iterator[tuple[Path, FUNCTION]]:
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, FUNCTION):
                yield path, node


def where(package: Path, found: tuple[Path, FUNCTION]) -> str:
    return f"{found[0].relative_to(package)}:{found[1].name}"


def parameters(node: FUNCTION) -> list[str]:
    a = node.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def is_public(node: FUNCTION) -> bool:
    return not node.name.startswith("_")


# --- what runs -------------------------------------------------------------------------------------

RUN = """
import json, sys, torch, minitx
from pathlib import Path
root = str(Path(minitx.__file__).parent)
config = {"model_type": "bert", "vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 4, "intermediate_size": 37, "max_position_embeddings": 48,
          "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "type_vocab_size": 2}
model = minitx.from_config(config, head="masked-lm")
config, kind = model.config, type(model)
called = set()
def note(frame, event, argument):
    if event == "call" and frame.f_code.co_filename.startswith(root):
        called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))
from dataclasses import replace
config = replace(config, pooler=True)
with torch.device("meta"):
    kind(config)
def run(construct):
    called.clear()
    sys.setprofile(note)
    if construct:
        with torch.device("meta"):
            kind(config)
    model(torch.arange(2, 9)[None], torch.tensor([[1] * 5 + [0] * 2]))
    sys.setprofile(None)
    return sorted(called)
model = kind(config).eval()
print(json.dumps([run(False), run(True)]))
"""


def executed(root: Path) -> list[list[tuple[str, int]]]:
    """File and first line of every function that runs, in a forward, and in construction and forward."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runs: list[list[tuple[str, int]]] = json.loads(done.stdout)
    return [[(name, line) for name, line in run] for run in runs]


def counted(called: Iterable[tuple[str, int]]) -> str:
    total, files = 0, set()
    by_file: dict[str, set[int]] = {}
    for name, line in called:
        by_file.setdefault(name, set()).add(line)
    for name, lines in by_file.items():
        path = Path(name)
        for node in ast.walk(tree_of(path)):
            if isinstance(node, FUNCTION):
                start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if start in lines:
                    total += code_lines(path, node)
                    files.add(name)
    return f"{len(files)} / {total}"


# --- configs, parameters, imports ------------------------------------------------------------------


def config_classes(path: Path) -> dict[str, list[str]]:
    """The dataclasses of the configs and their fields."""
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return {
        node.name: [f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and named(f)]
        for file in files
        for node in tree_of(file).body
        if isinstance(node, ast.ClassDef)
    }


def named(field: ast.AnnAssign) -> bool:
    return isinstance(field.target, ast.Name) and "ClassVar" not in ast.unparse(field.annotation)


def places_of(package: Path, parameter: str, processor: str) -> list[str]:
    """Where a sampling parameter or its processor is named: its class, its field, and every other line.

    Imports are not counted, which in an `__init__` file are re-exports too.
    """
    places = []
    for path in sorted(package.rglob("*.py")):
        own: set[int] = set()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                own |= lines_of(node)
            elif isinstance(node, ast.ClassDef) and node.name == processor:
                own |= lines_of(node)
                places.append(f"{path.name}: class {processor}")
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == parameter:
                if not own & lines_of(node):  # else the field of its class
                    places.append(f"{path.name}: field {parameter}")
                own |= lines_of(node)
        lines = path.read_text(encoding="utf-8").splitlines()
        for number in sorted(code_line_numbers(path) - own):
            if re.search(rf"\b({parameter}|{processor})\b", lines[number - 1]):
                places.append(f"{path.name}:{number}")
    return places


def lines_of(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or 0) + 1))


def import_graph(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, for types and inside functions too."""
    modules = {module_name(package, path): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        targets = set()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minitx"):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    targets.add(inner if inner in modules else str(node.module))
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names if alias.name in modules}
        graph[module] = targets - {module, "minitx"}
    graph["minitx"] = set()  # its table of public names is lazy
    return graph


def module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def by_folder(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same between the rooms: the folders and files directly in the package."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    graph: dict[str, set[str]] = {}
    for module, targets in modules.items():
        graph.setdefault(room(module), set()).update(room(t) for t in targets if room(t) != room(module))
    return graph


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


# --- words -----------------------------------------------------------------------------------------


def docstrings(package: Path) -> tuple[int, str]:
    """The number of words in all docstrings, and their text."""
    texts = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Module | ast.ClassDef | FUNCTION):
                texts.append(ast.get_docstring(node) or "")
    text = "\n".join(texts)
    return len(re.findall(r"[A-Za-z][A-Za-z'-]*", text)), text


if __name__ == "__main__":
    main()
