"""The strategies' order "transformers" against the list that transformers makes of the same settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from minitx.decoding import Greedy, Sample
from tests.unit.decoding.histories import history, left_padded, logits_of

SIZE = 13
EOS = [3, 7]
MAX_NEW_TOKENS = 3
# Histories and bans have the ids 0 to 5, so that no row is left without a token; others can be forced.
SMALL = st.integers(0, 5)
IDS = st.lists(SMALL, min_size=1, max_size=4, unique=True)
FORCED = st.integers(6, SIZE - 1)


def fraction(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of two digits, so that examples are readable."""
    return st.integers(round(low * 100), round(high * 100)).map(lambda x: x / 100)


def allowed(row: int, tokens: Tensor) -> list[int]:
    return [row, *range(4, SIZE)]


FOR_ALL = {
    "repetition_penalty": fraction(0.5, 2),
    "encoder_repetition_penalty": fraction(0.5, 2),
    "no_repeat_ngram_size": st.integers(0, 3),
    "encoder_no_repeat_ngram_size": st.integers(0, 3),
    "sequence_bias": st.dictionaries(
        st.lists(SMALL, min_size=1, max_size=3).map(tuple),
        fraction(-5, 5),
        min_size=1,
        max_size=4,
    ),
    "bad_words_ids": st.lists(st.lists(SMALL, min_size=1, max_size=3), min_size=1, max_size=4),
    "suppress_tokens": IDS,
    "begin_suppress_tokens": IDS,
    "forced_bos_token_id": FORCED,
    "forced_eos_token_id": FORCED,
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 3), fraction(0.5, 2)),
    "remove_invalid_values": st.booleans(),
    "renormalize_logits": st.booleans(),
    "min_length": st.integers(0, 8),
    "min_new_tokens": st.integers(0, 4),
    "prefix_allowed_tokens_fn": st.just(allowed),
}
FOR_SAMPLING = {
    "temperature": fraction(0.1, 3),
    "top_k": st.integers(0, SIZE + 2),
    "top_p": fraction(0.01, 1),
    "min_p": fraction(0, 1),
    "typical_p": fraction(0.01, 1),
    "epsilon_cutoff": fraction(0, 0.9),
    "eta_cutoff": fraction(0, 0.9),
    "top_h": fraction(0.01, 1),
}


class NoModel(GenerationMixin):
    """As much of a model as the making of the list asks for."""

    config = SimpleNamespace(is_encoder_decoder=False)


def reference_logits(
    ids: Tensor, prompt: int, logits: Tensor, sample: bool, fields: dict[str, Any]
) -> Tensor:
    """What transformers makes of the logits; a setting that is off is one that was not made."""
    given = {"top_k": 0, **fields}
    function = given.pop("prefix_allowed_tokens_fn", None)
    config = GenerationConfig(
        num_beams=1, do_sample=sample, **{k: v for k, v in given.items() if sample or k not in FOR_SAMPLING}
    )
    config.max_length = prompt + MAX_NEW_TOKENS
    config._eos_token_tensor = torch.tensor(EOS)
    processors = NoModel()._get_logits_processor(
        config,
        input_ids_seq_length=prompt,
        encoder_input_ids=ids[:, :prompt],
        prefix_allowed_tokens_fn=function,
        device="cpu",
        model_kwargs={"attention_mask": torch.ones(ids.shape[0], prompt, dtype=torch.long)},
    )
    return processors(ids, logits)


def check(fields: dict[str, Any], seed: int, prompt: int, generated: int, sample: bool) -> None:
    if fields.get("remove_invalid_values"):
        # The least float, which banned tokens then have, would be raised by its size: to infinity.
        fields.pop("exponential_decay_length_penalty", None)
    rows = torch.randint(6, (4, prompt + generated), generator=torch.Generator().manual_seed(seed)).tolist()
    logits = logits_of("random", 4, SIZE, seed)
    context = history(rows, prompt, eos=tuple(EOS), max_new_tokens=MAX_NEW_TOKENS)
    theirs = reference_logits(left_padded(rows, 0), prompt, logits.clone(), sample, fields)
    own = {name: value for name, value in fields.items() if name != "min_new_tokens"}
    strategy = Sample(**own) if sample else Greedy(**own)
    ours = strategy.build(fields.get("min_new_tokens", 0))(logits, context)
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


ANY = settings(max_examples=300, suppress_health_check=list(HealthCheck))
PLACE = {"seed": st.integers(0, 10**6), "prompt": st.integers(1, 4), "generated": st.integers(0, 2)}


@given(fields=st.fixed_dictionaries({}, optional=FOR_ALL), **PLACE)
@ANY
def test_greedy(fields: dict[str, Any], seed: int, prompt: int, generated: int) -> None:
    check(fields, seed, prompt, generated, sample=False)


@given(fields=st.fixed_dictionaries({}, optional=FOR_SAMPLING), **PLACE)
@ANY
def test_sample(fields: dict[str, Any], seed: int, prompt: int, generated: int) -> None:
    check(fields, seed, prompt, generated, sample=True)


@given(fields=st.fixed_dictionaries({}, optional=FOR_ALL | FOR_SAMPLING), **PLACE)
@ANY
def test_everything(fields: dict[str, Any], seed: int, prompt: int, generated: int) -> None:
    check(fields, seed, prompt, generated, sample=True)
