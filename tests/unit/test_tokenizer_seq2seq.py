"""Tokenizers of the encoder-decoder family: what their ids are, languages and targets, and wrong files."""

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.tokenizer._sentencepiece_proto import read_sentencepiece
from minitx.tokenizer.languages import M2M100, MBART, MBART50, NLLB
from tests.parity.test_tokenizer import SPECIAL_STRINGS, TEXTS, train_byte_pairs, train_unigram, write
from tests.real import MINILM

T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
FAIRSEQ = "sentencepiece.bpe.model"


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    train_unigram(tmp_path / "spiece.model", **T5)
    write(tmp_path, {}, config={"model_type": "t5"})
    return tmp_path


@pytest.fixture
def mbart(tmp_path: Path) -> Path:
    train_unigram(tmp_path / FAIRSEQ)
    write(tmp_path, {}, config={"model_type": "mbart"})
    return tmp_path


def _m2m100(folder: Path, **stated: Any) -> Path:
    train_unigram(folder / FAIRSEQ)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *_texts_of(folder / FAIRSEQ)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    write(folder, stated, config={"model_type": "m2m_100"}, vocab=vocabulary)
    return folder


def _texts_of(path: Path) -> list[str]:
    return [piece.text for piece in read_sentencepiece(path).pieces[3:]]


def _marian(folder: Path, *, separate: bool = False, **more: Any) -> Path:
    train_unigram(folder / "source.spm")
    train_unigram(folder / "target.spm", model_type="bpe")
    source, target = _texts_of(folder / "source.spm"), _texts_of(folder / "target.spm")
    front = ["</s>", "<unk>", ">>deu<<", ">>fra<<"]
    lists = {"vocab": [*front, *source, "<pad>"], "target_vocab": [*front, *reversed(target), "<pad>"]}
    if not separate:
        lists = {"vocab": [*front, *dict.fromkeys([*reversed(target), *source]), "<pad>"]}
    files = {name: {token: index for index, token in enumerate(tokens)} for name, tokens in lists.items()}
    write(folder, {"separate_vocabs": separate} | more, config={"model_type": "marian"}, **files)
    return folder


