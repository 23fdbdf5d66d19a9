"""Small tokenizers of every kind that there is, for tests of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from minitx.tokenizer import Tokenizer
from minitx.tokenizer.files import Settings

SPECIAL = ["<pad>", "<s>", "</s>"]
WORDS = ["the", "cat", "sat", "on", "a", "mat", "n", "t", "s", "can", "do", "é", "猫", "🙂"]
MARKS = [".", ",", "!", "?", "'", "n't", "'s", "'m", "'ve", "'re"]


def byte_characters() -> dict[int, str]:
    """How byte-level BPE writes bytes: printable ones as they are, the others as characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    shifted = {byte: chr(256 + index) for index, byte in enumerate(others)}
    return {byte: shifted.get(byte, chr(byte)) for byte in range(256)}


def made(model: Any, decoder: Any, config: Mapping[str, Any] | None = None) -> Tokenizer:
    backend = Backend(model)
    if decoder is not None:
        backend.decoder = decoder
    backend.add_special_tokens(SPECIAL)
    roles = {
        role: AddedToken(text, special=True)
        for role, text in zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True)
    }
    settings = Settings(config=config or {}, special_tokens_map=roles, added={}, extra=())
    return Tokenizer(backend, settings, model_input_names=("input_ids", "attention_mask"), chat_templates={})


def numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, *tokens]))}


def byte_level(*more: str) -> Tokenizer:
    """All bytes, a few words, and tokens that begin or end within a character."""
    characters = byte_characters()
    texts = [word.encode() for word in (" the", " cat", "ing", "é", " 猫", "\n\n", *more)]
    parts = [b" \xf0\x9f", b"\x99\x82", b"\xe7\x8c", b"\xab.", b"\x82\xe7", b"\xff\xfe"]
    tokens = ["".join(characters[byte] for byte in text) for text in (*texts, *parts)]
    model = models.BPE(vocab=numbered([*characters.values(), *tokens]), merges=[])
    return made(model, decoders.ByteLevel())


def word_piece(*, tidy: bool, cleanup: bool = False) -> Tokenizer:
    endings = [f"##{word}" for word in (*WORDS, *MARKS)]
    model = models.WordPiece(numbered(["[UNK]", *WORDS, *MARKS, *endings]), unk_token="[UNK]")
    return made(model, decoders.WordPiece(cleanup=cleanup), {"clean_up_tokenization_spaces": tidy})


def sentence_piece(*, tidy: bool = False) -> Tokenizer:
    """As Llama 2: spaces as ▁, bytes for characters that the vocabulary lacks."""
    starts = [f"▁{word}" for word in (*WORDS, *MARKS)]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = numbered(["<unk>", "▁", "▁▁", "\n", *WORDS, *MARKS, *starts, *data])
    model = models.Unigram([(token, 0.0) for token in vocab], unk_id=vocab["<unk>"], byte_fallback=True)
    parts = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    return made(model, decoders.Sequence(parts), {"clean_up_tokenization_spaces": tidy})


def metaspace() -> Tokenizer:
    """As T5."""
    vocab = numbered(["<unk>", "▁", *WORDS, *MARKS, *(f"▁{word}" for word in WORDS)])
    model = models.Unigram([(token, 0.0) for token in vocab], unk_id=vocab["<unk>"])
    return made(model, decoders.Metaspace())


def word_ends() -> Tokenizer:
    """As the first GPT: the end of a word is marked."""
    return made(
        models.BPE(vocab=numbered([*WORDS, *(f"{word}</w>" for word in (*WORDS, *MARKS))]), merges=[]),
        decoders.BPEDecoder(suffix="</w>"),
    )


def words_alone() -> Tokenizer:
    """No decoder: words and spaces."""
    return made(models.WordLevel(numbered(["<unk>", *WORDS, *MARKS]), unk_token="<unk>"), None)


KINDS = {
    "byte level": byte_level,
    "word pieces": lambda: word_piece(tidy=False),
    "word pieces, cleaned": lambda: word_piece(tidy=False, cleanup=True),
    "word pieces, tidied": lambda: word_piece(tidy=True),
    "sentence pieces": sentence_piece,
    "sentence pieces, tidied": lambda: sentence_piece(tidy=True),
    "metaspace": metaspace,
    "word ends": word_ends,
    "words": words_alone,
}
