"""Draft heads: folders as they are published, and trees that equal those of a plain computation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import minitx
from minitx.decoding import EagleDraft, EagleHead, MedusaDraft, MedusaHeads, Speculative
from minitx.decoding.trees.eagle_draft import EagleDrafter, best_tree
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.token_tree import TokenTree
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.test_tree_drafts import EAGLE, rows_of
from tests.unit.decoding.test_tree_forward import KINDS, PROMPTS, model_of

DEEP = {**KINDS["llama"], "num_hidden_layers": 6}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) / 4


def medusa_tensors(heads: int = 3, layers: int = 1) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for head in range(heads):
        for layer in range(layers):
            tensors[f"{head}.{layer}.linear.weight"] = random(16, 16, seed=head)
            tensors[f"{head}.{layer}.linear.bias"] = random(16, seed=head)
        tensors[f"{head}.{layers}.weight"] = random(40, 16, seed=head)
    return tensors


def eagle_tensors(version: int, layers: int = 1, *, bias: bool = False) -> dict[str, Tensor]:
    def attention(name: str, width: int) -> dict[str, Tensor]:
        return {
            f"{name}.self_attn.q_proj.weight": random(16, width),
            f"{name}.self_attn.k_proj.weight": random(8, width, seed=1),
            f"{name}.self_attn.v_proj.weight": random(8, width, seed=2),
            f"{name}.self_attn.o_proj.weight": random(16, 16, seed=3),
            f"{name}.mlp.gate_proj.weight": random(24, 16, seed=4),
            f"{name}.mlp.up_proj.weight": random(24, 16, seed=5),
            f"{name}.mlp.down_proj.weight": random(16, 24, seed=6),
            f"{name}.post_attention_layernorm.weight": 1 + random(16, seed=7),
        }

    tensors = {"embed_tokens.weight": random(40, 16)}
    if version == 1:
        tensors |= {"fc.weight": random(16, 32)} | ({"fc.bias": random(16)} if bias else {})
        for layer in range(layers):
            tensors |= attention(f"layers.{layer}", 16)
        for layer in range(1, layers):
            tensors[f"layers.{layer}.input_layernorm.weight"] = 1 + random(16, seed=8)
        return tensors
    known = torch.arange(0, 40, 2)
    tensors |= attention("midlayer", 32) | {
        "midlayer.input_layernorm.weight": 1 + random(16, seed=8),
        "midlayer.hidden_norm.weight": 1 + random(16, seed=9),
        "fc.weight": random(16, 48),
        "norm.weight": 1 + random(16, seed=10),
        "lm_head.weight": random(20, 16),
        "d2t": known - torch.arange(20),
        "t2d": torch.isin(torch.arange(40), known),
    }
    return tensors


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], name: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if name.endswith(".safetensors"):
        save_file(tensors, folder / name)
    else:
        torch.save(tensors, folder / name)
    return folder


def check_saved(saved: Path, source: Path, tensors: dict[str, Tensor], name: str) -> None:
    assert (saved / "config.json").read_bytes() == (source / "config.json").read_bytes()
    stored = load_file(saved / name)
    assert set(stored) == set(tensors)
    assert all(torch.equal(stored[key], tensors[key]) for key in tensors)
    assert sorted(path.name for path in saved.iterdir()) == sorted(("config.json", name))


# --- Medusa ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("name", ["medusa_lm_head.safetensors", "medusa_lm_head.pt"])
def test_medusa_folders_are_read_and_saved_unchanged(tmp_path: Path, name: str, layers: int) -> None:
    config = {"medusa_num_heads": 2, "medusa_num_layers": layers, "base_model_name_or_path": "a/b"}
    tensors = medusa_tensors(3, layers)  # one head more than is used
    source = write(tmp_path / "source", config, tensors, name)
    heads = MedusaHeads.load(source)
    assert not heads.training
    hidden = random(5, 16)
    logits = heads(hidden)
    assert logits.shape == (5, 2, 40)
    for head in range(2):
        x = hidden
        for layer in range(layers):
            block = tensors[f"{head}.{layer}.linear.weight"], tensors[f"{head}.{layer}.linear.bias"]
            x = x + torch.nn.functional.silu(x @ block[0].T + block[1])
        assert torch.allclose(logits[:, head], x @ tensors[f"{head}.{layers}.weight"].T, atol=1e-5)
    heads.save(tmp_path / "saved")
    check_saved(tmp_path / "saved", source, tensors, "medusa_lm_head.safetensors")
    assert MedusaHeads.load(tmp_path / "saved", dtype=torch.float64)(hidden.double()).dtype == torch.float64


def test_fresh_medusa_heads_begin_as_the_models_head(tmp_path: Path) -> None:
    heads = MedusaHeads(16, 40, 2)
    hidden = random(3, 16)
    assert torch.allclose(heads(hidden)[:, 1], hidden @ heads[1][-1].weight.T, atol=1e-6)
    heads.save(tmp_path)
    again = MedusaHeads.load(tmp_path)
    assert torch.equal(again(hidden), heads(hidden))
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "medusa_num_heads": 2,
        "medusa_num_layers": 1,
    }


def test_medusa_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    config, name = {"medusa_num_heads": 3, "medusa_num_layers": 1}, "medusa_lm_head.safetensors"
    tensors = medusa_tensors()
    wrong: list[tuple[dict[str, Any], dict[str, Tensor], str]] = [
        ({**config, "medusa_dropout": 0.1}, tensors, "medusa_dropout"),
        ({**config, "medusa_num_heads": 4}, tensors, "lacks 3.0"),
        ({**config, "medusa_num_layers": 2}, tensors, "lacks 0.2.weight"),
        ({"medusa_num_layers": 1}, tensors, "medusa_num_heads"),
        (config, {**tensors, "0.0.linear.scale": random(1)}, "linear.scale"),
        (config, {**tensors, "0.1.weight": random(40)}, "not a matrix"),
    ]
    for number, (settings, stored, message) in enumerate(wrong):
        folder = write(tmp_path / str(number), settings, stored, name)
        with pytest.raises((ValueError, TypeError), match=message):
            MedusaHeads.load(folder)
    with pytest.raises(FileNotFoundError):
        MedusaHeads.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match="no weights"):
        MedusaHeads.load(tmp_path)
    torch.save({"0.0.linear.weight": Path}, tmp_path / "medusa_lm_head.pt")
    with pytest.raises(ValueError, match="Nothing in it was run"):
        MedusaHeads.load(tmp_path)
    with pytest.raises(ArgumentValueError, match="num_heads"):
        MedusaHeads(16, 40, 0)


def test_medusa_trees_hold_the_best_tokens_of_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    heads = MedusaHeads(16, 40, 2).double()
    heads.load_state_dict({k: v.double() for k, v in medusa_tensors(2).items()})
    draft = MedusaDraft(heads, [(0,), (1,), (0, 0), (1, 2)])
    seen = 0
    run = TreeSession.run

    def _run(self: TreeSession, tree: TokenTree, first: int = 0) -> None:
        nonlocal seen
        for row, tokens in enumerate(self.history.rows()):
            with torch.inference_mode():
                hidden = model(torch.tensor([tokens[:-1]])).last_hidden_state[:, -1]
                best = heads(hidden)[0].topk(3).indices
            expected = [tokens[-1], best[0, 0], best[0, 1], best[1, 0], best[1, 2]]
            assert tree.tokens[row].tolist() == [int(token) for token in expected]
            assert tree.parents[row].tolist() == [-1, 0, 0, 1, 2]
            seen += 1
        run(self, tree, first)

    monkeypatch.setattr(TreeSession, "run", _run)
    minitx.generate(model, PROMPTS, Speculative(draft=draft), max_new_tokens=8, num_samples=1)
    assert seen >= 9


# --- EAGLE -----------------------------------------------------------------------------------------

HEADS: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = {
    "version 1": ({**EAGLE, "bias": False}, eagle_tensors(1)),
    "bias": (EAGLE, eagle_tensors(1, bias=True)),
    "two layers": ({**EAGLE, "num_hidden_layers": 2, "bias": False}, eagle_tensors(1, 2)),
    "version 3": ({**EAGLE, "draft_vocab_size": 20}, eagle_tensors(3)),
    "the model's embeddings": (
        {**EAGLE, "draft_vocab_size": 20},
        {name: tensor for name, tensor in eagle_tensors(3).items() if name != "embed_tokens.weight"},
    ),
}


@pytest.mark.parametrize("case", HEADS)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_eagle_folders_are_read_and_saved_unchanged(tmp_path: Path, name: str, case: str) -> None:
    config, tensors = HEADS[case]
    tensors = {**tensors, "layers.0.self_attn.rotary_emb.inv_freq": random(2)}  # of old files, not used
    source = write(tmp_path / "source", config, tensors, name)
    head = EagleHead.load(source)
    assert not head.training
    head.save(tmp_path / "saved")
    check_saved(tmp_path / "saved", source, tensors, "model.safetensors")
    again = EagleHead.load(tmp_path / "saved", dtype=torch.float64)
    assert again.fc.weight.dtype == torch.float64
    assert again.version == (1 if "draft_vocab_size" not in config else 3)


def test_fresh_eagle_heads_are_saved_under_the_published_names(tmp_path: Path) -> None:
    for version, (config, tensors) in ((1, HEADS["version 1"]), (3, HEADS["version 3"])):
        EagleHead(config).save(tmp_path / str(version))
        stored = load_file(tmp_path / str(version) / "model.safetensors")
        assert {name: tensor.shape for name, tensor in stored.items()} == {
            name: tensor.shape for name, tensor in tensors.items()
        }


def test_eagle_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    config, tensors = HEADS["version 1"]
    config3, tensors3 = HEADS["version 3"]
    wrong: list[tuple[dict[str, Any], dict[str, Tensor], str]] = [
        ({**config, "eagle_depth": 3}, tensors, "eagle_depth"),
        ({**config, "model_type": "bert"}, tensors, "model_type"),
        ({**config, "model_type": "mistral", "sliding_window": 4}, tensors, "no sliding window"),
        ({**config, "model_type": "t5"}, tensors, "model_type"),
        ({**config, "bias": True}, tensors, "lacks fc.bias"),
        ({**config, "bias": "yes"}, tensors, "bias"),
        (config, {**tensors, "layers.0.input_layernorm.weight": random(16)}, "input_layernorm"),
        (config, {**tensors, "fc.weight": random(16, 16)}, "fc.weight"),
        ({**config, "target_hidden_size": 16}, tensors, "target_hidden_size"),
        ({**config3, "num_hidden_layers": 2}, tensors3, "num_hidden_layers"),
        ({**config3, "bias": False}, tensors3, "bias"),
        (config3, {**tensors3, "d2t": torch.full((20,), 30)}, "d2t"),
    ]
    for number, (settings, stored, message) in enumerate(wrong):
        folder = write(tmp_path / str(number), settings, stored, "model.safetensors")
        with pytest.raises((ValueError, TypeError), match=message):
            EagleHead.load(folder)
    with pytest.raises(ArgumentTypeError, match="config"):
        EagleHead(3)  # type: ignore[arg-type]


def naive_hidden(head: EagleHead, model: Any, tokens: list[int], path: list[int]) -> Tensor:
    """The predicted hidden states (T, E) of the pairs of a text and a path, each computed from all before."""
    with torch.inference_mode():
        output = model(torch.tensor([tokens[:-1]]), output_hidden_states=True)
    features, words = head.features(output), tokens[1:]
    predicted = _causal(head, model, features, words)
    states = [predicted[0, -1]]
    if head.version == 3:
        features = head.fc(features)
    for number in range(len(path)):
        longer = torch.cat((features, torch.stack(states)[None]), dim=1)
        states.append(_causal(head, model, longer, words + path[: number + 1])[0, -1])
    return torch.stack(states)


def _causal(head: EagleHead, model: Any, features: Tensor, words: list[int]) -> Tensor:
    cache = head.decoder.make_cache()
    embedded = head.words(torch.tensor([words]), model)
    return head(features, embedded, None, torch.arange(len(words))[None], cache)


def naive_paths(draft: EagleDraft, model: Any, tokens: list[int]) -> list[tuple[int, ...]]:
    """The paths of the best scores, level by level, without a cache and one at a time."""
    head = draft.head

    def _best(path: tuple[int, ...]) -> list[tuple[float, int]]:
        hidden = naive_hidden(head, model, tokens, [*path])[-1]
        scores, ids = head.logits(hidden[None, None], model)[0, 0].log_softmax(-1).topk(draft.width)
        return list(zip(scores.tolist(), head.token_ids(ids).tolist(), strict=True))

    scored = {(token,): score for score, token in _best(())}
    level = dict(scored)
    for _ in range(draft.depth - 1):
        longer = {(*path, token): level[path] + score for path in level for score, token in _best(path)}
        scored |= longer
        level = dict(sorted(longer.items(), key=lambda item: -item[1])[: draft.width])
    return sorted(sorted(scored, key=lambda path: -scored[path])[: draft.tokens])


@pytest.mark.parametrize("case", HEADS)
def test_eagle_trees_are_those_of_a_plain_computation(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through several steps of ragged rows, with different numbers of accepted tokens."""
    config, tensors = HEADS[case]
    model: Any = minitx.from_config(DEEP, head="causal-lm", seed=1, dtype=torch.float64).eval()
    head = EagleHead.load(write(tmp_path / "head", config, tensors, "model.safetensors"), dtype=torch.float64)
    draft = EagleDraft(head, depth=3, width=3, tokens=8)
    propose, steps = EagleDrafter.propose, 0

    def _propose(self: EagleDrafter, session: TreeSession) -> TokenTree:
        nonlocal steps
        tree = propose(self, session)
        for row, tokens in enumerate(session.history.rows()):
            if len(tokens) < len(PROMPTS[row]) + 7:  # it has not ended
                nodes = (tree.tokens[row][tree.mask[row, node]].tolist() for node in range(1, 9))
                assert sorted(tuple(path[1:]) for path in nodes) == naive_paths(draft, model, tokens)
        steps += 1
        return tree

    monkeypatch.setattr(EagleDrafter, "propose", _propose)
    options: Any = {"max_new_tokens": 7, "stop": minitx.Stop(eos=())}
    found = minitx.generate(model, PROMPTS, Speculative(draft=draft), **options)
    assert rows_of(found) == rows_of(minitx.generate(model, PROMPTS, minitx.Greedy(), **options))
    assert steps >= 2


