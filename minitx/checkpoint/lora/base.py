"""The base model of an adapter folder: the files that the adapter does not have are the base's."""

from __future__ import annotations

from pathlib import Path

from minitx.checkpoint.files import BIN, BIN_INDEX, GENERATION, INDEX, SINGLE
from minitx.checkpoint.hub import TOKENIZER, fetch, fetch_tokenizer
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG, read_settings, setting_error
from minitx.checkpoint.sentence import MODULES, read_sentence_files


def base_folder(folder: Path, *, token: str | None = None, offline: bool = False) -> Path:
    """Returns the folder of config.json and the weights: `folder`, or the base of an adapter without them.

    Args:
        folder: folder of a checkpoint or an adapter.
        token, offline: as for `fetch`.

    Raises:
        FileNotFoundError: no such base model.
        ValueError: as `read_settings`; a base model that has an adapter itself.
    """
    if any((folder / name).is_file() for name in (SINGLE, INDEX, BIN, BIN_INDEX)):
        return folder
    named = _base_name(folder)
    if named is None:
        return folder
    source, revision = named
    base = fetch(source, revision=revision, token=token, offline=offline)
    if (base / ADAPTER_CONFIG).is_file():
        reason = f"is an adapter itself, or a model beside one ({ADAPTER_CONFIG})"
        hint = "merge that one first, such as with minitx.save, and name the result here"
        key = "base_model_name_or_path"
        raise setting_error(folder / ADAPTER_CONFIG, {key: str(source)}, key, reason, hint)
    return base


def tokenizer_folder(folder: Path, *, token: str | None = None, offline: bool = False) -> Path:
    """Returns the folder of a tokenizer: `folder`, or the base of an adapter without tokenizer files."""
    if has_tokenizer(folder) or (folder / "config.json").is_file():
        return folder
    named = _base_name(folder)
    if named is None:
        return folder
    return fetch_tokenizer(named[0], revision=named[1], token=token, offline=offline)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has any file of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER)


def sentence_files(folder: Path, base: Path) -> dict[str, bytes]:
    """Returns the files of sentence-transformers, those of an adapter's folder before those of its base.

    Raises:
        ValueError: as `read_sentence_files`.
    """
    own = read_sentence_files(folder)
    return own if MODULES in own or folder == base else read_sentence_files(base) | own


def generation_folder(folder: Path, base: Path) -> Path:
    """Returns the folder that states the settings of generation, of an adapter's and that of its base."""
    return folder if (folder / GENERATION).is_file() else base


def _base_name(folder: Path) -> tuple[str | Path, str] | None:
    """Returns a folder or Hub id, and the revision, of an adapter's base model; None without an adapter."""
    config = read_settings(folder)
    if config is None:
        return None
    name = config.get("base_model_name_or_path")
    if not name:
        key, reason = "base_model_name_or_path", "must name the base model, a folder or a Hub id"
        raise setting_error(folder / ADAPTER_CONFIG, config, key, reason)
    return folder / name if (folder / name).is_dir() else name, config.get("revision") or "main"
