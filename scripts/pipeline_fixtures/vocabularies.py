"""Tiny tokenizers, trained on `texts.CORPUS` and saved as the families' checkpoints ship them."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from pipeline_fixtures.texts import CORPUS

BART_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# How the models of each family number their special pieces.
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
FAIRSEQ = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
MARIAN = {"eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1}
ALBERT_SPECIALS = {"user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
ALBERT = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, **ALBERT_SPECIALS}
# A few rules of nmt_nfkc, whose whole map would take 240 KB in each folder.
RULES = (
    *(("\uff01", "!"), ("\uff1f", "?"), ("\uff0c", ","), ("\ufb01", "fi"), ("\u2026", "...")),
    *(("\u00a0", " "), ("\t", " "), ("\n", " "), ("\r", " "), ("\u200b", " ")),
    *(("e\u0301", "é"), ("u\u0308", "ü"), ("n\u0303", "ñ")),
)


def sentencepiece_model(path: Path, rules: Path, size: int, **options: Any) -> None:
    """Train a unigram model at `path`, whose normalization is RULES (written to the file `rules`)."""
    lines = (
        f"{' '.join(f'{ord(c):X}' for c in source)}\t{' '.join(f'{ord(c):X}' for c in target)}\n"
        for source, target in RULES
    )
    rules.write_text("".join(lines), encoding="utf-8")
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3),
        model_writer=content,
        model_type="unigram",
        vocab_size=size,
        character_coverage=1.0,
        normalization_rule_tsv=str(rules),
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(content.getvalue())
    model.normalizer_spec.ClearField("normalization_rule_tsv")  # a path of this machine
    path.write_bytes(model.SerializeToString(deterministic=True))


def word_pieces(path: Path, size: int, lower: bool, *specials: str) -> None:
    """Write a vocab.txt of BERT's kind: all characters, then the pieces that cover most of the corpus.

    The WordPiece trainer is not used: the order of its pieces differs from run to run.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    texts = (normalizer.normalize_str(text) for text in CORPUS)
    words = [word for text in texts for word, _ in splitter.pre_tokenize_str(text)]
    characters = sorted({character for word in words for character in word})
    covered: Counter[str] = Counter()
    for word in words:
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            if end - start > 1:
                covered["##" * (start > 0) + word[start:end]] += end - start - 1
    best = sorted(covered, key=lambda piece: (-covered[piece], piece))
    tokens = dict.fromkeys((*specials, *characters, *(f"##{character}" for character in characters), *best))
    lines = itertools.islice(tokens, max(size, 2 * len(characters) + 60))
    path.write_text("".join(f"{token}\n" for token in lines), encoding="utf-8")


def byte_pairs(folder: Path, size: int) -> None:
    """Write vocab.json and merges.txt of GPT-2's kind, with BART's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(BART_SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    write_json(folder / "vocab.json", model["vocab"])
    merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    lines = "\n".join(("#version: 0.2", *merges))
    (folder / "merges.txt").write_text(lines + "\n", encoding="utf-8")


def marian_vocabulary(folder: Path, languages: tuple[str, ...] = ()) -> dict[str, int]:
    """Write vocab.json of source.spm and target.spm: their pieces, target languages, then the padding."""
    pieces: dict[str, int] = {"</s>": 0, "<unk>": 1}
    for name in ("source.spm", "target.spm"):
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        for number in range(model.get_piece_size()):
            pieces.setdefault(model.id_to_piece(number), len(pieces))
    for token in (*languages, "<pad>"):
        pieces[token] = len(pieces)
    write_json(folder / "vocab.json", pieces)
    return pieces


def m2m_vocabulary(folder: Path) -> None:
    """Write vocab.json of sentencepiece.bpe.model, numbered as fairseq's dictionaries."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    pieces = {token: number for number, token in enumerate(("<s>", "<pad>", "</s>", "<unk>"))}
    for number in range(model.get_piece_size()):
        pieces.setdefault(model.id_to_piece(number), len(pieces))
    write_json(folder / "vocab.json", pieces)


def write_json(path: Path, content: Any) -> None:
    """Write one compact line."""
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
