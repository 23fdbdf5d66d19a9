"""vocab.txt: the pieces of BERT and its relatives, or whole words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.files import Settings, read_text
from minitx.tokenizer.vocabularies.family import ANGLES, BRACKETS, Source
from minitx.tokenizer.vocabularies.post_processors import double_separator_trimmed, typed_pair

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _read_lines(path: Path) -> dict[str, int]:
    """vocab.txt: one token per line, its id is the number of the line."""
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    # Only "\n" ends a line: vocabularies hold U+2028 and its like as tokens. The last line may or
    # may not be ended.
    return {token: index for index, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}


def _word_pieces(folder: Path, settings: Settings) -> Backend:
    """BERT's vocab.txt: words, cut greedily into longest pieces, "##" before all but the first."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary = _read_lines(folder / "vocab.txt")
    _require(vocabulary, settings.text("unk_token"), folder / "vocab.txt")
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=settings.text("unk_token")))
    # Without "basic tokenization" the text reaches the pieces as it is, but for control characters.
    basic = settings.flag("do_basic_tokenize", True) is not False
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=basic and settings.flag("tokenize_chinese_chars", True) is not False,
        strip_accents=settings.flag("strip_accents", None) if basic else False,
        lowercase=basic and settings.flag("do_lower_case", True) is not False,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    # Words that are taken whole and as written. transformers 5 ignores the list; the models were
    # trained with it.
    for word in settings.words("never_split"):
        if word in vocabulary:
            backend.add_tokens([AddedToken(word, single_word=True, normalized=False)])
    return backend


def _albert_word_pieces(folder: Path, settings: Settings) -> Backend:
    """An ALBERT with BERT's vocab.txt (the Chinese ones have it), told by its "##" pieces."""
    if not any(token.startswith("##") for token in _read_lines(folder / "vocab.txt")):
        raise ValueError(
            f"{folder / 'vocab.txt'} is a list of whole words, without pieces, and does not say "
            "where a word ends. Pass pattern=, a regular expression that matches one word."
        )
    return _word_pieces(folder, settings)


def words(pattern: str) -> Source:
    """A vocab.txt of whole words: a pattern's matches, uncleaned; text between them is dropped."""

    def build(folder: Path, settings: Settings) -> Backend:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        vocabulary = _read_lines(folder / "vocab.txt")
        _require(vocabulary, settings.text("unk_token"), folder / "vocab.txt")
        try:
            expression = Regex(pattern)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(
                f"pattern={pattern!r} is not a regular expression that can be used: {error}"
            ) from error
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token=settings.text("unk_token")))
        backend.pre_tokenizer = pre_tokenizers.Split(expression, "removed", invert=True)
        return backend

    return Source(files=("vocab.txt",), build=build, frame=typed_pair, roles=BRACKETS)


def _require(vocabulary: Mapping[str, int], token: str, path: Path) -> None:
    if token not in vocabulary:
        raise ValueError(
            f"{path} lacks the unknown token {token!r}. If it goes by another name there, put that "
            "into tokenizer_config.json as unk_token."
        )


BERT = Source(files=("vocab.txt",), build=_word_pieces, frame=typed_pair, roles=BRACKETS)
MPNET = Source(
    files=("vocab.txt",),
    build=_word_pieces,
    frame=double_separator_trimmed,
    roles=ANGLES | {"unk_token": "[UNK]"},
    mask_takes_space=True,
)
ALBERT_WORDS = Source(files=("vocab.txt",), build=_albert_word_pieces, frame=typed_pair, roles=BRACKETS)
