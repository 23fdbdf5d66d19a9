"""The prompts of infilling against the tokenizer of CodeLlama in transformers.

Their format is " <PRE> {pre} <SUF>{suf} <MID>", without a space before the suffix. Version 5.23 nevertheless
puts one there, where the suffix does not begin with one; minitx does not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

import minitx
from minitx.decoding.text.infill import infill_prompts
from minitx.tokenizer import Tokenizer

LETTERS = ["▁", *"abcdef()=:,", "▁a", "▁b", "ab", "▁ab"]
NAMES = ["<unk>", "<s>", "</s>", *LETTERS, *(f"<0x{byte:02X}>" for byte in range(256))]
MERGES = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b")]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[transformers.CodeLlamaTokenizer, Tokenizer]:
    folder: Path = tmp_path_factory.mktemp("code")
    theirs = transformers.CodeLlamaTokenizer(vocab={name: i for i, name in enumerate(NAMES)}, merges=MERGES)
    theirs.save_pretrained(folder)
    return theirs, minitx.load_tokenizer(folder)


@pytest.mark.parametrize("prefix", ["def ab(", "ab", "a\n b"])
@pytest.mark.parametrize("suffix", [" ab", " ):\n a", "ab):\n a", "b"])
@pytest.mark.parametrize("order", ["psm", "spm"])
def test_the_prompts_of_code_llama(
    tokenizers: tuple[transformers.CodeLlamaTokenizer, Tokenizer], prefix: str, suffix: str, order: str
) -> None:
    theirs, ours = tokenizers
    spaced = suffix if suffix.startswith(" ") else f" {suffix}"
    expected = theirs(prefix, suffix=spaced, suffix_first=order == "spm")["input_ids"]
    (prompt,) = infill_prompts(prefix, spaced, tokenizer=ours, order=order)  # type: ignore[arg-type]
    assert prompt == expected
    (prompt,) = infill_prompts(prefix, suffix, tokenizer=ours, order=order)  # type: ignore[arg-type]
    assert (prompt == theirs(prefix, suffix=suffix, suffix_first=order == "spm")["input_ids"]) == (
        spaced == suffix
    )
    names = [ours.id_to_token(token) for token in prompt]
    start, end = names.index("▁<SUF>") + 1, names.index("▁<MID>")
    assert b"".join(_bytes(name or "") for name in names[start:end]) == suffix.encode()


def _bytes(name: str) -> bytes:
    return bytes.fromhex(name[3:5]) if name.startswith("<0x") else name.replace("▁", " ").encode()
