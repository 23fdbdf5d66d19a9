"""Generation over what models differ in: caches and windows, positions, heads, dtypes, broken weights.

The tokens to compare with come from the model alone, one text, no cache, argmax.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx import Greedy, Sample, Stop, generate, stream
from minitx.decoding import Context
from minitx.decoding.output import Result
from minitx.models import DecoderModel

NO_END = Stop(eos=())
NEW = 9
WINDOW = 5
# Shorter than the window, as long, longer, and one that leaves it while generating.
PROMPTS = [[10, 20, 30, 40, 50], [7], [50, 60, 70, 80, 90, 91, 92, 93, 94, 95, 96], [33, 44, 55]]

GPT2 = {"n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 40}
LLAMA = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
GEMMA = {**LLAMA, "head_dim": 8, "sliding_window": WINDOW}
OPT = {
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "ffn_dim": 24,
    "max_position_embeddings": 40,
}
GPT_NEO = {
    "hidden_size": 16,
    "num_heads": 2,
    "num_layers": 2,
    "attention_types": [[["local", "global"], 1]],
    "window_size": WINDOW,
    "max_position_embeddings": 40,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "original_max_position_embeddings": 8,
    "short_factor": [1.0, 1.3, 1.7, 2.0],
    "long_factor": [2.0, 3.5, 6.0, 9.0],
    "attention_factor": 1.3,
    "factor": 4.0,
}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt_neo": GPT_NEO,
    "opt": OPT,
    "bloom": {"hidden_size": 16, "n_head": 2, "n_layer": 2},
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": WINDOW},
    "mixtral": {**LLAMA, **EXPERTS},
    "gemma2": GEMMA,
    "gemma3_text": {**GEMMA, "num_hidden_layers": 3, "sliding_window_pattern": 3},
    "gpt_oss": {**GEMMA, **EXPERTS},
}


@cache
def model_of(kind: str) -> DecoderModel:
    return made(kind)


def made(kind: str, head: str | None = "causal-lm", **more: Any) -> DecoderModel:
    config = {"model_type": kind, "vocab_size": 100, "initializer_range": 0.4, "eos_token_id": 2}
    model = minitx.from_config({**config, **SIZES[kind], **more}, head=head, seed=0).eval()
    assert isinstance(model, DecoderModel)
    return model


def tokens(result: Result) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


@torch.no_grad()
def by_hand(model: DecoderModel, prompt: list[int], count: int = NEW) -> list[int]:
    """The most probable token again and again; the whole text is run each time."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    return text[len(prompt) :]


# Caches


def test_the_models_bring_every_kind_of_cache() -> None:
    kinds = {kind: {type(part).__name__ for part in model_of(kind).make_cache(20).layers} for kind in SIZES}
    assert kinds["gpt2"] == kinds["bloom"] == {"StaticCache"}
    assert kinds["mistral"] == {"SlidingWindowCache"}
    assert kinds["gemma2"] == kinds["gemma3_text"] == kinds["gpt_neo"] == kinds["gpt_oss"]
    assert kinds["gemma2"] == {"StaticCache", "SlidingWindowCache"}


@pytest.mark.parametrize("chunk", [None, 1, 4, WINDOW, 8])
@pytest.mark.parametrize("kind", SIZES)
def test_greedy_equals_a_loop_without_any_cache(kind: str, chunk: int | None) -> None:
    model = model_of(kind)
    expected = [by_hand(model, prompt) for prompt in PROMPTS]
    batch = generate(model, PROMPTS, Greedy(), max_new_tokens=NEW, stop=NO_END, prefill_chunk=chunk)
    assert tokens(batch) == expected
    alone = generate(model, PROMPTS[2:3], Greedy(), max_new_tokens=NEW, stop=NO_END, prefill_chunk=chunk)
    assert tokens(alone) == expected[2:3]


