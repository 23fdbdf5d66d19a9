"""Post-processors of the families: the special tokens around a text or pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minitx.tokenizer.files import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor


def _ends(settings: Settings, backend: Backend) -> list[tuple[str, int]]:
    """Returns the first and last token around a text with their ids."""
    vocabulary = backend.get_vocab()
    tokens = (settings.text("cls_token"), settings.text("sep_token"))
    return [(token, vocabulary[token]) for token in tokens]


def typed_pair(settings: Settings, backend: Backend) -> PostProcessor:
    """[CLS] A [SEP] with type 0, then B [SEP] with type 1."""
    from tokenizers import processors

    (cls, _), (sep, _) = ends = _ends(settings, backend)
    return processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=ends,
    )


def double_separator(settings: Settings, backend: Backend) -> PostProcessor:
    """<s> A </s></s> B </s>, all of type 0."""
    from tokenizers import processors

    (cls, _), (sep, _) = ends = _ends(settings, backend)
    return processors.TemplateProcessing(
        single=[cls, "$A", sep], pair=[cls, "$A", sep, sep, "$B", sep], special_tokens=ends
    )


def double_separator_trimmed(settings: Settings, backend: Backend) -> PostProcessor:
    """<s> A </s></s> B </s>, with offsets that leave out the leading space of a token."""
    from tokenizers import processors

    cls, sep = _ends(settings, backend)
    return processors.RobertaProcessing(
        sep,
        cls,
        trim_offsets=settings.flag("trim_offsets", True),
        add_prefix_space=settings.flag("add_prefix_space", False),
    )


def optional_bos(settings: Settings, backend: Backend) -> PostProcessor:
    """A, and A B for a pair; with `add_bos_token` (OPT) <s> A, and <s> A <s> B."""
    from tokenizers import processors

    if not settings.flag("add_bos_token", False):
        return processors.ByteLevel(trim_offsets=settings.flag("trim_offsets", False))
    bos = settings.text("bos_token")
    return processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", bos, "$B"], special_tokens=[(bos, backend.get_vocab()[bos])]
    )


def _end(settings: Settings, backend: Backend) -> tuple[str, int]:
    """Returns the token after a text with its id."""
    token = settings.text("eos_token")
    return token, backend.get_vocab()[token]


def eos_after_each(settings: Settings, backend: Backend) -> PostProcessor:
    """A </s>, and A </s> B </s> for a pair."""
    from tokenizers import processors

    eos, _ = end = _end(settings, backend)
    return processors.TemplateProcessing(
        single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[end]
    )


def eos_at_end(settings: Settings, backend: Backend) -> PostProcessor:
    """A </s>, and A B </s> for a pair."""
    from tokenizers import processors

    eos, _ = end = _end(settings, backend)
    return processors.TemplateProcessing(single=["$A", eos], pair=["$A", "$B", eos], special_tokens=[end])
