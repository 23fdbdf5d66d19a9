"""Builds a `tokenizers.Tokenizer` from the vocabulary files that came before tokenizer.json.

Such a file is only a list of tokens. How text is cleaned and cut, which tokens frame it, and how
ids are counted lay in the code of each architecture; `FAMILIES` at the end of this file writes that
down, one entry per architecture. Where transformers 5.23 reads an old file differently from what
the published checkpoints were trained with, the checkpoint decides, and a comment says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minitx.tokenizer.files import Settings, add_tokens, read_json, read_settings, read_text
from minitx.tokenizer.sentencepiece import build_unigram, read_unigram

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor

WITHOUT_TYPES = ("input_ids", "attention_mask")
WITH_TYPES = ("input_ids", "token_type_ids", "attention_mask")


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
    """

    files: tuple[str, ...]
    build: Callable[[Path, Settings], Backend]
    frame: Callable[[Settings, Backend], PostProcessor]
    roles: Mapping[str, str]
    mask_takes_space: bool = False


class Family(NamedTuple):
    """The tokenizer of one architecture: its model's inputs, and the older files it may ship."""

    tokenizer_class: str
    model_input_names: tuple[str, ...]
    sources: tuple[Source, ...]

    @property
    def roles(self) -> Mapping[str, str]:
        """The special tokens where no file names them."""
        return self.sources[0].roles if self.sources else {}


def build(folder: Path, family: str, pattern: str | None = None) -> tuple[Backend, Settings]:
    """Builds the tokenizer of one family from the vocabulary files in a folder.

    Args:
        folder: holds the files.
        family: a key of `FAMILIES`.
        pattern: None, or a regular expression whose matches are the words of vocab.txt.

    Returns:
        The tokenizer and the settings that it was built with.

    Raises:
        ValueError: no fitting vocabulary file, a damaged one, or one that lacks a needed token.
    """
    there = sorted(entry.name for entry in folder.iterdir())
    listing = f"The folder holds {', '.join(there) or 'nothing'}."
    if family not in FAMILIES:
        raise ValueError(
            f"{folder} has no tokenizer.json, and older vocabulary files are read for "
            f"{', '.join(FAMILIES)}, not for {family!r}; pass model_type= if it is one of them. {listing}"
        )
    sources = FAMILIES[family].sources if pattern is None else (_words(pattern),)
    source = next((source for source in sources if set(source.files) <= set(there)), None)
    if source is None:
        wanted = [" with ".join(source.files) for source in sources]
        if pattern is None:
            wanted.insert(0, "tokenizer.json")
        raise ValueError(
            f"{folder} has no vocabulary file of a {family!r} tokenizer: looked for "
            f"{' or '.join(wanted)}. {listing}"
        )
    settings = read_settings(folder, defaults=source.roles, mask_takes_space=source.mask_takes_space)
    backend = source.build(folder, settings)
    add_tokens(backend, settings)
    backend.post_processor = source.frame(settings, backend)
    return backend, settings


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


def _words(pattern: str) -> Source:
    """A vocab.txt of whole words: a pattern's matches, uncleaned; text between them is dropped."""

    def words(folder: Path, settings: Settings) -> Backend:
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

    return Source(files=("vocab.txt",), build=words, frame=_typed_pair, roles=_BRACKETS)


def _require(vocabulary: Mapping[str, int], token: str, path: Path) -> None:
    if token not in vocabulary:
        raise ValueError(
            f"{path} lacks the unknown token {token!r}. If it goes by another name there, put that "
            "into tokenizer_config.json as unk_token."
        )