@pytest.mark.parametrize("kind", SIZES)
def test_a_seed_belongs_to_its_row(kind: str) -> None:
    """Alone, in a batch, in another slot, and among samples that share the prompt's forward."""
    model = model_of(kind)
    flat = Sample(temperature=2.0)  # so that no two samples are equal by chance

    def drawn(prompts: list[list[int]], **options: Any) -> list[list[int]]:
        return tokens(generate(model, prompts, flat, max_new_tokens=NEW, stop=NO_END, seed=3, **options))

    batch = drawn(PROMPTS)
    assert drawn(PROMPTS[::-1]) == batch[::-1]
    assert [drawn([prompt])[0] for prompt in PROMPTS] == batch
    samples = drawn(PROMPTS, num_samples=3, prefill_chunk=4)
    assert samples[::3] == batch
    assert samples == [row for prompt in PROMPTS for row in drawn([prompt] * 3)]
    assert len({tuple(row) for row in samples}) == len(samples)


def test_the_prompt_comes_in_pieces_and_then_each_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = DecoderModel.forward

    def seen(self: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(DecoderModel, "forward", seen)
    options: dict[str, Any] = {"max_new_tokens": 3, "stop": NO_END}
    generate(model_of("gemma2"), PROMPTS[2:], Sample(), num_samples=2, prefill_chunk=4, **options)
    assert shapes == [(2, 4), (2, 4), (2, 3), (4, 1), (4, 1)]
    shapes.clear()
    events = stream(model_of("gpt2"), [[5, 6]], Sample(), **options)
    assert shapes == []
    next(events)
    assert shapes == [(1, 2)]  # nothing is computed before it is asked for
    next(events)
    del events
    assert shapes == [(1, 2), (1, 1)]


# Positions


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt_neo"])
def test_every_learned_position_can_be_used_and_no_other(kind: str) -> None:
    model = model_of(kind)
    full = [[5 + i for i in range(36)], [9]]
    result = generate(model, full, Greedy(), max_new_tokens=5, stop=NO_END)
    assert tokens(result) == [by_hand(model, prompt, 5) for prompt in full]
    assert tokens(generate(model, [[5] * 40], Greedy(), max_new_tokens=0, stop=NO_END)) == [[]]
    with pytest.raises(ValueError, match=r"=6 must be at most 5 .* 36 tokens; the model has 40"):
        generate(model, full, Greedy(), max_new_tokens=6)
    wide = torch.zeros(1, 60, dtype=torch.long)  # padding needs no positions
    wide[0, -2:] = 9
    short = generate(model, wide, Greedy(), attention_mask=(wide != 0).long(), max_new_tokens=5, stop=NO_END)
    assert tokens(short) == [by_hand(model, [9, 9], 5)]


@pytest.mark.parametrize("length", [1, 5, 7, 8, 9, 12])
@pytest.mark.parametrize("chunk", [None, 3])
def test_a_text_that_outgrows_longrope_is_run_anew(length: int, chunk: int | None) -> None:
    """Behind 8 tokens every position turns otherwise, and those in the cache are of no use."""
    model = longrope()
    assert model.original_contexts == {"longrope": 8}
    prompt = [5 + i for i in range(length)]
    result = generate(model, [prompt], Greedy(), max_new_tokens=12, stop=NO_END, prefill_chunk=chunk)
    assert tokens(result) == [by_hand(model, prompt, 12)]
    seeded = [
        generate(model, prompts, Sample(), max_new_tokens=12, stop=NO_END, seed=1, prefill_chunk=chunk)
        for prompts in ([prompt], [[token + 30 for token in prompt], prompt])
    ]
    assert tokens(seeded[0])[0] == tokens(seeded[1])[1]


@pytest.mark.parametrize("lengths", [(6, 3), (3, 6, 1), (8, 9, 7, 12), (20, 2)])
def test_each_row_of_a_batch_outgrows_longrope_by_itself(lengths: tuple[int, ...]) -> None:
    """A short row beside a long one is run as what it is, and gives what it gives alone."""
    model = longrope()
    prompts = [[7 * row + 5 + i for i in range(length)] for row, length in enumerate(lengths)]
    result = generate(model, prompts, Greedy(), max_new_tokens=9, stop=NO_END)
    assert tokens(result) == [by_hand(model, prompt, 9) for prompt in prompts]


@cache
def longrope() -> DecoderModel:
    return made("llama", rope_parameters=LONGROPE)


@pytest.mark.parametrize("length", [20, 40])
def test_pieces_of_a_prompt_that_dynamic_positions_stretch(length: int) -> None:
    """How far they turn depends on the length of the text, here beyond 32: it must come in one piece."""
    rope = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 8.0}
    model = made("llama", max_position_embeddings=32, rope_parameters=rope)
    prompt = [[5 + i for i in range(length)]]
    whole, pieces = (
        generate(model, prompt, Greedy(), max_new_tokens=4, stop=NO_END, logprobs="raw", prefill_chunk=chunk)
        for chunk in (None, 8)
    )
    assert whole.logprobs is not None
    assert pieces.logprobs is not None
    torch.testing.assert_close(pieces.logprobs[0], whole.logprobs[0], atol=1e-5, rtol=0)


