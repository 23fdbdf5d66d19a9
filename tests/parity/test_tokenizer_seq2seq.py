"""The tokenizers of the encoder-decoder family against transformers' and the sentencepiece library.

As in test_tokenizer.py, small tokenizers are trained here and written in the form in which checkpoints ship
them. Where transformers 5 builds something else from an old file than the published checkpoint has, the
reference is told what the checkpoint has, with the reason.
"""

import random
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import PegasusConverter, T5Converter
from transformers.models.m2m_100 import tokenization_m2m_100
from transformers.models.nllb import tokenization_nllb
from transformers.tokenization_utils_base import generate_merges

from minitx.tokenizer import load_tokenizer
from minitx.tokenizer._sentencepiece_proto import read_sentencepiece
from tests.parity.test_tokenizer import (
    MASK,
    NEW_TEXTS,
    TEXTS,
    add_new_tokens,
    first_difference,
    train_byte_pairs,
    train_unigram,
    write,
)

# How the models of T5 and Pegasus count their special pieces, and those of UMT5.
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
UMT5 = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}

SPECIALS = (
    *("<extra_id_0>", "<extra_id_99>", " <extra_id_1> ", "<extra_id_100>", "<mask_1>", "<mask_2>", "<unk_7>"),
    *("en_XX", "gl_ES", "eng_Latn", " zho_Hant ", "__en__", "__ zu__", "__zu__", "<mask>", "</s>", "<unk>"),
    *("<pad>", "<s>"),
)


def _with_specials(count: int) -> list[str]:
    draw = random.Random(7)
    texts = []
    for _ in range(count):
        text = draw.choice(TEXTS)
        for _ in range(draw.randint(1, 3)):
            place = draw.randint(0, len(text))
            text = text[:place] + draw.choice(SPECIALS) + text[place:]
        texts.append(text)
    return texts


SPECIAL_TEXTS = _with_specials(700)
ALL_TEXTS = [*TEXTS, *SPECIAL_TEXTS]


def _t5(folder: Path) -> Any:
    train_unigram(folder / "spiece.model", **T5)
    write(folder, {}, config={"model_type": "t5"})
    return transformers.T5Tokenizer.from_pretrained(folder)


def _t5_listed(folder: Path) -> Any:
    """With the sentinels named, in rising order, as the published files do."""
    train_unigram(folder / "spiece.model", **T5)
    stated = {
        "extra_ids": 12,
        "additional_special_tokens": [f"<extra_id_{number}>" for number in range(12)],
        "model_max_length": 512,
        "tokenizer_class": "T5Tokenizer",
    }
    write(folder, stated, config={"model_type": "t5"})
    return transformers.T5Tokenizer.from_pretrained(folder)


def _mt5(folder: Path) -> Any:
    train_unigram(folder / "spiece.model", **T5)
    write(folder, {"extra_ids": 0, "tokenizer_class": "T5Tokenizer"}, config={"model_type": "mt5"})
    return transformers.T5Tokenizer.from_pretrained(folder)


def _umt5(folder: Path) -> Any:
    """By transformers' converter: its T5Tokenizer 5 takes 2 for the unknown id, whatever the file says."""
    train_unigram(folder / "spiece.model", **UMT5)
    write(folder, {"extra_ids": 300, "tokenizer_class": "T5Tokenizer"}, config={"model_type": "umt5"})
    path = folder / "spiece.model"
    slow = SimpleNamespace(vocab_file=str(path), _extra_ids=300, convert_tokens_to_ids={"</s>": 1}.get)
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_object=T5Converter(slow).converted(),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=[f"<extra_id_{number}>" for number in range(300)],
    )
    reference.backend_tokenizer.normalizer = normalizers.Precompiled(read_sentencepiece(path).charsmap)
    return _cut_at_white_space(reference)


def _cut_at_white_space(reference: Any) -> Any:
    """As in the published tokenizer.json files, and as sentencepiece drops spaces at the ends."""
    pieces = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    reference.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    return reference


def _pegasus(folder: Path) -> Any:
    train_unigram(folder / "spiece.model", **T5)
    write(folder, {}, config={"model_type": "pegasus"})
    return _cut_at_white_space(transformers.PegasusTokenizer.from_pretrained(folder))


