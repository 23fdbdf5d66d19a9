"""torch.set_default_dtype changes no result: every strategy, processor and model, and score, embed and load.

What is computed under the default float32 is compared bit for bit with what another default gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
import minitx.decoding as decoding
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.decoding.text.stopping import Stop
from minitx.layers.disentangled import log_bucket
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.test_properties import ALL_ROWS, EVERY, SIZE
from tests.unit.test_embed import Letters
from tests.unit.test_save_load import CONFIGS, EVERY_HEAD, outputs, written

DEFAULTS = [torch.float64, torch.bfloat16, torch.float16]
EOS = 2
BART = {
    "model_type": "bart",
    "vocab_size": 60,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "decoder_start_token_id": EOS,
    "init_std": 0.6,
}
PROMPTS = [[13, 4, 11], [32], [3, 44, 11, 11, 27]]
STRATEGIES: dict[str, Strategy] = {
    "greedy": minitx.Greedy(frequency_penalty=0.317, sequence_bias={(5, 6): 1.13}),
    "alternatives": minitx.Alternatives(presence_penalty=0.313),
    "sample": minitx.Sample(temperature=0.713, top_p=0.913, repetition_penalty=1.37),
    "typical": minitx.Sample(typical_p=0.713, eta_cutoff=0.0017),
    "arithmetic": minitx.ArithmeticSample(min_p=0.0137, frequency_penalty=0.317),
    **{
        f"beam {when}": minitx.Beam(early_stopping=when, length_penalty=0.713)
        for when in (True, False, "never", "exact")
    },
    "gnmt": minitx.Beam(length_norm="gnmt", patience=1.5, length_penalty=0.6),
    "coverage": minitx.Beam(coverage_penalty=0.337),
    "beam sample": minitx.BeamSample(top_h=0.913),
    "beam sample with coverage": minitx.BeamSample(coverage_penalty=0.337),
    "diverse": minitx.DiverseBeam(num_beams=6, num_beam_groups=3, diversity_penalty=0.337),
    "lexical": minitx.LexicalBeam(force_words_ids=[[7, 9]]),
    "lexical, not pushed": minitx.LexicalBeam(force_words_ids=[[7, 9]], push_progress=False),
    "stochastic": minitx.StochasticBeam(num_beams=5, temperature=1.37),
    "contrastive": minitx.ContrastiveSearch(penalty_alpha=0.613),
    "speculative": decoding.Speculative(draft=decoding.PromptLookup()),
    "jacobi": decoding.Jacobi(),
    "lookahead": decoding.Lookahead(),
}
SINGLE = (minitx.Greedy, minitx.ContrastiveSearch, decoding.Speculative, decoding.Jacobi, decoding.Lookahead)


def under(dtype: torch.dtype, compute: Callable[[], Any]) -> Any:
    """The value under a default dtype; the one before is restored."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return compute()
    finally:
        torch.set_default_dtype(before)


