"""How a family's vocabulary is described: the files it ships, how they are read, what frames a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minitx.tokenizer.backends import Engine
from minitx.tokenizer.files import Settings
from minitx.tokenizer.languages import LanguageRule

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor

WITHOUT_TYPES = ("input_ids", "attention_mask")
WITH_TYPES = ("input_ids", "token_type_ids", "attention_mask")

BRACKETS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
BOUNDARIES = {"bos_token": "[CLS]", "eos_token": "[SEP]"}
ANGLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One way in which a family ships its vocabulary.

    Attributes:
        files: names of the files, all of which must be there.
        build: makes the tokenizer, without special tokens, from (folder, settings).
        frame: makes the post-processor, which puts the special tokens around one text or a pair,
            from (settings, tokenizer).
        roles: the special tokens where no file names them.
        mask_takes_space: whether the mask token swallows the space before it.
        special: further special tokens, without a role, that no file needs to name.
        cut: for a family whose vocabulary is apart from the files that cut text: makes the `Engine`
            from (folder, settings, tokenizer), where `build` made a tokenizer that only names ids.
    """

    files: tuple[str, ...]
    build: Callable[[Path, Settings], Backend]
    frame: Callable[[Settings, Backend], PostProcessor]
    roles: Mapping[str, str]
    mask_takes_space: bool = False
    special: Callable[[Settings], tuple[str, ...]] | None = None
    cut: Callable[[Path, Settings, Backend, Source], Engine] | None = None


class Family(NamedTuple):
    """The tokenizer of one architecture: its model's inputs, and the older files it may ship."""

    tokenizer_class: str
    model_input_names: tuple[str, ...]
    sources: tuple[Source, ...]
    languages: LanguageRule | None = None

    @property
    def roles(self) -> Mapping[str, str]:
        """The special tokens where no file names them."""
        return self.sources[0].roles if self.sources else {}

    def special(self, settings: Settings) -> tuple[str, ...]:
        """Further special tokens that no file needs to name."""
        special = self.sources[0].special if self.sources else None
        return special(settings) if special else ()
