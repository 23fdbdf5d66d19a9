"""Tokenizers in GGUF files against those that they were written from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from gguf import GGUFWriter
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import minitx
from minitx.cli.app import main
from minitx.tokenizer.vocabularies.gguf import WORDS
from minitx.validation import ArgumentValueError
from tests.gguf_files import CONFIGS, write_gguf

LINES = [
    "The café's 12345 dogs don't bark,\n\n  and   they'll see 3 cats!",
    'for (int i = 0; i < 10; i++) {\n\tprintf("%d\\n", i);\n}',
    "Ångström, Ångström: 日本語 текст 🙂 and more words, words and words",
    "a  b   c    d\r\n\r\nHELLO We'Ve  ",
]
TEXTS = [*LINES, "", " ", " leading", "trailing ", "\n", "<|end|> after", "x<|end|>  y"]
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a GGUF file with a tokenizer."""
    folders: dict[str, Path] = {}

    def _write(model_type: str, size: int, more: Callable[[GGUFWriter], None]) -> Path:
        config = {**CONFIGS[model_type], "vocab_size": size}
        if model_type == "qwen2":  # "<|end|>" at both ends
            config |= {"bos_token_id": 0, "eos_token_id": 0}
        if model_type not in folders:
            folders[model_type] = tmp_path_factory.mktemp(model_type)
            model = minitx.from_config({"model_type": model_type, **config}, head="causal-lm", seed=0)
            minitx.save(model, folders[model_type])
        path = tmp_path_factory.mktemp("file") / "model.gguf"
        write_gguf(path, model_type, config, folders[model_type], more=more)
        return path

    return _write