def equal(one: Any, other: Any) -> bool:
    """Whether nested values have equal dtypes and numbers."""
    if isinstance(one, Tensor):
        return bool(one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.fixture(autouse=True)
def _float32_before_and_after() -> Iterator[None]:
    assert torch.get_default_dtype() == torch.float32
    yield
    assert torch.get_default_dtype() == torch.float32


def test_every_strategy_is_here() -> None:
    public = {getattr(decoding, name) for name in decoding.__all__}
    strategies = {cls for cls in public if isinstance(cls, type) and issubclass(cls, Strategy)} - {Strategy}
    assert strategies == set(map(type, STRATEGIES.values()))


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies(name: str, default: torch.dtype) -> None:
    strategy = STRATEGIES[name]
    samples = 1 if isinstance(strategy, SINGLE) else 3

    def run(make: Callable[[], dict[str, Any]]) -> Any:
        result = minitx.generate(
            minitx.from_config(BART, head="seq2seq-lm", seed=1).eval(),
            PROMPTS,
            strategy,
            num_samples=samples,
            max_new_tokens=8,
            stop=Stop(eos=EOS),
            logprobs="processed",
            top_logprobs=2,
            **make(),
        )
        return result.sequences, result.scores, result.log_weights, result.logprobs

    sources: list[Callable[[], dict[str, Any]]] = [dict]
    if isinstance(strategy, Sample):
        sources = [lambda: {"seed": 3}, lambda: {"generator": torch.Generator().manual_seed(3)}]
    for source in sources:
        assert equal(under(default, lambda make=source: run(make)), run(source))  # type: ignore[misc]


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("name", EVERY)
def test_processors(name: str, default: torch.dtype) -> None:
    logits = logits_of("random", 4, SIZE, seed=1)
    for scores in (logits, logits.double()):
        assert equal(under(default, lambda s=scores: EVERY[name](s, ALL_ROWS)), EVERY[name](scores, ALL_ROWS))  # type: ignore[misc]


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("processor", [decoding.TopP(0.99999), decoding.Typical(0.99999)])
def test_filters_of_large_vocabularies(processor: Any, default: torch.dtype) -> None:
    """They search the cut from a bound that float16 rounds to 0."""
    logits, context = logits_of("random", 2, 50_000, seed=1), history([[1], [2]], 1)
    assert equal(under(default, lambda: processor(logits, context)), processor(logits, context))


@pytest.mark.parametrize("default", DEFAULTS)
def test_counts(default: torch.dtype) -> None:
    """bfloat16 counts to 256, float16 to 2048."""
    context = history([[3] * 2051])
    (counts,) = under(default, lambda: context.counts(5))
    assert counts.dtype == torch.float32
    assert counts[3] == 2051


@pytest.mark.parametrize("default", DEFAULTS)
def test_buckets_of_distances(default: torch.dtype) -> None:
    """DeBERTa-v3 has 256 buckets up to a distance of 512."""
    distance = torch.arange(-600, 600)
    assert equal(under(default, lambda: log_bucket(distance, 256, 512)), log_bucket(distance, 256, 512))


@pytest.mark.parametrize("default", DEFAULTS)
def test_rope_that_depends_on_the_length(default: torch.dtype) -> None:
    config = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 5,
        "rope_scaling": {"rope_type": "dynamic", "factor": 1.7},
    }
    model = minitx.from_config(config, seed=1).eval()
    ids = torch.arange(17)[None]
    with torch.no_grad():
        assert equal(
            under(default, lambda: model(ids).last_hidden_state),
            model(ids).last_hidden_state,
        )


@pytest.mark.parametrize("default", DEFAULTS)
def test_new_entries_of_a_table(default: torch.dtype) -> None:
    def resized() -> Tensor:
        model = minitx.from_config(BART, head="seq2seq-lm", seed=1)
        model.resize_token_embeddings(66, init="normal", seed=5)
        return next(p for p in model.parameters() if len(p) == 66).detach()

    assert equal(under(default, resized), resized())


@pytest.mark.parametrize("default", DEFAULTS)
@pytest.mark.parametrize("head", [None, "causal-lm", "seq2seq-lm"])
def test_scores_and_embeddings(head: Any, default: torch.dtype) -> None:
    name = {None: "bert", "causal-lm": "gpt2", "seq2seq-lm": "t5"}[head]

    def run() -> Any:
        model = minitx.from_config(CONFIGS[name], head=head, seed=1).eval()
        rows = [[5, 6, 7, 8, 9], [4, 5]]
        if head is None:
            return minitx.embed(model, ["one", "two words"], Letters())
        more = {"sources": [[5, 6, 2], [7, 2]]} if head == "seq2seq-lm" else {}
        scores = minitx.score(model, rows, **more)
        return scores.logprobs, scores.totals, scores.perplexities

    assert equal(under(default, run), run())


ARCHITECTURES = {CONFIGS[name]["model_type"]: (name, head) for name, head in EVERY_HEAD}


@pytest.mark.parametrize(("name", "head"), ARCHITECTURES.values())
def test_models(tmp_path: Path, name: str, head: str) -> None:
    """Parameters and outputs of models made from a config, and loaded in their own and another dtype."""
    folder = written(tmp_path / "one", head, CONFIGS[name])

    def run() -> Any:
        models = [
            minitx.from_config(CONFIGS[name], head=head, seed=1).eval(),
            minitx.load(folder),
            minitx.load(folder, dtype="float64"),
        ]
        return [[*model.state_dict().values(), *outputs(model)] for model in models]

    expected = run()
    for default in DEFAULTS:
        assert equal(under(default, run), expected), default