def _byte_pairs(folder: Path, settings: Settings) -> Backend:
    """GPT-2's vocab.json and merges.txt: bytes, as printable characters, merged in that order."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = read_json(folder / "vocab.json")
    merges = []
    for number, line in enumerate(
        read_text(folder / "merges.txt").replace("\r\n", "\n").split("\n"), start=1
    ):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise ValueError(
                f"{folder / 'merges.txt'} line {number} is {line!r:.80}; expected two tokens and a space."
            )
        merges.append((pair[0], pair[1]))
    try:
        backend = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{folder}: vocab.json and merges.txt do not belong together: {error}.") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=settings.flag("add_prefix_space", False)
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _albert_unigram(folder: Path, settings: Settings) -> Backend:
    """ALBERT's spiece.model: ids as they are, text stripped of accents and case first."""
    from tokenizers import normalizers

    model = read_unigram(folder / "spiece.model")
    # ALBERT cuts "9," in two wherever it comes out as one piece; a score that never wins does the
    # same, as in the published tokenizer.json files. transformers 5 leaves this out.
    pieces = [
        (text, score - 100.0 if len(text) > 1 and text[-1] == "," and text[-2].isdigit() else score)
        for text, score, _ in model.pieces
    ]
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
    ]
    if not settings.flag("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.flag("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return build_unigram(
        model,
        pieces,
        model.unk_id,
        before=steps,
        add_prefix_space=settings.flag("add_prefix_space", None),
    )


def _xlm_roberta_unigram(folder: Path, settings: Settings) -> Backend:
    """XLM-R's sentencepiece.bpe.model: four tokens of fairseq stand where three pieces stood."""
    model = read_unigram(folder / "sentencepiece.bpe.model", reserved=3)
    front = [(settings.text(role), 0.0) for role in ("bos_token", "pad_token", "eos_token", "unk_token")]
    pieces = [(piece.text, piece.score) for piece in model.pieces[3:]]
    pieces.append((settings.text("mask_token"), 0.0))
    return build_unigram(model, front + pieces, 3, add_prefix_space=settings.flag("add_prefix_space", None))


def _camembert_unigram(folder: Path, settings: Settings) -> Backend:
    """CamemBERT's sentencepiece.bpe.model: fairseq's tokens stand before all, some unused."""
    model = read_unigram(folder / "sentencepiece.bpe.model", reserved=1)
    front = [
        ("<s>NOTUSED", 0.0),
        (settings.text("pad_token"), 0.0),
        ("</s>NOTUSED", 0.0),
        (settings.text("unk_token"), 0.0),
        ("<unk>NOTUSED", -100.0),
    ]
    pieces = [(piece.text, piece.score) for piece in model.pieces[1:]]
    pieces.append((settings.text("mask_token"), 0.0))
    return build_unigram(model, front + pieces, 3, add_prefix_space=settings.flag("add_prefix_space", None))


def _deberta_unigram(folder: Path, settings: Settings) -> Backend:
    """DeBERTa v2 and v3's spm.model: ids as they are, and [MASK] behind the last."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    model = read_unigram(folder / "spm.model")
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    before: list[normalizers.Normalizer] = (
        [normalizers.Lowercase()] if settings.flag("do_lower_case", False) else []
    )
    before.append(normalizers.Strip())
    # The published tokenizer.json files have all of this but the last step. Without it, a zero-width space
    # at the end, which the model's rules turn into a space, leaves a stray "▁"; sentencepiece, which the
    # models were trained with, leaves none. transformers 5 applies NFC instead of the rules.
    after = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    split = [pre_tokenizers.Punctuation("isolated")] if settings.flag("split_by_punct", False) else []
    return build_unigram(
        model,
        pieces,
        model.unk_id,
        before=before,
        after=after,
        split=split,
        add_prefix_space=settings.flag("add_prefix_space", None),
    )


def _ends(settings: Settings, backend: Backend) -> list[tuple[str, int]]:
    """The token that opens and the token that closes a text, with their ids."""
    vocabulary = backend.get_vocab()
    tokens = (settings.text("cls_token"), settings.text("sep_token"))
    return [(token, vocabulary[token]) for token in tokens]


def _typed_pair(settings: Settings, backend: Backend) -> PostProcessor:
    """[CLS] A [SEP] with type 0, then B [SEP] with type 1."""
    from tokenizers import processors

    (cls, _), (sep, _) = ends = _ends(settings, backend)
    return processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=ends,
    )


def _double_separator(settings: Settings, backend: Backend) -> PostProcessor:
    """<s> A </s></s> B </s>, all of type 0."""
    from tokenizers import processors

    (cls, _), (sep, _) = ends = _ends(settings, backend)
    return processors.TemplateProcessing(
        single=[cls, "$A", sep], pair=[cls, "$A", sep, sep, "$B", sep], special_tokens=ends
    )


def _double_separator_trimmed(settings: Settings, backend: Backend) -> PostProcessor:
    """The same, and offsets leave out the space that belongs to a token."""
    from tokenizers import processors

    cls, sep = _ends(settings, backend)
    return processors.RobertaProcessing(
        sep,
        cls,
        trim_offsets=settings.flag("trim_offsets", True),
        add_prefix_space=settings.flag("add_prefix_space", False),
    )


_BRACKETS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_BOUNDARIES = {"bos_token": "[CLS]", "eos_token": "[SEP]"}
_ANGLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}

_BERT = Source(files=("vocab.txt",), build=_word_pieces, frame=_typed_pair, roles=_BRACKETS)
_MPNET = Source(
    files=("vocab.txt",),
    build=_word_pieces,
    frame=_double_separator_trimmed,
    roles=_ANGLES | {"unk_token": "[UNK]"},
    mask_takes_space=True,
)
_ROBERTA = Source(
    files=("vocab.json", "merges.txt"),
    build=_byte_pairs,
    frame=_double_separator_trimmed,
    roles=_ANGLES,
    # As in the published tokenizer.json; transformers 5 leaves a stray space token instead.
    mask_takes_space=True,
)
_XLM_ROBERTA = Source(
    files=("sentencepiece.bpe.model",),
    build=_xlm_roberta_unigram,
    frame=_double_separator,
    roles=_ANGLES,
    mask_takes_space=True,
)
_CAMEMBERT = Source(
    files=("sentencepiece.bpe.model",),
    build=_camembert_unigram,
    frame=_double_separator,
    roles=_ANGLES,
    mask_takes_space=True,
)
_ALBERT = Source(
    files=("spiece.model",),
    build=_albert_unigram,
    frame=_typed_pair,
    roles=_BRACKETS | _BOUNDARIES | {"unk_token": "<unk>", "pad_token": "<pad>"},
    mask_takes_space=True,
)
_ALBERT_WORDS = Source(files=("vocab.txt",), build=_albert_word_pieces, frame=_typed_pair, roles=_BRACKETS)
_DEBERTA = Source(
    files=("spm.model",), build=_deberta_unigram, frame=_typed_pair, roles=_BRACKETS | _BOUNDARIES
)

FAMILIES: Mapping[str, Family] = {
    "bert": Family("BertTokenizer", WITH_TYPES, (_BERT,)),
    "distilbert": Family("DistilBertTokenizer", WITHOUT_TYPES, (_BERT,)),
    "electra": Family("ElectraTokenizer", WITH_TYPES, (_BERT,)),
    "mpnet": Family("MPNetTokenizer", WITHOUT_TYPES, (_MPNET,)),
    "roberta": Family("RobertaTokenizer", WITHOUT_TYPES, (_ROBERTA,)),
    "modernbert": Family("ModernBertTokenizer", WITHOUT_TYPES, ()),
    "xlm-roberta": Family("XLMRobertaTokenizer", WITHOUT_TYPES, (_XLM_ROBERTA,)),
    "camembert": Family("CamembertTokenizer", WITHOUT_TYPES, (_CAMEMBERT,)),
    # ALBERT learned both segments; that transformers 5 no longer marks them is an oversight there.
    "albert": Family("AlbertTokenizer", WITH_TYPES, (_ALBERT, _ALBERT_WORDS)),
    "deberta-v2": Family("DebertaV2Tokenizer", WITH_TYPES, (_DEBERTA,)),
}
