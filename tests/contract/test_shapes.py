"""Every public tensor function of layers/ and models/ states its shapes, and real calls have them."""

from __future__ import annotations

import torch
import transformers

import minitx
from minitx.architectures import REGISTRY, architecture
from minitx.config import ExpertsConfig
from minitx.layers import token_pooling
from minitx.layers.activation import Activation
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.pooling import POOLING
from minitx.layers.unpadded import Runs
from minitx.optimize import undo_fast_linear
from tests.parity.cases import CASES, Case
from tests.parity.reference import text
from tests.parity.test_training import LENGTH, labels
from tests.shapes import public_tensor_functions, stated, watched

ROOMS = ("minitx.layers", "minitx.models")


def load_everything() -> None:
    for model_type in REGISTRY:
        architecture(model_type)


def test_every_public_tensor_function_states_its_shapes() -> None:
    load_everything()
    silent = {
        f"{function.__module__}.{function.__qualname__}": missing
        for _, _, function in public_tensor_functions(ROOMS)
        if (missing := stated(function).missing)
    }
    assert not silent


def run(case: Case, task: str) -> None:
    """Forwards with padding, labels and records, and where the model generates, caches of every kind."""
    more = {"num_labels": 2} if task == "question-answering" else {}
    config = transformers.AutoConfig.for_model(case.model_type, **{**case.config, **more}).to_dict()
    model = minitx.from_config(config, head=task, seed=0)
    inputs = text(case, 2, 9, task)
    model(**inputs)
    mask = torch.ones_like(inputs["input_ids"])
    mask[0, ..., -2:] = 0
    model(**inputs, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    if model.head is not None:
        theirs, ours = labels(case, task)
        further = (
            {name: x for name, x in theirs.items() if name != "labels"} if "float_answer" in theirs else {}
        )
        model(**text(case, 4, LENGTH, task), labels=ours, **further)
    for backend in ("eager", "sdpa"):
        model.eval().set_attention(backend)(**inputs)
    if task in ("causal-lm", "seq2seq-lm"):
        prompts = [[5, 6, 7, 8, 9, 10], [11, 12]]
        options = {"max_new_tokens": 4, "stop": minitx.Stop(eos=())}
        minitx.generate(model, prompts, minitx.Greedy(), **options)
        minitx.generate(model, prompts, minitx.Beam(num_beams=2), **options)
    undo_fast_linear(model)(**inputs)


def run_the_rest() -> None:
    """What no architecture does by itself: embeddings as inputs, a growing cache, other functions."""
    ids, hidden = torch.tensor([[5, 6, 7], [8, 9, 1]]), torch.randn(2, 3, 4)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes["max_position_embeddings"] = 4
    decoder = minitx.from_config({"model_type": "llama", "vocab_size": 99, **sizes}).eval()
    cache = decoder.make_cache()
    decoder(ids, cache=cache)
    with torch.no_grad():
        decoder(ids, cache=decoder.make_cache(4, dtype=torch.int8))
    cache.select(torch.tensor([1, 1]))
    decoder(inputs_embeds=decoder.embedder.word_emb(ids))
    windows = {**sizes, "max_position_embeddings": 32, "num_key_value_heads": 2, "sliding_window": 8}
    config = {"model_type": "mistral", "vocab_size": 99, **windows}
    guessing = minitx.from_config(config, head="causal-lm", seed=0).eval()
    options = {"max_new_tokens": 5, "stop": minitx.Stop(eos=())}
    minitx.generate(guessing, [[5, 6, 5, 6]], minitx.decoding.Lookahead(), **options)
    config = {"model_type": "t5", "vocab_size": 99, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1}
    config |= {"num_decoder_layers": 1, "num_heads": 2, "decoder_start_token_id": 0, "pad_token_id": 0}
    biased = minitx.from_config(config, head="seq2seq-lm", seed=0).eval()
    minitx.generate(biased, [[5, 6, 5, 6]], minitx.decoding.Lookahead(), **options)
    decoder.resize_token_embeddings(101).resize_token_embeddings(103, init="normal")
    config = {"model_type": "roberta", "vocab_size": 99, **sizes}
    minitx.from_config({**config, "pad_token_id": 1})(ids[1:])
    relative = {"relative_attention": True, "pos_att_type": "c2p|p2c"}
    for model_type, more in (("bert", {}), ("deberta-v2", relative)):
        encoder = minitx.from_config({"model_type": model_type, "vocab_size": 99, **sizes, **more}).eval()
        encoder.encoder(torch.randn(1, 5, 8), Runs.of([3, 2]), torch.tensor([[0, 1, 2, 0, 1]]))
    mixture = MixtureOfExperts(ExpertsConfig(num_experts=3, num_experts_per_tok=2, intermediate_size=6), 4)
    for tokens in (hidden[0, :1], hidden[0]):  # for the weights of some experts, and of all
        mixture.mix_at_once(tokens, *mixture.route(tokens[None]))
    POOLING["mean"](hidden, None, ids != 1)
    token_pooling.pool([*token_pooling.POOLINGS], hidden, None, ids != 1)
    Activation("quick_gelu")(hidden)


def test_real_calls_have_the_shapes_that_are_stated() -> None:
    load_everything()
    seen: set[str] = set()
    with watched(ROOMS) as (called, violations):
        for case in CASES:
            tasks = case.tasks if case.model_type not in seen else case.tasks[-1:]
            seen.add(case.model_type)
            for task in tasks:
                run(case, task)
        run_the_rest()
    assert not violations
    everything = {f"{f.__module__}.{f.__qualname__}" for _, _, f in public_tensor_functions(ROOMS)}
    uncalled = everything - called
    assert not uncalled
