"""Reads recipes: TOML files, with overrides from the command line."""

from __future__ import annotations

import glob
import os
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.training.recipe.tables import DataTable, ModelTable, TokenizerTable, check_keys, table
from minitx.training.toml import dump_toml
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_path, check_type

RECIPE = "recipe.toml"  # in the folder of a run, and beside its checkpoints
TABLES = ("model", "tokenizer", "data", "objective", "train")
# Keys whose values are paths; those of the second row may also be ids of the Hub.
_PATHS = (("folder",), ("data", "files"), ("data", "evaluation"), ("data", "tokens"))
_NAMES = (("model", "name"), ("tokenizer", "name"), ("objective", "reference"), ("objective", "teacher"))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run as a recipe describes it, from `read_recipe`.

    Attributes:
        file: that it was read from.
        folder: of the run.
        model, tokenizer, data: the tables of these names.
        objective: name and options of the objective.
        train: fields of `TrainConfig`, or `epochs` in place of `steps`.
        text: the recipe with its overrides as TOML, with absolute paths.
    """

    file: Path
    folder: Path
    model: ModelTable
    tokenizer: TokenizerTable
    data: DataTable
    objective: Mapping[str, Any]
    train: Mapping[str, Any]
    text: str


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, folder: str | Path | None = None
) -> Recipe:
    """Reads a recipe.

    Relative paths in the file are relative to the file, those of overrides to the working directory.

    Args:
        path: a TOML file, or the folder of a run, which has its recipe.
        overrides: such as "train.steps=50" or "data.files=mine.txt", with TOML values; a text
            needs no quotes.
        folder: of the run; None: `folder` of the recipe, or the path of the TOML file without ".toml".

    Raises:
        FileNotFoundError: no such file, or a folder without a recipe.
        ArgumentTypeError, ArgumentValueError: unknown keys, or values of other types.
        ValueError: a file that is not TOML.
    """
    file, place = check_path("path", path), None
    if file.is_dir():
        file, place = file / RECIPE, file
        if not file.is_file():
            raise FileNotFoundError(f"{place} has no {RECIPE}; pass the TOML file of the recipe.")
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; pass the TOML file of a recipe.")
    try:
        values = tomllib.loads(file.read_text("utf-8-sig"))  # editors may write a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}.") from None
    values = _with_paths(values, file.parent)
    check_type("overrides", overrides, list | tuple, "a list", 'such as ["train.steps=50"]')
    for override in overrides:
        _override(values, override)
    check_keys(values, ("folder", *TABLES), file.stem)
    stated = values.pop("folder", None)
    if folder is None:
        folder = place or stated or file.with_suffix("")
        if folder == file:
            raise ArgumentValueError("folder", None, "the folder of the run", f"{file} has no suffix .toml")
    parts = {name: values.get(name, {}) for name in TABLES}
    for name, part in parts.items():
        check_type(name, part, Mapping, f"a table, [{name}]")
    return Recipe(
        file=file,
        folder=check_path("folder", folder),
        model=table(ModelTable, parts["model"], "model"),
        tokenizer=table(TokenizerTable, parts["tokenizer"], "tokenizer"),
        data=table(DataTable, parts["data"], "data"),
        objective=parts["objective"],
        train=parts["train"],
        text=dump_toml(values),
    )


def changes(recipe: Recipe, overrides: Sequence[str] = ()) -> list[str]:
    """Returns the values of a recipe that differ from those of the run in its folder; none without a run.

    Args:
        recipe: to continue the run with.
        overrides: of the recipe, which are meant to differ.
    """
    if not (recipe.folder / RECIPE).is_file():
        return []
    earlier = _flat(tomllib.loads(read_recipe(recipe.folder, overrides).text))
    values = _flat(tomllib.loads(recipe.text))
    return [
        f"{key}={values.get(key)!r} instead of {earlier.get(key)!r}"
        for key in dict.fromkeys([*values, *earlier])
        if values.get(key) != earlier.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested tables by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _override(values: dict[str, Any], override: str) -> None:
    """Sets a value by its dotted key."""
    check_type("overrides", override, str, "strings", 'such as "train.steps=50"')
    name, equals, text = override.partition("=")
    keys = _dotted(name)
    if not equals or not all(keys):
        raise ArgumentValueError("set", override, "key=value", "such as train.steps=50")
    value = _value(text)
    if value is None:
        raise ArgumentValueError("set", override, "one key=value", "set several keys one at a time")
    change: dict[str, Any] = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        change = {key: change}
    target, source = values, _with_paths(change, Path.cwd())
    for key in keys[:-1]:
        target, source = target.setdefault(key, {}), source[key]
        if not isinstance(target, dict):
            raise ArgumentTypeError("set", override, f"a key that exists; {key} is a value and not a table")
    target[keys[-1]] = source[keys[-1]]


def _dotted(name: str) -> list[str]:
    """Returns the keys of a dotted key of TOML, in which quotes may hold a point: a."b.c" has two."""
    try:
        part: Any = tomllib.loads(f"{name} = 0")
    except tomllib.TOMLDecodeError:
        return [key.strip() for key in name.split(".")]
    keys = []
    while isinstance(part, dict):
        keys.append(next(iter(part)))
        part = part[keys[-1]]
    return keys


def _value(text: str) -> Any:
    """Returns a value of TOML, or the text itself; None if further keys follow the value."""
    try:
        values = tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return values["x"] if values.keys() == {"x"} else None


# --- paths -----------------------------------------------------------------------------------------


def _with_paths(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Returns the values with absolute paths.

    Args:
        values: of a recipe, or some of them.
        base: folder that relative paths are relative to.
    """
    result = deepcopy(dict(values))
    for keys in (*_PATHS, *_NAMES):
        part: Any = result
        for key in keys[:-1]:
            part = part.get(key, {}) if isinstance(part, dict) else {}
        value = part.get(keys[-1]) if isinstance(part, dict) else None
        if isinstance(value, str) and (keys in _PATHS or _is_path(value, base)):
            part[keys[-1]] = _absolute(value, base)
        elif isinstance(value, list) and keys in _PATHS:
            part[keys[-1]] = [_absolute(v, base) if isinstance(v, str) else v for v in value]
    return result


def _is_path(name: str, base: Path) -> bool:
    """Whether a model's name is a path: it looks like one, or there is such a folder."""
    return name.startswith((".", "/", "~")) or (base / name).is_dir()


def _absolute(path: str, base: Path) -> str:
    return os.path.normpath(base.absolute() / Path(path).expanduser())


def files_of(patterns: str | Sequence[str], key: str) -> list[Path]:
    """Returns the files that patterns match, sorted, each once.

    Args:
        patterns: absolute paths with *, ? and [...].
        key: of the recipe, for messages.

    Raises:
        ArgumentTypeError: something other than texts.
        FileNotFoundError: a pattern that matches no file.
    """
    files: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        check_type(key, pattern, str, "a path or pattern, or a list of them")
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise FileNotFoundError(f"{key}: no file matches {pattern}.")
        files |= dict.fromkeys(Path(match) for match in matches)
    return list(files)
