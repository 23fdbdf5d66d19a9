"""`generate` and `score` with encoder-decoders: what texts begin with, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx import Beam, Greedy, Stop
from minitx.models import EncoderDecoderModel
from minitx.tokenizer import Tokenizer, load_tokenizer
from tests.parity.encoder_decoders import BART, GPT2, NO_CLASSES, T5
from tests.parity.test_tokenizer import train_unigram, write

FOREVER = Stop(eos=())


def made(model_type: str, config: dict[str, Any], head: str = "seq2seq-lm", **more: Any) -> Any:
    # weights so large that another token is the most probable one after every other
    wide = {"initializer_factor": 1.0} if model_type == "t5" else {"init_std": 0.4}
    config = {"model_type": model_type, **config, **wide, **more}
    return minitx.from_config(config, head=head, seed=0).eval()


@pytest.fixture(scope="module")
def t5() -> EncoderDecoderModel:
    model = made("t5", T5)
    assert isinstance(model, EncoderDecoderModel)
    return model


@pytest.fixture(scope="module")
def bart() -> EncoderDecoderModel:
    model = made("bart", BART)
    assert isinstance(model, EncoderDecoderModel)
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_unigram(folder / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write(folder, {}, config={"model_type": "t5"})
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def of_tokenizer(tokenizer: Tokenizer) -> EncoderDecoderModel:
    model = made("t5", T5, vocab_size=len(tokenizer))
    assert isinstance(model, EncoderDecoderModel)
    return model


def greedy(model: Any, prompts: Any, **options: Any) -> list[list[int]]:
    options = {"max_new_tokens": 5, "stop": FOREVER, **options}
    return [row.tolist() for row in minitx.generate(model, prompts, Greedy(), **options).sequences]


# --- what texts begin with ---------------------------------------------------------------------------


def test_a_text_begins_with_the_start_token_unless_something_else_is_given(t5: EncoderDecoderModel) -> None:
    read = [[5, 6, 7], [8, 9]]
    assert greedy(t5, read) == greedy(t5, read, decoder_prompts=[[0]])
    assert greedy(t5, read) == greedy(t5, read, decoder_prompts=[[0], [0]])
    begun = greedy(t5, read, max_new_tokens=2)
    assert greedy(t5, read, decoder_prompts=[[0, *row] for row in begun], max_new_tokens=3) == [
        row[2:] for row in greedy(t5, read)
    ]
    logits = t5(torch.tensor([read[0]]), None, torch.tensor([[50, 4]])).logits[0, -1]
    assert greedy(t5, read[:1], decoder_prompts=[[50, 4]], max_new_tokens=1) == [[int(logits.argmax())]]


def test_what_is_new_does_not_hold_what_was_given(t5: EncoderDecoderModel) -> None:
    found = minitx.generate(
        t5, [[5, 6]], Greedy(), max_new_tokens=3, stop=FOREVER, decoder_prompts=[[0, 60, 61]]
    )
    assert len(found.sequences[0]) == 3
    penalised = Greedy(suppress_tokens=[t for t in range(99) if t not in (60, 61)], no_repeat_ngram_size=1)
    with pytest.raises(ValueError, match="NoRepeatNGram 1 96"):  # they are history all the same
        minitx.generate(
            t5, [[5, 6]], penalised, max_new_tokens=1, stop=FOREVER, decoder_prompts=[[0, 60, 61]]
        )


def test_prompts_of_the_decoder_as_texts(of_tokenizer: EncoderDecoderModel, tokenizer: Tokenizer) -> None:
    """Behind the start token and without the end that targets have."""
    read = ["the cat sat", "a dog"]
    ids = [tokenizer.encode(text) for text in read]
    begun = ["the", "a cat"]
    rows = [[0, *tokenizer.encode(text, add_special_tokens=False, as_target=True)] for text in begun]
    for texts, given in ((begun, rows), ("the", rows[:1])):
        found = minitx.generate(
            of_tokenizer,
            read,
            Greedy(),
            max_new_tokens=5,
            stop=FOREVER,
            tokenizer=tokenizer,
            decoder_prompts=texts,
        )
        assert [row.tolist() for row in found.sequences] == greedy(of_tokenizer, ids, decoder_prompts=given)
        assert found.texts is not None
        for text, row in zip(found.texts, found.sequences, strict=True):
            assert text.strip() == tokenizer.decode(row, skip_special_tokens=True).strip()


def test_the_texts_of_a_tree_are_those_of_the_result(
    of_tokenizer: EncoderDecoderModel, tokenizer: Tokenizer
) -> None:
    """SentencePiece drops the space that begins a token by itself."""
    spaces = 0
    for seed in range(12):
        result = minitx.generate(
            of_tokenizer,
            "the cat",
            minitx.BeamSample(num_beams=4, temperature=2.0),
            num_samples=4,
            max_new_tokens=6,
            seed=seed,
            tokenizer=tokenizer,
        )
        (tree,), texts = result.beams or [], result.texts or []
        for node in (node for node in tree if node.rank is not None):
            path = [node]
            while path[-1].parent is not None:
                path.append(tree[path[-1].parent])
            shown = [str(each.text) for each in path[::-1] if each.token not in tokenizer.special_ids]
            assert "".join(shown).removeprefix("▁") == texts[node.rank]
            spaces += sum(text.startswith(" ") for text in shown)
    assert spaces > 10


def test_a_start_token_that_no_one_knows() -> None:
    """The <s> that mBART's config names begins none of its texts."""
    config = {key: value for key, value in BART.items() if key != "decoder_start_token_id"}
    for bos in (0, None):
        model = made("mbart", {**config, "bos_token_id": bos})
        for call in (lambda m=model: greedy(m, [[5]]), lambda m=model: minitx.score(m, [[5]], sources=[[6]])):
            with pytest.raises(
                ValueError, match=r"neither the checkpoint nor the tokenizer.*decoder_prompts="
            ):
                call()
        assert len(greedy(model, [[5]], decoder_prompts=[[2]])[0]) == 5