def _change(folder: Path, **stated: Any) -> Tokenizer:
    """The tokenizer with other settings in tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stated))
    return load_tokenizer(folder)


@pytest.mark.parametrize(
    ("family", "file", "shift", "options"),
    [
        ("t5", "spiece.model", 0, T5),
        ("t5", "spiece.model", 0, T5 | {"model_type": "bpe"}),
        ("pegasus", "spiece.model", 103, T5),
        ("mbart", FAIRSEQ, 1, {}),
        ("mbart50", FAIRSEQ, 1, {}),
        ("nllb", FAIRSEQ, 1, {"model_type": "bpe"}),
        ("m2m_100", FAIRSEQ, 1, {"model_type": "bpe"}),
    ],
)
def test_ids_are_those_of_the_sentencepiece_library(
    family: str, file: str, shift: int, options: dict[str, Any], tmp_path: Path
) -> None:
    """Wherever both normalise alike; the ids of pieces lie `shift` behind those of the file."""
    train_unigram(tmp_path / file, **options)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *_texts_of(tmp_path / file)]
    write(tmp_path, {}, vocab={token: index for index, token in enumerate(tokens)})
    tokenizer = load_tokenizer(tmp_path, model_type=family)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / file))
    compared = 0
    for text in TEXTS:
        normalized = tokenizer._backends.source.backend.normalizer.normalize_str(text)
        if any(special in text + normalized for special in (*SPECIAL_STRINGS, "\x85")):
            continue
        if " ".join(normalized.split()) != library.normalize(text).replace("▁", " ").strip():
            continue
        compared += 1
        unk = tokenizer.unk_token_id
        wanted = [unk if index == library.unk_id() else index + shift for index in library.encode(text)]
        # Sorted, since of ". .." and ".. ." with equal scores either may win.
        assert sorted(tokenizer.encode(text, add_special_tokens=False)) == sorted(wanted), text
    assert compared > 1500


def test_sentinels_of_t5_count_down_from_the_last_id(t5: Path) -> None:
    tokenizer = load_tokenizer(t5)
    size = len(read_sentencepiece(t5 / "spiece.model").pieces)
    assert len(tokenizer) == size + 100
    assert [tokenizer.token_to_id(f"<extra_id_{number}>") for number in (0, 99)] == [size + 99, size]
    ids = tokenizer.encode("the <extra_id_0> reads <extra_id_1>")
    assert [index for index in ids if index >= size] == [size + 99, size + 98]
    assert set(range(size, size + 100)) < set(tokenizer.special_ids)
    assert "extra_id" not in tokenizer.decode(ids, skip_special_tokens=True)


def test_how_many_sentinels(t5: Path) -> None:
    size = len(read_sentencepiece(t5 / "spiece.model").pieces)
    for model_type, usual in (("t5", 100), ("mt5", 0), ("umt5", 300)):
        (t5 / "config.json").write_text(json.dumps({"model_type": model_type}))
        assert len(load_tokenizer(t5)) == size + usual
    assert len(_change(t5, extra_ids=7)) == size + 7
    with pytest.raises(ValueError, match=r"extra_ids=-1; it must be an integer from 0 to 10000"):
        _change(t5, extra_ids=-1)


def test_sentinels_that_the_file_has_itself_are_not_added(tmp_path: Path) -> None:
    train_unigram(tmp_path / "spiece.model", user_defined_symbols="<extra_id_1>,<extra_id_0>", **T5)
    tokenizer = load_tokenizer(tmp_path, model_type="t5")
    assert len(tokenizer) == len(read_sentencepiece(tmp_path / "spiece.model").pieces) + 98
    assert tokenizer.encode("<extra_id_0>") == [tokenizer.token_to_id("<extra_id_0>"), 1]


def test_what_follows_a_sentinel_without_a_space(t5: Path) -> None:
    """`legacy` false: no word begins there. (As the slow T5Tokenizer 4 reads the flag; 5 does not.)"""
    old, new = load_tokenizer(t5), _change(t5, legacy=False)
    text = "the<extra_id_0>reads  text <extra_id_1> of\t\tmots. "
    spelled = "".join(new.tokens(text, add_special_tokens=False))
    assert spelled == "▁the<extra_id_0>reads▁text<extra_id_1>▁of▁mots."
    assert "".join(old.tokens(text)) == "▁the<extra_id_0>▁reads▁text<extra_id_1>▁of▁mots.</s>"
    plain = [text for text in TEXTS if not any(special in text for special in SPECIAL_STRINGS)]
    assert [new.encode(text) for text in plain] == [old.encode(text) for text in plain]


def test_front_of_pegasus(tmp_path: Path) -> None:
    train_unigram(tmp_path / "spiece.model", **T5)
    write(tmp_path, {}, config={"model_type": "pegasus"})
    tokenizer = load_tokenizer(tmp_path)
    names = [tokenizer.id_to_token(index) for index in (0, 1, 2, 3, 4, 104, 105)]
    assert names == ["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>", "<unk>"]
    assert (tokenizer.mask_token_id, tokenizer.unk_token_id) == (3, 105)
    named = _change(tmp_path, mask_token="<mask_2>", mask_token_sent="<mask_1>", offset=103)
    assert named.vocab == tokenizer.vocab
    with pytest.raises(ValueError, match=r"offset=103; it must be 102, the number of"):
        _change(tmp_path, mask_token_sent=None)
    with pytest.raises(ValueError, match=r"mask_token_sent=5; it must be the token"):
        _change(tmp_path, mask_token_sent=5)
    bare = _change(tmp_path, mask_token=None, mask_token_sent=None, offset=0)
    assert bare.vocab == {
        p.text: i for i, p in enumerate(read_sentencepiece(tmp_path / "spiece.model").pieces)
    }


def test_languages_and_mask_of_mbart_stand_behind_the_pieces(mbart: Path) -> None:
    size = len(read_sentencepiece(mbart / FAIRSEQ).pieces)
    one = load_tokenizer(mbart)
    assert one.languages[0] == "ar_AR"
    assert (len(one.languages), one.languages[-1]) == (25, "zh_CN")
    assert one.language_id("ar_AR") == size + 1
    assert one.mask_token_id == size + 26
    fifty = _change(mbart, tokenizer_class="MBart50Tokenizer")
    assert (len(fifty.languages), fifty.mask_token_id) == (52, size + 53)
    assert one.encode("Ｔｈｅ ﬁ") == one.encode("The fi")  # by the rules of the file


def test_languages_have_the_ids_of_the_published_checkpoints() -> None:
    """NLLB's stand behind 256 001 tokens, M2M-100's behind 128 004, mBART's behind 250 001."""
    assert 256_001 + NLLB.index("eng_Latn") == 256_047
    assert 256_001 + NLLB.index("fra_Latn") == 256_057
    assert 128_004 + M2M100.index("en") == 128_022
    assert 128_004 + M2M100.index("fr") == 128_028
    assert 250_001 + MBART.index("en_XX") == 250_004
    assert 250_001 + MBART50.index("ro_RO") == 250_020
    assert (len(NLLB), len(M2M100), len(MBART), len(MBART50)) == (202, 100, 25, 52)


