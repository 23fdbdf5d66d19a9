"""The loop around the model: prompts in, tokens and texts out, and everything that can end a row."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding.generate import generate, stream
from minitx.decoding.output import Event, Result
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.constraints import SuppressTokens
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import TopK
from minitx.decoding.request import GenerationOptions
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.text.stopping import Stop
from minitx.models import DecoderModel
from tests.unit.decoding.vocabularies import SPECIAL, byte_characters, byte_level, sentence_piece

TOKENIZER = byte_level()
PAD, BOS, EOS = range(3)
PROMPTS = [[10, 20, 30, 40], [7], [50, 60, 70, 80, 90, 100, 110], [10, 20, 30, 40]]
NO_END = Stop(eos=())


@cache
def model_of(kind: str = "gpt2", **more: Any) -> DecoderModel:
    sizes = {
        "gpt2": {"n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64},
        "llama": {
            "hidden_size": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 32,
        },
    }[kind]
    config = {
        "model_type": kind,
        "vocab_size": len(TOKENIZER),
        "initializer_range": 0.4,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
        **sizes,
        **more,
    }
    made = minitx.from_config(config, head="causal-lm", seed=0).eval()
    assert isinstance(made, DecoderModel)
    return made


MODEL = model_of()


def tokens(result: Result) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


def scripted(*script: Sequence[int]) -> Callable[[Tensor, Context], Tensor]:
    """A processor that makes row b draw script[b][0], script[b][1], ...; the last one again and again."""

    def forced(logits: Tensor, context: Context) -> Tensor:
        out = torch.full_like(logits, -torch.inf)
        for row, step in enumerate(context.generated.tolist()):
            out[row, script[row][min(step, len(script[row]) - 1)]] = 0.0
        return out

    return forced


def run(*script: Sequence[int], prompts: Any = None, **options: Any) -> Result:
    """Generates what is scripted, each row from a prompt of one token."""
    options = {"max_new_tokens": 8, "tokenizer": TOKENIZER, **options}
    given = [[9]] * len(script) if prompts is None else prompts
    return generate(MODEL, given, Greedy(processors=[scripted(*script)]), **options)


def byte_ids(text: str) -> list[int]:
    return [TOKENIZER.token_to_id(byte_characters()[byte]) or 0 for byte in text.encode()]


# Batches


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_a_batch_is_its_rows(kind: str, chunk: int | None) -> None:
    model = model_of(kind)
    strategy = Greedy(repetition_penalty=1.4, no_repeat_ngram_size=2)
    batch = generate(model, PROMPTS, strategy, max_new_tokens=9, stop=NO_END, prefill_chunk=chunk)
    for row, prompt in enumerate(PROMPTS):
        alone = generate(model, [prompt], strategy, max_new_tokens=9, stop=NO_END)
        assert alone.sequences[0].tolist() == batch.sequences[row].tolist()
    assert len({tuple(row) for row in tokens(batch)}) == 3  # the first prompt and the last are the same


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("strategy", [Sample(), Sample(top_k=9, temperature=0.7)], ids=["all", "few"])
def test_a_seed_belongs_to_its_row(kind: str, strategy: Sample) -> None:
    """Alone, in a batch, in another slot, among samples."""
    model = model_of(kind)

    def drawn(prompts: list[list[int]], **options: Any) -> list[list[int]]:
        return tokens(generate(model, prompts, strategy, max_new_tokens=9, stop=NO_END, **options))

    batch = drawn(PROMPTS, seed=5)
    assert batch[3] != batch[0]  # an equal prompt is another row all the same
    for row in range(3):
        assert drawn([PROMPTS[row]], seed=5) == [batch[row]]
    assert drawn(PROMPTS[2::-1], seed=5) == batch[2::-1]
    assert drawn([PROMPTS[0]], seed=5, num_samples=2) == [batch[0], batch[3]]
    assert drawn(PROMPTS, seed=[5, 6, 5, 5])[::2] == batch[::2]
    assert drawn(PROMPTS, seed=6) != batch
    samples = drawn(PROMPTS[:2], seed=5, num_samples=3)
    assert samples[0] == batch[0]
    assert samples[3] == batch[1]
    assert len({tuple(row) for row in samples}) == 6


def test_without_a_seed_torch_is_asked() -> None:
    def drawn(**options: Any) -> list[list[int]]:
        return tokens(generate(MODEL, PROMPTS, Sample(), max_new_tokens=9, stop=NO_END, **options))

    torch.manual_seed(3)
    first, second = drawn(), drawn()
    torch.manual_seed(3)
    assert drawn() == first != second
    generators = [torch.Generator().manual_seed(8) for _ in range(2)]
    assert drawn(generator=generators[0]) == drawn(generator=generators[1])
    assert drawn(generator=generators[0]) != drawn(generator=torch.Generator().manual_seed(8))


def test_what_a_row_of_its_own_is_told() -> None:
    """Temperature 0 makes a row greedy; the others are not touched by it."""
    strategy = Sample(temperature=[0.0, 1.0, 3.0, 1.0])
    mixed = tokens(generate(MODEL, PROMPTS, strategy, max_new_tokens=9, stop=NO_END, seed=1))
    plain = tokens(generate(MODEL, PROMPTS, Sample(), max_new_tokens=9, stop=NO_END, seed=1))
    greedy = tokens(generate(MODEL, PROMPTS, Greedy(), max_new_tokens=9, stop=NO_END))
    assert mixed[0] == greedy[0] != plain[0]
    assert mixed[1] == plain[1]
    assert mixed[3] == plain[3]
    assert mixed[2] != plain[2]


PER_ROW: dict[str, list[Any]] = {
    "temperature": [0.3, 1.0, 2.0, 0.7],
    "top_k": [1, 0, 5, 40],
    "top_p": [0.2, 1.0, 0.9, 0.5],
    "min_p": [0.9, 0.0, 0.1, 0.3],
    "typical_p": [0.1, 1.0, 0.9, 0.5],
    "epsilon_cutoff": [0.1, 0.0, 0.01, 0.05],
    "eta_cutoff": [0.1, 0.0, 0.01, 0.5],
    "repetition_penalty": [3.0, 1.0, 1.5, 0.5],
    "presence_penalty": [-2.0, 0.0, 1.0, 2.0],
    "frequency_penalty": [-2.0, 0.0, 1.0, 2.0],
    "encoder_repetition_penalty": [3.0, 1.0, 1.5, 0.5],
    "min_length": [9, 0, 12, 16],
}


@pytest.mark.parametrize("form", [list, torch.tensor, np.array])
@pytest.mark.parametrize("name", PER_ROW)
def test_a_number_of_ones_own_is_the_rows_number_alone(name: str, form: Callable[[Any], Any]) -> None:
    """In lists, tensors and arrays. Many tokens end a row, so that lengths differ."""
    options: dict[str, Any] = {"max_new_tokens": 16, "stop": Stop(eos=range(20)), "seed": 2}
    prompts = [*PROMPTS[:3], [4, 5]]
    together = generate(MODEL, prompts, Sample(**{name: form(PER_ROW[name])}), **options)
    plain = generate(MODEL, prompts, Sample(), **options)
    for row, (prompt, value) in enumerate(zip(prompts, PER_ROW[name], strict=True)):
        alone = generate(MODEL, [prompt], Sample(**{name: value}), **options)
        assert tokens(alone) == tokens(together)[row : row + 1]
    assert tokens(together) != tokens(plain)


def test_rows_are_prompts_times_samples() -> None:
    """So numbers per row are of the samples, while a seed belongs to a prompt."""
    options: dict[str, Any] = {"max_new_tokens": 6, "num_samples": 2, "stop": NO_END}
    strategy = Sample(temperature=[0.0, 1.0, 1.0, 0.0])
    result = tokens(generate(MODEL, PROMPTS[:2], strategy, seed=[1, 2], **options))
    greedy = tokens(generate(MODEL, PROMPTS[:2], Greedy(), max_new_tokens=6, stop=NO_END))
    assert (result[0], result[3]) == tuple(greedy)
    assert result[1] != greedy[0]
    least = run([EOS], [EOS], min_new_tokens=torch.tensor([0, 0])).sequences
    assert [len(row) for row in least] == [1, 1]
    eager = Sample(logit_bias={EOS: 100.0})
    ends = generate(MODEL, PROMPTS[:2], eager, min_new_tokens=[0, 3, 1, 5], **{**options, "stop": None})
    assert [len(row) for row in ends.sequences] == [1, 4, 2, 6]


# Prompts


def test_all_the_ways_to_give_prompts() -> None:
    text = ["cat", "the猫"]
    rows = [TOKENIZER.encode(each) for each in text]
    longest = max(map(len, rows))
    left = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    right = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    masks = [
        torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows]),
    ]
    options: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END, "tokenizer": TOKENIZER}
    expected = generate(MODEL, rows, Greedy(), **options)
    for given in (text, tuple(text), tuple(map(tuple, rows)), list(map(torch.tensor, rows))):
        assert tokens(generate(MODEL, given, Greedy(), **options)) == tokens(expected)
    for ids, mask in ((left, masks[0]), (right, masks[1])):
        assert tokens(generate(MODEL, ids, Greedy(), attention_mask=mask, **options)) == tokens(expected)
    assert tokens(generate(MODEL, text[0], Greedy(), **options)) == tokens(expected)[:1]
    assert tokens(generate(MODEL, torch.tensor(rows[:1]), Greedy(), **options)) == tokens(expected)[:1]
    assert tokens(generate(MODEL, list(map(np.array, rows)), Greedy(), **options)) == tokens(expected)


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([], {}, ValueError, "prompts=.* must be at least one sequence"),
        ([[]], {}, ValueError, r"prompts\[0\]=\[\] .*begin with token 1: pass \[\[1\]\]"),
        ("", {"tokenizer": TOKENIZER}, ValueError, r"prompts\[0\]=\[\] must be at least one token"),
        ([[5], []], {}, ValueError, r"prompts\[1\]=\[\] must be at least one token"),
        ("text", {}, ValueError, "must be token ids, or come with tokenizer="),
        ([5, 6], {}, TypeError, r"prompts\[0\]=5 .* single prompt are prompts=\[\[5, 6\]\]"),
        ([[5], "text"], {"tokenizer": TOKENIZER}, TypeError, r"prompts\[1\]='text'"),
        ([[5.0]], {}, TypeError, r"prompts\[0\]=.* must be a list of token ids"),
        ([[True]], {}, TypeError, r"prompts\[0\]=.* must be a list of token ids"),
        (None, {}, TypeError, "prompts=None must be"),
        (b"text", {}, TypeError, "prompts=b'text' must be"),
        ([[5, 10**6]], {}, ValueError, r"prompts\[0\]=1000000 must be token ids from 0 to"),
        ([[5], [-1]], {}, ValueError, r"prompts\[1\]=-1 must be token ids"),
        (torch.zeros(3, dtype=torch.long), {}, ValueError, "must be integers of shape"),
        (torch.zeros(1, 3), {}, ValueError, "torch.float32> must be integers"),
        (torch.zeros(0, 3, dtype=torch.long), {}, ValueError, "prompts=.* must be at least one sequence"),
        (
            [[5]],
            {"attention_mask": torch.ones(1, 1)},
            ValueError,
            "must be None unless prompts is a",
        ),
        (
            torch.ones(1, 3).long(),
            {"attention_mask": torch.ones(1, 2)},
            ValueError,
            r"must be a tensor of shape \(1, 3\)",
        ),
        (
            torch.ones(1, 2).long(),
            {"attention_mask": torch.full((1, 2), 2)},
            ValueError,
            "1 at tokens and 0 at padding",
        ),
        (
            torch.ones(1, 2).long(),
            {"attention_mask": torch.zeros(1, 2)},
            ValueError,
            r"prompts\[0\]=\[\] must be at least one token",
        ),
    ],
)
def test_what_are_no_prompts(
    prompts: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(MODEL, prompts, max_new_tokens=1, **options)


def test_beyond_the_positions() -> None:
    """Before any work; the last token needs no position, since nothing follows it."""
    assert len(generate(MODEL, [[5] * 60], Greedy(), max_new_tokens=5, stop=NO_END).sequences[0]) == 5
    with pytest.raises(
        ValueError, match=r"max_new_tokens=6 must be at most 5 after a prompt of 60 tokens; the model has 64"
    ):
        stream(MODEL, [[9], [5] * 60], Greedy(), max_new_tokens=6)
    with pytest.raises(ValueError, match="must be at most 0 after a prompt of 65 tokens"):
        stream(MODEL, [[5] * 65], Greedy(), max_new_tokens=0)
    rope = model_of("llama")  # no table: it runs on, as in transformers
    assert len(generate(rope, [[5] * 30], Greedy(), max_new_tokens=9, stop=NO_END).sequences[0]) == 9


# Ends


def test_why_rows_end() -> None:
    a, b, c = byte_ids("abc")
    result = run([a, EOS, b], [a, b, c], [a], [b, b, c, b], stop=Stop(tokens=[c]), max_new_tokens=3)
    assert tokens(result) == [[a, EOS], [a, b, c], [a, a, a], [b, b, c]]
    assert result.finish_reasons == ["eos", "stop", "length", "stop"]
    assert result.texts == ["a", "ab", "aaa", "bb"]
    kept = run([a, EOS], [a, b, c], stop=Stop(tokens=[c], include_stop=True))
    assert kept.texts == ["a", "abc"]
    last = run([a, a, EOS], max_new_tokens=3)
    assert last.finish_reasons == ["eos"]


def test_stop_strings_cut_the_text_and_not_the_tokens() -> None:
    ids = byte_ids("ab.\n\nc")
    result = run(ids, stop=Stop(strings=["\n\n"]))
    assert (tokens(result), result.texts, result.finish_reasons) == ([ids[:5]], ["ab."], ["stop"])
    result = run(ids, stop=Stop(strings=["\n\n"], include_stop=True))
    assert (tokens(result), result.texts) == ([ids[:5]], ["ab.\n\n"])
    never = run(ids, stop=Stop(strings=["\n\n\n", "zzz"]), max_new_tokens=5)
    assert (tokens(never), never.texts, never.finish_reasons) == ([ids[:5]], ["ab.\n\n"], ["length"])
    prompted = run(byte_ids("\nx"), prompts=["a\n"], stop=Stop(strings="\n\n"), max_new_tokens=2)
    assert (prompted.texts, prompted.finish_reasons) == (["\nx"], ["length"])
    held = run([*byte_ids("a\n"), EOS], stop=Stop(strings="\n\n"))
    assert (held.texts, held.finish_reasons) == (["a\n"], ["eos"])
    by_name = run([*byte_ids("a"), PAD, EOS], stop=Stop(strings=SPECIAL[PAD]))
    assert (by_name.texts, by_name.finish_reasons) == (["a"], ["stop"])


def test_end_tokens_may_be_none_or_others() -> None:
    a, b = byte_ids("ab")
    assert run([a, EOS, b], stop=Stop(eos=())).finish_reasons == ["length"]
    assert tokens(run([a, EOS, b], stop=Stop(eos=[b]))) == [[a, EOS, b]]
    plain = model_of(eos_token_id=None)
    options: dict[str, Any] = {"max_new_tokens": 3}
    strategy = Greedy(processors=[scripted([a, EOS, b])])
    assert len(generate(plain, [[9]], strategy, **options).sequences[0]) == 3
    # the tokenizer says what no config says
    assert len(generate(plain, [[9]], strategy, tokenizer=TOKENIZER, **options).sequences[0]) == 2


def test_before_the_least_number_nothing_ends() -> None:
    a, c = byte_ids("ac")
    stop = Stop(tokens=[c], strings="aca")
    script = [a, c, a, c, a, c]
    for least, expected in ((0, 2), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)):
        result = run(script, stop=stop, min_new_tokens=least)
        assert len(result.sequences[0]) == expected
        assert result.finish_reasons == ["stop"]
    result = run(script, script, stop=stop, min_new_tokens=[0, 4])
    assert [len(row) for row in result.sequences] == [2, 4]
    eager = Greedy(logit_bias={EOS: 100.0})
    for least in (0, 3, 5):
        result = generate(MODEL, [[9]], eager, max_new_tokens=5, min_new_tokens=least)
        assert len(result.sequences[0]) == min(least + 1, 5)


@pytest.mark.parametrize("text", [False, True])
def test_no_tokens_at_all(text: bool) -> None:
    options: dict[str, Any] = {"tokenizer": TOKENIZER} if text else {}
    result = generate(MODEL, PROMPTS, Sample(), max_new_tokens=0, logprobs="raw", top_logprobs=2, **options)
    assert tokens(result) == [[]] * 4
    assert {row.dtype for row in result.sequences} == {torch.long}
    assert result.texts == ([""] * 4 if text else None)
    assert result.finish_reasons == ["length"] * 4
    assert result.logprobs is not None
    assert result.top_logprobs is not None
    assert [row.shape for row in result.logprobs] == [(0,)] * 4
    assert [top.ids.shape for top in result.top_logprobs] == [(0, 2)] * 4


def test_rows_that_have_ended_cost_no_more_than_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = DecoderModel.forward

    def counted(self: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(tuple(input_ids.shape))
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(DecoderModel, "forward", counted)
    a = byte_ids("a")[0]
    run([a, EOS], [a, a, a, EOS], max_new_tokens=50)
    assert calls == [(2, 1)] * 4  # the prompt and three tokens; the fourth is an end
    calls.clear()
    generate(MODEL, [[5, 6, 7], [8]], Sample(), max_new_tokens=3, num_samples=4, stop=NO_END)
    assert calls == [(2, 3), (8, 1), (8, 1)]  # samples share the prompt's forward


# Texts and events


def test_texts_continue_their_prompts() -> None:
    tokenizer = sentence_piece()
    model = model_of(vocab_size=len(tokenizer))
    the, cat = (tokenizer.token_to_id(t) or 0 for t in ("▁the", "▁cat"))
    strategy = Greedy(processors=[scripted([cat, EOS])])
    result = generate(model, [[the]], strategy, max_new_tokens=3, tokenizer=tokenizer)
    assert result.texts == [" cat"]


def test_a_stream_is_the_result_bit_by_bit() -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 20,
        "num_samples": 2,
        "seed": 4,
        "tokenizer": TOKENIZER,
        "stop": Stop(strings=["a", "é", "!", "\x05"]),
        "logprobs": "processed",
        "top_logprobs": 2,
    }
    strategy = Sample(top_p=0.9)
    result = generate(MODEL, PROMPTS, strategy, **options)
    by_row: list[list[Event]] = [[] for _ in range(8)]
    events = stream(MODEL, PROMPTS, strategy, **options)
    assert events.rows == 8
    for event in events:
        assert not by_row[event.row] or by_row[event.row][-1].finish_reason is None
        by_row[event.row].append(event)
    assert [[e.token for e in row] for row in by_row] == tokens(result)
    assert ["".join(e.text for e in row) for row in by_row] == result.texts
    assert [row[-1].finish_reason for row in by_row] == result.finish_reasons
    assert len(set(result.finish_reasons)) == 2
    for row, found in zip(by_row, result, strict=True):
        assert found.logprobs is not None
        assert found.top_logprobs is not None
        assert torch.tensor([e.logprob for e in row]).equal(found.logprobs)
        assert [e.top_logprobs for e in row] == [
            tuple(zip(ids, values, strict=True))
            for ids, values in zip(
                found.top_logprobs.ids.tolist(), found.top_logprobs.values.tolist(), strict=True
            )
        ]


def test_a_stream_can_be_left_and_leaves_no_mode_behind() -> None:
    events = stream(MODEL, [[5]], Sample(), max_new_tokens=50, stop=NO_END)
    assert next(events).row == 0
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    del events


def test_events_come_step_by_step() -> None:
    """One for each row that goes on, in the order of the rows."""
    a, b = byte_ids("ab")
    script = Greedy(processors=[scripted([a, EOS], [a, b, EOS], [EOS])])
    events = list(stream(MODEL, [[9]] * 3, script, max_new_tokens=4))
    assert [event[:2] for event in events] == [(0, a), (1, a), (2, EOS), (0, EOS), (1, b), (1, EOS)]
    assert [event.finish_reason for event in events] == [None, None, "eos", "eos", None, "eos"]
    assert {(event.text, event.logprob, event.top_logprobs) for event in events} == {("", None, None)}


def test_a_stream_that_fails_has_given_what_came_before() -> None:
    def fails(logits: Tensor, context: Context) -> Tensor:
        return logits.masked_fill((context.generated == 2)[:, None], -torch.inf)

    events = stream(MODEL, [[5], [6]], Sample(processors=[fails]), max_new_tokens=5, stop=NO_END)
    before = [next(events).row for _ in range(4)]
    with pytest.raises(ValueError, match="Row 0, step 2: fails left no token"):
        next(events)
    assert before == [0, 1, 0, 1]
    assert list(events) == []
    assert not torch.is_inference_mode_enabled()


def test_a_slice_is_no_row() -> None:
    result = generate(MODEL, [[5], [6]], Greedy(), max_new_tokens=1)
    with pytest.raises(TypeError, match="must be the number of one row"):
        result[0:1]  # type: ignore[index]
    assert [row.tokens.tolist() for row in result] == [tokens.tolist() for tokens in result.sequences]


def test_a_result_can_be_trained_on() -> None:
    result = generate(MODEL, [[5, 6]], Greedy(), max_new_tokens=4, stop=NO_END)
    loss = MODEL(result.sequences[0][None], labels=result.sequences[0][None]).loss
    loss.backward()
    MODEL.zero_grad()
    row = result[0]
    assert row.tokens is result.sequences[0]
    assert (row.text, row.logprobs, row.top_logprobs, len(result)) == (None, None, None, 1)


def test_half_a_character_at_the_end_is_shown_as_one() -> None:
    assert run(byte_ids("a猫")[:-1], max_new_tokens=3).texts == ["a\ufffd"]


# Log-probabilities


@pytest.mark.parametrize("kind", ["raw", "processed"])
def test_logprobs_by_hand(kind: Any) -> None:
    """By numpy from the model's logits: of the distribution before the chain, and behind it."""
    strategy = Sample(temperature=0.5, top_k=12, repetition_penalty=1.3)
    result = generate(
        MODEL, PROMPTS, strategy, max_new_tokens=5, stop=NO_END, seed=2, logprobs=kind, top_logprobs=15
    )
    for prompt, row in zip(PROMPTS, result, strict=True):
        assert row.logprobs is not None
        assert row.top_logprobs is not None
        for place, token in enumerate(row.tokens.tolist()):
            before = prompt + row.tokens[:place].tolist()
            with torch.no_grad():
                logits = MODEL(torch.tensor([before])).logits[0, -1].double().numpy()
            if kind == "processed":
                seen = sorted(set(before))
                logits[seen] = np.where(logits[seen] < 0, logits[seen] * 1.3, logits[seen] / 1.3)
                logits = logits / 0.5
                logits[logits < np.sort(logits)[-12]] = -np.inf
            expected = logits - logits.max()
            expected -= np.log(np.exp(expected).sum())
            assert row.logprobs[place].item() == pytest.approx(expected[token], abs=1e-4)
            best = np.argsort(-expected, kind="stable")[:15]
            kept = np.isfinite(expected[best])
            assert kept.sum() == (12 if kind == "processed" else 15)
            assert row.top_logprobs.ids[place][:12].tolist() == best[:12].tolist()
            values = row.top_logprobs.values[place].numpy()
            np.testing.assert_allclose(values[kept], expected[best][kept], atol=1e-4)
            assert (values[~kept] == -np.inf).all()


