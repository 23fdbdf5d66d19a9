"""Post-processors of the families: the special tokens around a text or pair."""

from __future__ import annotations

from collections.abc import Callable
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
        trim_offsets=settings.switch("trim_offsets", True),
        add_prefix_space=settings.switch("add_prefix_space", False),
    )


def optional_boundaries(*, bos: bool) -> Callable[[Settings, Backend], PostProcessor]:
    """Returns the post-processor of decoders: <s> A </s>, and <s> A </s> <s> B </s> for a pair.

    Args:
        bos: add <s> if no file has `add_bos_token`. </s> is added with `add_eos_token` only.
    """

    def _build(settings: Settings, backend: Backend) -> PostProcessor:
        from tokenizers import processors

        front = ["bos_token"] if settings.flag("add_bos_token", bos) else []
        end = ["eos_token"] if settings.flag("add_eos_token", False) else []
        # A role without a token is left out, as in transformers.
        named = {name: settings.special_tokens_map.get(name) for name in (*front, *end)}
        tokens = {name: token.content for name, token in named.items() if token is not None}
        if not tokens:
            return processors.ByteLevel(trim_offsets=settings.switch("trim_offsets", False))
        text = [*(tokens[name] for name in front if name in tokens), "$A"]
        text += [tokens[name] for name in end if name in tokens]
        vocabulary = backend.get_vocab()
        return processors.TemplateProcessing(
            single=text,
            pair=[*text, *("$B" if part == "$A" else part for part in text)],
            special_tokens=[(token, vocabulary[token]) for token in set(tokens.values())],
        )

    return _build


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
