"""Wrong labels, heads, stacks, names and caches: one error that names the argument, not one of PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import minitx
from minitx.config import HeadConfig
from minitx.config.json_form import from_json
from minitx.optimize import fast_linear, mixed_dtypes, undo_fast_linear
from minitx.validation import ArgumentError

BERT = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
}
LLAMA = {name: value for name, value in BERT.items() if name != "type_vocab_size"} | {"model_type": "llama"}
IDS = torch.arange(1, 15).view(2, 7)


def model(head: str = "none", **changes: Any) -> Any:
    return minitx.from_config(BERT | changes, head=head, seed=0).eval()


def decoder() -> Any:
    return minitx.from_config(LLAMA, head="causal-lm", seed=0).eval()


def refused(call: Callable[[], Any], parameter: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        call()
    assert caught.value.parameter == parameter
    assert "\n" not in str(caught.value)


# --- labels and inputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (3, 2), (2, 1), (2, 2, 2)])
def test_positions_of_answers_are_two_per_row(shape: tuple[int, ...]) -> None:
    labels = torch.ones(shape, dtype=torch.long)
    message = r"must be integers of shape \(2, 2\).* first and last position"
    refused(lambda: model("question-answering")(IDS, labels=labels), "labels", message)


def test_positions_of_answers_below_zero_are_clamped_and_beyond_the_end_ignored() -> None:
    answering = model("question-answering")
    loss = answering(IDS, labels=torch.tensor([[0, 3], [2, 7]])).loss
    assert torch.equal(answering(IDS, labels=torch.tensor([[-5, 3], [2, 9]])).loss, loss)


@pytest.mark.parametrize("shape", [(), (7,), (2,), (2, 3), (3, 7), (2, 7, 7)])
def test_labels_of_replaced_tokens_have_the_shape_of_the_ids(shape: tuple[int, ...]) -> None:
    electra = model("replaced-token-detection", model_type="electra", embedding_size=24)
    labels = torch.ones(shape, dtype=torch.long)
    refused(lambda: electra(IDS, labels=labels), "labels", r"must be a tensor of shape \(2, 7\)")


def test_labels_of_several_classes_have_the_shape_of_the_logits() -> None:
    several = model("sequence-classification", problem_type="multi_label_classification")
    refused(lambda: several(IDS, labels=torch.ones(4)), "labels", r"must be a tensor of shape \(2, 2\)")


def test_complex_labels() -> None:
    labels = torch.ones(2, 7, dtype=torch.complex64)
    refused(lambda: model("masked-lm")(IDS, labels=labels), "labels", "must be integers")


def test_multiple_choice_has_three_dimensions() -> None:
    choice = model("multiple-choice")
    refused(lambda: choice(IDS), "input_ids", r"\(batch, choices, time\).*input_ids\[:, None\] is one choice")
    embeds = choice.embedder.word_emb(IDS)
    refused(lambda: choice(inputs_embeds=embeds), "inputs_embeds", r"\(batch, choices, time\)")
    assert choice(IDS[:, None]).logits.shape == (2, 1)


def test_embeddings_that_are_a_list() -> None:
    refused(lambda: decoder()(inputs_embeds=[[1.0]]), "inputs_embeds", "must be a tensor")


def test_a_mask_per_query_is_no_mask_of_a_pooling() -> None:
    electra = model("replaced-token-detection", model_type="electra", embedding_size=24)
    mask = torch.ones(2, 7, 7)
    refused(lambda: electra(IDS, mask, labels=IDS), "attention_mask", r"of shape \(batch, time\)")


# --- models ----------------------------------------------------------------------------------------


def test_a_head_needs_its_pooler_at_construction() -> None:
    config = model().config
    head = HeadConfig(task="sequence-classification", num_labels=2, pooling="pooler")
    assert minitx.EncoderModel(replace(config, pooler=True), head)(IDS).logits.shape == (2, 2)
    bare = replace(config, pooler=False)
    refused(lambda: minitx.EncoderModel(bare, head), "HeadConfig.pooling", r"ModelConfig\(pooler=True")


@pytest.mark.parametrize("config", [None, {}, "bert", 3])
def test_a_config_is_a_model_config(config: Any) -> None:
    refused(lambda: minitx.EncoderModel(config), "config", "must be a ModelConfig; minitx.from_config")


@pytest.mark.parametrize("stack", [3, lambda config: 3])
def test_a_stack_is_a_function_that_returns_a_module(stack: Any) -> None:
    config = model().config
    refused(lambda: minitx.EncoderModel(config, stack=stack), "stack", "stack=.* must be a")


@pytest.mark.parametrize("names", ["decoder", "embedder.word_emb.weight", 3, [3], torch.ones(2), [["a"]]])
def test_names_to_draw_are_a_collection_of_strings(names: Any) -> None:
    refused(lambda: model().initialize(names), "names", "must be a collection of names")


def test_names_to_draw_are_those_of_parameters() -> None:
    bert = model("masked-lm")
    refused(lambda: bert.initialize(["head.projection.bias", "nope"]), "names", "names='nope' must be")
    bert.initialize(["head.projection.weight"])  # a tied one
    refused(lambda: bert.initialize(generator=3), "generator", "must be a torch.Generator")


def test_flags_and_modules() -> None:
    refused(lambda: model().num_parameters(trainable="x"), "trainable", "must be True or False")
    for function in (fast_linear, undo_fast_linear, mixed_dtypes):
        refused(lambda function=function: function(3), "model", "model=3 must be a module")
    refused(lambda: from_json(3, {}), "kind", "must be a class of configs")  # type: ignore[type-var]


# --- caches ----------------------------------------------------------------------------------------


def test_decode_needs_a_cache() -> None:
    refused(lambda: decoder().decode(IDS, cache=None), "cache", "cache=None must be a Cache; make one with")


def test_errors_about_a_cache_name_it() -> None:
    llama = decoder()
    cache = llama(IDS, cache=llama.make_cache()).cache
    refused(lambda: llama(IDS[:1], cache=cache), "cache", "of a batch of 1 like input_ids, not of 2")
    refused(lambda: cache.crop(8), "length", "length=8 must be at most 7")
    other = minitx.from_config(LLAMA | {"num_hidden_layers": 3}, head="causal-lm")
    refused(lambda: other(IDS, cache=cache), "cache", "for the 3 layers that the model runs, not for 2")


def test_errors_about_a_model_name_its_class() -> None:
    message = r"model=EncoderModel\(\.\.\.\) must be one that predicts the next token"
    refused(lambda: minitx.generate(model(), [[5]], max_new_tokens=1), "model", message)
    training = decoder().train()
    refused(lambda: minitx.generate(training, [[5]], max_new_tokens=1), "model", "must be in eval mode")


def test_a_missing_key_of_config_json() -> None:
    config = {name: value for name, value in BERT.items() if name != "hidden_size"}
    message = "config.json: hidden_size=None must be present"
    refused(lambda: minitx.from_config(config), "config.json: hidden_size", message)


def test_keys_of_id2label_are_indices() -> None:
    bert = model("sequence-classification", id2label={"x": "yes", "1": "no"})
    refused(lambda: bert.checkpoint.id2label, "config.json: id2label", "whose keys are the indices")