# Processors in the loop


def test_a_state_is_carried_from_token_to_token() -> None:
    class Alternate:
        """Two tokens in turn; the state is how often it was this row's turn."""

        def init(self, context: Context) -> Tensor:
            return torch.zeros(len(context.length), dtype=torch.long)

        def update(self, state: Tensor, context: Context, token: Tensor, logits: Tensor) -> Tensor:
            assert torch.equal(token, 20 + state % 2)
            return state + 1

        def __call__(self, logits: Tensor, context: Context, state: Tensor) -> Tensor:
            out = torch.full_like(logits, -torch.inf)
            return out.scatter_(1, (20 + state % 2)[:, None], 0.0)

    result = generate(MODEL, PROMPTS, Sample(processors=[Alternate()]), max_new_tokens=5, stop=NO_END)
    assert tokens(result) == [[20, 21, 20, 21, 20]] * 4


class Frequency:
    """The frequency penalty, from counts of its own: a state of two tensors in a dict in a tuple."""

    def init(self, context: Context) -> Any:
        rows = len(context.length)
        return ({"counts": torch.zeros(rows, len(TOKENIZER)), "total": torch.zeros(rows)},)

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        (old,) = state
        assert torch.equal(old["total"].long(), context.generated)
        counts = old["counts"].scatter_add(1, token[:, None], torch.ones(len(token), 1))
        return ({"counts": counts, "total": old["total"] + 1},)

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        return logits - 1.5 * state[0]["counts"]


