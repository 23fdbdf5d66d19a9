"""Vocabulary shortlists: the listed rows of a head, and the tables that choose them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx.optimize.quantize import int8_dynamic
from minitx.optimize.shortlist import (
    ShortlistTable,
    shortlisted,
    undo_vocabulary_shortlist,
    vocabulary_shortlist,
)
from minitx.optimize.shortlist.head import rows_of
from minitx.training import add_lora
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.gguf_files import CONFIGS

V = 96
LISTED = [0, 1, 2, 5, 17, 40, 41, 60, 95]
SOURCES = [[3, 20, 9, 5, 1], [3, 5, 31, 11]]
_SIZES = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "vocab_size": V}
_T5 = {**_SIZES, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
_BART = {
    **_SIZES,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
}
MODELS = {"t5": _T5, "bart": _BART, "llama": CONFIGS["llama"], "gemma2": CONFIGS["gemma2"]}


def built(model_type: str) -> Any:
    """A tiny model in float64; BART's head has a bias, T5's a scale, Gemma 2's a cap."""
    head = "seq2seq-lm" if model_type in ("t5", "bart") else "causal-lm"
    model = minitx.from_config({"model_type": model_type, **MODELS[model_type]}, head=head, seed=0)
    model = model.double().eval()
    if model.head.projection.bias is not None:
        model.head.projection.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return built(request.param)


def logits(model: Any) -> Tensor:
    ids = torch.tensor([SOURCES[0], SOURCES[0][::-1]])
    more = {"decoder_input_ids": ids} if hasattr(model, "encoder") else {}
    with torch.no_grad():
        return model(ids, **more).logits


def masked_logits(full: Tensor) -> Tensor:
    """(..., V) -> (..., V), -inf but for the listed tokens"""
    return torch.full_like(full, -torch.inf).index_copy(-1, torch.tensor(LISTED), full[..., LISTED])


def test_logits_are_those_of_a_mask(model: Any) -> None:
    expected, listed = logits(model), torch.zeros(V, dtype=torch.bool)
    listed[LISTED] = True
    with shortlisted(model, LISTED):
        shortened = logits(model)
        assert model.head.projection(torch.zeros(1, model.head.projection.in_features).double()).shape == (
            1,
            9,
        )
    assert shortened.shape == expected.shape
    assert torch.allclose(shortened[..., listed], expected[..., listed], rtol=0, atol=1e-12)
    assert bool((shortened[..., ~listed] == -torch.inf).all())
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize(
    "strategy",
    [
        minitx.Greedy(),
        minitx.Beam(num_beams=3),
        minitx.Sample(top_p=0.9),
    ],
    ids=["greedy", "beam", "sample"],
)
def test_generation_is_that_of_a_mask(strategy: Any, model: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 8}
    if "Sample" in type(strategy).__name__:
        options |= {"seed": 3, "num_samples": 2}
    hook = model.head.register_forward_hook(lambda module, args, output: masked_logits(output))
    masked = minitx.generate(model, SOURCES, strategy, **options)
    hook.remove()
    with shortlisted(model, LISTED):
        listed = minitx.generate(model, SOURCES, strategy, **options)
        alone = [minitx.generate(model, [source], minitx.Greedy(), max_new_tokens=8) for source in SOURCES]
    assert [row.tolist() for row in listed.sequences] == [row.tolist() for row in masked.sequences]
    assert {token for row in listed.sequences for token in row.tolist()} <= {*LISTED}
    if isinstance(strategy, minitx.Greedy):  # a batch is its rows one by one
        assert [row.tolist() for row in listed.sequences] == [r.sequences[0].tolist() for r in alone]


def test_only_the_listed_rows_are_read(model: Any) -> None:
    with shortlisted(model, reversed(LISTED)):
        rows, bias = rows_of(model.head.projection)
        assert torch.equal(rows, model.head.projection.weight[LISTED])
        assert (bias is None) == (model.head.projection.bias is None)
        model.head.projection.weight.data[LISTED[1]] += 1  # a copy: it does not follow
        assert not torch.equal(rows, model.head.projection.weight[LISTED])
        model.head.projection.weight.data[LISTED[1]] -= 1


def test_the_pass_changes_classes_only(tmp_path: Path) -> None:
    model = built("t5")
    before, names, text = type(model.head), [*model.state_dict()], str(model)
    expected = logits(model)
    assert vocabulary_shortlist(model, torch.tensor(LISTED)) is model
    assert ([*model.state_dict()], str(model)) == (names, text)
    minitx.save(model, tmp_path)
    assert torch.allclose(logits(minitx.load(tmp_path)), expected, rtol=0, atol=1e-12)
    assert undo_vocabulary_shortlist(undo_vocabulary_shortlist(model)) is model
    assert type(model.head) is before
    assert torch.equal(logits(model), expected)


def test_lists_replace_one_another_and_come_back() -> None:
    model = built("llama")
    vocabulary_shortlist(model, [1, 2, 3])
    vocabulary_shortlist(model, LISTED)
    assert int((logits(model)[0, 0] > -torch.inf).sum()) == len(LISTED)
    with shortlisted(model, [4]):
        assert int((logits(model)[0, 0] > -torch.inf).sum()) == 1
    with pytest.raises(RuntimeError, match="within"), shortlisted(model, [4]):
        raise RuntimeError("within")
    assert int((logits(model)[0, 0] > -torch.inf).sum()) == len(LISTED)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_rows_follow_new_weights(model_type: str) -> None:
    model, other = built(model_type), built(model_type)
    with torch.no_grad():
        for parameter in other.head.projection.parameters():
            parameter.mul_(-2.0)
    vocabulary_shortlist(model, LISTED)
    before = logits(model)
    for assign in (False, True):
        model.load_state_dict(other.state_dict(), assign=assign)
        torch.testing.assert_close(logits(model), masked_logits(logits(other)))
    assert not torch.equal(logits(copy.deepcopy(model)), before)
    with torch.inference_mode():
        model.head.projection.weight = torch.nn.Parameter(torch.zeros_like(other.head.projection.weight))
        logits(model)
        model.head.projection.weight.copy_(other.head.projection.weight)
        torch.testing.assert_close(logits(model), masked_logits(logits(other)))