# --- byte-level BPE ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["gpt-2", "olmo", "qwen2", "llama-bpe"])
def byte_level(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    """Name of the rule, and a tokenizer trained with it."""
    rule = WORDS[request.param]
    backend = Tokenizer(models.BPE(ignore_merges=rule.ignores_merges))
    if rule.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer, backend.decoder = rule.splitter(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    backend.train_from_iterator(LINES * 5, trainer)
    return request.param, backend


def _byte_level_keys(rule: str, backend: Tokenizer, **changes: Any) -> Callable[[GGUFWriter], None]:
    state = json.loads(backend.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    values = {"tokens": tokens, "merges": [" ".join(pair) for pair in state["merges"]]} | changes

    def _add(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(rule)
        writer.add_token_list(values["tokens"])
        writer.add_token_types([3 if token == "<|end|>" else 1 for token in values["tokens"]])
        writer.add_token_merges(values["merges"])
        writer.add_chat_template(TEMPLATE)

    return _add


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("gpt-2", "It|'s|ĠaB|_|C|,|Ġ|ĠDON|'|T|Ġ1234|!?|ĊĊ|Ġx"),
        ("smollm", "It|'s|ĠaB|_|C|,|Ġ|ĠDON|'|T|Ġ|1|2|3|4|!?|ĊĊ|Ġx"),
        ("qwen2", "It|'s|ĠaB|_C|,|Ġ|ĠDON|'T|Ġ|1|2|3|4|!?ĊĊ|Ġx"),
        ("llama-bpe", "It|'s|ĠaB|_C|,|Ġ|ĠDON|'T|Ġ|123|4|!?ĊĊ|Ġx"),
        ("tekken", "It|'s|Ġa|B|_C|,|Ġ|ĠDON|'T|Ġ|1|2|3|4|!?ĊĊ|Ġx"),
        ("gpt-4o", "It's|Ġa|B|_C|,|Ġ|ĠDON'T|Ġ|123|4|!?ĊĊ|Ġx"),
    ],
    ids=lambda value: value if "|" not in value else "",
)
def test_a_rule_splits_words_as_the_checkpoints_do(rule: str, expected: str) -> None:
    """From the regular expressions in the tokenizer.json of a checkpoint of each rule."""
    parts = WORDS[rule].splitter().pre_tokenize_str("It's aB_C,  DON'T 1234!?\n\n x")
    assert "|".join(part for part, _ in parts) == expected


def test_byte_level_ids_are_the_original_ones(
    byte_level: tuple[str, Tokenizer], file: Callable[..., Path], tmp_path: Path
) -> None:
    name, backend = byte_level
    path = file("qwen2", backend.get_vocab_size(), _byte_level_keys(name, backend))
    tokenizer = minitx.load_tokenizer(path)
    front = [0] if WORDS[name].bos else []
    assert len(tokenizer) == backend.get_vocab_size()
    assert tokenizer.model_max_length == CONFIGS["qwen2"]["max_position_embeddings"]
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"][0].tolist()
        assert ids == front + backend.encode(text).ids, text
    tokenizer.save(tmp_path)
    again = minitx.load_tokenizer(tmp_path, model_type="qwen2")
    assert all(torch.equal(again(text)["input_ids"], tokenizer(text)["input_ids"]) for text in TEXTS)
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(chat) == "<|user|>hi"


def test_a_file_generates_text(byte_level: tuple[str, Tokenizer], file: Callable[..., Path]) -> None:
    name, backend = byte_level
    path = file("qwen2", backend.get_vocab_size(), _byte_level_keys(name, backend))
    answer = minitx.pipeline("text-generation", str(path))("The dogs", max_new_tokens=4)
    assert answer


# --- SentencePiece -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> sentencepiece.SentencePieceProcessor:
    """A BPE model as Llama's: bytes for unknown characters, no normalization, all spaces kept."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text.txt").write_text("\n".join(line.replace("\n", " ") for line in LINES * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "m"),
        model_type="bpe",
        vocab_size=370,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        user_defined_symbols=["<|end|>"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))


def _piece_keys(pieces: sentencepiece.SentencePieceProcessor, **flags: bool) -> Callable[[GGUFWriter], None]:
    count = pieces.get_piece_size()

    def kind(index: int) -> int:
        if pieces.is_unknown(index):
            return 2
        if pieces.is_control(index):
            return 3
        if pieces.is_byte(index):
            return 6
        return 4 if pieces.id_to_piece(index) == "<|end|>" else 1

    def _add(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([pieces.id_to_piece(index) for index in range(count)])
        writer.add_token_scores([pieces.get_score(index) for index in range(count)])
        writer.add_token_types([kind(index) for index in range(count)])
        for name, value in flags.items():
            getattr(writer, f"add_{name}")(value)

    return _add


def test_sentencepiece_ids_are_the_original_ones(
    pieces: sentencepiece.SentencePieceProcessor, file: Callable[..., Path]
) -> None:
    path = file("llama", pieces.get_piece_size(), _piece_keys(pieces))
    tokenizer = minitx.load_tokenizer(path)
    assert (tokenizer.bos_token, tokenizer.eos_token_id, tokenizer.unk_token) == ("<s>", 2, "<unk>")
    assert tokenizer.padding_side == "left"
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"][0].tolist()
        assert ids == [1, *pieces.encode(text)], text
        assert tokenizer.decode(ids, skip_special_tokens=True) == pieces.decode(ids), text


def test_flags_of_the_file_are_obeyed(
    pieces: sentencepiece.SentencePieceProcessor, file: Callable[..., Path]
) -> None:
    flags = {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False}
    path = file("llama", pieces.get_piece_size(), _piece_keys(pieces, **flags))
    ids = minitx.load_tokenizer(path)("words")["input_ids"][0].tolist()
    assert ids == [*pieces.encode("▁words".removeprefix("▁"), add_bos=False)[1:], 2] or ids[-1] == 2
    assert pieces.decode(ids[:-1]) == "words"
    assert ids[0] not in (1, pieces.piece_to_id("▁words"), pieces.piece_to_id("▁"))


# --- the command line, and refusals ------------------------------------------------------------------


def test_convert_writes_weights_and_tokenizer(
    pieces: sentencepiece.SentencePieceProcessor,
    file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder = file("llama", pieces.get_piece_size(), _piece_keys(pieces)), tmp_path / "folder"
    assert main(["convert", str(path), str(folder)]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    ids = minitx.load_tokenizer(path)(TEXTS[0])["input_ids"]
    assert torch.equal(minitx.load_tokenizer(folder)(TEXTS[0])["input_ids"], ids)
    assert torch.equal(minitx.load(folder)(ids).logits, minitx.load(path)(ids).logits)
    assert main(["convert", str(path), str(folder)]) == 2


def test_a_file_without_a_tokenizer_is_converted(
    file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = file("gpt2", 96, lambda writer: None), tmp_path / "folder"
    assert main(["convert", str(path), str(folder)]) == 0
    assert "has no tokenizer" in capsys.readouterr().err
    ids = torch.tensor([[5, 6]])
    assert torch.equal(minitx.load(folder)(ids).logits, minitx.load(path)(ids).logits)
    assert main(["generate", str(path), "dogs"]) == 2
    message = capsys.readouterr().err
    assert "minitx convert" in message
    assert "tokenizer=" not in message
    assert "--ids" in message


def test_a_damaged_file_is_not_one_without_a_tokenizer(
    file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(file("gpt2", 96, lambda writer: None).read_bytes()[:-100])
    for command in (["generate", str(path), "dogs"], ["convert", str(path), str(tmp_path / "folder")]):
        assert main(command) == 2
        message = capsys.readouterr().err
        assert str(path) in message
        assert "--ids" not in message


@pytest.mark.parametrize(
    "command",
    ["generate FILE dogs --max-new-tokens 3", "explain FILE dogs", "score FILE dogs", "tokenize FILE dogs"],
    ids=lambda command: command.split()[0],
)
def test_commands_read_a_file(
    command: str, pieces: sentencepiece.SentencePieceProcessor, file: Callable[..., Path]
) -> None:
    path = file("llama", pieces.get_piece_size(), _piece_keys(pieces))
    assert main(command.replace("FILE", str(path)).split()) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (lambda writer: None, "no tokenizer"),
        (lambda writer: writer.add_tokenizer_model("bert"), "'bert'"),
        (lambda writer: writer.add_tokenizer_model("gpt2"), "tokenizer.ggml.tokens"),
    ],
    ids=["none", "bert", "tokens"],
)
def test_a_tokenizer_that_cannot_be_built_is_refused(
    more: Callable[[GGUFWriter], None], words: str, file: Callable[..., Path]
) -> None:
    path = file("gpt2", 96, more)
    with pytest.raises(ValueError, match=words):
        minitx.load_tokenizer(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "viking"}, "'viking'.*gpt-2"),
        ({"merges": ["a b c"]}, "merges"),
        ({"merges": ["zzz yyy"]}, "belong together"),
        ({"tokens": ["a", "b", "ab", "ab", *(f"x{i}" for i in range(92))], "merges": ["a b"]}, "twice"),
        ({"key": "tokenizer.ggml.new"}, "tokenizer.ggml.new"),
    ],
    ids=["rule", "merge", "vocabulary", "twice", "key"],
)
def test_a_false_vocabulary_is_refused(
    changes: dict[str, Any], words: str, byte_level: tuple[str, Tokenizer], file: Callable[..., Path]
) -> None:
    name, backend = byte_level
    lists = {key: value for key, value in changes.items() if key in ("tokens", "merges")}
    add = _byte_level_keys(changes.get("rule", name), backend, **lists)

    def more(writer: GGUFWriter) -> None:
        add(writer)
        if "key" in changes:
            writer.add_uint32(changes["key"], 1)

    with pytest.raises(ValueError, match=words):
        minitx.load_tokenizer(file("gpt2", 96, more))


def test_options_for_other_files_are_refused(
    pieces: sentencepiece.SentencePieceProcessor, file: Callable[..., Path]
) -> None:
    path = file("llama", pieces.get_piece_size(), _piece_keys(pieces))
    with pytest.raises(ArgumentValueError, match="pattern"):
        minitx.load_tokenizer(path, pattern="a")
    with pytest.raises(ArgumentValueError, match="model_type"):
        minitx.load_tokenizer(path, model_type="bert")
