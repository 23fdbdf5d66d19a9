"""Where a command finds its model and its texts, and on which device the model runs.

torch is imported by the methods, so that --help is quick.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minitx.architectures.declaration import Architecture
    from minitx.tokenizer import Tokenizer


@dataclass
class Source:
    """A model's folder or Hub id with the options on how to fetch and load it.

    Attributes:
        name: folder or Hub id; empty where the command has a default.
        revision, token, offline: of the Hub.
        model_type: for a config.json without one.
        ignore_keys: keys of config.json to leave out.
        dtype: name of the weights' dtype; None for that of the file.
        device: where the model runs.
        optimize: "exact", "bfloat16" or "int8", for `minitx.optimize`; None: it is not applied.
        compile: whether steps of a generation are compiled.
        quiet: shows no progress bars.
    """

    name: str
    revision: str = "main"
    token: str | None = None
    offline: bool | None = None
    model_type: str | None = None
    ignore_keys: tuple[str, ...] = ()
    dtype: str | None = None
    device: str = "cpu"
    optimize: str | None = None
    compile: bool | None = None
    quiet: bool = False

    @property
    def hub(self) -> dict[str, Any]:
        """The options of the Hub, as keyword arguments."""
        return {"revision": self.revision, "token": self.token, "offline": bool(self.offline)}

    @property
    def reading(self) -> dict[str, Any]:
        """How config.json is read, as keyword arguments."""
        return {"model_type": self.model_type, "ignore_keys": self.ignore_keys}

    def folder(self) -> Path:
        """Returns the folder, after fetching it from the Hub if necessary; checks the device first."""
        from minitx.checkpoint.hub import fetch

        self.calm_hub()
        self.check_device()
        return fetch(self.name, **self.hub)

    def calm_hub(self) -> None:
        """Switches the Hub client's progress bars off, except at a terminal without --json."""
        if (self.quiet or not sys.stderr.isatty()) and not Path(self.name).is_dir():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where HF_HUB_DISABLE_PROGRESS_BARS=0 overrules this
                import_module("huggingface_hub.utils").disable_progress_bars()

    def check_device(self) -> None:
        """Checks that this machine, and this build of PyTorch, has the device."""
        from minitx.checkpoint.load import check_device

        check_device(self.device)

    def architecture(self, folder: Path) -> Architecture | None:
        """Returns the architecture; None without a config.json, about which loading raises."""
        from minitx.checkpoint.build import choose_architecture
        from minitx.checkpoint.formats.source import has_config, stored_config
        from minitx.checkpoint.lora.base import base_folder

        place = base_folder(folder, token=self.token, offline=bool(self.offline))
        return choose_architecture(stored_config(place), self.model_type)[0] if has_config(place) else None

    def tokenizer(self, folder: Path | str = "", **languages: Any) -> Tokenizer:
        """Loads the tokenizer beside the model: from its folder, or from the same Hub repository.

        Args:
            folder: of the model.
            **languages: `src_lang` and `tgt_lang` of a translation model.
        """
        from minitx.tokenizer import load_tokenizer

        return load_tokenizer(self.name or folder, model_type=self.model_type, **languages, **self.hub)

    def model(self, folder: Path, head: str | None) -> Any:
        """Loads the model."""
        from minitx.checkpoint.load import load

        # of an adapter, the base model may be on the Hub
        model = load(folder, head=head, dtype=self.dtype, device=self.device, **self.reading, **self.hub)
        return self.optimized(model)

    def optimized(self, model: Any) -> Any:
        """Applies the passes that --optimize and --compile ask for."""
        optimize_as = import_module("minitx.optimize.auto").optimize_as
        return optimize_as(model, self.optimize, bool(self.compile), self.quiet)


def read_texts(texts: Sequence[str], file: str | None) -> list[str]:
    """Returns the texts of the command line, or the lines of --file or stdin, empty lines included.

    Raises:
        ValueError: no texts, two sources at once, or not UTF-8.
    """
    if texts and file is not None:
        raise ValueError("texts come both from the command line and from --file; give one of them.")
    if texts:
        return list(texts)
    if file is None and sys.stdin.isatty():
        raise ValueError("no text: give texts after the model, or --file, or lines on stdin.")
    try:
        content = _stdin() if file is None else Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file or 'stdin'}: not UTF-8 text ({error}).") from None
    if not content.strip():
        raise ValueError(f"{file or 'stdin'} holds no text.")
    # Only "\n" ends a line, as for other tools; str.splitlines also cuts at form feeds and U+2028.
    return [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]


def _stdin() -> str:
    binary = getattr(sys.stdin, "buffer", None)  # a stream that replaces stdin may have none
    return sys.stdin.read() if binary is None else str(binary.read(), "utf-8-sig")