def test_the_paddings_id_in_a_text_is_a_token_in_any_batch() -> None:
    """Of models that give padding a position of its own, and number by what they are given at once."""
    model = made("m2m_100", NO_CLASSES)
    pad = model.decoder_embedder.config.pad_token_id
    begun, source = [2, pad, 3], [[5, 6], [7, 8, 9]]

    def found(rows: int, **more: Any) -> tuple[list[int], torch.Tensor]:
        result = minitx.generate(
            model, source[:rows], Greedy(), max_new_tokens=5, stop=FOREVER, logprobs="raw", **more
        )
        assert result.logprobs is not None
        return result.sequences[0].tolist(), result.logprobs[0]

    alone, logprobs = found(1, decoder_prompts=[begun])
    ragged, in_batch = found(2, decoder_prompts=[begun, [2]])
    assert alone == ragged
    torch.testing.assert_close(logprobs, in_batch)
    result = minitx.generate(
        model,
        source[:1],
        Greedy(forced_bos_token_id=pad),
        max_new_tokens=5,
        stop=FOREVER,
        logprobs="raw",
    )
    assert result.logprobs is not None
    text = result.sequences[0].tolist()
    assert text[0] == pad
    for texts in ([text], [text, [3]]):  # generated, in one pass, and beside another
        scores = minitx.score(model, texts, sources=source[: len(texts)])
        torch.testing.assert_close(scores.logprobs[0], result.logprobs[0])


# --- what is refused ---------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "beginnings of other texts": (
        lambda model: greedy(model, [[5]] * 3, decoder_prompts=[[0], [0]]),
        ValueError,
        "must be one for all prompts or 3, one per prompt",
    ),
    "an empty beginning": (
        lambda model: greedy(model, [[5]], decoder_prompts=[[]]),
        ValueError,
        r"decoder_prompts\[0\]=\[\] must be at least one token",
    ),
    "a beginning without its brackets": (
        lambda model: greedy(model, [[5]], decoder_prompts=[0, 5]),
        TypeError,
        r"single prompt are decoder_prompts=\[\[5, 6\]\]",
    ),
    "a beginning as text without a tokenizer": (
        lambda model: greedy(model, [[5]], decoder_prompts="the"),
        ValueError,
        "or come with tokenizer=",
    ),
    "an id of a beginning": (
        lambda model: greedy(model, [[5]], decoder_prompts=[[0, 99]]),
        ValueError,
        "=99 must be token ids from 0 to 98",
    ),
    "an id to read": (
        lambda model: greedy(model, [[5, 99]]),
        ValueError,
        "=99 must be token ids from 0 to 98",
    ),
    "a text to read that is too long": (
        lambda model: greedy(model, [[5] * 49]),
        ValueError,
        "of at most 48 tokens each, not of 49",
    ),
    "a text to write that is too long": (
        lambda model: greedy(model, [[5]], max_new_tokens=49),
        ValueError,
        "must be at most 48 after a prompt of 1 tokens; the model has 48",
    ),
    "a beginning that is too long": (
        lambda model: greedy(model, [[5]], decoder_prompts=[[2] * 46]),
        ValueError,
        "must be at most 3 after a prompt of 46 tokens; the model has 48",
    ),
    "a text to score that is too long": (
        lambda model: minitx.score(model, [[5] * 48], sources=[[5]]),
        ValueError,
        "positions for 48 tokens, but the text has 49",
    ),
    "a score of nothing that was read": (
        lambda model: minitx.score(model, [[5]]),
        ValueError,
        "sources=None must be passed, one per text",
    ),
    "scores of other texts": (
        lambda model: minitx.score(model, [[5]], sources=[[5], [6]]),
        ValueError,
        "must be 1 sequences, one per text",
    ),
    "a source that is unknown": (
        lambda model: minitx.score(model, [[5]], sources=[[99]]),
        ValueError,
        "sources.0.=99 must be",
    ),
    "a prompt of nothing": (
        lambda model: greedy(model, [[]]),
        ValueError,
        r"^prompts\[0\]=\[\] must be at least one token\.$",
    ),
    "a source of nothing": (
        lambda model: minitx.score(model, [[5]], sources=[[]]),
        ValueError,
        r"^sources\[0\]=\[\] must be at least one token",
    ),
    "no beginnings": (
        lambda model: greedy(model, [[5]], decoder_prompts=[]),
        ValueError,
        r"decoder_prompts=\[\] must be at least one",
    ),
    "a beginning of nothing": (
        lambda model: greedy(model, [[5], [6]], decoder_prompts=[[2], []]),
        ValueError,
        r"decoder_prompts\[1\]=\[\] must be",
    ),
    "a beginning that is unknown": (
        lambda model: greedy(model, [[5]], decoder_prompts=[[99]]),
        ValueError,
        r"decoder_prompts\[0\]=99 must be",
    ),
    "several texts to explain": (
        lambda model: minitx.explain(model, [[5], [6]], Greedy()),
        ValueError,
        "prompt=.* must be a single prompt",
    ),
    "a search to be streamed": (
        lambda model: minitx.stream(model, [[5]], Beam(num_beams=2), max_new_tokens=2),
        ValueError,
        "cannot be streamed",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, bart: EncoderDecoderModel) -> None:
    call, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        call(bart)


