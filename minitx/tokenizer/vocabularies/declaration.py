"""`Family` and `VocabularyFiles`: the declaration of a family's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minitx.tokenizer.backends import TokenizerBackends
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
class VocabularyFiles:
    """One set of vocabulary files and the tokenizer that they define.

    Attributes:
        files: names of the files, all of which must exist.
        build: (folder, settings) -> tokenizer without special tokens.
        post_processor: (settings, tokenizer) -> post-processor, which adds special tokens to a text or pair.
        special_tokens_map: special tokens if no file names them.
        mask_takes_space: the mask token includes the space before it.
        special: settings -> further special tokens that files may leave out.
        build_backends: (folder, settings, tokenizer, self) -> `TokenizerBackends`, for a vocabulary apart
            from the sentencepiece models; `build` then returns a tokenizer of the vocabulary only.
    """

    files: tuple[str, ...]
    build: Callable[[Path, Settings], Backend]
    post_processor: Callable[[Settings, Backend], PostProcessor]
    special_tokens_map: Mapping[str, str]
    mask_takes_space: bool = False
    special: Callable[[Settings], tuple[str, ...]] | None = None
    build_backends: Callable[[Path, Settings, Backend, VocabularyFiles], TokenizerBackends] | None = None


class MissingTokenizerError(ValueError):
    """There is no tokenizer beside a model, or none that minitx can build."""


class Family(NamedTuple):
    """The tokenizer of one architecture: class, model inputs, vocabulary files and languages."""

    tokenizer_class: str
    model_input_names: tuple[str, ...]
    sources: tuple[VocabularyFiles, ...]
    languages: LanguageRule | None = None

    @property
    def special_tokens_map(self) -> Mapping[str, str]:
        """Special tokens if no file names them."""
        return self.sources[0].special_tokens_map if self.sources else {}

    def special(self, settings: Settings) -> tuple[str, ...]:
        """Returns further special tokens that files may leave out."""
        special = self.sources[0].special if self.sources else None
        return special(settings) if special else ()
