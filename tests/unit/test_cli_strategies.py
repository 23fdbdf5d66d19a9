"""`minitx strategies`, `minitx compare` and the option --strategy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.decoding import Remasking, best_of, cot_decoding, fill, mbr, self_consistency
from minitx.decoding.catalogue import SECTIONS, entries
from minitx.pipelines import compare
from tests.unit.test_cli import Run, run  # noqa: F401 - a fixture

TEXT = "And it came to pass"


@pytest.fixture(scope="module")
def model() -> minitx.DecoderModel:
    model = minitx.load("minitx/tiny-decoder")
    assert isinstance(model, minitx.DecoderModel)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> minitx.Tokenizer:
    return minitx.load_tokenizer("minitx/tiny-decoder")


def test_the_catalogue_fits_a_terminal(run: Run) -> None:  # noqa: F811
    code, out, err = run("strategies")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert all(title in out for name, title in SECTIONS.items() if any(e.section == name for e in entries()))
    code, out, err = run("strategies", "top-p")
    assert "Sample(top_p=" in out
    assert max(map(len, out.splitlines())) <= 80
    records = [json.loads(line) for line in run("strategies", "--json")[1].splitlines()]
    assert [record["row"] for record in records] == [entry.row for entry in entries()]
    assert "no strategy has 'qqqq'" in run("strategies", "qqqq")[2]


def test_compare(model: minitx.DecoderModel, tokenizer: minitx.Tokenizer) -> None:
    strategies = [minitx.Greedy(), minitx.Sample(temperature=0.7), minitx.Beam(num_beams=2)]
    done: list[int] = []
    result = compare(
        model, TEXT, strategies, seed=3, tokenizer=tokenizer, max_new_tokens=6, progress=done.append
    )
    assert done == [1, 1, 1]
    for row, strategy in zip(result.rows, strategies, strict=True):
        seed = {"seed": 3} if isinstance(strategy, minitx.Sample) else {}
        single = minitx.generate(model, TEXT, strategy, tokenizer=tokenizer, max_new_tokens=6, **seed)
        assert single.texts == [row.text]
        ids = [*tokenizer.encode(TEXT), *row.tokens]
        logprobs = minitx.score(model, [ids]).logprobs[0][-len(row.tokens) :]
        assert row.logprob == pytest.approx(float(logprobs.mean()), abs=1e-6)
        assert row.distinct[0] == len(set(row.tokens)) / len(row.tokens)
        assert row.text is not None
        assert row.text.split()[0] in str(result)
    assert max(map(len, str(result).splitlines())) <= 80
    assert result.to_json()["prompt"] == TEXT


def test_compare_of_an_encoder_decoder_and_of_ids() -> None:
    model, tokenizer = minitx.load("minitx/tiny-seq2seq"), minitx.load_tokenizer("minitx/tiny-seq2seq")
    result = compare(model, "house", [minitx.Greedy()], tokenizer=tokenizer, max_new_tokens=12)
    assert result.rows[0].text == "hˈaʊs"
    ids = compare(model, tokenizer.encode("house"), [minitx.Greedy()], max_new_tokens=12)
    assert (ids.rows[0].tokens, ids.rows[0].text) == (result.rows[0].tokens, None)
    assert " ".join(map(str, ids.rows[0].tokens)) in str(ids)


def test_compare_refuses(model: minitx.DecoderModel) -> None:
    for prompt, strategies, options, message in (
        (["a", "b"], [minitx.Greedy()], {}, "one text, or the ids of one prompt"),
        ([5], [], {}, "at least one strategy"),
        ([5], ["greedy"], {}, r"strategies\[0\]"),
        ([5], [minitx.Greedy()], {"num_samples": 2}, "num_samples=2 must be 1"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            compare(model, prompt, strategies, max_new_tokens=2, **options)  # type: ignore[arg-type]


def test_the_command_compare(run: Run) -> None:  # noqa: F811
    base = ("compare", "minitx/tiny-decoder", TEXT, "--max-new-tokens", "4")
    code, out, _ = run(*base, "--strategy", "greedy", "--strategy", "Beam(num_beams=3)")
    assert code == 0
    assert "1  Greedy()" in out
    assert "2  Beam(num_beams=3)" in out
    record = json.loads(run(*base, "--json", "--seed", "5")[1])
    assert len(record["rows"]) == 5
    assert all(len(row["tokens"]) <= 4 for row in record["rows"])
    assert "--strategy 'Sample(top_p=2)': top_p=2" in run(*base, "--strategy", "Sample(top_p=2)")[2]


def test_a_form_that_is_cut_is_noted(run: Run) -> None:  # noqa: F811
    base = ("generate", "minitx/tiny-decoder", TEXT, "--grammar", "Regex('(ab)+c')")
    code, out, err = run(*base, "--max-new-tokens", "3", "--strategy", "greedy")
    assert (code, out.startswith("ab")) == (0, True)
    assert "before its form was complete" in " ".join(err.split())
    assert "before its form" in run(*base, "--max-new-tokens", "3", "--num-samples", "2", "--seed", "1")[2]
    assert not run(*base[:-1], "Choices(['ab'])", "--max-new-tokens", "9", "--strategy", "greedy")[2]


def test_the_option_strategy(run: Run, tmp_path: Path) -> None:  # noqa: F811
    base = ("generate", "minitx/tiny-decoder", TEXT, "--max-new-tokens", "5")
    assert run(*base, "--strategy", "Beam(num_beams=3)") == run(*base, "--beams", "3")
    sampled = run(*base, "--strategy", "Sample(top_k=3)", "--seed", "1")
    assert sampled == run(*base, "--top-k", "3", "--seed", "1")
    assert "--strategy and --top-k exclude one another" in run(*base, "--strategy", "x", "--top-k", "3")[2]
    assert "there is no 'x'" in run(*base, "--strategy", "x")[2]
    assert "Greedy() draws nothing" in run(*base, "--strategy", "greedy", "--seed", "1")[2]


def test_answer(run: Run) -> None:  # noqa: F811
    base = ("answer", "minitx/tiny-decoder", "It was a", "--max-new-tokens", "6", "--samples", "4")
    options: dict[str, Any] = {"max_new_tokens": 6, "tokenizer": minitx.load_tokenizer("minitx/tiny-decoder")}
    model = minitx.load("minitx/tiny-decoder")
    record = json.loads(run(*base, "--json", "--seed", "3")[1])
    ranking = best_of(model, "It was a", best_of=4, n=4, seed=3, **options)
    assert [each["text"] for each in record["samples"]] == [each.text for each in ranking.candidates[0]]
    assert record["answer"] == ranking.best[0].text
    result = minitx.generate(model, "It was a", num_samples=4, seed=0, **options)
    vote = json.loads(run(*base, "--by", "vote", "--extract", r"[a-z]+", "--json")[1])
    assert vote["answer"] == self_consistency(result, r"[a-z]+").answer
    assert json.loads(run(*base, "--by", "agreement", "--json")[1])["answer"] == mbr(result).best
    margin = json.loads(run(*base, "--by", "margin", "--extract", r"[a-z]+", "--json")[1])
    assert margin["answers"] == cot_decoding(model, "It was a", r"[a-z]+", k=4, **options).answers
    assert "for --by vote and --by margin" in run(*base, "--extract", "a")[2]
    assert "has no --seed" in run(*base, "--by", "margin", "--seed", "1")[2]


def test_infill_names_what_is_missing(run: Run) -> None:  # noqa: F811
    code, out, err = run("infill", "minitx/tiny-decoder", "a", "b")
    assert (code, out) == (2, "")
    assert "the tokenizer has none of those that are known" in err


def test_fill(run: Run) -> None:  # noqa: F811
    base = ("fill", "minitx/tiny-encoder")
    model, tokenizer = minitx.load("minitx/tiny-encoder", head="masked-lm"), minitx.load_tokenizer(base[1])
    text = "The [MASK] of Israel sent [MASK]."
    result = fill(model, text, Remasking(), tokenizer=tokenizer)
    assert run(*base, text)[1] == f"{result.table()}\n"
    record = json.loads(
        run(*base, "The ship", "--masks", "3", "--schedule", "MaskPredict(steps=2)", "--json")[1]
    )
    assert len(record["steps"]) == 3
    assert record["text"]
    assert "a schedule such as" in run(*base, text, "--schedule", "Greedy()")[2]


def test_detect(run: Run) -> None:  # noqa: F811
    base = ("--max-new-tokens", "80", "--seed", "1", "--json")
    mark = ("--watermark", "KGW(key=77, bias=4.0)")
    name = "minitx/tiny-decoder"
    marked = json.loads(run("generate", name, "It was a", *base, *mark)[1])["text"]
    plain = json.loads(run("generate", name, "It was a", *base)[1])["text"]
    assert json.loads(run("detect", name, marked, *mark, "--json")[1])["watermarked"] is True
    code, out, _ = run("detect", name, plain, *mark)
    assert (code, "no watermark found" in " ".join(out.split())) == (0, True)
    assert "a watermark such as" in run("detect", name, plain, "--watermark", "TopK(3)")[2]