def test_source_and_target_language(mbart: Path) -> None:
    tokenizer = load_tokenizer(mbart)
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", None)
    bare, eos = tokenizer.encode("the text", add_special_tokens=False), tokenizer.eos_token_id
    assert tokenizer.encode("the text") == [*bare, eos, tokenizer.language_id("en_XX")]
    tokenizer.src_lang, tokenizer.tgt_lang = "de_DE", "ro_RO"
    assert tokenizer.encode("the text") == [*bare, eos, tokenizer.language_id("de_DE")]
    assert tokenizer.encode("the text", as_target=True)[-1] == tokenizer.language_id("ro_RO")
    assert tokenizer.tokens("the text", as_target=True)[-2:] == ["</s>", "ro_RO"]
    assert tokenizer(["the text"], as_target=True).input_ids[0, -1] == tokenizer.language_id("ro_RO")
    assert tokenizer.encode("the text")[-1] == tokenizer.language_id("de_DE")
    tokenizer.tgt_lang = None
    with pytest.raises(ValueError, match=r"needs its language \(as_target=True\); set tokenizer\.tgt_lang"):
        tokenizer("the text", as_target=True)


@pytest.mark.parametrize(
    ("stated", "frame"),
    [
        ({}, ["▁a", "</s>", "fr_XX"]),
        ({"tokenizer_class": "MBart50Tokenizer"}, ["fr_XX", "▁a", "</s>"]),
        ({"tokenizer_class": "NllbTokenizer"}, ["fra_Latn", "▁a", "</s>"]),
        ({"tokenizer_class": "NllbTokenizer", "legacy_behaviour": True}, ["▁a", "</s>", "fra_Latn"]),
    ],
)
def test_where_the_language_stands(mbart: Path, stated: dict[str, Any], frame: list[str]) -> None:
    code = next(token for token in frame if token.startswith("fr"))
    tokenizer = _change(mbart, **stated, src_lang=code)
    assert tokenizer.tokens("a") == frame
    tokenizer.save(mbart / "saved")
    again = load_tokenizer(mbart / "saved")  # which has no config.json, and no name of its class
    assert again.tokens("a") == frame
    again.src_lang = tokenizer.languages[0]
    assert set(again.tokens("a")) == {tokenizer.languages[0], "▁a", "</s>"}


def test_languages_that_are_mere_pieces_in_tokenizer_json(mbart: Path) -> None:
    """Old files were saved so; transformers makes them special in its code."""
    tokenizer = load_tokenizer(mbart)
    tokenizer.save(mbart)
    path = mbart / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"][0] == "<"]
    path.write_text(json.dumps(content))
    (mbart / "tokenizer_config.json").unlink()
    again = load_tokenizer(mbart)
    assert (again.languages, again.special_ids) == (tokenizer.languages, tokenizer.special_ids)
    assert again.encode("the de_DE text") == tokenizer.encode("the de_DE text")


