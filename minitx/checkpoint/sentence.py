"""The files of sentence-transformers beside an encoder: its pooling, further modules, limits and prompts.

`load` keeps them in `model.checkpoint.sentence_files`, `minitx.embed` follows them, and `save` writes them
back. The encoder lies beside modules.json or, in older checkpoints, in a subfolder that modules.json names
("0_Transformer"). Nothing here interprets a module: `minitx.embed` raises about a file that is not valid.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

import torch

from minitx.checkpoint.files import BIN, SINGLE, WEIGHTS, open_bin
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG
from minitx.io import check_inside, check_regular_files, parse_value

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
# Options of the encoder, which lie beside its config.json; sentence-transformers uses the first that exists.
ENCODER_OPTIONS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_LONGEST, _DEEPEST = 255, 10  # bytes of the name of a file, and folders in one another


def list_modules(content: bytes, path: Path) -> list[tuple[str, str]]:
    """Returns the class and the folder of each module in modules.json; "." is the folder itself.

    Raises:
        ValueError: not a list of modules, or a folder outside this one; `path` is for the message.
    """
    entries = parse_value(content, path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}; expected a list of modules.")
    listed = []
    for entry in entries:
        kind, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str) or "\0" in place:
            raise ValueError(f"{path}: every module needs a 'type' and a 'path', not {entry!r}.")
        parts = PurePosixPath(place.replace("\\", "/"))
        if any(len(part.encode()) > _LONGEST for part in parts.parts) or len(parts.parts) > _DEEPEST:
            raise ValueError(f"{path}: names a folder of {len(place)} characters, {place[:40]!r}...")
        if parts.is_absolute() or ".." in parts.parts or ":" in place:
            raise ValueError(f"{path}: names {place!r}; a module must be inside the folder.")
        listed.append((kind, parts.as_posix()))
    return listed


def encoder_place(content: bytes | None) -> str:
    """Returns the folder of the encoder, the first module in modules.json; "." without a valid one."""
    try:
        modules = [] if content is None else list_modules(content, Path(MODULES))
    except ValueError:
        return "."
    return modules[0][1] if modules and modules[0][0].endswith("Transformer") else "."


def encoder_folder(folder: Path) -> Path:
    """Returns the subfolder that modules.json names and that has a model or an adapter, else `folder`.

    Raises:
        ValueError: a file of the folder is not a regular one.
    """
    check_regular_files(folder)
    inner = folder / encoder_place(_read(folder / MODULES))
    return inner if any((inner / name).is_file() for name in ("config.json", ADAPTER_CONFIG)) else folder


def upper_folder(folder: Path) -> Path:
    """Returns the folder whose modules.json names `folder` as its encoder; `folder` itself without one."""
    if not (folder / MODULES).is_file():
        for parent in folder.absolute().parents:
            if (parent / MODULES).is_file():
                return parent if encoder_folder(parent) == folder.absolute() else folder
    return folder


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Checks files of a folder whose content `save` writes again: links may lead out of it to weights only.

    Raises:
        ValueError: a link leads one of them out of its checkpoint.
    """
    for name in names:
        if (folder / name).is_symlink() and (folder / name).is_file():
            check_inside(folder / name, upper_folder(folder))


def module_files(names: Collection[str], place: str) -> list[str]:
    """Returns the files of a module, among names relative to modules.json; of a folder's weights one file.

    A module may consist of others in folders of its own, such as a Router.
    """
    paths = [path for path in map(PurePosixPath, names) if PurePosixPath(place) in path.parents]
    paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    small = [path.as_posix() for path in paths if path.suffix.lower() not in WEIGHTS]
    weights = {path.parent: path.as_posix() for last in (BIN, SINGLE) for path in paths if path.name == last}
    return sorted(small) + sorted(weights.values())


def read_sentence_files(folder: Path) -> dict[str, bytes]:
    """Returns the files by their name in a folder that has the encoder beside modules.json.

    Args:
        folder: folder of the encoder.

    Raises:
        ValueError: weights of a module in a `.bin` file that holds anything but tensors, or a link that
            leads out of the folder.
    """
    upper = upper_folder(folder)
    paths = {MODULES: upper / MODULES, SETTINGS: upper / SETTINGS}
    paths |= {name: folder / name for name in ENCODER_OPTIONS}
    present = {name: check_inside(path, upper) for name, path in paths.items() if path.is_file()}
    files = {name: path.read_bytes() for name, path in present.items()}
    if MODULES not in files:
        return files
    for place in _places(files[MODULES]):
        check_inside(upper / place, upper)
        here = [path.relative_to(upper) for path in (upper / place).rglob("*") if path.is_file()]
        for name in module_files([path.as_posix() for path in here], place):
            check_inside(upper / name, upper)
            if name.endswith(BIN):
                files[name.removesuffix(BIN) + SINGLE] = _as_safetensors(upper / name)
            else:
                files[name] = (upper / name).read_bytes()
    if upper != folder:
        modules = json.loads(files[MODULES])
        modules[0]["path"] = ""
        files[MODULES] = json.dumps(modules, indent=2).encode()
    return files


def sentence_names(names: Collection[str], modules: bytes | None) -> list[str]:
    """Returns the names, among those of a repository, of the files that `read_sentence_files` reads."""
    place = PurePosixPath(encoder_place(modules))
    wanted = [MODULES, SETTINGS, *((place / name).as_posix() for name in ENCODER_OPTIONS)]
    listed = [name for module in _places(modules) for name in module_files(names, module)]
    return [name for name in wanted if name in names] + listed


def first_module(folder: Path) -> str:
    """Returns the class of the first module in modules.json, such as WordEmbeddings; "" for an encoder."""
    content = _read(folder / MODULES)
    try:
        modules = [] if content is None else list_modules(content, folder / MODULES)
    except ValueError:
        return ""
    name = modules[0][0].rpartition(".")[2] if modules else ""
    return "" if name == "Transformer" else name


def module_places(folder: Path) -> list[str]:
    """Returns the folders of the modules that modules.json lists after the encoder, relative to `folder`."""
    return list(_places(_read(folder / MODULES)))


def _places(content: bytes | None) -> Iterable[str]:
    """Returns the folders of the modules after the encoder."""
    try:
        listed = [] if content is None else list_modules(content, Path(MODULES))
    except ValueError:
        return []
    return dict.fromkeys(place for _, place in listed if place not in (".", encoder_place(content)))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _as_safetensors(path: Path) -> bytes:
    from safetensors.torch import save

    tensors, _ = open_bin(path)
    content: bytes = save(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    )
    return content
