"""vocab.txt: WordPiece vocabularies of BERT, MPNet and ALBERT, or whole words by a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.backends import TokenizerBackends
from minitx.tokenizer.files import Settings, read_text
from minitx.tokenizer.vocabularies.declaration import ANGLES, BRACKETS, VocabularyFiles
from minitx.tokenizer.vocabularies.post_processors import double_separator_trimmed, typed_pair

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _read_lines(path: Path) -> dict[str, int]:
    """Reads vocab.txt: one token per line, the line number is its id."""
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    # Only "\n" ends a line: vocabularies hold U+2028 and similar characters as tokens. The last line may lack
    # it.
    return {token: index for index, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}


def _word_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds BERT's WordPiece tokenizer: words in greedy longest pieces, "##" before all but the first."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary = _read_lines(folder / "vocab.txt")
    _require(vocabulary, settings.text("unk_token"), folder / "vocab.txt")
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=settings.text("unk_token")))
    # Without "basic tokenization", only control characters are removed.
    basic = settings.flag("do_basic_tokenize", True) is not False
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=basic and settings.flag("tokenize_chinese_chars", True) is not False,
        strip_accents=settings.flag("strip_accents", None) if basic else False,
        lowercase=basic and settings.flag("do_lower_case", True) is not False,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    # Words that are never split. transformers 5 ignores the list; the models were trained with it.
    for word in settings.words("never_split"):
        if word in vocabulary:
            backend.add_tokens([AddedToken(word, single_word=True, normalized=False)])
    return backend


def _as_vocabulary_file(
    folder: Path, settings: Settings, backend: Backend, source: VocabularyFiles
) -> TokenizerBackends:
    """Returns a tokenizer that is saved as vocab.txt, which is all that transformers reads of it."""
    backend.post_processor = source.post_processor(settings, backend)
    files = {"vocab.txt": (folder / "vocab.txt").read_bytes()}
    return replace(TokenizerBackends.of(backend), files=files)


def _albert_word_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds the tokenizer of an ALBERT with BERT's vocab.txt, such as the Chinese ones, by "##" pieces."""
    if not any(token.startswith("##") for token in _read_lines(folder / "vocab.txt")):
        raise ValueError(
            f"{folder / 'vocab.txt'} is a list of whole words without pieces, which does not define words. "
            "Pass pattern=, a regular expression that matches one word."
        )
    return _word_pieces(folder, settings)


def whole_words(pattern: str) -> VocabularyFiles:
    """Declares a vocab.txt of whole words: a pattern's matches; text between them is dropped."""

    def _build(folder: Path, settings: Settings) -> Backend:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        vocabulary = _read_lines(folder / "vocab.txt")
        _require(vocabulary, settings.text("unk_token"), folder / "vocab.txt")
        try:
            expression = Regex(pattern)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(
                f"pattern={pattern!r} is not a regular expression of `tokenizers`: {error}"
            ) from error
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token=settings.text("unk_token")))
        backend.pre_tokenizer = pre_tokenizers.Split(expression, "removed", invert=True)
        return backend

    return VocabularyFiles(
        files=("vocab.txt",), build=_build, post_processor=typed_pair, special_tokens_map=BRACKETS
    )


def _require(vocabulary: Mapping[str, int], token: str, path: Path) -> None:
    if token not in vocabulary:
        raise ValueError(
            f"{path} lacks the unknown token {token!r}. If it has another name there, set unk_token in "
            "tokenizer_config.json."
        )


BERT = VocabularyFiles(
    files=("vocab.txt",), build=_word_pieces, post_processor=typed_pair, special_tokens_map=BRACKETS
)
TAPAS = VocabularyFiles(
    files=("vocab.txt",),
    build=_word_pieces,
    post_processor=typed_pair,
    special_tokens_map=BRACKETS | {"empty_token": "[EMPTY]"},
    build_backends=_as_vocabulary_file,
)
MPNET = VocabularyFiles(
    files=("vocab.txt",),
    build=_word_pieces,
    post_processor=double_separator_trimmed,
    special_tokens_map=ANGLES | {"unk_token": "[UNK]"},
    mask_takes_space=True,
)
ALBERT_WORDS = VocabularyFiles(
    files=("vocab.txt",), build=_albert_word_pieces, post_processor=typed_pair, special_tokens_map=BRACKETS
)
