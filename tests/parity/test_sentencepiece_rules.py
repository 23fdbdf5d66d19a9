"""The white-space and other rules of sentencepiece files, against the sentencepiece library.

Files are trained with each option and each pair of options, as unigram and BPE models, and in the layouts of
the architectures.
"""

import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2

from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.tokenizer.files import Settings
from minitx.tokenizer.vocabularies.sentencepiece_builder import build_pieces, read_pieces

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("add_dummy_prefix", False),
    ("remove_extra_whitespaces", False),
    ("escape_whitespaces", False),
    ("treat_whitespace_as_suffix", True),
    ("byte_fallback", True),
    ("normalization_rule_name", "identity"),
    ("normalization_rule_name", "nfkc"),
    ("normalization_rule_name", "nmt_nfkc_cf"),
    ("user_defined_symbols", "<ud>,ﬁ,£,( ,Cat"),
    ("split_by_whitespace", False),
    ("split_digits", True),
    ("allow_whitespace_only_pieces", True),
    ("control_symbols", "<ctl>"),
    ("unk_surface", "?"),
)
SENTENCES = [
    "the cat sat on the mat",
    "the  cat   sat",
    "a Cat (in) a hat £5 <ud> ﬁne",
    "hello world, 13 cats and 42 dogs",
    "ça été déjà vu",
    "  leading and trailing  ",
    "tabs\tand more",
    "the quick brown fox jumps over the lazy dog",
]
PARTS = [
    *"the cat sat on a hat  £5(<>ud)ﬁàé13 ",
    "  ",
    "   ",
    "the ",
    "cat",
    "<ud>",
    " the",
    "Cat",
    "( ",
    "ﬁ",
]
PARTS += ["日", "𝄞", "\t", "\n", "\u3000", "▁", "\xa0", "Ａ", "½"]
TEXTS = ["", "the cat sat", " the cat", "the cat ", "the  cat   sat", " ", "   ", "  the cat  ", "the\tcat"]
TEXTS += ["▁the", "the▁cat", "<ud>the <ud>", "the日日cat日", "\n", "the cat\n"]
TEXTS += ["".join(random.Random(seed).choices(PARTS, k=1 + seed % 14)) for seed in range(120)]


def _train(kind: str, *, escape_whitespaces: bool = True, **options: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9),
        model_writer=model,
        model_type=kind,
        vocab_size=380 if options.get("byte_fallback") else 110,
        hard_vocab_limit=False,
        minloglevel=3,
        **options,
    )
    if escape_whitespaces:
        return model.getvalue()
    message = sentencepiece_model_pb2.ModelProto()  # the library trains no model without escapes
    message.ParseFromString(model.getvalue())
    message.normalizer_spec.escape_whitespaces = False
    for piece in message.pieces:
        piece.piece = piece.piece.replace("▁", " ")
    return bytes(message.SerializeToString())


def _cases() -> list[Any]:
    pairs = (pair for pair in itertools.combinations(OPTIONS, 2) if pair[0][0] != pair[1][0])
    chosen = [dict(options) for options in ((), *((option,) for option in OPTIONS), *pairs)]
    return list(itertools.product(("unigram", "bpe"), chosen))


