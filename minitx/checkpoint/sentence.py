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

from minitx.checkpoint.files import BIN, SINGLE, open_bin

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
# Options of the encoder, which lie beside its config.json; sentence-transformers uses the first that exists.
ENCODER_OPTIONS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_WEIGHTS = (
    ".bin",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ot",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".safetensors",
)


def list_modules(content: bytes, path: Path) -> list[tuple[str, str]]:
    """Returns the class and the folder of each module in modules.json; "." is the folder itself.

    Raises:
        ValueError: not a list of modules, or a folder outside this one; `path` is for the message.
    """
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); is the file complete?") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}; expected a list of modules.")
    listed = []
    for entry in entries:
        kind, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str) or "\0" in place:
            raise ValueError(f"{path}: every module needs a 'type' and a 'path', not {entry!r}.")
        parts = PurePosixPath(place.replace("\\", "/"))
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
    """Returns the subfolder that modules.json names and that has the encoder's config.json, else `folder`."""
    place = encoder_place(_read(folder / MODULES))
    return folder / place if place != "." and (folder / place / "config.json").is_file() else folder


def upper_folder(folder: Path) -> Path:
    """Returns the folder whose modules.json names `folder` as its encoder; `folder` itself without one."""
    if not (folder / MODULES).is_file():
        for parent in folder.absolute().parents:
            if (parent / MODULES).is_file():
                return parent if encoder_folder(parent) == folder.absolute() else folder
    return folder


def module_files(names: Collection[str], place: str) -> list[str]:
    """Returns the files of a module, among names relative to modules.json; of its weights one file."""
    inside = [name for name in names if PurePosixPath(name).parent.as_posix() == place]
    small = [
        name
        for name in inside
        if not name.endswith(_WEIGHTS) and not PurePosixPath(name).name.startswith(".")
    ]
    weights = [f"{place}/{name}" for name in (SINGLE, BIN) if f"{place}/{name}" in inside]
    return sorted(small) + weights[:1]


def read_sentence_files(folder: Path) -> dict[str, bytes]:
    """Returns the files by their name in a folder that has the encoder beside modules.json.

    Args:
        folder: folder of the encoder.

    Raises:
        ValueError: weights of a module in a `.bin` file that holds anything but tensors.
    """
    upper = upper_folder(folder)
    paths = {MODULES: upper / MODULES, SETTINGS: upper / SETTINGS}
    paths |= {name: folder / name for name in ENCODER_OPTIONS}
    files = {name: content for name, path in paths.items() if (content := _read(path)) is not None}
    if MODULES not in files:
        return files
    for place in _places(files[MODULES]):
        here = [f"{place}/{path.name}" for path in _entries(upper / place) if path.is_file()]
        for name in module_files(here, place):
            if name.endswith(BIN):
                files[f"{place}/{SINGLE}"] = _as_safetensors(upper / name)
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


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _as_safetensors(path: Path) -> bytes:
    from safetensors.torch import save

    tensors, _ = open_bin(path)
    content: bytes = save(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    )
    return content