def test_further_languages_are_special_tokens_that_look_like_one(mbart: Path) -> None:
    size = len(load_tokenizer(mbart))
    (mbart / "added_tokens.json").write_text(json.dumps({"xx_YY": size, "qq_QQ": size + 1, "word": size + 2}))
    tokenizer = _change(mbart, additional_special_tokens=["qq_QQ"])
    assert tokenizer.languages[-2:] == ("zh_CN", "qq_QQ")
    assert tokenizer.language_id("qq_QQ") == size + 1


def test_without_the_usual_source_language_it_must_be_chosen(mbart: Path) -> None:
    load_tokenizer(mbart).save(mbart)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = mbart / name
        path.write_text(path.read_text().replace("en_XX", "xx_XX"))
    tokenizer = _change(mbart, src_lang=None)
    assert (tokenizer.src_lang, tokenizer.languages[3]) == (None, "xx_XX")
    tokenizer.save(mbart / "again")
    with pytest.raises(ValueError, match=r"\(as_target=False\); set tokenizer\.src_lang"):
        tokenizer("the text")
    tokenizer.src_lang = "xx_XX"
    assert tokenizer.tokens("a") == ["▁a", "</s>", "xx_XX"]


def test_languages_are_chosen_on_loading(mbart: Path) -> None:
    tokenizer = load_tokenizer(mbart, src_lang="fr_XX", tgt_lang="cs_CZ")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("fr_XX", "cs_CZ")
    assert _change(mbart, src_lang="it_IT", tgt_lang=None).src_lang == "it_IT"
    with pytest.raises(ValueError, match=r"tgt_lang='xx_XX' must be a language of this tokenizer: ar_AR,"):
        load_tokenizer(mbart, tgt_lang="xx_XX")
    with pytest.raises(ValueError, match=r"src_lang=3; it must be the code"):
        _change(mbart, src_lang=3)


def test_wrong_languages_change_nothing(mbart: Path) -> None:
    tokenizer = load_tokenizer(mbart)
    before = tokenizer.encode("the")
    with pytest.raises(ValueError, match=r"src_lang='en' must be a language"):
        tokenizer.src_lang = "en"
    with pytest.raises(ValueError, match=r"tgt_lang='<mask>' must be a language"):
        tokenizer.tgt_lang = "<mask>"
    with pytest.raises(ValueError, match=r"language='' must be a language"):
        tokenizer.language_id("")
    assert (tokenizer.encode("the"), tokenizer.tgt_lang) == (before, None)


def test_a_tokenizer_without_languages_says_so() -> None:
    tokenizer = load_tokenizer(MINILM)
    assert (tokenizer.languages, tokenizer.src_lang, tokenizer.tgt_lang) == ((), None, None)
    for act in (
        lambda: setattr(tokenizer, "src_lang", "en"),
        lambda: setattr(tokenizer, "tgt_lang", "en"),
        lambda: tokenizer.language_id("en"),
        lambda: load_tokenizer(MINILM, src_lang="en"),
    ):
        with pytest.raises(ValueError, match="this tokenizer has no languages"):
            act()
    assert tokenizer.encode("the text", as_target=True) == tokenizer.encode("the text")


def test_the_language_counts_as_a_special_token_from_the_first_call(mbart: Path) -> None:
    tokenizer = load_tokenizer(mbart)
    with pytest.raises(ValueError, match="2 tokens of each row are special"):
        tokenizer("the text", truncation=True, max_length=1)
    batch = load_tokenizer(mbart)("the text", truncation=True, max_length=3, return_special_tokens_mask=True)
    assert batch.special_tokens_mask.tolist() == [[0, 1, 1]]