def _pegasus_stated(folder: Path) -> Any:
    """With the masks named. By the converter: PegasusTokenizer 5 then has their ids the wrong way round."""
    train_unigram(folder / "spiece.model", **T5)
    names = {"mask_token": "<mask_2>", "mask_token_sent": "<mask_1>", "pad_token": "<pad>"}
    names |= {"eos_token": "</s>", "unk_token": "<unk>"}
    write(folder, names | {"offset": 103}, config={"model_type": "pegasus"})
    slow = SimpleNamespace(vocab_file=str(folder / "spiece.model"), offset=103, mask_token_id=3, **names)
    slow.eos_token_id = 1
    del names["mask_token_sent"]
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_object=PegasusConverter(slow).converted(),
        additional_special_tokens=["<mask_1>", *(f"<unk_{number}>" for number in range(2, 103))],
        **names,
    )
    # The converter's further steps at spaces change no ids, only offsets.
    charsmap = read_sentencepiece(folder / "spiece.model").charsmap
    reference.backend_tokenizer.normalizer = normalizers.Precompiled(charsmap)
    return reference


def _mbart(folder: Path) -> Any:
    train_unigram(folder / "sentencepiece.bpe.model")
    write(folder, {"model_max_length": 1024}, config={"model_type": "mbart"})
    reference = transformers.MBartTokenizer.from_pretrained(folder, src_lang="en_XX", tgt_lang="ro_RO")
    # MBartTokenizer 5 forgets the model's rules of normalisation.
    charsmap = read_sentencepiece(folder / "sentencepiece.bpe.model").charsmap
    reference.backend_tokenizer.normalizer = normalizers.Precompiled(charsmap)
    return reference


def _mbart50(folder: Path) -> Any:
    train_unigram(folder / "sentencepiece.bpe.model")
    stated = {"tokenizer_class": "MBart50Tokenizer", "src_lang": "ro_RO"}
    write(folder, stated, config={"model_type": "mbart"})
    reference = transformers.MBart50Tokenizer.from_pretrained(folder, tgt_lang="sl_SI")
    return _cut_at_white_space(reference)


def _nllb(folder: Path, **options: Any) -> Any:
    """NllbTokenizer 5 makes no tokens of the languages when it reads the old file: here they are given."""
    path = folder / "sentencepiece.bpe.model"
    train_unigram(path, model_type="bpe")
    write(folder, {"tokenizer_class": "NllbTokenizer", **options}, config={"model_type": "m2m_100"})
    model = read_sentencepiece(path)
    pieces = [piece.text for piece in model.pieces[3:]]
    languages = tokenization_nllb.FAIRSEQ_LANGUAGE_CODES
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces, *languages, "<mask>"]
    reference = transformers.NllbTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=generate_merges({piece: index for index, piece in enumerate(pieces)}),
        _spm_precompiled_charsmap=model.charsmap,
        src_lang="eng_Latn",
        tgt_lang="yue_Hant",
        mask_token=MASK,
        **options,
    )
    return _cut_at_white_space(reference)


def _nllb_legacy(folder: Path) -> Any:
    return _nllb(folder, legacy_behaviour=True)


def _bart(folder: Path) -> Any:
    train_byte_pairs(folder)
    write(folder, {}, config={"model_type": "bart"})
    return transformers.BartTokenizer.from_pretrained(folder, mask_token=MASK)


def _blenderbot(folder: Path) -> Any:
    """BlenderbotTokenizer 5 forgets the </s> that its docstring, and the published tokenizer.json, have."""
    train_byte_pairs(folder)
    write(folder, {}, config={"model_type": "blenderbot"})
    reference = transformers.BlenderbotTokenizer.from_pretrained(folder, mask_token=MASK)
    reference.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 2)]
    )
    return reference


def _byt5(folder: Path) -> Any:
    """The published file says that the special tokens swallow no spaces."""
    tokens = {
        role: {"content": text, "lstrip": False, "rstrip": False, "normalized": True}
        for role, text in (("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>"))
    }
    names = [f"<extra_id_{number}>" for number in range(125)]
    stated = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125, "additional_special_tokens": names}
    write(folder, stated | tokens, config={"model_type": "t5"})
    given = {role: AddedToken(**token, special=True) for role, token in tokens.items()}
    return transformers.ByT5Tokenizer(**given, additional_special_tokens=names)