def test_prompts_in_chunks_and_samples_of_one_prompt() -> None:
    model: Any = minitx.from_config(DEEP, head="causal-lm", seed=1, dtype=torch.float64).eval()
    torch.manual_seed(0)
    strategy = Speculative(
        draft=EagleDraft(EagleHead(EAGLE).double(), depth=2, width=3, tokens=6),
        target=minitx.Sample(),
        verify="match",
    )
    options: Any = {"max_new_tokens": 8, "num_samples": 3, "seed": 1, "prefill_chunk": 2}
    expected = minitx.generate(model, PROMPTS, minitx.Sample(), **options)
    assert rows_of(minitx.generate(model, PROMPTS, strategy, **options)) == rows_of(expected)


def test_few_layers_are_refused_by_version_3() -> None:
    draft = EagleDraft(EagleHead(HEADS["version 3"][0]), width=4)
    with pytest.raises(ArgumentValueError, match="fewer than 6 layers"):
        minitx.generate(model_of("llama"), PROMPTS, Speculative(draft=draft), max_new_tokens=2)


def test_parents_come_before_children_of_equal_scores() -> None:
    root = torch.tensor([[9]])
    tokens, scores = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[-1.0, -2.0, -1.0, -2.0]])
    tree = best_tree(root, tokens, scores, torch.tensor([[0, 0, 1, 2]]), 3)
    assert tree.tokens.tolist() == [[9, 1, 2, 3]]
    assert tree.parents.tolist() == [[-1, 0, 0, 1]]