def test_as_long_as_both_tables_go(bart: EncoderDecoderModel) -> None:
    assert len(greedy(bart, [[5] * 48], max_new_tokens=48)[0]) == 48
    assert greedy(bart, [[5]], max_new_tokens=0) == [[]]


def test_what_only_encoder_decoders_take() -> None:
    decoder = minitx.from_config(GPT2, head="causal-lm", seed=0).eval()
    with pytest.raises(ValueError, match=r"decoder_prompts=.* must be None for models without an encoder"):
        greedy(decoder, [[5]], decoder_prompts=[[0]])
    with pytest.raises(ValueError, match=r"sources=.* must be None for a model without an encoder"):
        minitx.score(decoder, [[5]], sources=[[5]])


@pytest.mark.parametrize("head", ["none", "encoder", "sequence-classification"])
def test_a_model_that_writes_nothing(head: str) -> None:
    with pytest.raises(ValueError, match='an encoder-decoder with head="seq2seq-lm"'):
        greedy(made("t5", T5, head), [[5]])


# --- the same by other ways --------------------------------------------------------------------------


def test_a_padded_tensor_of_texts_to_read(bart: EncoderDecoderModel) -> None:
    ids = torch.tensor([[5, 6, 7], [8, 1, 1]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert greedy(bart, ids, attention_mask=mask) == greedy(bart, [[5, 6, 7], [8]])


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_beginning_in_pieces(chunk: int, bart: EncoderDecoderModel) -> None:
    begun = [[2, 5, 6, 7], [2, 9]]
    whole = greedy(bart, [[5, 6], [7]], decoder_prompts=begun)
    assert greedy(bart, [[5, 6], [7]], decoder_prompts=begun, prefill_chunk=chunk) == whole


def test_a_row_that_ends_at_once_beside_one_that_goes_on(bart: EncoderDecoderModel) -> None:
    first = greedy(bart, [[5, 6], [7, 8, 9]], max_new_tokens=4)
    found = minitx.generate(
        bart, [[5, 6], [7, 8, 9]], Greedy(), max_new_tokens=4, stop=Stop(eos=(first[0][0],))
    )
    assert found.sequences[0].tolist() == first[0][:1]
    assert found.finish_reasons[0] == "eos"
    assert found.sequences[1].tolist()[:1] == first[1][:1]


def test_scores_of_texts_are_those_of_their_tokens(
    of_tokenizer: EncoderDecoderModel, tokenizer: Tokenizer
) -> None:
    """Encoded as targets are, with their end."""
    sources, texts = ["the cat sat", "a dog"], ["a cat", "the dog sat"]
    ids = [tokenizer.encode(text, as_target=True) for text in texts]
    by_text = minitx.score(of_tokenizer, texts, sources=sources, tokenizer=tokenizer)
    by_ids = minitx.score(of_tokenizer, ids, sources=[tokenizer.encode(text) for text in sources])
    assert torch.equal(by_text.totals, by_ids.totals)
    assert [len(row) for row in by_text.logprobs] == [len(row) for row in ids]
    mean = torch.stack([row.mean() for row in by_text.logprobs])
    assert torch.allclose(by_text.perplexities, torch.exp(-mean))


def test_the_start_token_of_generation_config_comes_first(tmp_path: Path) -> None:
    minitx.save(made("bart", BART), tmp_path)
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": 0}', encoding="utf-8")
    model = minitx.load(tmp_path)
    assert greedy(model, [[5, 6]]) == greedy(model, [[5, 6]], decoder_prompts=[[0]])
    found = minitx.score(model, [[9]], sources=[[5, 6]]).totals[0]
    of_start = [
        model(torch.tensor([[5, 6]]), None, torch.tensor([[start]])).logits[0, 0].log_softmax(-1)[9]
        for start in (0, 2)
    ]
    assert torch.allclose(found, of_start[0], atol=1e-6)
    assert not torch.allclose(found, of_start[1], atol=1e-3)
