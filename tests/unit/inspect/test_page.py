"""The data and the file of `minitx.inspect.view`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.inspect import logit_lens, record, view
from minitx.inspect.page import Page
from minitx.inspect.page.arrays import VALUES, pack, unpack
from minitx.inspect.page.page import script_json
from tests.unit.inspect.small_models import model_of

IDS = [5, 6, 7, 8, 9, 6, 7]
ATTENTIONS = {
    "bert": ["encoder.self"],
    "llama": ["decoder.self"],
    "gpt2": ["decoder.self"],
    "t5": ["encoder.self", "decoder.self", "decoder.cross"],
}
MODULES = {
    "encoder.self": "encoder.layers.{}.attention.self_attention",
    "decoder.self": "decoder.layers.{}.attention.self_attention",
    "decoder.cross": "decoder.layers.{}.cross_attention.cross_attention",
}


def page_of(name: str, **options: Any) -> Page:
    target = {"target": IDS[:4]} if name == "t5" else {}
    return view(model_of(name), IDS, **target, **options)


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=12, max_size=12),
    st.sampled_from(["f32", "f16", *VALUES]),
)
def test_an_array_survives_packing(values: list[float], precision: Any) -> None:
    array = torch.tensor(values).view(2, 2, 3)
    result = unpack(json.loads(json.dumps(pack(array, precision))))
    assert result.shape == array.shape
    if precision == "f32":
        assert torch.equal(result, array)
    elif precision == "f16":
        assert torch.equal(result, array.half().float())
    else:
        distance = array.amax(dim=(-2, -1), keepdim=True) - array.amin(dim=(-2, -1), keepdim=True)
        assert bool(((result - array).abs() <= 0.501 * distance / (VALUES[precision] - 1) + 2e-3).all())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_is_that_of_the_model(name: str) -> None:
    model, page = model_of(name), page_of(name)
    assert [kind["name"] for kind in page.data["attention"]] == ATTENTIONS[name]
    arguments = {"input_ids": torch.tensor([IDS])}
    if name == "t5":
        ids = [token["id"] for token in page.data["tokens"]["decoder"]]
        arguments["decoder_input_ids"] = torch.tensor([ids])
    with record(model, "**") as seen, torch.no_grad():
        model(**arguments)
    for kind in page.data["attention"]:
        for point in ("weights", "query", "key", "value"):
            values = unpack(kind[point])
            for layer in range(kind["layers"]):
                expected = seen[f"{MODULES[kind['name']].format(layer)}.{point}"][0]
                assert torch.allclose(values[layer], expected.float(), atol=1e-6)
        assert kind["causal"] == (kind["name"] == "decoder.self")


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_lens_and_next_token_are_those_of_the_model(name: str) -> None:
    model, page = model_of(name), page_of(name)
    lens = logit_lens(model, torch.tensor([IDS]))
    cells = page.data["lens"]["cells"]
    assert (len(cells), len(cells[0])) == (len(lens.layers), len(IDS))
    best = lens.top()[:, 0, :, 0].tolist()
    assert [[cell[0][0] for cell in layer] for layer in cells] == [[f"#{i}" for i in row] for row in best]
    assert cells[-1][-1][2] == pytest.approx(float(lens.entropy[-1, 0, -1]), abs=1e-4)
    (last,) = page.data["next"]["distributions"]
    assert last["position"] == len(IDS) - 1
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0, -1]
    assert torch.equal(unpack(last["logits"]), logits.float())


def test_a_masked_text_has_a_distribution_for_each_mask() -> None:
    model, tokenizer = minitx.load("minitx/tiny-encoder"), minitx.load_tokenizer("minitx/tiny-encoder")
    page = view(model, "The [MASK] of France is [MASK].", tokenizer=tokenizer)
    places = [d["position"] for d in page.data["next"]["distributions"]]
    assert [page.data["tokens"]["encoder"][place]["name"] for place in places] == ["[MASK]", "[MASK]"]
    assert page.data["tree"] is None


def test_the_tree_is_that_of_the_search() -> None:
    page = page_of("llama", num_beams=3, max_new_tokens=4)
    search = minitx.Beam(num_beams=3)
    result = minitx.generate(model_of("llama"), [IDS], search, num_samples=3, max_new_tokens=4)
    assert result.beams is not None
    assert [node["parent"] for node in page.data["tree"]["nodes"]] == [
        node.parent for node in result.beams[0]
    ]
    assert page_of("llama", num_beams=0).data["tree"] is None


def test_parameters_come_from_the_strategy_and_others_are_noted() -> None:
    strategy = minitx.Sample(temperature=0.7, logit_bias={5: 1.0}, order="vllm")
    page = page_of("llama", strategy=strategy)
    following = page.data["next"]
    assert following["parameters"]["temperature"]["value"] == 0.7
    assert following["order"] == "vllm"
    assert following["orders"]["llama.cpp"][-1] == "temperature"
    assert page.data["notes"] == ["The page does not compute logit_bias; its sliders begin without it."]


def test_every_byte_of_a_token_is_shown() -> None:
    model, tokenizer = minitx.load("minitx/tiny-decoder"), minitx.load_tokenizer("minitx/tiny-decoder")
    page = view(model, "a\n</script><b>@DATA@ é", tokenizer=tokenizer)
    names = [token["name"] for token in page.data["tokens"]["decoder"]]
    assert not any("\n" in name for name in names)
    text = page.html()
    assert text.count("</script>") == 3
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    assert data["text"] == "a\n</script><b>@DATA@ é"


def test_a_page_needs_no_other_file(tmp_path: Path) -> None:
    path = page_of("llama").save(tmp_path / "new" / "page.html")
    text = path.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)(?!#)[^"]*"|url\(|@import', text)
    assert [*path.parent.iterdir()] == [path]
    assert page_of("llama")._repr_html_().startswith("<iframe srcdoc=")


def test_a_page_of_a_large_model_has_less_precision() -> None:
    sizes = {"n_embd": 768, "n_head": 12, "n_layer": 12, "n_inner": 64, "n_positions": 64}
    config = {"model_type": "gpt2", "vocab_size": 50257, **sizes}
    model = minitx.from_config(config, head="causal-lm", seed=0).eval()
    ids = torch.randint(0, 50257, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    page = view(model, ids, num_beams=0)
    assert len(page.html().encode()) <= 3_000_000
    assert "256 steps" in page.data["notes"][0]
    (attention,) = page.data["attention"]
    assert attention["value"]["shape"] == [12, 12, 64, 64]
    with record(model, "decoder.layers.3.attention.self_attention.weights") as seen, torch.no_grad():
        model(torch.tensor([ids]))
    (expected,) = seen.values()
    assert (unpack(attention["weights"])[3] - expected[0]).abs().max() < 1 / 500


def test_a_model_without_a_vocabulary_head_has_no_lens() -> None:
    config = {"model_type": "bert", "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 20}
    page = view(minitx.from_config(config, head="none").eval(), IDS)
    assert page.data["lens"] is page.data["next"] is page.data["tree"] is None
    assert page.data["attention"][0]["heads"] == 2


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a text", {}, "tokenizer=None must be"),
        ([5] * 300, {}, "must be of 1 to 256 tokens"),
        ([5, 99], {}, "99"),
        (IDS, {"strategy": minitx.Greedy()}, "a Sample"),
        (IDS, {"num_beams": 99}, "num_beams=99"),
        (IDS, {"max_new_tokens": 0}, "max_new_tokens=0"),
        (IDS, {"title": 5}, "title=5"),
        (123, {}, "text=123 must be a text, or the token ids of one"),
        (b"x", {}, "must be a text, or the token ids"),
        ({"input_ids": IDS}, {}, "must be a text, or the token ids"),
        (["a"], {}, "must be a text, or the token ids"),
        (IDS, {"target": IDS}, "target=[5, 6, 7, 8, 9, 6, 7] must be left out"),
    ],
)
def test_bad_arguments_are_errors(text: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        view(model_of("llama"), text, **options)


def test_a_page_is_not_written_over_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder"):
        (folder := tmp_path / "a.html").mkdir() or page_of("llama").save(folder)
    with pytest.raises(ValueError, match=r"\.html"):
        page_of("llama").save(tmp_path / "a.png")


def test_ids_may_be_a_tensor() -> None:
    expected = page_of("llama").data["tokens"]
    for ids in (torch.tensor(IDS), torch.tensor([IDS])):
        assert view(model_of("llama"), ids).data["tokens"] == expected  # type: ignore[arg-type]


def test_bytes_of_a_part_of_a_character_are_shown() -> None:
    model, tokenizer = minitx.load("minitx/tiny-decoder"), minitx.load_tokenizer("minitx/tiny-decoder")
    tokens = view(model, "\U0001f600", tokenizer=tokenizer).data["tokens"]["decoder"]
    assert " ".join(token["bytes"] for token in tokens if token["name"].startswith("<0x")) == "f0 9f 98 80"


def test_json_in_a_script_cannot_end_it() -> None:
    text = script_json({"a": "</script>\u2028<!--"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script>\u2028<!--"}