@pytest.mark.parametrize(("kind", "options"), _cases())
def test_each_option_and_pair_of_options(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    path = tmp_path / "some.model"
    path.write_bytes(_train(kind, **options))
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    model = read_pieces(path)
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    settings = Settings(config={}, special_tokens_map={}, added={}, extra=())
    backend = build_pieces(model, pieces, model.unk_id, settings)
    for text in TEXTS:
        ids = library.encode(text)
        assert backend.encode(text).ids == ids, text
        if model.unk_id not in ids:  # the library spells an unknown token as "⁇"
            assert backend.decode(ids, skip_special_tokens=False) == library.decode(ids), text


T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
MASK = {"control_symbols": "[CLS],[SEP],[MASK]"}
GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"}
PLAIN = {"do_lower_case": False, "keep_accents": True}
# model type -> files of the sentencepiece model, its trainer's options, tokenizer_config.json
LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "t5": (("spiece.model",), T5, {}),
    "mt5": (("spiece.model",), T5, {}),
    "umt5": (("spiece.model",), T5, {}),
    "xlm-roberta": (("sentencepiece.bpe.model",), {}, {}),
    "camembert": (("sentencepiece.bpe.model",), {}, {}),
    "albert": (("spiece.model",), MASK | {"pad_id": 3}, PLAIN),
    "deberta-v2": (("spm.model",), MASK | {"pad_id": 3, "unk_piece": "[UNK]", "pad_piece": "[PAD]"}, PLAIN),
    "mbart": (("sentencepiece.bpe.model",), {}, {}),
    "nllb": (("sentencepiece.bpe.model",), {}, {}),
    "pegasus": (("spiece.model",), T5, {}),
    "m2m_100": (("sentencepiece.bpe.model",), {}, {}),
    "marian": (("source.spm", "target.spm"), {}, {}),
    "llama": (("tokenizer.model",), {}, {"tokenizer_class": "LlamaTokenizer"}),
    "mistral": (("tokenizer.model",), {}, {"tokenizer_class": "LlamaTokenizer", "legacy": True}),
    "gemma": (("tokenizer.model",), GEMMA, {}),
}
RULES: dict[str, dict[str, Any]] = {
    "usual": {},
    "no prefix": {"add_dummy_prefix": False},
    "all spaces": {"remove_extra_whitespaces": False},
    "neither": {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
    "suffix": {"treat_whitespace_as_suffix": True},
    "identity": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
}


def _folder(folder: Path, family: str, kind: str = "unigram", **options: Any) -> Any:
    names, layout, config = LAYOUTS[family]
    data = _train(kind, **layout, **options)
    for name in names:
        (folder / name).write_bytes(data)
    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    if family in ("m2m_100", "marian"):
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *map(library.id_to_piece, range(len(library)))]
        (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(dict.fromkeys(tokens))}))
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return library


def _agree(tokenizer: Tokenizer, library: Any, texts: list[str]) -> None:
    """Check that both give the same pieces, and the same text of them."""
    unknown = library.id_to_piece(library.unk_id())
    for text in texts:
        pieces = library.encode(text, out_type=str)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if any(library.piece_to_id(piece) == library.unk_id() for piece in pieces):
            continue
        assert tokenizer.tokens(text, add_special_tokens=False) == pieces, (text, unknown)
        assert tokenizer.decode(ids) == library.decode(pieces), text


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("family", LAYOUTS)
def test_layouts_of_the_architectures(tmp_path: Path, family: str, rules: str) -> None:
    library = _folder(tmp_path, family, **RULES[rules])
    tokenizer = load_tokenizer(tmp_path)
    _agree(tokenizer, library, TEXTS)
    if rules in ("no prefix", "neither"):
        assert tokenizer.decode(tokenizer.encode("the cat sat"), skip_special_tokens=True) == "the cat sat"
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved", model_type=family)
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text), text
        assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text)), text
    if family not in ("m2m_100", "marian"):  # transformers builds these with its own rules
        reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
        for text in TEXTS:
            assert reference(text)["input_ids"] == tokenizer.encode(text), text
            assert reference.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text)), text


@pytest.mark.parametrize("family", ["t5", "xlm-roberta", "camembert", "albert", "mbart", "pegasus", "llama"])
def test_no_prefix_space_is_as_a_file_without_it(tmp_path: Path, family: str) -> None:
    """transformers drops all spaces between words."""
    kind = "bpe" if family == "llama" else "unigram"
    _folder(tmp_path, family, kind)
    config = {**LAYOUTS[family][2], "add_prefix_space": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the cat sat"), skip_special_tokens=True) == "the cat sat"
    with_prefix = tokenizer.tokens("a the cat sat", add_special_tokens=False)
    ids = tokenizer.tokens("the cat sat", add_special_tokens=False)
    assert ids[0][0] != "▁"
    assert ids[-1] == with_prefix[-1]


def test_user_defined_symbols_of_bpe(tmp_path: Path) -> None:
    library = _folder(tmp_path, "gemma", "bpe", user_defined_symbols="▁▁,\n\n,<table>", **RULES["neither"])
    _agree(load_tokenizer(tmp_path), library, [*TEXTS, "a<table>b", "the   cat\n\n\nsat    on"])
