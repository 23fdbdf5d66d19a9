"""Settings of generation that a checkpoint states: in generation_config.json, or in an older config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minitx.architectures.known_keys import EVERY, known_keys
from minitx.checkpoint.files import GENERATION
from minitx.checkpoint.formats.source import has_config, stored_config
from minitx.checkpoint.hub import fetch
from minitx.checkpoint.lora.base import base_folder, generation_folder
from minitx.io import parse_json
from minitx.transaction import read_consistently

# Keys of the table that choose neither how tokens are chosen nor how many: a start token, formats of outputs
_NO_SETTINGS = frozenset(
    """
    cache_implementation decoder_start_token_id force_bos_token_to_be_generated
    output_scores prefix return_dict_in_generate task_specific_params
    """.split()  # noqa: SIM905 - words
)


class StatedSettings(NamedTuple):
    """Settings of generation, under the keys of generation_config.json.

    Attributes:
        settings: key -> value.
        file: name of the file that states them.
    """

    settings: dict[str, Any]
    file: str


def stated_settings(content: bytes | None, config: Mapping[str, Any], folder: Path) -> StatedSettings | None:
    """Returns the settings of a checkpoint; None if it states none.

    As in transformers, config.json states them where there is no generation_config.json, and the decoder's
    config in it where the outer one does not.

    Args:
        content: of generation_config.json; None without one.
        config: content of config.json.
        folder: of both files, for messages.

    Raises:
        ValueError: generation_config.json is not JSON, or not an object.
    """
    if content is not None:
        return StatedSettings(parse_json(content, folder / GENERATION), GENERATION)
    known = {key for key, reason in known_keys(EVERY).items() if reason == "generation"} - _NO_SETTINGS
    decoder = config.get("decoder")
    stated: dict[str, Any] = {}
    for part in (decoder if isinstance(decoder, Mapping) else {}, config):
        stated |= {
            key: part[key] for key in part if key in known | {"eos_token_id"} and part[key] is not None
        }
    return StatedSettings(stated, "config.json") if known & stated.keys() else None


def fetch_settings(
    name_or_folder: str | Path, *, revision: str = "main", token: str | None = None, offline: bool = False
) -> StatedSettings:
    """Returns the settings of a checkpoint; of an adapter without any, those of its base model.

    Args:
        name_or_folder: folder or Hub id of a checkpoint or an adapter.
        revision, token, offline: as for `fetch`.

    Raises:
        FileNotFoundError: it states none.
        ValueError: as `stated_settings`.
    """
    folder = fetch(name_or_folder, revision=revision, token=token, offline=offline)
    base = base_folder(folder, token=token, offline=offline)

    def read() -> StatedSettings | None:
        """Reads the files, all of them of one save."""
        path = generation_folder(folder, base) / GENERATION
        content = path.read_bytes() if path.is_file() else None
        config = stored_config(base) if content is None and has_config(base) else {}
        return stated_settings(content, config, folder)

    settings = read_consistently(base, read, *{folder} - {base})
    if settings is None:
        raise FileNotFoundError(
            f"{folder} has no {GENERATION}; choose a strategy: sampling, greedy decoding or a search."
        )
    return settings
