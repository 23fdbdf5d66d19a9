"""The page in a real browser: what it computes is what Python computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.decoding import Context
from minitx.inspect import record, view
from tests.unit.inspect.browser import chromium, opened
from tests.unit.inspect.small_models import MORE, model_of

IDS = [5, 6, 7, 8, 9, 6, 7]
ARCHITECTURES = ("bert", "deberta", "llama", "gpt2", "gpt_oss", "mixtral", "bloom", "t5", "bart")
SHIPPED = {
    "minitx/tiny-encoder": "The capital of [MASK] is Paris.",
    "minitx/tiny-decoder": "It was a dark night. It was",
    "minitx/tiny-seq2seq": "thought",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as program:
        yield program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return Path(tmp_path_factory.mktemp("pages"))


def shipped_page(folder: Path, name: str, **options: Any) -> str:
    path = folder / f"{name.partition('/')[2]}-{len(options)}.html"
    if not path.exists():
        model, tokenizer = minitx.load(name, dtype="float32"), minitx.load_tokenizer(name)
        view(model, SHIPPED[name], tokenizer=tokenizer, **options).save(path)
    return path.as_uri()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_pair_is_computed_as_in_the_model(browser: Any, folder: Path, name: str) -> None:
    """Products, scores and weights of every head; the rest of a score is its position bias."""
    assert name in MORE
    model = model_of(name)
    target = {"target": IDS[:4]} if name in ("t5", "bart") else {}
    page = view(model, IDS, num_beams=0, **target)
    arguments = {"input_ids": torch.tensor([IDS])}
    if target:
        ids = [token["id"] for token in page.data["tokens"]["decoder"]]
        arguments["decoder_input_ids"] = torch.tensor([ids])
    with record(model, "**.scores", "**.weights", "**.query", "**.key") as seen, torch.no_grad():
        model(**arguments)
    with opened(browser, page.save(folder / f"{name}.html").as_uri()) as tab:
        pairs = tab.evaluate(
            """async () => {
              const { pairNumbers } = await import("minitx/pair");
              const results = [];
              for (const attention of window.minitx.data.attention)
                for (let layer = 0; layer < attention.layers; layer += 1)
                  for (let head = 0; head < attention.heads; head += 1) {
                    const pair = pairNumbers(attention, { layer, head, query: 2, key: 1 });
                    const { scaled, scores, softmax, masked } = pair;
                    results.push([attention.name, layer, head, scaled, [...scores], [...softmax], masked]);
                  }
              return results;
            }"""
        )
    assert len(pairs) == sum(kind["layers"] * kind["heads"] for kind in page.data["attention"])
    for kind, layer, head, scaled, scores, softmax, masked in pairs:
        side, _, part = kind.partition(".")
        module = "attention.self_attention" if part == "self" else "cross_attention.cross_attention"
        place = f"{side}.layers.{layer}.{module}"
        query, key = (seen[f"{place}.{point}"][0] for point in ("query", "key"))
        group = len(query) // len(key)
        expected = query[head, 2] @ key[head // group, 1]
        facts = next(entry for entry in page.data["attention"] if entry["name"] == kind)
        assert scaled == pytest.approx(float(expected) * facts["scale"][layer], abs=1e-5)
        weights = seen[f"{place}.weights"][0, head, 2]
        assert masked == (float(weights[1]) == 0)
        alive = weights > 0
        assert torch.tensor(scores)[alive] == pytest.approx(
            seen[f"{place}.scores"][0, head, 2][alive], abs=1e-5
        )
        if name != "gpt_oss":  # a sink takes a share of the weights
            assert torch.tensor(softmax) == pytest.approx(weights, abs=1e-5)


def cases() -> list[dict[str, Any]]:
    """Random logits with ties, and random steps in random order."""
    generator = torch.Generator().manual_seed(0)

    def number(low: float, high: float) -> float:
        return round(low + (high - low) * float(torch.rand((), generator=generator)), 4)

    ranges = {
        "repetition_penalty": (0.5, 2),
        "frequency_penalty": (-2, 2),
        "presence_penalty": (-2, 2),
        "temperature": (0.05, 3),
        "top_h": (0.05, 0.99),
        "top_p": (0.01, 1),
        "min_p": (0, 1),
        "typical_p": (0.05, 1),
        "epsilon_cutoff": (0, 0.2),
        "eta_cutoff": (0, 0.2),
    }
    result = []
    for number_of_case in range(120):
        size = (7, 40, 300)[number_of_case % 3]
        logits = torch.randn(size, generator=generator) * (1, 4, 30)[number_of_case // 3 % 3]
        names = [*ranges, "top_k"]
        order = torch.randperm(len(names), generator=generator).tolist()
        steps = []
        for index in order[: 1 + number_of_case % 6]:
            name = names[index]
            value = 1 + index * 3 if name == "top_k" else number(*ranges[name])
            steps.append([name, value])
        if number_of_case % 4 == 0 and "top_h" not in [name for name, _ in steps]:  # whose ties are torch's
            logits = logits.round()
        history = torch.randint(0, size, (9,), generator=generator).tolist()
        result.append({"logits": logits.tolist(), "steps": steps, "history": history, "promptLength": 4})
    return result


def test_the_chain_is_computed_as_in_python(browser: Any, folder: Path) -> None:
    chosen = cases()
    url = shipped_page(folder, "minitx/tiny-decoder")
    with opened(browser, url) as tab:
        results = tab.evaluate(
            """async (cases) => {
              const { runChain } = await import("minitx/chain");
              return cases.map((one) => runChain(one.logits, one.steps, one).map(
                (step) => [[...step.probabilities], step.kept, step.mass, step.entropy]));
            }""",
            chosen,
        )
    parameters = {
        name: p.processor for name, p in minitx.decoding.parameters.parameters_of(minitx.Sample).items()
    }
    for case, steps in zip(chosen, results, strict=True):
        logits = torch.tensor([case["logits"]], dtype=torch.double)
        context = Context(
            torch.tensor([case["history"]]), torch.tensor([9]), torch.tensor([case["promptLength"]])
        )
        before = logits.softmax(-1)
        for (name, value), (probabilities, kept, mass, entropy) in zip(case["steps"], steps[1:], strict=True):
            processor: Any = parameters[name]
            logits = processor(value)(logits, context)
            after = logits.softmax(-1)
            assert torch.tensor(probabilities) == pytest.approx(after[0], abs=1e-5), (name, value)
            alive = logits > -torch.inf
            assert kept == int(alive.sum()), (name, value)
            assert mass == pytest.approx(float(before[alive].sum()), abs=1e-5)
            assert entropy == pytest.approx(float(torch.special.entr(after).sum()), abs=1e-5)
            before = after


def test_sliders_change_the_numbers_to_those_of_python(browser: Any, folder: Path) -> None:
    model, tokenizer = (
        minitx.load("minitx/tiny-decoder", dtype="float32"),
        minitx.load_tokenizer("minitx/tiny-decoder"),
    )
    with opened(browser, shipped_page(folder, "minitx/tiny-decoder")) as tab:
        tab.fill('.slider input[type="number"][name="temperature"]', "0.7")
        tab.fill('.slider input[type="number"][name="top_p"]', "0.8")
        tab.locator('.slider input[type="range"][name="top_k"]').focus()
        for _ in range(20):
            tab.keyboard.press("ArrowRight")
        tab.select_option('select[name="order"]', "llama.cpp")
        strategy = minitx.Sample(temperature=0.7, top_p=0.8, top_k=20, order="llama.cpp")
        explanation = minitx.explain(
            model, SHIPPED["minitx/tiny-decoder"], strategy, tokenizer=tokenizer, seed=0
        )
        steps = tab.evaluate(
            "window.minitx.chain.map(({ name, kept, mass, entropy }) => [name, kept, mass, entropy])"
        )
        assert [step[0] for step in steps] == ["model", "top_k", "top_p", "temperature"]
        for (_, kept, mass, entropy), step in zip(steps, explanation.positions[0].steps, strict=True):
            assert kept == step.kept
            assert mass == pytest.approx(step.mass, abs=1e-5)
            assert entropy == pytest.approx(step.entropy, abs=1e-4)
        for candidate in explanation.positions[0].steps[-1].top:
            shown = tab.evaluate(f"window.minitx.chain.at(-1).probabilities[{candidate.token}]")
            assert shown == pytest.approx(candidate.probability, abs=1e-5)
        assert (
            tab.inner_text("#python-call")
            == 'minitx.Sample(top_k=20, top_p=0.8, temperature=0.7, order="llama.cpp")'
        )
        assert "--top-k 20 --top-p 0.8 --temperature 0.7 --order llama.cpp" in tab.inner_text("#shell-call")
        tab.click('.slider[data-name="temperature"] button[title="earlier"]')
        assert tab.inner_text("#python-call").startswith("minitx.Sample(chain=Chain(TopK(20), ")
        field = '.slider input[type="number"][name="temperature"]'
        for typed, kept in (("1e9", "3"), ("", "3"), ("0", "0.05"), ("0.7", "0.7")):
            tab.fill(field, typed)
            tab.keyboard.press("Enter")
            assert tab.input_value(field) == kept  # what is shown is in force
        tab.click('button[name="draw"]')
        assert tab.inner_text("#draws").startswith("1000 draws: ")
        tab.click('button[name="reset"]')
        assert tab.inner_text("#python-call") == "minitx.Sample()"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_pointer_and_the_keys_select(browser: Any, folder: Path, name: str) -> None:
    with opened(browser, shipped_page(folder, name)) as tab:
        kind = tab.evaluate("window.minitx.state.values.kind")
        state = """(({ layer, head, query, key }) => JSON.stringify({ layer, head, query, key }))(
            window.minitx.state.values)"""
        tab.click('.maps button[data-layer="1"][data-head="2"] >> nth=0')
        matrix = tab.locator("image.matrix")
        box = matrix.bounding_box()
        assert box is not None
        rows, columns = tab.evaluate(
            f"window.minitx.data.attention.find(({{ name }}) => name === '{kind}').weights.shape.slice(-2)"
        )
        x, y = box["x"] + box["width"] * 1.5 / columns, box["y"] + box["height"] * 2.5 / rows
        tab.mouse.move(x, y)
        text = tab.inner_text("#tooltip")
        data = tab.evaluate("""() => { const { data, kind } = window.minitx.state.values;
            const a = data.attention.find(({ name }) => name === kind);
            const [q, k] = [data.tokens[a.query_side][2].name, data.tokens[a.key_side][1].name];
            const [, H, T, S] = a.weights.shape;
            return [q, k, a.weights.values[((1 * H + 2) * T + 2) * S + 1]]; }""")
        assert text.startswith(f"{data[0]} → {data[1]}")
        assert float(text.rpartition(" ")[2].replace("−", "-")) == pytest.approx(data[2], abs=1e-4)
        tab.mouse.click(x, y)
        assert tab.evaluate(state) == '{"layer":1,"head":2,"query":2,"key":1}'
        assert f"{data[0]} attends to {data[1]}: layer 1, head 2" in tab.inner_text("#pair")
        tab.mouse.move(0, 0)
        for key in ("ArrowRight", "ArrowDown", "h", "Shift+L"):
            tab.keyboard.press(key)
        assert tab.evaluate(state) == '{"layer":0,"head":3,"query":3,"key":2}'
        tab.keyboard.press("?")
        assert tab.locator("#keys").is_visible()
        tab.keyboard.press("Escape")
        theme = tab.evaluate("document.documentElement.dataset.theme")
        tab.keyboard.press("d")
        assert tab.evaluate("document.documentElement.dataset.theme") != theme


def test_an_encoder_is_not_said_to_generate(browser: Any, folder: Path) -> None:
    with opened(browser, shipped_page(folder, "minitx/tiny-encoder")) as tab:
        assert tab.inner_text("#python-call") == "minitx.Sample()"
        assert "minitx generate" not in tab.inner_text("#next")


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_screen_has_no_overflow(browser: Any, folder: Path, name: str, theme: Any) -> None:
    size = {"width": 390, "height": 800}
    with opened(browser, shipped_page(folder, name), viewport=size, color_scheme=theme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert tab.evaluate("document.documentElement.dataset.theme") == theme
        assert tab.locator("section").count() == 6


def test_tokens_and_beams_tell_what_they_are(browser: Any, folder: Path) -> None:
    with opened(browser, shipped_page(folder, "minitx/tiny-decoder")) as tab:
        tab.click('.strip button[data-index="3"]')
        inspector = tab.inner_text("#inspector")
        names = tab.evaluate("window.minitx.data.tokens.decoder.map(({ name }) => name)")
        assert f"4 of {len(names)}: {names[3]}" in " ".join(inspector.split())
        tab.hover(".lens td >> nth=0")
        assert "entropy" in tab.inner_text("#tooltip")
        assert tab.locator("g.beam").count() == tab.evaluate("window.minitx.data.tree.nodes.length")
        tab.locator("g.beam text").filter(has_text="#1").click()
        assert "returned as number 1" in tab.inner_text("#beam-text")