def test_threads_with_different_sides(mbart: Path) -> None:
    tokenizer = load_tokenizer(mbart, src_lang="en_XX", tgt_lang="ro_RO")
    wanted = {side: tokenizer.language_id(code) for side, code in ((False, "en_XX"), (True, "ro_RO"))}
    wrong = []

    def work(as_target: bool) -> None:
        for _ in range(150):
            if tokenizer.encode("the text", as_target=as_target)[-1] != wanted[as_target]:
                wrong.append(as_target)

    threads = [threading.Thread(target=work, args=(side,)) for side in (True, False) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_languages_of_m2m100(tmp_path: Path) -> None:
    folder = _m2m100(tmp_path)
    size = len(json.loads((folder / "vocab.json").read_text()))
    tokenizer = load_tokenizer(folder, tgt_lang="fr")
    assert (len(tokenizer.languages), tokenizer.language_id("af")) == (100, size)
    assert tokenizer.tokens("a") == ["__en__", "▁a", "</s>"]
    assert tokenizer.tokens("a", as_target=True) == ["__fr__", "▁a", "</s>"]
    assert tokenizer.encode("a")[0] == tokenizer.token_to_id("__en__") == tokenizer.language_id("en")
    other = _change(folder, language_codes="wmt21")
    assert other.languages == ("en", "ha", "is", "ja", "cs", "ru", "zh", "de")
    with pytest.raises(ValueError, match=r"language_codes='m2m'; it must be one of m2m100, wmt21"):
        _change(folder, language_codes="m2m")


def test_a_piece_that_the_vocabulary_lacks_is_unknown(tmp_path: Path) -> None:
    folder = _m2m100(tmp_path)
    tokenizer = load_tokenizer(folder)
    (piece,) = tokenizer.encode("the", add_special_tokens=False)[:1]
    path = folder / "vocab.json"
    vocabulary = {t: i for t, i in json.loads(path.read_text()).items() if i != piece}
    path.write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    without = load_tokenizer(folder)
    assert without.tokens("the") == tokenizer.tokens("the")
    assert without.encode("the")[1] == without.unk_token_id
    last = tokenizer.encode("the")[-2]
    assert without.id_to_token(without.encode("the")[-2]) == tokenizer.id_to_token(last)


def test_control_pieces_are_not_found_in_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(_marian(tmp_path))
    assert "".join(tokenizer.tokens("a<s>b", add_special_tokens=False)) == "▁a<s>b"
    assert len(tokenizer.tokens("a<s>b", add_special_tokens=False)) == 5
    assert tokenizer.tokens("a</s>b") == ["▁a", "</s>", "▁b", "</s>"]


def test_code_of_a_marian_target_stays_whole(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(_marian(tmp_path))
    bare = tokenizer.encode("the text")
    for text in (">>deu<< the text", ">>deu<<the text", "  >>deu<<   the text"):
        assert tokenizer.encode(text) == [tokenizer.token_to_id(">>deu<<"), *bare]
    assert tokenizer.token_to_id(">>deu<<") not in tokenizer.special_ids
    assert (
        tokenizer.decode(tokenizer.encode(">>fra<< the text"), skip_special_tokens=True) == ">>fra<< the text"
    )


@pytest.mark.parametrize("separate", [False, True])
def test_marian_writes_by_its_second_model(separate: bool, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(_marian(tmp_path, separate=separate))
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "target.spm"))
    name = "target_vocab.json" if separate else "vocab.json"
    vocabulary = json.loads((tmp_path / name).read_text())
    differ = 0
    for text in ("the model reads text", "tokenized words, readable", "des morceaux de mots"):
        ids = tokenizer.encode(text, as_target=True)
        assert ids == [*(vocabulary[piece] for piece in library.encode(text, out_type=str)), 0]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.tokens(text, as_target=True)[:-1] == [tokenizer.id_to_token(i) for i in ids[:-1]]
        batch = tokenizer([text, "a"], as_target=True, padding=True)
        assert batch.input_ids[0].tolist() == ids
        differ += ids != tokenizer.encode(text)
        if separate:
            source = json.loads((tmp_path / "vocab.json").read_text())
            assert [source[token] for token in tokenizer.tokens(text)] == tokenizer.encode(text)
            # The pad of the source, in both: labels are told from padding by it, and writing starts with it.
            assert source["<pad>"] != vocabulary["<pad>"]
            assert batch.input_ids[1, -1] == tokenizer.pad_token_id == source["<pad>"]
            assert tokenizer.decode([source["<pad>"], *ids], skip_special_tokens=True) == text
    assert differ


def test_files_of_marian_that_do_not_fit(tmp_path: Path) -> None:
    folder = _marian(tmp_path, separate=True)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    for changed, message in (
        (vocabulary | {"a": 1.5}, r"vocab\.json must map each token to an integer"),
        (
            {t: i for t, i in vocabulary.items() if t != "<unk>"},
            r"vocab\.json lacks the unknown token '<unk>'",
        ),
    ):
        (folder / "vocab.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            load_tokenizer(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "target_vocab.json").unlink()
    with pytest.raises(ValueError, match=r"no target_vocab\.json, which separate_vocabs=true"):
        load_tokenizer(folder)
    (folder / "target.spm").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json or source\.spm with target\.spm with vocab\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("separate", [False, True])
def test_what_is_looked_up_is_saved_as_it_came(separate: bool, tmp_path: Path) -> None:
    """And wins over a tokenizer.json that is there by chance, as it does in transformers."""
    folder = tmp_path / "from"
    folder.mkdir()
    tokenizer = load_tokenizer(_marian(folder, separate=separate))
    tokenizer.save(tmp_path / "to")
    names = {"source.spm", "target.spm", "vocab.json"} | ({"target_vocab.json"} if separate else set())
    assert {path.name for path in (tmp_path / "to").iterdir()} == names | {"tokenizer_config.json"}
    for name in names:
        assert (tmp_path / "to" / name).read_bytes() == (folder / name).read_bytes()
    (tmp_path / "to" / "tokenizer.json").write_bytes((MINILM / "tokenizer.json").read_bytes())
    again = load_tokenizer(tmp_path / "to")
    assert again.encode(">>deu<< the text") == tokenizer.encode(">>deu<< the text")


@pytest.mark.parametrize("make", [_m2m100, _marian])
def test_pickling(make: Any, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make(tmp_path))
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("the text") == tokenizer.encode("the text")
    assert again.languages == tokenizer.languages


@pytest.fixture(scope="module")
def bytes_only(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("byt5")
    write(folder, {"tokenizer_class": "ByT5Tokenizer"}, config={"model_type": "t5"})
    return load_tokenizer(folder)


@given(text=st.text(st.characters(exclude_categories=("Cs",))))
def test_byt5_is_bytes_and_three(bytes_only: Tokenizer, text: str) -> None:
    ids = bytes_only.encode(text)
    assert ids == [*(byte + 3 for byte in text.encode()), 1]
    assert bytes_only.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_of_byt5(bytes_only: Tokenizer) -> None:
    assert len(bytes_only) == 384
    assert bytes_only.encode("a</s><pad><unk><extra_id_0>b<extra_id_124>") == [100, 1, 0, 2, 259, 101, 383, 1]
    assert bytes_only.encode("a", "b") == [100, 1, 101, 1]
    assert bytes_only.encode("a</s>") == [100, 1, 1]  # transformers 5 leaves the second out, with a warning
    assert bytes_only.decode([100, 3 + 0xC3, 101]) == "a\ufffdb"  # half of a character; there it is dropped


def test_blenderbot_begins_with_a_space_and_ends_with_an_end(tmp_path: Path) -> None:
    train_byte_pairs(tmp_path)
    write(tmp_path, {}, config={"model_type": "blenderbot"})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("the text") == tokenizer.encode(" the text")
    assert tokenizer.encode("the text")[-1] == tokenizer.eos_token_id
    plain = _change(tmp_path, add_prefix_space=False)
    assert plain.encode("the text") != plain.encode(" the text") == tokenizer.encode("the text")
