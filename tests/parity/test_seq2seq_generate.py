"""Generation with encoder-decoders against transformers: tokens, scores, and texts of different lengths.

A random model mostly says one token again and again; `VARIED` lets it say another one at every step.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx import Beam, BeamSample, Greedy, Sample, Stop
from minitx.decoding.output import Result
from minitx.layers.attention import CrossAttention
from minitx.models import EncoderDecoderModel, Model
from tests.parity.cases import BY_NAME, CASES
from tests.parity.reference import pair

NAMES = [case.name for case in CASES if "seq2seq-lm" in case.heads]
VARIED = {"no_repeat_ngram_size": 1}
NEW = 10
EARLY: tuple[Any, ...] = (True, False, "never")
PENALTIES = (-1.0, 0.0, 0.6, 2.0)
# Of the scores: float32 sums of up to 30 log-probabilities, whose sizes are below 10.
TOLERANCE = 2e-5


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """On models this small, threads of a busy machine only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def models(name: str, root: Path) -> tuple[Any, Model]:
    return pair(name, "seq2seq-lm", torch.float32, root)


@cache
def texts(*lengths: int) -> list[list[int]]:
    """What is read."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(4, 99, (length,), generator=generator).tolist() for length in lengths]


RAGGED = (9, 5, 12, 1)


def start(name: str) -> int:
    """What a decoder's text begins with; mBART's config leaves that to who asks."""
    found = BY_NAME[name].config["decoder_start_token_id"]
    assert isinstance(found, int)
    return found


def expected(
    reference: Any, name: str, rows: list[list[int]], eos: tuple[int, ...], **options: Any
) -> tuple[list[list[int]], list[float] | None]:
    """What transformers writes, each row up to its end token, and the scores of a search.

    Without its cache: that counts the layers of the encoder where it needs those of the decoder. Without what
    the config's defaults add, which minitx adds where it is asked to.
    """
    longest, pad = max(map(len, rows)), BY_NAME[name].pad
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    torch.manual_seed(0)
    plain = {
        "max_new_tokens": NEW,
        "do_sample": False,
        "num_beams": 1,
        "top_k": 0,
        "use_cache": False,
        "decoder_start_token_id": start(name),
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }
    out = reference.generate(
        input_ids=ids,
        attention_mask=mask,
        pad_token_id=pad,
        eos_token_id=list(eos) or None,
        return_dict_in_generate=True,
        output_scores=True,
        **(plain | options),
    )
    begun = options["decoder_input_ids"].shape[1] if "decoder_input_ids" in options else 1
    found = []
    for row in out.sequences[:, begun:].tolist():
        ends = [place for place, token in enumerate(row) if token in eos]
        found.append(row[: ends[0] + 1] if ends else row)
    scores = getattr(out, "sequences_scores", None)
    return found, None if scores is None else scores.tolist()


def generate(
    model: Model, name: str, rows: list[list[int]], strategy: Any, eos: tuple[int, ...], **options: Any
) -> Result:
    options = {"max_new_tokens": NEW, "decoder_prompts": [[start(name)]], **options}
    return minitx.generate(model, rows, strategy, stop=Stop(eos=eos), **options)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tokens(result: Result) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


def check(result: Result, found: tuple[list[list[int]], list[float] | None]) -> None:
    assert tokens(result) == found[0]
    if found[1] is not None:
        assert result.scores == pytest.approx(found[1], rel=TOLERANCE, abs=TOLERANCE)


def ends_of(reference: Any, name: str, count: int, rows: list[list[int]] | None = None) -> tuple[int, ...]:
    """End tokens that come: what is said in the middle of the texts, no two alike."""
    (first, second, *_), _ = expected(reference, name, rows or texts(*RAGGED), (), **VARIED)
    return tuple(dict.fromkeys((second[5], *reversed(first), *second)))[:count]


@pytest.mark.parametrize("name", NAMES)
def test_greedy_and_sampling(name: str, root: Path) -> None:
    """One text to its full length, and texts of four lengths to their end tokens."""
    reference, model = models(name, root)
    check(
        generate(model, name, texts(6), Greedy(**VARIED), ()),
        expected(reference, name, texts(6), (), **VARIED),
    )
    rows, eos = texts(*RAGGED), ends_of(reference, name, 2)
    found = expected(reference, name, rows, eos, **VARIED)
    check(generate(model, name, rows, Greedy(**VARIED), eos), found)
    settings = {"top_k": 20, "temperature": 1.3}
    found = expected(reference, name, rows, eos, do_sample=True, **settings)
    check(generate(model, name, rows, Sample(**settings), eos, generator=seeded()), found)


@pytest.mark.parametrize("name", NAMES)
def test_beams(name: str, root: Path) -> None:
    reference, model = models(name, root)
    settings = {"num_beams": 3, "length_penalty": 0.6, **VARIED}
    eos = ends_of(reference, name, 2)
    found = expected(reference, name, texts(*RAGGED), eos, num_return_sequences=2, **settings)
    check(generate(model, name, texts(*RAGGED), Beam(**settings), eos, num_samples=2), found)
    found = expected(reference, name, texts(*RAGGED), eos, num_return_sequences=2, do_sample=True, **settings)
    drawn = BeamSample(**settings)
    check(generate(model, name, texts(*RAGGED), drawn, eos, num_samples=2, generator=seeded()), found)


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_way_to_stop(name: str, early: Any, penalty: float, root: Path) -> None:
    """1 to 3 end tokens, one to all hypotheses returned."""
    reference, model = models(name, root)
    for count, samples in ((1, 4), (2, 1), (3, 2)):
        eos = ends_of(reference, name, count)
        settings = {"num_beams": 4, "early_stopping": early, "length_penalty": penalty, **VARIED}
        found = expected(reference, name, texts(9, 5), eos, num_return_sequences=samples, **settings)
        check(generate(model, name, texts(9, 5), Beam(**settings), eos, num_samples=samples), found)


def even_tokens(row: int, tokens: Tensor) -> list[int]:
    """Allowed after a token are those that are even or odd as it is."""
    return list(range(2 + int(tokens[-1]) % 2, 99, 2))


PROCESSORS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.1, "no_repeat_ngram_size": 0},
    {"no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 1.9},
    {"encoder_no_repeat_ngram_size": 1},
    {"sequence_bias": {(5,): -3.0, (8,): 4.0, (8, 9): 20.0}},
    {"bad_words_ids": [*([token] for token in range(40, 70)), [8, 9]]},
    {"min_length": 10},
    {"min_new_tokens": 8},
    {"forced_bos_token_id": 44},
    {"forced_eos_token_id": 7},
    {"suppress_tokens": [*range(30, 60)]},
    {"begin_suppress_tokens": [*range(2, 90)]},
    {"exponential_decay_length_penalty": (3, 1.6)},
    {"prefix_allowed_tokens_fn": even_tokens},
]


@pytest.mark.parametrize("options", PROCESSORS, ids="-".join)
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_processors(name: str, options: dict[str, Any], root: Path) -> None:
    """Greedy and with beams, in texts of one length: to the reference's encoder penalties padding is text."""
    reference, model = models(name, root)
    rows = texts(8, 8, 8)
    eos = (7, *ends_of(reference, name, 2, rows))
    settings = {**VARIED, **options}
    call = {name: settings.pop(name) for name in ("min_new_tokens",) if name in settings}
    changed = []
    for beams in (1, 3):
        found = expected(reference, name, rows, eos, num_beams=beams, **settings, **call)
        strategy = Greedy(**settings) if beams == 1 else Beam(num_beams=beams, **settings)
        check(generate(model, name, rows, strategy, eos, **call), found)
        changed.append(found != expected(reference, name, rows, eos, num_beams=beams, **VARIED))
    assert any(changed)


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("options", PROCESSORS[2:4], ids="-".join)
def test_padding_is_no_text_that_was_read(name: str, options: dict[str, Any], root: Path) -> None:
    _, model = models(name, root)
    strategy = Greedy(**options)
    alone = [tokens(generate(model, name, [row], strategy, ()))[0] for row in texts(*RAGGED)]
    assert tokens(generate(model, name, texts(*RAGGED), strategy, ())) == alone


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_its_rows_give(name: str, root: Path) -> None:
    reference, model = models(name, root)
    eos = ends_of(reference, name, 2)
    for strategy, options in (
        (Greedy(**VARIED), {}),
        (Sample(temperature=2.0), {"seed": 5, "num_samples": 2}),
        (Beam(num_beams=3, **VARIED), {"num_samples": 2}),
    ):
        together = tokens(generate(model, name, texts(*RAGGED), strategy, eos, **options))
        alone = [tokens(generate(model, name, [row], strategy, eos, **options)) for row in texts(*RAGGED)]
        assert together == [row for rows in alone for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_becomes_keys_and_values_once(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens, samples and beams follow: two texts, once for each layer, and never copied."""
    reference, model = models(name, root)
    assert isinstance(model, EncoderDecoderModel)
    make, look, made, looked_at = CrossAttention.keys_and_values, CrossAttention.attend, [], set()

    def watched_make(self: CrossAttention, memory: Tensor) -> tuple[Tensor, Tensor]:
        made.append(len(memory))
        return make(self, memory)

    def watched_look(self: CrossAttention, query: Tensor, key: Tensor, *others: Any) -> Tensor:
        looked_at.add(len(key))
        return look(self, query, key, *others)

    monkeypatch.setattr(CrossAttention, "keys_and_values", watched_make)
    monkeypatch.setattr(CrossAttention, "attend", watched_look)
    found = expected(reference, name, texts(9, 5), (), do_sample=True, num_return_sequences=3)
    check(generate(model, name, texts(9, 5), Sample(), (), num_samples=3, generator=seeded()), found)
    generate(model, name, texts(9, 5), Beam(num_beams=4), (), num_samples=3)
    assert made == [2] * 2 * len(model.decoder.layers)
    assert looked_at == {2}


@pytest.mark.parametrize("name", NAMES)
def test_decoder_prompts(name: str, root: Path) -> None:
    """One for all texts, one for each, and of different lengths; each text as the reference goes on alone."""
    reference, model = models(name, root)
    rows, first = texts(9, 5, 12), start(name)
    for beams, begun in (
        (1, [[first, 9, 33]]),
        (1, [[first, 40, 5], [first, 7, 61], [first, 80, 12]]),
        (2, [[first], [first, 7], [first, 50, 4, 31]]),
    ):
        strategy = Greedy(**VARIED) if beams == 1 else Beam(num_beams=beams, **VARIED)
        options: dict[str, Any] = {"decoder_prompts": begun, "max_new_tokens": 5}
        result = generate(model, name, rows, strategy, (), **options)
        for row, ids, found in zip(rows, begun * (3 // len(begun)), tokens(result), strict=True):
            options = {"decoder_input_ids": torch.tensor([ids]), "max_new_tokens": 5, **VARIED}
            (wanted,), _ = expected(reference, name, [row], (), num_beams=beams, **options)
            assert found == wanted


@pytest.mark.parametrize("name", NAMES)
def test_without_decoder_prompts_texts_begin_as_the_checkpoint_says(name: str, root: Path) -> None:
    """With its start token; mBART's checkpoints say none, but their generation_config.json does."""
    reference, model = models(name, root)
    result = minitx.generate(model, texts(9, 5), Greedy(**VARIED), max_new_tokens=NEW, stop=Stop(eos=()))
    assert tokens(result) == expected(reference, name, texts(9, 5), (), **VARIED)[0]


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_given_texts(name: str, root: Path) -> None:
    reference, model = models(name, root)
    sources, written = texts(*RAGGED), texts(3, 8, 1, 6)
    found = minitx.score(model, written, sources=sources, batch_size=3)
    for source, row, logprobs, total in zip(sources, written, found.logprobs, found.totals, strict=True):
        ids = torch.tensor([[start(name), *row[:-1]]])
        with torch.inference_mode():
            logits = reference(input_ids=torch.tensor([source]), decoder_input_ids=ids).logits[0]
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(row)[:, None])[:, 0]
        assert torch.allclose(logprobs, wanted, atol=TOLERANCE)
        assert total.item() == pytest.approx(wanted.sum().item(), abs=TOLERANCE * 8)


@pytest.mark.parametrize("name", NAMES)
def test_stream_and_explain_show_what_generate_does(name: str, root: Path) -> None:
    reference, model = models(name, root)
    eos = ends_of(reference, name, 2)
    options: dict[str, Any] = {"max_new_tokens": NEW, "stop": Stop(eos=eos), "seed": 3}
    strategy = Sample(top_k=5, **VARIED)
    result = minitx.generate(model, texts(9, 5), strategy, logprobs="raw", **options)
    streamed: list[list[int]] = [[], []]
    for event in minitx.stream(model, texts(9, 5), strategy, **options):
        if event.token is not None:
            streamed[event.row].append(event.token)
    assert streamed == tokens(result)
    explained = minitx.explain(model, texts(9)[0], strategy, **options).positions
    assert [position.drawn.token for position in explained] == streamed[0]
    assert result.logprobs is not None
    raw = torch.tensor([position.drawn.raw for position in explained]).log()
    assert torch.allclose(raw, torch.as_tensor(result.logprobs[0]), atol=TOLERANCE)