def _m2m100(folder: Path) -> Any:
    """vocab.json lacks some pieces of the model and has others, as published ones may."""
    train_unigram(folder / "sentencepiece.bpe.model")
    pieces = [piece.text for piece in read_sentencepiece(folder / "sentencepiece.bpe.model").pieces[3:]]
    random.Random(2).shuffle(pieces)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces[20:], "▁nowhere", "ß" * 9]
    languages = [f"__{code}__" for code in tokenization_m2m_100.FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    write(
        folder,
        {"tokenizer_class": "M2M100Tokenizer", "additional_special_tokens": languages, "tgt_lang": "fr"},
        config={"model_type": "m2m_100"},
        vocab={token: index for index, token in enumerate(tokens)},
    )
    return transformers.M2M100Tokenizer.from_pretrained(folder)


def _marian(folder: Path) -> Any:
    _write_marian(folder, separate=False)
    return _read_quietly(folder)


def _marian_separate(folder: Path) -> Any:
    _write_marian(folder, separate=True)
    return _read_quietly(folder)


def _read_quietly(folder: Path) -> Any:
    with warnings.catch_warnings():  # it recommends a package, of which it then makes no use
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        return transformers.AutoTokenizer.from_pretrained(folder)


def _write_marian(folder: Path, *, separate: bool) -> None:
    train_unigram(folder / "source.spm")
    train_unigram(folder / "target.spm", model_type="bpe")
    source, target = (
        [piece.text for piece in read_sentencepiece(folder / name).pieces[3:]]
        for name in ("source.spm", "target.spm")
    )
    codes = [">>deu<<", ">>fra_Latn<<"]
    both = [source[15:], target[15:]] if separate else [list(dict.fromkeys(source[15:] + target[15:]))]
    draw = random.Random(5)
    files = {}
    for name, pieces in zip(("vocab", "target_vocab"), both, strict=False):
        draw.shuffle(pieces)
        tokens = ["</s>", "<unk>", *codes, *pieces, "<pad>"]
        files[name] = {token: index for index, token in enumerate(tokens)}
    stated = {"source_lang": "en", "target_lang": "mul", "model_max_length": 512, "separate_vocabs": separate}
    write(folder, stated, config={"model_type": "marian"}, **files)


KINDS: dict[str, Callable[[Path], Any]] = {
    build.__name__.removeprefix("_"): build
    for build in (
        *(_t5, _t5_listed, _mt5, _umt5, _pegasus, _pegasus_stated, _mbart, _mbart50, _nllb, _nllb_legacy),
        *(_bart, _blenderbot, _byt5, _m2m100, _marian, _marian_separate),
    )
}
# The source and the target language of each.
LANGUAGES = {"mbart": ("en_XX", "ro_RO"), "mbart50": ("ro_RO", "sl_SI"), "m2m100": ("en", "fr")}
LANGUAGES |= {"nllb": ("eng_Latn", "yue_Hant"), "nllb_legacy": ("eng_Latn", "yue_Hant")}


class Case:
    """One kind of tokenizer: its folder, the reference, minitx's, and the texts that can be compared."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.reference = KINDS[name](folder)
        self.ours = load_tokenizer(folder)
        if name in LANGUAGES:
            self.ours.src_lang, self.ours.tgt_lang = LANGUAGES[name]
        self.libraries = [
            sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
            for file in ("source.spm", "target.spm", "sentencepiece.bpe.model")
            if not self.reference.is_fast and (folder / file).is_file()
        ]
        self.texts = [text for text in ALL_TEXTS if self.comparable(text)]

    def comparable(self, text: str) -> bool:
        """Whether both normalise a text alike, where the reference uses the sentencepiece library.

        For the reasons see `test_pieces_are_those_of_the_sentencepiece_library` in test_tokenizer.py.
        """
        if self.name == "byt5":  # which appends no </s> to a text that ends with it
            return not text.endswith("</s>")
        if not self.libraries:
            return True
        normalized = self.ours._backends.source.backend.normalizer.normalize_str(text)
        # Of ". .." and ".. ." with equal scores either may win.
        if re.search(r"\.\.\.|ᄏᄏᄏ", normalized):
            return False
        if "\x85" in text + normalized or any(
            special in normalized.replace(text, "") for special in SPECIALS
        ):
            return False
        words = " ".join(normalized.split())
        return all(words == lib.normalize(text).replace("▁", " ").strip() for lib in self.libraries)


@pytest.fixture(scope="module", params=list(KINDS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def test_single_texts(case: Case) -> None:
    assert len(case.texts) > 2000
    fast = case.reference.is_fast
    ours = case.ours(case.texts, as_tensors=False, return_offsets=fast)
    wanted = case.reference(case.texts, return_offsets_mapping=fast)
    if fast:
        assert first_difference(case.texts, ours.offsets, wanted["offset_mapping"]) is None
    assert set(ours) == {"input_ids", "attention_mask"}
    for key in ours:
        assert first_difference(case.texts, ours[key], wanted[key]) is None
    for text in case.texts[::50]:
        assert case.ours.encode(text) == case.reference.encode(text)
        bare = case.reference.encode(text, add_special_tokens=False)
        assert case.ours.encode(text, add_special_tokens=False) == bare


def test_target_texts(case: Case) -> None:
    texts = case.texts[:1000]
    ours = case.ours(texts, as_target=True, as_tensors=False)
    wanted = case.reference(text_target=texts)
    assert first_difference(texts, ours.input_ids, wanted["input_ids"]) is None
    assert case.ours.encode(texts[0], as_target=True) == wanted["input_ids"][0]
    again = case.ours(texts, as_tensors=False)  # and no trace of it is left
    assert again.input_ids == case.reference(texts)["input_ids"]


def test_pairs(case: Case) -> None:
    firsts, seconds = case.texts[:400], case.texts[400:800]
    ours = case.ours(firsts, pairs=seconds, as_tensors=False)
    assert first_difference(firsts, ours.input_ids, case.reference(firsts, seconds)["input_ids"]) is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_truncation(case: Case, side: str) -> None:
    texts = case.texts[:300]
    options = {"padding": True, "truncation": True, "max_length": 19, "padding_side": side}
    ours = case.ours(texts, as_tensors=False, **options)
    wanted = case.reference(texts, **options)
    assert ours.input_ids == wanted["input_ids"]
    assert ours.attention_mask == wanted["attention_mask"]


def test_special_tokens_mask(case: Case) -> None:
    texts = TEXTS[:20]
    ours = case.ours(texts, as_tensors=False, return_special_tokens_mask=True)
    framed, bare = ours.input_ids, case.ours(texts, as_tensors=False, add_special_tokens=False).input_ids
    for row, mask, inner in zip(framed, ours.special_tokens_mask, bare, strict=True):
        assert [index for index, special in zip(row, mask, strict=True) if not special] == inner


def test_decode(case: Case) -> None:
    """Without special tokens, between which the references that are written in Python put other spaces."""
    for text in case.texts[:500]:
        ids = case.ours.encode(text)
        wanted = case.reference.decode(ids, skip_special_tokens=True)
        ours = case.ours.decode(ids, skip_special_tokens=True)
        if case.reference.is_fast:
            assert ours == wanted
            assert case.ours.decode(ids) == case.reference.decode(ids)
        else:
            assert ours.strip() == wanted.strip() or case.ours.unk_token_id in ids


def test_names(case: Case) -> None:
    assert len(case.ours) == len(case.reference)
    if case.name != "byt5":  # it names bytes otherwise
        assert case.ours.vocab == case.reference.get_vocab()
    roles = ("eos", "pad", "unk", "mask", "sep", "cls")
    for role in roles if case.name == "mbart50" else (*roles, "bos"):  # the published file names <s>
        assert getattr(case.ours, f"{role}_token") == getattr(case.reference, f"{role}_token")
        assert getattr(case.ours, f"{role}_token_id") == getattr(case.reference, f"{role}_token_id")


def test_saved_folder_gives_the_same_ids_in_both_libraries(case: Case, tmp_path: Path) -> None:
    texts = case.texts[::2]
    before = case.ours(texts, as_tensors=False)
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    case.ours.save(alone)
    shutil.copytree(case.folder, beside)  # the old files stay: the new ones must win
    case.ours.save(beside)
    for folder in (alone, beside):
        ours = load_tokenizer(folder)
        assert ours(texts, as_tensors=False).input_ids == before.input_ids
        assert (ours.special_ids, ours.languages) == (case.ours.special_ids, case.ours.languages)
        assert (ours.src_lang, ours.tgt_lang) == (case.ours.src_lang, case.ours.tgt_lang)
        targets = case.ours(case.texts[:99], as_target=True, as_tensors=False).input_ids
        assert ours(case.texts[:99], as_target=True, as_tensors=False).input_ids == targets
        theirs = _read_quietly(folder)
        assert first_difference(texts, theirs(texts)["input_ids"], before.input_ids) is None


def test_folder_that_transformers_saves_gives_the_same_ids(case: Case, tmp_path: Path) -> None:
    case.reference.save_pretrained(tmp_path)
    shutil.copy(case.folder / "config.json", tmp_path)
    ours = load_tokenizer(tmp_path)
    if case.name in LANGUAGES:
        assert ours.languages == case.ours.languages
        ours.src_lang, ours.tgt_lang = LANGUAGES[case.name]
    texts = case.texts[::2]
    wanted = case.ours(texts, as_tensors=False).input_ids
    assert first_difference(texts, ours(texts, as_tensors=False).input_ids, wanted) is None
    targets = case.ours(case.texts[:99], as_target=True, as_tensors=False).input_ids
    assert ours(case.texts[:99], as_target=True, as_tensors=False).input_ids == targets


def test_new_tokens_in_both_libraries(case: Case, tmp_path: Path) -> None:
    ours = load_tokenizer(case.folder)
    if case.name in LANGUAGES:
        ours.src_lang, ours.tgt_lang = LANGUAGES[case.name]
    if case.name == "marian_separate":
        with pytest.raises(ValueError, match="separate vocabularies, which take no further tokens"):
            ours.add_tokens("<new>")
        return
    ours = add_new_tokens(case.folder, ours, tmp_path)
    theirs = _read_quietly(tmp_path)
    for text in NEW_TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text), text


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text(case: Case, text: str) -> None:
    assume(case.comparable(text))
    assert case.ours.encode(text) == case.reference.encode(text)
