"""summarization, translation and text2text-generation: prefixes, languages, batches, options."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

import minitx
from minitx.cli import app as cli
from minitx.decoding import Beam
from minitx.pipelines.pipeline import Pipeline, pipeline
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.test_cli_seq2seq import M2M100, MBART, T5, make

TEXTS = ["a b c", "d", "e f g h i", "a b c"]
SPECIFIC = {
    "summarization": {"prefix": "s ", "num_beams": 2, "max_length": 9, "length_penalty": 2.0},
    "translation_en_to_de": {"prefix": "x y ", "num_beams": 3},
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return make(tmp_path_factory.mktemp("t5"), T5, ["<pad>", "</s>"], eos_token="</s>", **kind)


@pytest.fixture(scope="module")
def specific(t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copytree(t5, tmp_path_factory.mktemp("specific") / "t5")
    config = json.loads((folder / "config.json").read_text()) | {"task_specific_params": SPECIFIC}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = ["<s>", "<pad>", "</s>", "<unk>", "__en__", "__de__"]
    return make(tmp_path_factory.mktemp("m2m100"), M2M100, special, tokenizer_class="M2M100Tokenizer")


@pytest.fixture(scope="module")
def mbart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = ["<s>", "<pad>", "</s>", "<unk>", "en_XX", "de_DE"]
    config = {**MBART, "decoder_start_token_id": 2}
    return make(tmp_path_factory.mktemp("mbart"), config, special, tokenizer_class="MBart50Tokenizer")


def prompt(result: Any, pipe: Pipeline) -> str:
    return pipe.tokenizer.decode(result.details.inputs[0].input_ids)


def test_settings_of_the_task_are_used_and_stated(specific: Path, t5: Path) -> None:
    pipe = pipeline("summarization", specific, device="cpu")
    assert repr(pipe).endswith("Beam(num_beams=2, length_penalty=2.0), max_length=9, prefix='s ')")
    (result,) = pipe(["a b"], min_length=9)
    assert prompt(result, pipe).startswith("s a b")
    assert result.details.outputs[0][0].tokens.shape == (8,)
    assert pipe("a b").details.inputs[0].input_ids == result.details.inputs[0].input_ids
    assert repr(pipeline("summarization", t5, device="cpu")).endswith(
        "Beam(num_beams=4), max_new_tokens=256)"
    )
    own = pipeline("summarization", specific, device="cpu", prefix="", max_new_tokens=3)
    assert repr(own).endswith("Beam(num_beams=2, length_penalty=2.0), max_new_tokens=3)")


def test_the_least_number_of_tokens_that_is_stated_replaces_that_of_the_checkpoint(
    t5: Path, tmp_path: Path
) -> None:
    folder = copytree(t5, tmp_path / "t5")
    least = {"task_specific_params": {"summarization": {"min_length": 6}}}
    config = json.loads((folder / "config.json").read_text()) | least
    (folder / "config.json").write_text(json.dumps(config))
    pipe = pipeline("summarization", folder, device="cpu", num_beams=1)
    everything = {"return_tensors": True, "eos_token_id": list(range(1, len(pipe.tokenizer)))}

    def count(**options: int) -> int:
        return len(pipe(["a b"], **everything, **options)[0]["summary_token_ids"])

    assert count() == 6 + 1  # with the end token
    assert count(min_new_tokens=3) == 1 + 3 + 1  # with the start token too
    assert count(min_length=2) == 2 + 1
    longer = pipeline("summarization", folder, device="cpu", num_beams=1, min_new_tokens=7)
    assert len(longer(["a b"], **everything, min_length=3)[0]["summary_token_ids"]) == 3 + 1


def test_nesting(t5: Path) -> None:
    pipe = pipeline(model=t5, device="cpu", max_new_tokens=4)
    assert pipe.task.spec.name == "text2text-generation"
    (single,) = pipe("a b")
    assert list(single) == ["generated_text"]
    assert pipe(["a b", "c"])[0] == single
    assert pipe({"text": "a b"}) == single
    several = pipe(["a b", "c"], num_return_sequences=3)
    assert [len(each) for each in several] == [3, 3]
    assert pipe("a b", num_return_sequences=3) == several[0]
    ids = pipe("a b", return_tensors=True)[0]["generated_token_ids"]
    assert isinstance(ids, torch.Tensor)
    assert ids[0] == 0
    assert pipeline("translation", t5, device="cpu", max_new_tokens=2)("a")[0].keys() == {"translation_text"}


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "num_beams": 1, "seed": 5}, {"max_length": 7}])
def test_a_batch_gives_what_its_texts_give(t5: Path, options: dict[str, Any]) -> None:
    pipe = pipeline("summarization", t5, device="cpu", max_new_tokens=6)
    together = pipe(TEXTS, **options)
    assert together[:3] == [pipe(text, **options)[0] for text in TEXTS[:3]]
    assert pipe(TEXTS[::-1][1:], **options) == together[:3][::-1]
    one = pipeline("summarization", pipe.model, pipe.tokenizer, batch_size=1, max_new_tokens=6)
    assert one(TEXTS, **options) == together
    assert [*pipe(iter(TEXTS), **options)] == together


def test_prefixes_of_t5(t5: Path, specific: Path) -> None:
    own = pipeline("translation_en_to_de", specific, device="cpu", max_new_tokens=2)
    assert repr(own).endswith("Beam(num_beams=3), max_new_tokens=2, prefix='x y ')")
    assert own.task.prefix_of("", own.options) == "x y "
    with pytest.warns(UserWarning, match="settings of translation_en_to_de"):
        unnamed = pipeline("translation", specific, device="cpu")
    assert "prefix='x y '" in repr(unnamed)
    plain = pipeline("translation_fr_to_en", t5, device="cpu", max_new_tokens=2)
    assert plain.task.prefix_of("", plain.options) == "translate French to English: "
    options = plain.task.options(plain.options, {"src_lang": "de", "tgt_lang": "ro"})
    assert plain.task.prefix_of("", options) == "translate German to Romanian: "
    with pytest.raises(ArgumentValueError, match="tgt_lang='pl' must be one of en, fr, de, ro; prefix="):
        pipeline("translation_en_to_pl", t5, device="cpu")
    assert pipeline("translation_en_to_pl", t5, device="cpu", prefix="p ", max_new_tokens=2)("a")


def test_languages_of_the_tokenizer(nllb: Path, mbart: Path) -> None:
    pipe = pipeline(model=nllb, device="cpu", max_new_tokens=5)
    assert pipe.task.spec.name == "translation"
    english, german = (pipe("a b", src_lang="en", tgt_lang=code)[0] for code in ("en", "de"))
    for result, code in ((english, "en"), (german, "de")):
        assert result.details.outputs[0][0].tokens[0] == pipe.tokenizer.language_id(code)
    assert pipe.tokenizer.tgt_lang is None  # the shared tokenizer is unchanged
    with pytest.raises(
        ArgumentValueError, match="tgt_lang=None must be a language of this tokenizer: en, de"
    ):
        pipe("a b")
    with pytest.raises(ArgumentValueError, match="tgt_lang='xx'"):
        pipe("a b", tgt_lang="xx")
    named = pipeline("translation_en_to_de", mbart, device="cpu", max_new_tokens=5)
    assert named("a b")[0].details.outputs[0][0].tokens[0] == named.tokenizer.language_id("de_DE")
    calls = [{"src_lang": "en", "tgt_lang": code} for code in ("en", "de") * 4]
    expected = [pipe(TEXTS, **call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda call: pipe(TEXTS, **call), calls)] == expected


def test_the_language_of_the_call_replaces_that_of_the_checkpoint(mbart: Path, tmp_path: Path) -> None:
    folder = copytree(mbart, tmp_path / "forced")
    english, german = 4, 5
    (folder / "generation_config.json").write_text(json.dumps({"forced_bos_token_id": english}))
    pipe = pipeline("translation", folder, device="cpu", max_new_tokens=5)
    assert pipe("a b")[0].details.outputs[0][0].tokens[0] == english
    assert pipe("a b", tgt_lang="de_DE")[0].details.outputs[0][0].tokens[0] == german


def test_languages_of_marian(tmp_path: Path) -> None:
    special = ["<pad>", "</s>", ">>fra<<", ">>zho_Hans<<"]
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    folder = make(tmp_path / "marian", T5, special, eos_token="</s>", **kind)
    pipe = pipeline("translation", folder, device="cpu", max_new_tokens=3)
    assert prompt(pipe("a b", tgt_lang="fra")[0], pipe) == ">>fra<< a b"
    assert prompt(pipe(">>fra<< a b", tgt_lang="fra")[0], pipe) == ">>fra<< a b"
    with pytest.raises(
        ArgumentValueError, match="tgt_lang='de' must be a target language of this model: fra"
    ):
        pipe("a b", tgt_lang="de")


def test_languages_of_a_model_for_one_pair(tmp_path: Path) -> None:
    bart = {**MBART, "model_type": "bart", "architectures": ["BartForConditionalGeneration"]}
    special, kind = ["<s>", "<pad>", "</s>", "<unk>"], {"tokenizer_class": "PreTrainedTokenizerFast"}
    folder = make(tmp_path / "bart", bart | {"decoder_start_token_id": 2}, special, eos_token="</s>", **kind)
    pipe = pipeline("translation", folder, device="cpu", max_new_tokens=3)
    for name, code in (("src_lang", "en"), ("tgt_lang", "de")):
        expected = f"{name}={code!r} must be left out; the model has no other languages to choose from"
        with pytest.raises(ArgumentValueError, match=expected):
            pipe("a b", **{name: code})
    named = pipeline("translation_en_to_de", folder, device="cpu", max_new_tokens=3)
    assert named("a b") == pipe("a b")
    assert cli.main(["run", "translation_en_to_de", str(folder), "a b", "--max-new-tokens", "3"]) == 0
    with pytest.raises(ArgumentValueError, match="tgt_lang='fr' must be left out"):
        named("a b", tgt_lang="fr")
    settings = {"source_lang": "en", "target_lang": "de", "eos_token": "</s>", **kind}  # of a Marian
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    stated = pipeline("translation", folder, device="cpu", max_new_tokens=3)
    assert stated("a b", src_lang="en", tgt_lang="de") == pipe("a b")
    for code in ("fr", "fra"):
        with pytest.raises(
            ArgumentValueError, match=f"tgt_lang='{code}' must be 'de'; the model has no other"
        ):
            stated("a b", tgt_lang=code)
    with pytest.raises(ArgumentValueError, match="src_lang='fr' must be 'en'"):
        pipeline("translation_fr_to_de", folder)
    pipeline("translation_eng_to_deu", folder)


def test_a_source_language_alone_is_an_error(t5: Path) -> None:
    with pytest.raises(ArgumentValueError, match="tgt_lang=None must be one of en, fr, de, ro"):
        pipeline("translation", t5, device="cpu")("a b", src_lang="en")


def test_long_texts(t5: Path) -> None:
    tokenizer = minitx.load_tokenizer(t5)
    tokenizer.model_max_length = 5
    pipe = pipeline("summarization", minitx.load(t5), tokenizer, max_new_tokens=3)
    with pytest.warns(UserWarning, match="1 of 2 inputs of summarization were too long"):
        first, _ = pipe(["a b c d e f g h", "a"])
    assert first == pipe("a b c d e")[0]
    assert len(first.details.inputs[0]) == 5
    with pytest.raises(ArgumentValueError, match="at most 5 tokens"):
        pipe("a b c d e f g h", overflow="error")


def test_streams(t5: Path) -> None:
    pipe = pipeline("summarization", t5, device="cpu", max_new_tokens=5)
    with pytest.raises(ValueError, match="cannot be streamed"):
        pipe.stream("a b")
    assert "".join(pipe.stream("a b", num_beams=1)) == pipe("a b", num_beams=1)[0]["summary_text"]


@pytest.mark.parametrize("inputs", [None, 3, b"a", [["a"]], ["a", None], {"document": "a"}])
def test_wrong_inputs(t5: Path, inputs: Any) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError)):
        pipeline("summarization", t5, device="cpu")(inputs)


def test_strategies_of_minitx(t5: Path) -> None:
    pipe = pipeline("summarization", t5, device="cpu", strategy=Beam(num_beams=3), max_new_tokens=4)
    assert pipe("a b") == pipe("a b", strategy=None, num_beams=3)
    with pytest.raises(ArgumentValueError, match="must be left out with strategy"):
        pipe("a b", temperature=0.5)