def test_a_state_equals_what_the_history_says() -> None:
    """For several samples, and for rows that end while others go on."""
    options: dict[str, Any] = {"max_new_tokens": 12, "num_samples": 2, "seed": 3, "stop": Stop(eos=79)}
    own = generate(MODEL, PROMPTS, Sample(processors=[Frequency()]), **options)
    expected = generate(MODEL, PROMPTS, Sample(frequency_penalty=1.5), **options)
    assert tokens(own) == tokens(expected)
    assert tokens(own) != tokens(generate(MODEL, PROMPTS, Sample(), **options))
    twice = generate(MODEL, PROMPTS, Sample(processors=[Frequency()]), **options)
    assert tokens(twice) == tokens(own)  # nothing is left in the processor


def test_the_prefix_function_is_given_rows_and_histories() -> None:
    seen: list[tuple[int, list[int]]] = []

    def allowed(row: int, history: Tensor) -> list[int]:
        seen.append((row, history.tolist()))
        return [] if history[-1] == EOS else [EOS if row == 0 else 20 + len(history)]

    result = generate(MODEL, [[5], [6, 7]], Greedy(prefix_allowed_tokens_fn=allowed), max_new_tokens=3)
    assert tokens(result) == [[EOS], [22, 23, 24]]  # the row that ended is allowed nothing any more
    assert [history for row, history in seen if row == 1] == [[6, 7], [6, 7, 22], [6, 7, 22, 23]]
    nothing = Greedy(prefix_allowed_tokens_fn=lambda row, history: [5] if row == 0 else [])
    with pytest.raises(ValueError, match="Row 1, step 0: PrefixAllowed left no token"):
        generate(MODEL, [[5], [6]], nothing, max_new_tokens=3)


