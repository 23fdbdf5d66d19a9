"""The commands on encoder-decoders: what is read, what is written, and in which language."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import minitx
from minitx import Beam, Greedy
from minitx.checkpoint.save import save
from tests.unit.test_cli_generate import Run, fails, objects, run

__all__ = ["run"]  # a fixture

LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]
T5: dict[str, Any] = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "initializer_factor": 8.0,  # so that tokens differ in probability
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 40,
    "init_std": 0.5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
MBART = {**BART, "model_type": "mbart", "architectures": ["MBartForConditionalGeneration"]}
M2M100 = {
    **BART,
    "model_type": "m2m_100",
    "architectures": ["M2M100ForConditionalGeneration"],
    "decoder_start_token_id": 2,
}
GREEDY = ["--greedy", "--max-new-tokens", 5, "--ignore-eos"]
FORCED = ["--forced-bos-token-id", 6]


def make(folder: Path, config: dict[str, Any], special: list[str], **settings: Any) -> Path:
    """A small model whose words are letters; `settings` are those of its tokenizer."""
    words = [*special, *LETTERS]
    save(minitx.from_config({**config, "vocab_size": len(words)}, seed=0), folder)
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=special[0]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(special)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return make(tmp_path_factory.mktemp("t5"), T5, ["<pad>", "</s>"], eos_token="</s>", **kind)


@pytest.fixture(scope="module")
def mbart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = ["<s>", "<pad>", "</s>", "<unk>", "en_XX", "de_DE"]
    return make(tmp_path_factory.mktemp("mbart"), MBART, special, tokenizer_class="MBartTokenizer")


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = ["<s>", "<pad>", "</s>", "<unk>", "__en__", "__de__"]
    return make(tmp_path_factory.mktemp("m2m100"), M2M100, special, tokenizer_class="M2M100Tokenizer")


def test_generate_is_what_the_library_generates(run: Run, t5: Path) -> None:
    model: Any = minitx.load(t5)
    tokenizer = minitx.load_tokenizer(t5)
    expected = minitx.generate(
        model, ["a b", "c"], Beam(), max_new_tokens=4, num_samples=2, tokenizer=tokenizer
    )
    found = objects(run, t5, "a b", "c", "--beams", 4, "--max-new-tokens", 4, "--num-samples", 2)
    assert [each["tokens"] for each in found] == [row.tokens.tolist() for row in expected]
    assert [each["score"] for each in found] == pytest.approx(expected.scores)
    greedy = minitx.generate(
        model, "a b", Greedy(), max_new_tokens=5, tokenizer=tokenizer, stop=minitx.Stop(eos=())
    )
    assert greedy.texts is not None
    assert run("generate", t5, "a b", *GREEDY) == (0, greedy.texts[0] + "\n", "")
    code, out, err = run("explain", t5, "a b", "--top-k", 3, "--seed", 0)
    assert (code, err) == (0, "")
    assert "TopK 3" in out


def test_what_is_written_can_be_begun(run: Run, t5: Path) -> None:
    begun = objects(run, t5, "a b", "c", *GREEDY, "--decoder-prompt", "d e")
    in_ids = objects(run, t5, "a b", "c", *GREEDY, "--decoder-ids", "0 5 6", "--batch-size", 1)
    assert begun == in_ids
    each = objects(
        run, t5, "a b", "c", *GREEDY, "--decoder-prompt", "d e", "--decoder-prompt", "z", "--batch-size", 1
    )
    assert each[0] == begun[0]
    assert each[1]["tokens"] == objects(run, t5, "c", *GREEDY, "--decoder-ids", "0 27")[0]["tokens"]
    model: Any = minitx.load(t5)
    tokenizer = minitx.load_tokenizer(t5)
    expected = minitx.explain(model, "a b", Greedy(), decoder_prompts="d", tokenizer=tokenizer)
    code, out, err = run("explain", t5, "a b", "--decoder-prompt", "d", "--greedy")
    assert (code, out, err) == (0, f"{expected}\n", "")


def test_the_length_of_the_checkpoint_counts_what_is_given(run: Run, t5: Path, tmp_path: Path) -> None:
    """Its max_length has the start token in it, and the tokens, not the characters, of what follows."""
    folder = copytree(t5, tmp_path / "t5")
    for stated, length in (({"max_length": 20}, 14), ({"max_length": 200, "min_new_tokens": 100}, 194)):
        (folder / "generation_config.json").write_text(json.dumps(stated))
        model: Any = minitx.load(folder)
        (expected,) = minitx.generate(
            model, "a b", "checkpoint", stop=minitx.Stop(eos=()), decoder_prompts="q r s t u",
            tokenizer=minitx.load_tokenizer(folder),
        ).sequences  # fmt: skip
        assert len(expected) == length
        for begun in (["--decoder-prompt", "q r s t u"], ["--decoder-ids", "0 18 19 20 21 22"]):
            (found,) = objects(run, folder, "a b", "--checkpoint", "--ignore-eos", *begun)
            assert found["tokens"] == expected.tolist()
    (ended,) = minitx.generate(model, "a b", "checkpoint", tokenizer=minitx.load_tokenizer(folder)).sequences
    assert len(ended) > 100
    assert objects(run, folder, "a b", "--checkpoint")[0]["tokens"] == ended.tolist()
    assert len(objects(run, folder, "a b", "--checkpoint", "--max-new-tokens", 7)[0]["tokens"]) == 7


def test_the_language_is_forced_behind_the_start_token(run: Run, m2m100: Path) -> None:
    argv = [m2m100, "a b", *GREEDY]
    (german,) = objects(run, *argv, "--tgt-lang", "de")
    assert german["tokens"][0] == 5
    assert german["tokens"] == objects(run, *argv, "--forced-bos-token-id", 5)[0]["tokens"]
    (own,) = objects(run, *argv, "--tgt-lang", "de", "--forced-bos-token-id", 4)
    assert own["tokens"][0] == 4
    (begun,) = objects(run, *argv, "--tgt-lang", "de", "--decoder-prompt", "c")
    assert begun["tokens"] == objects(run, *argv, "--decoder-ids", "2 5 8")[0]["tokens"]
    argv += ["--logprobs", "raw"]
    english, german = (objects(run, *argv, "--src-lang", code)[0]["logprobs"] for code in ("en", "de"))
    assert english != german
    assert english == objects(run, *argv)[0]["logprobs"]


def test_texts_that_begin_with_their_language(run: Run, mbart: Path) -> None:
    argv = [mbart, "a b", *GREEDY]
    (german,) = objects(run, *argv, "--tgt-lang", "de_DE")
    assert german["tokens"] == objects(run, *argv, "--decoder-ids", "5")[0]["tokens"]
    (begun,) = objects(run, *argv, "--tgt-lang", "de_DE", "--decoder-prompt", "c")
    assert begun["tokens"] == objects(run, *argv, "--decoder-ids", "5 8")[0]["tokens"]
    error = fails(run, "generate", *argv)
    assert "(decoder_start_token_id); choose a --tgt-lang, or pass --decoder-prompt." in error


def test_languages_of_pictures_pages_and_traces(run: Run, m2m100: Path, mbart: Path, tmp_path: Path) -> None:
    path, own = tmp_path / "command.png", tmp_path / "library.png"
    pictures = []
    for folder, code, ids in ((m2m100, "de", [2, 5]), (m2m100, "en", [2, 4]), (mbart, "de_DE", [5])):
        model, tokenizer = minitx.load(folder), minitx.load_tokenizer(folder, tgt_lang=code)
        subject = minitx.inspect.Subject(model, tokenizer, ("a b",), "c d")
        assert subject.targets == [[*ids, 8, 9]]
        languages = ("--tgt-lang", code, "--target", "c d")
        drawn = run("picture", "cross-attention", folder, "a b", *languages, "-o", path)
        assert drawn == (0, f"Cross-attention: all heads: {path}\n", "")
        minitx.inspect.picture("cross-attention", model, "a b", tokenizer=tokenizer, target="c d").save(own)
        pictures.append(path.read_bytes())
        assert pictures[-1] == own.read_bytes()
        assert run("trace", folder, "a b", *languages, "--check")[0] == 0
        page = tmp_path / "page.html"
        assert run("view", folder, "a b", "--tgt-lang", code, "--num-beams", 0, "-o", page)[0] == 0
    assert pictures[0] != pictures[1]
    english, german = (run("trace", m2m100, "a b", "--src-lang", code)[1] for code in ("en", "de"))
    assert english != german
    assert run("trace", m2m100, "a b")[1] == english
    error = fails(run, "picture", "attention", m2m100, "a", "--src-lang", "fr")
    assert "--src-lang 'fr' must be a language of this tokenizer: en, de" in error
    error = fails(run, "picture", "spectra", m2m100, "--tgt-lang", "de")
    assert "--tgt-lang 'de' must be left out for kind='spectra'" in error


def test_the_language_of_the_call_comes_before_that_of_the_checkpoint(
    run: Run, m2m100: Path, tmp_path: Path
) -> None:
    folder = copytree(m2m100, tmp_path / "m2m100")
    (folder / "generation_config.json").write_text('{"forced_bos_token_id": 4, "max_new_tokens": 3}')
    argv = [folder, "a b", "--checkpoint", "--ignore-eos"]
    for more, language in (([], 4), (["--tgt-lang", "de"], 5), (["--tgt-lang", "de", *FORCED], 6)):
        assert objects(run, *argv, *more)[0]["tokens"][0] == language


def test_other_commands(run: Run, t5: Path, mbart: Path, tmp_path: Path) -> None:
    for folder in (t5, mbart):
        code, out, _ = run("inspect", folder)
        assert code == 0
        assert "\nencoder " in out
        assert "\ndecoder " in out
        code, out, _ = run("verify", folder)
        assert (code, "real text" in out, "EQUAL" in out) == (0, True, True), out
    assert run("convert", t5, tmp_path / "encoder", "--head", "encoder")[0] == 0
    assert json.loads((tmp_path / "encoder" / "config.json").read_text())["architectures"] == [
        "T5EncoderModel"
    ]
    first, second = (run("embed", folder, "a b", "c", "--json")[1] for folder in (t5, tmp_path / "encoder"))
    vectors, expected = (torch.tensor(json.loads(text)["embeddings"]) for text in (first, second))
    # Mapped weights lie at other addresses in another file, which changes the rounding of some kernels.
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-6)
    assert "model='EncoderDecoderModel' must be an encoder" in fails(run, "embed", mbart, "a")
    assert "cannot predict a next token: the checkpoint lacks" in fails(
        run, "generate", tmp_path / "encoder", "a"
    )


MISTAKES = {
    "--tgt-lang de": "error: --tgt-lang .*de.* must be left out: this tokenizer has no languages",
    "--src-lang de": "error: --src-lang .*de.* must be left out: this tokenizer has no languages",
    "--decoder-prompt a --decoder-prompt b": "decoder.prompt.*1",
    "--decoder-prompt a --decoder-ids 5": "--decoder-prompt and --decoder-ids exclude one another",
    "--decoder-ids 99": r"error: --decoder-ids\[0\] 99 must be token ids from 0 to",
    "--beams 4 --top-p 0.9": "--top-p has no effect with --beams",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_mistakes(run: Run, t5: Path, argv: str) -> None:
    assert re.search(MISTAKES[argv], fails(run, "generate", t5, "a", *argv.split()))


def test_languages_that_there_are_not(run: Run, m2m100: Path) -> None:
    for option, name in (("--src-lang", "src_lang"), ("--tgt-lang", "tgt_lang")):
        error = fails(run, "generate", m2m100, "a", option, "fr")
        assert f"error: {option} 'fr' must be a language of this tokenizer: en, de." in error, name


def test_words_need_a_tokenizer(run: Run, tmp_path: Path) -> None:
    save(minitx.from_config({**T5, "vocab_size": 30}, seed=0), tmp_path)
    for option in ("--decoder-prompt", "--tgt-lang", "--src-lang"):
        code, out, err = run("generate", tmp_path, "--ids", "5 6", option, "a")
        assert (code, out) == (2, "")
        assert f"error: {option} " in err
    assert 'Prompts can also be token ids: --ids "1 2 3"' in fails(run, "generate", tmp_path, "a")
    assert run("generate", tmp_path, "--ids", "5 6", "--decoder-ids", "0 7", *GREEDY)[0] == 0


def test_decoders_have_no_text_to_begin(run: Run, tmp_path: Path) -> None:
    from tests.unit.test_cli_generate import make as make_decoder

    folder = make_decoder(tmp_path)
    for option in ("--decoder-prompt", "--decoder-ids"):
        error = fails(run, "generate", folder, "a", option, "5")
        assert f"{option} ['5'] must be left out for models without an encoder" in error.replace(
            "[[5]]", "['5']"
        )
    assert run("embed", folder, "a")[0] == 0
