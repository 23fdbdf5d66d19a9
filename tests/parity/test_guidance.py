"""Guidance and contrastive search against transformers.

Classifier-free guidance against the installed one, with and without negative prompts. Contrastive search
and DoLa against fixtures that transformers 4.53 made, the last to have them; they come from
`scripts/make_guidance_fixtures.py`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import minitx
from minitx.decoding import ClassifierFree, ContrastiveSearch, DoLa, Greedy, Sample
from minitx.decoding.generate import generate
from minitx.decoding.text.stopping import Stop
from minitx.models import Model
from tests.parity.formula import weights
from tests.parity.reference import pair
from tests.parity.test_generate import EOS, NEW, expected, prompts


@pytest.mark.parametrize(
    ("name", "scale", "dtype"),
    [
        ("gpt2", 1.5, torch.float64),
        ("llama", 0.0, torch.float64),
        ("llama", 1.0, torch.float64),
        ("llama", 3.0, torch.float64),
        ("gemma2", 1.5, torch.float32),
        ("mixtral", 0.5, torch.float64),
    ],
    ids=str,
)
def test_the_last_token_is_the_unconditional_prompt(
    name: str, scale: float, dtype: torch.dtype, root: Path
) -> None:
    """A ragged batch, greedy and drawn, before a penalty and a filter."""
    reference, model = pair(name, "causal-lm", dtype, root)
    rows, guidance = prompts((5, 9, 1, 7)), ClassifierFree(scale)
    tokens = expected(reference, rows, EOS, guidance_scale=scale)
    stop: dict[str, Any] = {"max_new_tokens": NEW, "stop": Stop(eos=EOS), "guidance": guidance}
    result = generate(model, rows, Greedy(), **stop)
    assert [row.tolist() for row in result.sequences] == tokens
    options: dict[str, Any] = {"repetition_penalty": 1.3, "top_k": 20}
    tokens = expected(reference, rows, EOS, guidance_scale=scale, do_sample=True, **options)
    generator = torch.Generator().manual_seed(0)
    result = generate(model, rows, Sample(**options), generator=generator, **stop)
    assert [row.tolist() for row in result.sequences] == tokens


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_negative_prompts(name: str, root: Path) -> None:
    """Of one length: transformers numbers the padding of shorter negative prompts too."""
    reference, model = pair(name, "causal-lm", torch.float64, root)
    rows, negative = prompts((5, 9, 1, 7)), prompts((4, 4, 4, 4), seed=9)
    for scale in (-1.0, 1.5):
        ids = torch.tensor(negative)
        tokens = expected(reference, rows, EOS, guidance_scale=scale, negative_prompt_ids=ids)
        result = generate(
            model,
            rows,
            Greedy(),
            max_new_tokens=NEW,
            stop=Stop(eos=EOS),
            guidance=ClassifierFree(scale, negative),
        )
        assert [row.tolist() for row in result.sequences] == tokens


def test_the_distributions_are_equal(root: Path) -> None:
    reference, model = pair("llama", "causal-lm", torch.float64, root)
    row = prompts((6,))
    out = reference.generate(
        torch.tensor(row),
        max_new_tokens=NEW,
        do_sample=False,
        guidance_scale=2.0,
        negative_prompt_ids=torch.tensor([[3, 4]]),
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        eos_token_id=None,
    )
    theirs = torch.cat(out.scores).log_softmax(-1).float()
    result = generate(
        model,
        row,
        Greedy(),
        max_new_tokens=NEW,
        stop=Stop(eos=()),
        guidance=ClassifierFree(2.0, [[3, 4]]),
        logprobs="raw",
        top_logprobs=theirs.shape[1],
    )
    assert result.top_logprobs is not None
    ids, values = result.top_logprobs[0]
    ours = torch.empty_like(theirs).scatter_(1, ids, values)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@cache
def fixture() -> Any:
    file = Path(__file__).parent / "fixtures" / "guidance.json"
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    found = {}
    for name, made in fixture()["models"].items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(made["config"]), encoding="utf-8")
        save_file(weights(made["shapes"]), folder / "model.safetensors", metadata={"format": "pt"})
        found[name] = minitx.load(folder, head="seq2seq-lm" if name == "bart" else "causal-lm")
    return found


def cases(method: str, name: str) -> list[Any]:
    found = [case for case in fixture()[method] if case["model"] == name]
    assert len(found) == 12
    return found


@pytest.mark.parametrize("name", fixture()["models"])
def test_contrastive_search(name: str, models: dict[str, Model]) -> None:
    for case in cases("contrastive", name):
        strategy = ContrastiveSearch(repetition_penalty=case["penalty"], **case["options"])
        result = generate(
            models[name], [case["prompt"]], strategy, max_new_tokens=len(case["tokens"]), stop=Stop(eos=())
        )
        assert result.sequences[0].tolist() == case["tokens"]


@pytest.mark.parametrize("name", [name for name in fixture()["models"] if name != "bart"])
def test_dola(name: str, models: dict[str, Model]) -> None:
    for case in cases("dola", name):
        result = generate(
            models[name],
            [case["prompt"]],
            Greedy(repetition_penalty=case["penalty"]),
            max_new_tokens=len(case["tokens"]),
            stop=Stop(eos=()),
            guidance=DoLa(case["options"]["dola_layers"]),
        )
        assert result.sequences[0].tolist() == case["tokens"]
