"""The files of a checkpoint, be it a folder in Hugging Face's layout or one GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minitx.checkpoint.files import Tensors, open_folder
from minitx.checkpoint.formats.torchao import TorchaoTensors, with_torchao
from minitx.checkpoint.gguf.checkpoint import gguf_config, gguf_tensors
from minitx.checkpoint.gguf.header import is_gguf
from minitx.checkpoint.sentence import check_links, first_module
from minitx.io import read_json
from minitx.validation import warn


def has_config(place: Path) -> bool:
    """Whether a folder has a config.json, or the place is a GGUF file."""
    return is_gguf(place) or (place / "config.json").is_file()


def stored_config(place: Path) -> dict[str, Any]:
    """Returns the content of config.json, or that which a GGUF file stands for.

    Raises:
        FileNotFoundError: no config.json.
        ValueError: damaged JSON, a link out of the folder, or a GGUF file that minitx does not read.
    """
    if is_gguf(place):
        return gguf_config(place)
    if not (place / "config.json").is_file():
        if name := first_module(place):
            raise ValueError(f"{place}: modules.json begins with a {name}; minitx loads encoders only.")
        raise FileNotFoundError(f"{place} has no config.json; is it a model in Hugging Face's layout?")
    check_links(place, ["config.json"])
    return without_torchao(read_json(place / "config.json"))


def without_torchao(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config without the record of torchao; the header of the weights states how each is stored."""
    record = config.get("quantization_config")
    if not isinstance(record, dict) or record.get("quant_method") != "torchao":
        return config
    return {key: value for key, value in config.items() if key != "quantization_config"}


def open_weights(place: Path, *, mapped: bool = True) -> Tensors:
    """Opens the weights of a folder or of a GGUF file; quantised ones are dequantised when they are read.

    Args:
        place: folder or GGUF file.
        mapped: map tensors from the files; False reads each into memory.

    Raises:
        FileNotFoundError, ValueError: as `open_folder`, `with_torchao` and `gguf_tensors`.
    """
    if is_gguf(place):
        return gguf_tensors(place, mapped=mapped)
    tensors = with_torchao(open_folder(place, mapped=mapped))
    if isinstance(tensors, TorchaoTensors) and any(w.activations for w in tensors.quantized.values()):
        warn(f"{place}: torchao quantises the inputs of the projections too; here only weights are rounded.")
    return tensors