def test_rows_follow_a_change_of_dtype() -> None:
    model = vocabulary_shortlist(built("bart"), LISTED)
    listed = logits(model.float())
    assert listed.dtype == torch.float32
    assert torch.allclose(logits(model.double())[..., LISTED], listed[..., LISTED].double(), atol=1e-5)


# --- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ids", [[], [V], [-1], torch.tensor([3, V])], ids=["none", "large", "negative", "tensor"]
)
def test_ids_outside_the_vocabulary_are_refused(ids: Any, model: Any) -> None:
    with pytest.raises(ArgumentValueError, match="ids"):
        vocabulary_shortlist(model, ids)
    assert bool(logits(model).isfinite().all())


@pytest.mark.parametrize("ids", [[1.5], [True], "12", 3, torch.tensor([1.0])], ids=str)
def test_ids_that_are_no_integers_are_refused(ids: Any, model: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="ids"):
        vocabulary_shortlist(model, ids)


def _quantized() -> Any:
    return int8_dynamic(built("llama").float())


def _adapted() -> Any:
    return add_lora(built("llama"), targets=["head.projection"]).eval()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: built("llama").train(), "eval mode"),
        (lambda: minitx.load("minitx/tiny-encoder", head="none"), "vocabulary"),
        (lambda: minitx.load("minitx/tiny-classifier"), "vocabulary"),
        (_quantized, "plain projection"),
        (_adapted, "plain projection"),
        (lambda: "t5", "module"),
    ],
    ids=["training", "headless", "classifier", "quantized", "adapted", "name"],
)
def test_models_without_a_plain_vocabulary_head_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=words):
        vocabulary_shortlist(make(), [1])


# --- tables ------------------------------------------------------------------------------------------


class Words:
    """A tokenizer of single letters."""

    special_ids = (0, 1)

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def token_to_id(self, token: str) -> int | None:
        return self.letters.index(token) if token in self.letters else None


LETTERS = Words("#!abcdefgh")


def test_the_layout_of_ctranslate2_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "vmap.txt"
    path.write_text("\tc d\na\te f\na b\tg\r\n\nb\t\n")
    table = ShortlistTable.read(path, LETTERS)
    assert table.always == {0, 1, 4, 5}
    assert table.phrases == {(2,): (6, 7), (2, 3): (8,), (3,): ()}
    assert table.candidates([[2, 9]]) == [0, 1, 4, 5, 6, 7]
    assert table.candidates([[9], [3, 2, 3]]) == [0, 1, 4, 5, 6, 7, 8]
    assert table.candidates([]) == [0, 1, 4, 5]
    table.write(tmp_path / "again.txt", LETTERS.letters)
    assert ShortlistTable.read(tmp_path / "again.txt", LETTERS) == table


def test_source_and_target_may_have_vocabularies_of_their_own(tmp_path: Path) -> None:
    path, target = tmp_path / "vmap.txt", Words("!#xyz")
    path.write_text("a\tz\n")
    assert ShortlistTable.read(path, LETTERS, target_tokenizer=target).phrases == {(2,): (4,)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\n", "line 1: expected"),
        ("\na\tb\tc\n", "line 2: expected"),
        ("a\tz\n", "line 1.*'z'"),
        ("z\ta\n", "line 1.*'z'"),
        (" ".join("a" * 17) + "\tb\n", "more than 16"),
    ],
    ids=["tab", "tabs", "target", "source", "long"],
)
def test_a_damaged_table_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "vmap.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        ShortlistTable.read(tmp_path / "vmap.txt", LETTERS)
    (tmp_path / "vmap.txt").write_bytes(b"\xff\xfe\t\n")
    with pytest.raises(ValueError, match="UTF-8"):
        ShortlistTable.read(tmp_path / "vmap.txt", LETTERS)


def test_a_corpus_gives_each_token_its_translations() -> None:
    # "the" is 10 -> 20; nouns 11, 12 -> 21, 22; verbs 13, 14 -> 23, 24
    pairs = [([10, n, v], [20, n + 10, v + 10]) for n in (11, 12) for v in (13, 14)]
    table = ShortlistTable.from_pairs(pairs, per_token=1, frequent=1, always=[1])
    assert table.phrases == {(10,): (20,), (11,): (21,), (12,): (22,), (13,): (23,), (14,): (24,)}
    assert table.always == {1, 20}
    assert table.candidates([[10, 12, 13]]) == [1, 20, 22, 23]


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.lists(st.integers(2, 9), max_size=4), st.lists(st.integers(2, 9), max_size=4)),
        max_size=6,
    )
)
def test_a_table_of_any_corpus_can_be_written_and_read(
    pairs: list[tuple[list[int], list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = ShortlistTable.from_pairs(pairs, per_token=9, frequent=0, always=LETTERS.special_ids)
    for source, target in pairs:
        if source:
            assert {*target} <= {*table.candidates([source])}
    path = tmp_path_factory.getbasetemp() / "any.txt"
    table.write(path, LETTERS.letters)
    assert ShortlistTable.read(path, LETTERS) == table


def test_a_sentence_that_is_a_text_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="sources"):
        ShortlistTable({}, frozenset()).candidates(["the dog"])  # type: ignore[list-item]