# The model itself


def test_the_model_is_left_as_it_was() -> None:
    model = model_of("gemma2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = {name: set(vars(module)) for name, module in model.named_modules()}
    state = torch.get_rng_state()
    generate(model, PROMPTS, Greedy(), max_new_tokens=NEW)
    generate(model, PROMPTS, Sample(), max_new_tokens=NEW, seed=1)
    generate(model, PROMPTS, Sample(), max_new_tokens=NEW, generator=torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), state)  # who gives a seed keeps torch's own source as it is
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and p.requires_grad and not p.is_inference() for p in model.parameters())
    assert modules == {name: set(vars(module)) for name, module in model.named_modules()}
    assert not model.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=["bfloat16", "float64"])
@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "gpt_oss"])
def test_other_dtypes(kind: str, dtype: torch.dtype) -> None:
    """Whatever the model computes in, tokens are chosen in float32."""
    model = made(kind).to(dtype)
    seen: list[Tensor] = []

    def look(logits: Tensor, context: Context) -> Tensor:
        seen.append(logits)
        return logits

    result = generate(
        model, PROMPTS, Greedy(processors=[look]), max_new_tokens=NEW, stop=NO_END, logprobs="raw"
    )
    assert {logits.dtype for logits in seen} == {torch.float32}
    assert not any(logits.requires_grad for logits in seen)  # no graph grows with the text
    assert result.logprobs is not None
    assert {row.dtype for row in result.logprobs} == {torch.float32}
    if dtype == torch.float64:
        assert tokens(result) == [by_hand(model, prompt) for prompt in PROMPTS]
    else:  # here a batch and a text of another length are rounded otherwise, so but one step of one row
        alone = generate(model, PROMPTS[:1], Greedy(), max_new_tokens=1, stop=NO_END)
        assert tokens(alone) == [by_hand(model, PROMPTS[0], 1)]
        with torch.no_grad():
            logits = torch.log_softmax(model(torch.tensor(PROMPTS[2:3])).logits[0, -1].float(), -1)
        assert result.logprobs[2][0].item() == pytest.approx(logits.max().item(), abs=0.05)
    assert len({tuple(row) for row in tokens(result)}) == len(PROMPTS)


@pytest.mark.parametrize("strategy", [Greedy(), Sample()], ids=["greedy", "sample"])
def test_weights_that_hold_nan(strategy: Any) -> None:
    model = made("llama")
    with torch.no_grad():
        model.embedder.word_emb.weight[77] = torch.nan  # of one token, which but one prompt has
    options: dict[str, Any] = {"max_new_tokens": 4, "stop": NO_END}
    with pytest.raises(ValueError, match=r"Row 1, step 0: the model's logits hold NaN.*weights and dtype"):
        generate(model, [[5, 6], [5, 77], [9]], strategy, **options)
    without = {"suppress_tokens": [77]}
    fine = generate(model, [[5, 6], [9]], type(strategy)(**without), **options)
    repaired = generate(
        model, [[5, 6], [5, 77], [9]], type(strategy)(remove_invalid_values=True, **without), **options
    )
    assert len(repaired.sequences[1]) == 4
    if isinstance(strategy, Greedy):
        assert tokens(repaired)[::2] == tokens(fine)  # the others do not notice


@pytest.mark.parametrize("head", [None, "sequence-classification", "token-classification"])
def test_a_decoder_without_the_head_that_predicts_tokens(head: str | None) -> None:
    with pytest.raises(
        ValueError, match=rf'DecoderModel.*of task {head!r}; load a decoder with head="causal'
    ):
        generate(made("llama", head), [[5]], max_new_tokens=1)
