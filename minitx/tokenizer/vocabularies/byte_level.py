"""Byte-level vocabularies: GPT-2's byte-pair merges (also RoBERTa, BART, OPT, GPT-J) and ByT5's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.files import Settings, read_json, read_text
from minitx.tokenizer.vocabularies.declaration import ANGLES, VocabularyFiles
from minitx.tokenizer.vocabularies.post_processors import (
    double_separator_trimmed,
    eos_after_each,
    eos_at_end,
    optional_boundaries,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

# What Qwen2 was trained with: endings of English, letters, digits, signs, line breaks, and spaces.
QWEN_WORDS = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def _byte_pairs(folder: Path, settings: Settings) -> Backend:
    """Builds GPT-2's BPE from vocab.json and merges.txt: bytes as printable characters, merged in order."""
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
        add_prefix_space=settings.switch("add_prefix_space", False)
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _prefixed_byte_pairs(folder: Path, settings: Settings) -> Backend:
    """Builds Blenderbot's BPE: GPT-2's with a space before the text by default."""
    from tokenizers import pre_tokenizers

    backend = _byte_pairs(folder, settings)
    prefix = settings.switch("add_prefix_space", True)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return backend


def _composed_byte_pairs(folder: Path, settings: Settings) -> Backend:
    """Builds GPT-NeoX's BPE: GPT-2's of text in Unicode's form NFC."""
    from tokenizers import normalizers

    backend = _byte_pairs(folder, settings)
    backend.normalizer = normalizers.NFC()
    return backend


def _qwen_byte_pairs(folder: Path, settings: Settings) -> Backend:
    """Builds Qwen2's BPE: GPT-NeoX's with single digits, and line breaks apart from other spaces."""
    from tokenizers import Regex, pre_tokenizers

    backend = _composed_byte_pairs(folder, settings)
    prefix = settings.flag("add_prefix_space", None) is True
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
        ]
    )
    return backend


def _bytes(folder: Path, settings: Settings) -> Backend:
    """Builds ByT5's tokenizer, without files: <pad>, </s>, <unk> are 0 to 2, the bytes of UTF-8 3 to 258.

    A byte is represented by GPT-2's character for it. transformers uses chr(byte) and drops invalid UTF-8 in
    decoding; here it becomes "\ufffd", as with every other byte-level tokenizer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # GPT-2 keeps the bytes that Latin-1 prints; the others follow in order from U+0100.
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    names = {byte: chr(byte) for byte in printed} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }
    front = [settings.text(name) for name in ("pad_token", "eos_token", "unk_token")]
    tokens = [*front, *(names[byte] for byte in range(256)), *_extra_ids(settings)]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _extra_ids(settings: Settings) -> tuple[str, ...]:
    """Returns ByT5's sentinels, which follow the bytes in ascending order (T5's in descending order)."""
    return tuple(f"<extra_id_{number}>" for number in range(settings.count("extra_ids", 125)))


GPT2 = VocabularyFiles(
    files=("vocab.json", "merges.txt"),
    build=_byte_pairs,
    post_processor=optional_boundaries(bos=False),
    special_tokens_map=dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
)
GPT_NEOX = VocabularyFiles(
    files=("vocab.json", "merges.txt"),
    build=_composed_byte_pairs,
    post_processor=optional_boundaries(bos=False),
    special_tokens_map={**GPT2.special_tokens_map, "pad_token": "<|padding|>"},
)
QWEN2 = VocabularyFiles(
    files=("vocab.json", "merges.txt"),
    build=_qwen_byte_pairs,
    post_processor=optional_boundaries(bos=False),
    special_tokens_map=dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
)
# The model was trained with </s> before each text; transformers 5 leaves it out unless the file states it.
OPT = VocabularyFiles(
    files=("vocab.json", "merges.txt"),
    build=_byte_pairs,
    post_processor=optional_boundaries(bos=True),
    special_tokens_map=dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
    | {"pad_token": "<pad>"},
)
ROBERTA = VocabularyFiles(
    files=("vocab.json", "merges.txt"),
    build=_byte_pairs,
    post_processor=double_separator_trimmed,
    special_tokens_map=ANGLES,
    # As in the published tokenizer.json; transformers 5 leaves a stray space token instead.
    mask_takes_space=True,
)
# The model was trained with </s> after each text; transformers 5 leaves it out.
BLENDERBOT = VocabularyFiles(
    files=("vocab.json", "merges.txt"),
    build=_prefixed_byte_pairs,
    post_processor=eos_at_end,
    special_tokens_map=ANGLES,
    mask_takes_space=True,
)
BYT5 = VocabularyFiles(
    files=(),
    build=_bytes,
    post_processor=eos_after_each,
    special_tokens_map={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    special=_extra_ids,
)