def test_what_a_processor_is_told() -> None:
    """Histories are left-aligned and without padding, whatever the model is given."""
    seen: list[Context] = []

    def look(logits: Tensor, context: Context) -> Tensor:
        seen.append(context)
        return logits

    result = generate(MODEL, PROMPTS[:3], Greedy(processors=[look]), max_new_tokens=4, stop=Stop(eos=[3, 4]))
    for step, context in enumerate(seen):
        assert context.generated.tolist() == [step] * 3
        assert (context.eos, context.max_new_tokens) == ((3, 4), 4)
        for row, prompt in enumerate(PROMPTS[:3]):
            history = context.tokens[row, : int(context.length[row])].tolist()
            assert history == prompt + result.sequences[row][:step].tolist()


def test_bans_that_leave_no_token_name_the_processor() -> None:
    everything = list(range(1, len(TOKENIZER)))
    strategy = Sample(suppress_tokens=everything, bad_words_ids=[[0]])
    with pytest.raises(ValueError, match=r"Row 0, step 0: SuppressTokens left no token"):
        generate(MODEL, PROMPTS, strategy, max_new_tokens=2)

    contradictory = Greedy(allowed_token_ids=[5, 6], suppress_tokens=[6, 5, 4])
    with pytest.raises(ValueError, match=r"SuppressTokens left no token.*AllowedTokens 2, SuppressTokens 0"):
        generate(MODEL, PROMPTS, contradictory, max_new_tokens=2)
    only_end = Greedy(allowed_token_ids=[EOS])
    with pytest.raises(ValueError, match=r"Row 0, step 0: MinNewTokens.* left no token"):
        generate(MODEL, PROMPTS, only_end, max_new_tokens=2, min_new_tokens=1)

    def own(logits: Tensor, context: Context) -> Tensor:
        banned = (context.generated == 2) & (context.tokens[:, 0] == 7)
        return logits.masked_fill(banned[:, None], -torch.inf)

    with pytest.raises(ValueError, match=r"Row 1, step 2: own left no token"):
        generate(MODEL, PROMPTS[:2], Greedy(processors=[own]), max_new_tokens=4, stop=NO_END)


@pytest.mark.parametrize("strategy", [Greedy(), Sample()], ids=["greedy", "sample"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_none(strategy: Any, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = DecoderModel.forward

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        if kwargs["cache"].length == 9:  # the third token
            out.logits[1, -1, 5] = value
        return out

    monkeypatch.setattr(DecoderModel, "forward", broken)
    with pytest.raises(ValueError, match=r"Row 1, step 2: the model's logits hold NaN or \+inf"):
        generate(MODEL, PROMPTS[:3], strategy, max_new_tokens=5, stop=NO_END)
    fixed = type(strategy)(remove_invalid_values=True)
    assert len(generate(MODEL, PROMPTS[:3], fixed, max_new_tokens=5, stop=NO_END).sequences[1]) == 5


def test_a_row_that_has_ended_may_have_nothing_to_draw() -> None:
    a, b = byte_ids("ab")
    script = scripted([a, EOS], [a, b, b, b])

    def nothing_after_the_end(logits: Tensor, context: Context) -> Tensor:
        ended = context.last(1).squeeze(1) == EOS
        return script(logits, context).masked_fill(ended[:, None], -torch.inf)

    strategy = Greedy(processors=[nothing_after_the_end])
    result = generate(MODEL, [[9], [9]], strategy, max_new_tokens=4)
    assert tokens(result) == [[a, EOS], [a, b, b, b]]

    def nothing_at_last(logits: Tensor, context: Context) -> Tensor:
        done = context.generated == 3
        return nothing_after_the_end(logits, context).masked_fill(done[:, None], -torch.inf)

    with pytest.raises(ValueError, match=r"Row 1, step 3: nothing_at_last left no token"):
        generate(MODEL, [[9], [9]], Greedy(processors=[nothing_at_last]), max_new_tokens=4)


def test_a_literal_chain() -> None:
    chain = Chain(SuppressTokens([*range(100)]), TopK(1))
    result = generate(MODEL, PROMPTS, Sample(chain=chain), max_new_tokens=6, stop=NO_END)
    assert tokens(result) == tokens(
        generate(MODEL, PROMPTS, Greedy(suppress_tokens=[*range(100)]), max_new_tokens=6, stop=NO_END)
    )


# Arguments


@pytest.mark.parametrize(
    ("strategy", "options", "error", "message"),
    [
        (Sample, {}, TypeError, "must be a Strategy such as Sample"),
        ("greedy", {}, ValueError, "strategy='greedy' must be a Strategy.* or \"checkpoint\""),
        (
            "checkpoint",
            {},
            ValueError,
            "built with from_config and .* choose a strategy",
        ),
        (Greedy(), {"max_new_tokens": None}, TypeError, "max_new_tokens=None must be an integer"),
        (Greedy(), {"max_new_tokens": -1}, ValueError, "max_new_tokens=-1 must be at least 0"),
        (Greedy(), {"max_new_tokens": True}, TypeError, "max_new_tokens=True"),
        (Greedy(), {"max_new_tokens": 2.0}, TypeError, "max_new_tokens=2.0"),
        (Greedy(), {"min_new_tokens": 3}, ValueError, "min_new_tokens=3 must be at most max_new_tokens=2"),
        (Greedy(), {"min_new_tokens": [1]}, ValueError, "min_new_tokens=.* the 2 rows; it has 1 values"),
        (Greedy(), {"min_new_tokens": -1}, ValueError, "min_new_tokens=-1"),
        (Sample(), {"num_samples": 0}, ValueError, "num_samples=0 must be at least 1"),
        (Greedy(), {"num_samples": 2}, ValueError, r"num_samples=2 must be left out; Greedy\(\)"),
        (Greedy(), {"seed": 2}, ValueError, r"seed=2 must be left out; Greedy\(\) draws nothing"),
        (Greedy(), {"generator": torch.Generator()}, ValueError, "generator=.* must be left out"),
        (Sample(), {"seed": 1, "generator": torch.Generator()}, ValueError, "two sources of randomness"),
        (Sample(), {"seed": [1, 2, 3]}, ValueError, "seed=.* or one for each of the 2 prompts"),
        (Greedy(), {"logprobs": "all"}, ValueError, "logprobs='all' must be"),
        (Greedy(), {"top_logprobs": 2}, ValueError, "top_logprobs=2 must be 0 without logprobs="),
        (Greedy(), {"logprobs": "raw", "top_logprobs": 999}, ValueError, "must be from 0 to"),
        (Greedy(), {"logprobs": True}, ValueError, "logprobs=True must be"),
        (Greedy(), {"top_logprobs": False}, TypeError, "top_logprobs=False must be an integer"),
        (Greedy(), {"top_logprobs": None}, TypeError, "top_logprobs=None must be an integer"),
        (Greedy(), {"logprobs": "raw", "top_logprobs": -1}, ValueError, "top_logprobs=-1 must be from 0"),
        (Greedy(), {"prefill_chunk": 0}, ValueError, "prefill_chunk=0 must be at least 1"),
        (Greedy(), {"prefill_chunk": 1.0}, TypeError, "prefill_chunk=1.0 must be an integer"),
        (Greedy(), {"stop": "a"}, TypeError, r"stop='a' must be a Stop; e.g. Stop\(strings=...\)"),
        (Greedy(), {"stop": ""}, TypeError, "stop='' must be a Stop"),
        (Greedy(), {"stop": [5]}, TypeError, r"stop=\[5\] must be a Stop"),
        (
            Greedy(),
            {"tokenizer": "gpt2"},
            TypeError,
            "must be a Tokenizer; minitx.load_tokenizer",
        ),
        (
            Sample(),
            {"generator": 3},
            TypeError,
            "generator=3 must be a torch.Generator; seed= takes an integer",
        ),
        (Sample(), {"seed": 1.5}, TypeError, "seed=1.5 must be an integer"),
        (Sample(), {"num_samples": 2, "min_new_tokens": [1, 1]}, ValueError, "the 4 rows .* it has 2 values"),
        (Greedy(), {"stop": Stop(strings="a")}, ValueError, "needs tokenizer="),
        (Greedy(), {"stop": Stop(tokens=[999])}, ValueError, r"Stop\(tokens=...\)=999 must be"),
    ],
)
def test_what_does_not_fit(
    strategy: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for call in (generate, stream):  # a stream too at once, and not with its first event
        with pytest.raises(error, match=message):
            call(MODEL, [[5], [6]], strategy, **{"max_new_tokens": 2, **options})  # type: ignore[operator]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Sample(temperature=[1.0, 1.0, 1.0]), "one for each of the 2 rows; it has 3 values"),
        (Greedy(suppress_tokens=[999]), "suppress_tokens=999 must be"),
        (Greedy(processors=[lambda logits, context: None]), "<lambda> returned NoneType; expected logits"),
    ],
)
def test_what_does_not_fit_the_logits(strategy: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(MODEL, [[5], [6]], strategy, max_new_tokens=2)


def test_numbers_may_be_numpys() -> None:
    numbers: dict[str, Any] = {"max_new_tokens": 3, "num_samples": 2, "top_logprobs": 2, "prefill_chunk": 1}
    numbers |= {"seed": 4, "min_new_tokens": 1}
    options: dict[str, Any] = {"logprobs": "raw", "stop": NO_END}
    theirs = generate(MODEL, PROMPTS, **{name: np.int64(n) for name, n in numbers.items()}, **options)
    assert tokens(theirs) == tokens(generate(MODEL, PROMPTS, **numbers, **options))


# Of each argument of a call two values that lead to different results, and what both need.
TENSOR = torch.tensor([[5, 6], [7, 8]])
TWO_VALUES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "model": (MODEL, model_of("llama"), {}),
    "prompts": ([[5, 6]], [[6, 5]], {}),
    "strategy": (Sample(), Greedy(), {"seed": None}),
    "max_new_tokens": (3, 4, {}),
    "min_new_tokens": (2, 3, {"strategy": Sample(logit_bias={EOS: 100.0}), "stop": Stop()}),
    "num_samples": (1, 2, {}),
    "tokenizer": (None, TOKENIZER, {}),
    "attention_mask": (None, torch.tensor([[0, 1], [1, 1]]), {"prompts": TENSOR}),
    "stop": (Stop(eos=EOS), Stop(eos=()), {"strategy": Sample(logit_bias={EOS: 100.0})}),
    "seed": (1, 2, {}),
    "generator": (1, 2, {"seed": None}),
    "logprobs": ("raw", "processed", {"strategy": Sample(temperature=0.5)}),
    "top_logprobs": (0, 2, {"logprobs": "raw"}),
    "prefill_chunk": (None, 1, {}),  # the results are equal, what the model is given is not
}


def test_every_argument_is_in_the_table() -> None:
    # Decoder prompts are for encoder-decoders, in tests/parity; the others have tests of their own.
    others = {"decoder_prompts", "inputs_embeds", "grammar", "schema", "guidance", "heal", "prefix", "cache"}
    options = [name for name in GenerationOptions.__annotations__ if name not in others]
    for call in (generate, stream):
        assert [*inspect.signature(call).parameters][:3] + options == [*TWO_VALUES]
    both = (inspect.signature(call).parameters for call in (generate, stream))
    for one, other in zip(*(each.values() for each in both), strict=True):
        assert (one.default, one.kind) == (other.default, other.kind)


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("name", TWO_VALUES)
def test_every_argument_has_an_effect(name: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    forward = DecoderModel.forward

    def seen(self: Any, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        lengths.append(input_ids.shape[1])
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(DecoderModel, "forward", seen)
    *values, needed = TWO_VALUES[name]
    usual = {"model": MODEL, "prompts": PROMPTS, "max_new_tokens": 5, "stop": NO_END, "seed": 1}

    def outcome(value: Any) -> str:
        if name == "generator":
            value = torch.Generator().manual_seed(value)
        torch.manual_seed(0)
        lengths.clear()
        result = call(**{**usual, **needed, name: value})
        return repr([tuple(vars(row).values()) if call is generate else row for row in result]) + (
            repr(lengths) if name == "prefill_chunk" else ""
        )

    first, second = map(outcome, values)
    assert first != second
    assert first == outcome(values[0])  # and it is no chance


def test_misspelt_arguments_are_errors() -> None:
    with pytest.raises(TypeError, match="max_tokens"):
        generate(MODEL, [[5]], max_tokens=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="temperature"):
        stream(MODEL, [[5]], max_new_tokens=2, temperature=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"argument of the call: generate\(..., seed=...\)"):
        Sample(seed=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        generate(MODEL, [[5]], Sample(), 5)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"Sample has no field 'topp'. Did you mean 'top_p'\?"):
        Sample(topp=0.5)  # type: ignore[call-arg]


def test_models_that_do_not_generate() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = {"model_type": "bert", "vocab_size": 50, "max_position_embeddings": 9, **sizes}
    bert = minitx.from_config(config).eval()
    with pytest.raises(
        ValueError, match=r'predicts the next token, not of task .*; load a decoder with head="causal-lm"'
    ):
        generate(bert, [[5]], max_new_tokens=1)  # type: ignore[arg-type]
    model = model_of().train()
    with pytest.raises(ValueError, match=r"in training mode.*call model.eval\(\) first"):
        generate(model, [[5]], max_new_tokens=1)
    model.eval()


# Settings of the checkpoint


def test_the_checkpoints_own_strategy(tmp_path: Path) -> None:
    minitx.save(MODEL, tmp_path)
    config = {"do_sample": True, "temperature": 0.7, "top_k": 5, "eos_token_id": [4, 5], "max_new_tokens": 6}
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    model = minitx.load(tmp_path)
    assert isinstance(model, DecoderModel)
    own = generate(model, PROMPTS, "checkpoint", seed=3)
    stop = Stop(eos=[4, 5])
    expected = generate(MODEL, PROMPTS, Sample(temperature=0.7, top_k=5), max_new_tokens=6, stop=stop, seed=3)
    assert tokens(own) == tokens(expected)
    shorter = generate(model, PROMPTS, "checkpoint", seed=3, max_new_tokens=2)
    assert tokens(shorter) == [row[:2] for row in tokens(expected)]
    a = byte_ids("a")[0]
    end = generate(model, [[9]], Greedy(processors=[scripted([a, 5])]), max_new_tokens=4)
    assert end.finish_reasons == ["eos"]  # its end tokens hold for every strategy
