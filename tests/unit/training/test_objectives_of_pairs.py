"""Objectives of labelled examples, conversations, preferences, pairs, and of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import minitx
from minitx.tokenizer import Tokenizer
from minitx.training import (
    DPO,
    AnswerSpans,
    CausalLM,
    Denoising,
    Distillation,
    GeneratorAndDiscriminator,
    Instruct,
    MaskedLM,
    ReplacedTokens,
    SentencePairs,
    Seq2SeqLM,
    SequenceLabels,
    SpanCorruption,
    TokenLabels,
    TrainConfig,
    read_records,
    train,
)
from minitx.training.loop import Run
from minitx.training.objectives.contrastive import pair_loss
from minitx.training.objectives.conversation import encode_response, response_characters
from minitx.training.objectives.distillation import distillation_loss
from minitx.training.objectives.labelled import align_labels
from minitx.training.objectives.preference import (
    REFERENCE,
    dpo_loss,
    reference_log_probabilities,
    sequence_log_probabilities,
)
from minitx.training.objectives.replaced import draw_tokens
from minitx.training.objectives.seq2seq import smoothed_cross_entropy
from minitx.training.tokenizers import train_tokenizer
from tests.real import MINILM
from tests.unit.training.words import MARKED, PLAIN, TALK, WORDS, word_tokenizer

SIZES = {"vocab_size": 90, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
GPT2 = {"model_type": "gpt2", "vocab_size": 90, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 64}
BERT = {"model_type": "bert", **SIZES, "intermediate_size": 20, "max_position_embeddings": 64}
ELECTRA = {**BERT, "model_type": "electra", "embedding_size": 8}
NO_RANDOMNESS = torch.Generator()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return minitx.load_tokenizer(MINILM)


def model(config: dict[str, Any], head: str, seed: int = 0, **more: Any) -> Any:
    return minitx.from_config(config | more, head=head, seed=seed, dtype="float64").eval()


# --- conversations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [MARKED, PLAIN])
def test_only_responses_are_learned(words: Tokenizer, template: str) -> None:
    """With marks or by rendering beginnings: here the same, but for the space that belongs to no word."""
    text, responses = response_characters(words, TALK, template=template)
    assert text == words.apply_chat_template(TALK, template=PLAIN, add_generation_prompt=False)
    assert [text[start:end].strip() for start, end in responses] == ["w4 w5 </s>", "w7 </s>"]
    batch = Instruct(words, template=template)([{"messages": TALK}], NO_RANDOMNESS)
    learned = batch["labels"][0]
    assert words.decode(learned[learned != -100]) == "w4w5</s>w7</s>"
    at = learned != -100
    assert torch.equal(learned[at], batch["input_ids"][0][at])


@pytest.mark.parametrize("style", ["gpt2", "llama"])
def test_responses_in_subwords(style: str) -> None:
    """Also where a space, or a byte of a character, is a token or part of one."""
    messages = [
        {"role": "user", "content": "Où? 猫 "},
        {"role": "assistant", "content": "  naïve 🦜 café "},
        {"role": "user", "content": "assistant"},
        {"role": "assistant", "content": "Là."},
    ]
    trained = train_tokenizer(["one two three cafe user assistant"], style, chat_template="chatml")
    batch = Instruct(trained)([{"messages": messages}], NO_RANDOMNESS)
    learned = batch["labels"][0]
    decoded = trained.decode(learned[learned != -100])  # without the first space, with some styles
    assert decoded.lstrip() == "naïve 🦜 café <|im_end|>Là.<|im_end|>"
    assert trained.decode(batch["input_ids"][0]) == trained.apply_chat_template(
        messages, add_generation_prompt=False
    )


def test_templates_in_which_responses_cannot_be_found(words: Tokenizer) -> None:
    last_only = (
        "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}{{ m.content }} {% endif %}"
        "{% endfor %}"
    )
    with pytest.raises(
        ValueError, match=r"begins with that of the conversation up to messages\[2\]; use a template"
    ):
        response_characters(words, TALK, template=last_only)
    with pytest.raises(ValueError, match='one of role "assistant" to learn from'):
        response_characters(words, TALK[:2])
    with pytest.raises(ValueError, match="does not begin with a response"):
        response_characters(words, TALK[2:3])
    cut = "{% generation %}{{ messages[0].content }}{% generation %}{% endgeneration %}{% endgeneration %}"
    with pytest.raises(ValueError, match="nests or cuts"):
        response_characters(words, TALK, template=cut)
    with pytest.raises(ValueError, match=r"examples\[0\].*'messages'; or with 'prompt' and 'response'"):
        Instruct(words)([{"text": "w1"}], NO_RANDOMNESS)


def test_marks_leave_no_trace(words: Tokenizer) -> None:
    """In a text that is trimmed after the marks, too."""
    trimmed = (
        "{% set x %}{% generation %} {{ messages[-1].content }} {% endgeneration %}{% endset %}{{ x | trim }}"
    )
    text, responses = words.chat.render_marked(TALK, template=trimmed)
    assert text.strip() == "w7"
    assert [text[start:end].strip() for start, end in responses] == ["w7"]


def test_prompt_and_response_as_texts(words: Tokenizer) -> None:
    ids, labels = encode_response(words, "w1 w2", "w3")
    w1 = words.token_to_id("w1")
    assert ids == [1, w1, w1 + 1, w1 + 2, 2]
    assert labels == [-100, -100, -100, w1 + 2, 2]
    batch = Instruct(words)([{"prompt": "w1 w2", "response": "w3"}], NO_RANDOMNESS)
    assert batch["labels"].tolist() == [labels]


def test_conversations_are_cut_and_packed(words: Tokenizer) -> None:
    whole = Instruct(words)([{"messages": TALK}], NO_RANDOMNESS)
    cut = Instruct(words, max_length=12)([{"messages": TALK}], NO_RANDOMNESS)
    assert torch.equal(cut["labels"], whole["labels"][:, :12])
    examples = [{"messages": TALK}, {"prompt": "w1", "response": "w2"}]
    packed = Instruct(words, max_length=40, packed=True)(examples, NO_RANDOMNESS)
    apart = Instruct(words)(examples, NO_RANDOMNESS)
    assert packed["input_ids"].shape[0] == 1
    assert sorted(packed["labels"][packed["labels"] != -100]) == sorted(
        apart["labels"][apart["labels"] != -100]
    )
    decoder = model(GPT2, "causal-lm")
    first, second = (Instruct(words).loss(decoder, batch) for batch in (packed, apart))
    assert first.count == second.count
    assert abs(first.total - second.total) < 1e-9
    with pytest.raises(TypeError, match="max_length"):
        Instruct(words, packed=True)


# --- preferences ---------------------------------------------------------------------------------------

logs = st.lists(st.floats(-50, 0), min_size=4, max_size=4)


@given(logs, st.floats(0.01, 2), st.floats(0, 0.49))
def test_the_formula_of_dpo(values: list[float], beta: float, smoothing: float) -> None:
    """Against numpy: equation 7 of the paper, and its mixture with the pair the other way around."""
    chosen, rejected, reference_chosen, reference_rejected = np.array(values)
    ratio = beta * (chosen - reference_chosen) - beta * (rejected - reference_rejected)
    expected = (1 - smoothing) * np.logaddexp(0, -ratio) + smoothing * np.logaddexp(0, ratio)
    tensors = torch.tensor(values, dtype=torch.float64)[:, None]
    loss = dpo_loss(*tensors, beta=beta, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected, abs=1e-12, rel=1e-12)


def test_preferences_of_texts_and_of_conversations(words: Tokenizer) -> None:
    policy, reference = model(GPT2, "causal-lm"), model(GPT2, "causal-lm", seed=1)
    texts = {"prompt": "w1 w2", "chosen": "w3 w4", "rejected": "w5"}
    spoken = {
        "prompt": TALK[:2],
        "chosen": [{"role": "assistant", "content": "w3 w4"}],
        "rejected": [{"role": "assistant", "content": "w5"}],
    }
    whole = {name: [*TALK[:2], *spoken[name]] for name in ("chosen", "rejected")}
    objective = DPO(words, reference, beta=0.3, label_smoothing=0.1)
    for example in (texts, spoken, whole):
        batch = objective([example, example], NO_RANDOMNESS)
        assert batch["input_ids"].shape[0] == 4
        loss = objective.loss(policy, batch)
        assert loss.count == 2
        by_hand = {}
        for name, network in (("policy", policy), ("reference", reference)):
            log = network(batch["input_ids"], batch["attention_mask"]).logits.log_softmax(-1)
            for row, side in ((0, "chosen"), (2, "rejected")):
                by_hand[name, side] = sum(
                    log[row, place - 1, label]
                    for place, label in enumerate(batch["labels"][row].tolist())
                    if label != -100
                )
        margin = (by_hand["policy", "chosen"] - by_hand["policy", "rejected"]) - (
            by_hand["reference", "chosen"] - by_hand["reference", "rejected"]
        )
        expected = 2 * (-0.9 * F.logsigmoid(0.3 * margin) - 0.1 * F.logsigmoid(-0.3 * margin))
        assert abs(loss.total - expected) < 1e-9
        stated = reference_log_probabilities(reference, batch)
        assert not stated.requires_grad
        names = {"reference_chosen": stated[0].item(), "reference_rejected": stated[2].item()}
        without = DPO(words, beta=0.3, label_smoothing=0.1)
        same = without.loss(policy, without([example | names] * 2, NO_RANDOMNESS))
        assert abs(loss.total - same.total) < 1e-5  # stated in float32
    loss.total.backward()
    assert all(p.grad is None for p in reference.parameters())
    with pytest.raises(ValueError, match="'reference_chosen'"):
        DPO(words)([texts], NO_RANDOMNESS)
    with pytest.raises(ValueError, match=r"reference.eval\(\)"):
        DPO(words, reference.train())
    assert sequence_log_probabilities(
        torch.zeros(1, 3, 4), torch.tensor([[1, 2, -100]])
    ).item() == pytest.approx(-np.log(4))


# --- labels --------------------------------------------------------------------------------------------


def test_labels_of_sequences(words: Tokenizer) -> None:
    examples = [{"text": "w1", "labels": 2}, {"text": "w1 w2", "pair": "w3", "labels": 0}]
    batch = SequenceLabels(words, 3)(examples, NO_RANDOMNESS)
    assert batch["labels"].tolist() == [2, 0]
    assert batch["input_ids"].shape == (2, 6)
    several = SequenceLabels(words, 2, multiple=True)([{"text": "w1", "labels": [0.0, 1]}], NO_RANDOMNESS)
    assert several["labels"].tolist() == [[0, 1]]
    assert several["labels"].dtype == torch.float32
    number = SequenceLabels(words, 1)([{"text": "w1", "labels": -1.5}], NO_RANDOMNESS)
    assert number["labels"].tolist() == [-1.5]
    for objective, label, error in (
        (SequenceLabels(words, 3), 3, r"examples\[0\]\['labels'\]=3 must be from 0 to 2"),
        (SequenceLabels(words, 3), 1.0, "an integer"),
        (SequenceLabels(words, 2, multiple=True), [1], "one for each of the classes, 2 and not 1"),
        (SequenceLabels(words, 1), float("nan"), "must be in"),
    ):
        with pytest.raises((ValueError, TypeError), match=error):
            objective([{"text": "w1", "labels": label}], NO_RANDOMNESS)
    classifier = model(BERT, "sequence-classification", num_labels=3)
    loss = SequenceLabels(words, 3).loss(classifier, batch)
    alone = [SequenceLabels(words, 3)([example], NO_RANDOMNESS) for example in examples]
    losses = [SequenceLabels(words, 3).loss(classifier, part) for part in alone]
    assert loss.count == 2
    assert abs(loss.total - sum(part.total for part in losses)) < 1e-9


def test_numbers_of_a_table(words: Tokenizer, tmp_path: Path) -> None:
    """A CSV has texts alone; those of a regression are read as numbers."""
    (tmp_path / "stars.csv").write_text("review,stars\nw1,3.5\nw2,-1e2\n")
    examples = read_records(tmp_path / "stars.csv", text="review", labels="stars")
    batch = SequenceLabels(words, 1)(examples, NO_RANDOMNESS)
    assert batch["labels"].tolist() == [3.5, -100.0]
    for value, error in (("five", TypeError), ("nan", ValueError), ("inf", ValueError), ("", TypeError)):
        with pytest.raises(error, match=r"examples\[0\]\['labels'\]=.*also as text in a table"):
            SequenceLabels(words, 1)([{"text": "w1", "labels": value}], NO_RANDOMNESS)


def test_the_first_token_of_a_word_is_labelled(minilm: Tokenizer) -> None:
    examples = [
        {"words": ["Internationalization", "is", "subdividing"], "labels": [2, 0, 1]},
        {"words": ["a"], "labels": [1]},
        {"input_ids": [5, 6, 7], "labels": [-100, 2, 0]},
    ]
    with pytest.raises(ValueError, match=r"examples\[2\].*like the first"):
        TokenLabels(minilm, 3)(examples, NO_RANDOMNESS)
    batch = TokenLabels(minilm, 3)(examples[:2], NO_RANDOMNESS)
    row = batch["labels"][0]
    tokens = [minilm.id_to_token(index) for index in batch["input_ids"][0].tolist()]
    assert [token for token, label in zip(tokens, row.tolist(), strict=True) if label != -100] == [
        tokens[1],
        "is",
        "sub",
    ]
    assert row[row != -100].tolist() == [2, 0, 1]
    assert TokenLabels(minilm, 3)(examples[2:], NO_RANDOMNESS)["labels"].tolist() == [[-100, 2, 0]]
    assert align_labels([None, 0, 0, 1, None, 1], [7, 8]) == [-100, 7, -100, 8, -100, 8]
    short = TokenLabels(minilm, 3, max_length=4)(examples[:1], NO_RANDOMNESS)
    assert short["labels"].shape == (1, 4)
    for wrong, error in (
        ({"words": ["a"], "labels": [1, 2]}, "one for each of words, 1 and not 2"),
        ({"words": ["a"], "labels": [3]}, "from 0 to 2"),
        ({"input_ids": [1], "labels": [1, 2]}, "one for each of input_ids"),
    ):
        with pytest.raises(ValueError, match=error):
            TokenLabels(minilm, 3)([wrong], NO_RANDOMNESS)
    with pytest.raises(ValueError, match="num_labels=1 must be at least 2; with one class there is nothing"):
        TokenLabels(minilm, 1)


@given(st.integers(0, 29), st.integers(1, 4), st.integers(12, 30), st.integers(0, 4))
def test_answers_are_found_in_every_window(
    minilm: Tokenizer, first: int, size: int, max_length: int, stride: int
) -> None:
    """A row has the answer's tokens as labels if it has all of them, else its first token."""
    ids = [index for index in range(2200, 2300) if (minilm.id_to_token(index) or "").isalpha()][:34]
    tokens = [minilm.id_to_token(index) or "" for index in ids]
    context, answer = " ".join(tokens), " ".join(tokens[first : first + size])
    start = len(" ".join(tokens[:first])) + (first > 0)
    answers = {"text": [answer], "answer_start": [start]}
    example = {"question": "Which?", "context": context, "answers": answers}
    batch = AnswerSpans(minilm, max_length, stride)([example], NO_RANDOMNESS)
    assert minilm.encode(context, add_special_tokens=False) == ids
    for row, (begin, end) in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        if {*ids[first : first + size]} <= {*row}:
            assert row[begin : end + 1] == ids[first : first + size]
        else:
            assert (begin, end) == (0, 0)


def test_answers_that_are_not_there(minilm: Tokenizer) -> None:
    objective = AnswerSpans(minilm, 16, 2)
    none = {"question": "Who?", "context": "Nobody.", "answers": {"text": [], "answer_start": []}}
    batch = objective([none], NO_RANDOMNESS)
    assert batch["labels"].tolist() == [[0, 0]]
    assert batch["input_ids"][0, 0] == minilm.cls_token_id
    wrong = none | {"answers": {"text": ["body"], "answer_start": [0]}}
    with pytest.raises(ValueError, match="a text of the context from character 0 on; there it has 'Nobo'"):
        objective([wrong], NO_RANDOMNESS)
    for answers in (
        ["body"],
        {"text": ["body"]},
        {"text": [3], "answer_start": [2]},
        {"text": ["body"], "answer_start": ["2"]},
        {"text": ["body"], "answer_start": [2.0]},
        {"text": ["body"], "answer_start": []},
        {"text": "body", "answer_start": 2},
    ):
        with pytest.raises(TypeError, match=r"\['answers'\]=.*with a string and an integer for each answer"):
            objective([none | {"answers": answers}], NO_RANDOMNESS)
    for start in (torch.tensor([2]), [torch.tensor(2)], [np.int64(2)], np.array([2])):  # pandas has such
        array = {"text": ["body"], "answer_start": start}
        assert objective([none | {"answers": array}], NO_RANDOMNESS)["labels"].shape == (1, 2)
    with pytest.raises(TypeError, match=r"examples\[1\]\['question'\]=3 must be a string"):
        objective([none, none | {"question": 3}], NO_RANDOMNESS)
    two = objective([none, none | {"question": "And who else?"}], NO_RANDOMNESS)
    assert len(two["labels"]) == len(two["input_ids"]) == 2
    reader = model({**BERT, "vocab_size": 31000}, "question-answering")
    assert objective.loss(reader, batch).count == 1


# --- sequence to sequence ------------------------------------------------------------------------------


@given(st.floats(0, 0.9), st.integers(0, 2**32))
def test_smoothed_labels(smoothing: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (3, 5), generator=generator)
    labels[0, :2] = -100
    logs = logits.log_softmax(-1)[labels != -100].numpy()
    wanted = np.full(logs.shape, smoothing / 7)
    wanted[np.arange(len(logs)), labels[labels != -100].numpy()] += 1 - smoothing
    loss = smoothed_cross_entropy(logits, labels, smoothing)
    assert loss.item() == pytest.approx(-(wanted * logs).sum(), rel=1e-12)


def test_sources_and_targets(words: Tokenizer) -> None:
    examples = [{"text": "w1 w2", "target": "w3"}, {"text": "w4", "target": "w5 w6"}]
    batch = Seq2SeqLM(words)(examples, NO_RANDOMNESS)
    w1 = words.token_to_id("w1")
    assert batch["input_ids"].tolist() == [[1, w1, w1 + 1, 2], [1, w1 + 3, 2, 0]]
    assert batch["labels"].tolist() == [[1, w1 + 2, 2, -100], [1, w1 + 4, w1 + 5, 2]]
    ids = [{"input_ids": [1, w1, w1 + 1, 2], "labels": [1, w1 + 2, 2]}]
    assert Seq2SeqLM()(ids, NO_RANDOMNESS)["labels"].tolist() == [[1, w1 + 2, 2]]
    with pytest.raises(ValueError, match="'target'; or with 'labels'"):
        Seq2SeqLM(words)([{"text": "w1"}], NO_RANDOMNESS)
    t5 = {
        "model_type": "t5",
        "vocab_size": 90,
        "d_model": 12,
        "d_kv": 4,
        "d_ff": 20,
        "num_layers": 1,
        "num_heads": 3,
    }
    t5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
    network = model(t5, "seq2seq-lm")
    plain, smooth = (Seq2SeqLM(words, label_smoothing=x).loss(network, batch) for x in (0.0, 1e-12))
    assert plain.count == smooth.count == 7
    assert abs(plain.total - smooth.total) < 1e-9


# --- pairs of sentences --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The MultipleNegativesSymmetricRankingLoss is deprecated")
@given(st.integers(1, 6), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_the_loss_of_pairs(pairs: int, symmetric: bool, negatives: bool, seed: int) -> None:
    """Against sentence-transformers' own."""
    from sentence_transformers.sentence_transformer import losses as theirs

    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(pairs, 5, generator=generator) for _ in range(3 if negatives else 2)]
    kind = theirs.MultipleNegativesSymmetricRankingLoss if symmetric else theirs.MultipleNegativesRankingLoss
    expected = kind(None, scale=20.0).compute_loss_from_embeddings(draw, None)
    found = pair_loss(draw[0], torch.cat(draw[1:]), symmetric=symmetric).mean()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first", "max", ("mean", "last")])
def test_vectors_are_those_of_embed(minilm: Tokenizer, pooling: Any) -> None:
    encoder = minitx.load(MINILM).eval()
    examples = [
        {"anchor": "A cat.", "positive": "A kitten sleeps.", "negative": "Stocks fell."},
        {"anchor": "It rains a lot today.", "positive": "Wet weather.", "negative": "A dog barks."},
    ]
    objective = SentencePairs(minilm, pooling, scale=10.0)
    batch = objective(examples, NO_RANDOMNESS)
    assert batch["num_pairs"] == 2
    loss = objective.loss(encoder, batch)
    vectors = [
        minitx.embed(encoder, [example[name] for example in examples], minilm, pooling=pooling)
        for name in ("anchor", "positive", "negative")
    ]
    scores = 10 * F.normalize(vectors[0]) @ F.normalize(torch.cat(vectors[1:])).T
    assert abs(loss.total - F.cross_entropy(scores, torch.arange(2), reduction="sum")) < 1e-4
    assert loss.count == 2
    with pytest.raises(ValueError, match="'negative'"):
        objective([examples[0], {"anchor": "a", "positive": "b"}], NO_RANDOMNESS)
    with pytest.raises(ValueError, match="pooling"):
        SentencePairs(minilm, "median")


# --- two models ----------------------------------------------------------------------------------------


def test_tokens_are_drawn_from_the_distribution() -> None:
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().expand(50_000, 4)
    draws = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    shares = draw_tokens(logits, draws).bincount(minlength=4) / 50_000
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.01)
    assert draw_tokens(torch.zeros(2, 3), torch.tensor([0.0, 1 - 2**-24])).tolist() == [0, 2]


def test_generator_and_discriminator(words: Tokenizer) -> None:
    generator = model(ELECTRA | {"hidden_size": 6, "intermediate_size": 8}, "masked-lm")
    discriminator = model(ELECTRA, "replaced-token-detection", seed=1)
    pair = GeneratorAndDiscriminator(generator, discriminator)
    assert generator.embedder.word_emb.weight is discriminator.embedder.word_emb.weight
    assert generator.head.projection.weight is discriminator.embedder.word_emb.weight
    objective = ReplacedTokens(words, 0.4)
    examples = [{"text": " ".join(WORDS[:20])}, {"text": "w1 w2"}]
    batch = objective(examples, torch.Generator().manual_seed(0))
    output = pair(**batch)
    hidden = batch["labels"] != -100
    assert (batch["input_ids"][hidden] == words.mask_token_id).all()
    original = torch.where(hidden, batch["labels"], batch["input_ids"])
    assert torch.equal(output.replaced.bool(), output.input_ids != original)
    assert output.replaced.any()
    loss = objective.loss(pair, batch)
    assert loss.count == batch["attention_mask"].sum()
    mean = output.generator.loss + 50 * output.discriminator.loss
    assert abs(loss.total / loss.count - mean) < 1e-9
    loss.total.backward()
    assert all(p.grad is not None for name, p in pair.named_parameters() if "pooler" not in name)
    alone = ReplacedTokens(words, generator_weight=0)  # no gradient passes through the drawn tokens
    pair.zero_grad()
    alone.loss(pair, batch).total.backward()
    assert not generator.encoder.layers[0].intermediate.dense.weight.grad.any()
    nothing = batch | {"labels": torch.full_like(hidden, -100, dtype=torch.long)}
    assert torch.isfinite(objective.loss(pair, nothing).total)


def test_pairs_of_models_that_do_not_fit(words: Tokenizer) -> None:
    generator, discriminator = model(ELECTRA, "masked-lm"), model(ELECTRA, "replaced-token-detection")
    with pytest.raises(ValueError, match="a model with head='masked-lm'"):
        GeneratorAndDiscriminator(discriminator, discriminator)
    wide = model(ELECTRA | {"embedding_size": 12}, "masked-lm")
    with pytest.raises(
        ValueError, match=r"word_emb of shape \(90, 8\) like the discriminator's, not \(90, 12\)"
    ):
        GeneratorAndDiscriminator(wide, discriminator)
    assert GeneratorAndDiscriminator(wide, discriminator, share_embeddings=False)
    with pytest.raises(ValueError, match="a GeneratorAndDiscriminator"):
        ReplacedTokens(words).loss(generator, {})


@given(st.floats(0.2, 5), st.integers(0, 2**32))
def test_the_formula_of_distillation(temperature: float, seed: int) -> None:
    student, teacher = torch.randn(
        2, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )

    def softmax(logits: torch.Tensor) -> Any:
        x = np.exp(logits.numpy() / temperature)
        return x / x.sum(-1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    expected = temperature**2 * (p * np.log(p / q)).sum(-1)
    assert np.allclose(distillation_loss(student, teacher, temperature).numpy(), expected, atol=1e-10)


def test_distillation_on_top_of_an_objective(words: Tokenizer) -> None:
    examples = [{"text": "w1 w2 w3"}, {"text": "w4"}]
    student, teacher = model(GPT2, "causal-lm"), model(GPT2 | {"n_layer": 1}, "causal-lm", seed=1)
    hard = CausalLM(words)
    batch = hard(examples, NO_RANDOMNESS)
    soft = Distillation(hard, teacher, temperature=3.0, hard_weight=0.25)
    assert all(torch.equal(x, batch[name]) for name, x in soft(examples, NO_RANDOMNESS).items())
    loss = soft.loss(student, batch)
    by_hand = 0.25 * hard.loss(student, batch).total
    logits, wanted = (network(**batch).logits for network in (student, teacher))
    for row, labels in enumerate(batch["labels"].tolist()):
        for place in range(1, len(labels)):
            if labels[place] != -100:
                one = distillation_loss(logits[row, place - 1], wanted[row, place - 1], 3.0)
                by_hand = by_hand + 0.75 * one
    assert abs(loss.total - by_hand) < 1e-9
    loss.total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    itself = Distillation(hard, student, hard_weight=0).loss(student, batch)
    assert abs(itself.total) < 1e-9
    with pytest.raises(ValueError, match=r"teacher.eval\(\)"):
        Distillation(hard, teacher.train())
    other = model(GPT2 | {"vocab_size": 91}, "causal-lm")
    with pytest.raises(ValueError, match="logits of shape"):
        Distillation(hard, other).loss(student, batch)
    with pytest.raises(ValueError, match="a student like the teacher"):
        Distillation(MaskedLM(words), model(BERT, "masked-lm")).loss(student, batch)


@pytest.mark.parametrize("task", ["masked-lm", "sequence-classification", "token-classification"])
def test_distillation_of_encoders(words: Tokenizer, task: str) -> None:
    objective, example = {
        "masked-lm": (MaskedLM(words, 0.5), {"text": " ".join(WORDS)}),
        "sequence-classification": (SequenceLabels(words, 3), {"text": "w1", "labels": 2}),
        "token-classification": (TokenLabels(words, 3), {"words": ["w1", "w2"], "labels": [2, 0]}),
    }[task]
    student, teacher = (model(BERT, task, seed=seed, num_labels=3) for seed in (0, 1))
    batch = objective([example] * 2, torch.Generator().manual_seed(0))
    loss = Distillation(objective, teacher, hard_weight=0).loss(student, batch)
    targets = batch["labels"] != -100
    soft = distillation_loss(student(**batch).logits[targets], teacher(**batch).logits[targets], 2.0)
    assert abs(loss.total - soft.sum()) < 1e-9
    assert loss.count == targets.sum()


def test_a_tokenizer_without_padding(tmp_path: Path) -> None:
    bare = word_tokenizer(tmp_path, pad_token=None)
    batch = CausalLM(bare)([{"text": "w1"}, {"text": "w1 w2"}], NO_RANDOMNESS)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


# --- in a run ------------------------------------------------------------------------------------------

PREFERENCE = {"chosen": "w3 w4", "rejected": "w5", "reference_chosen": -3.0, "reference_rejected": -2.0}
INDEPENDENT: dict[str, tuple[Any, list[dict[str, Any]], str]] = {
    "causal": (CausalLM, [{"text": "w1 w2 w3"}, {"text": "w4"}, {"text": "w5 w6"}], "causal-lm"),
    "packed": (
        lambda words: CausalLM(words, length=8),
        [{"text": "w1 w2 w3"}, {"text": "w4"}, {"text": "w5 w6"}],
        "causal-lm",
    ),
    "instruct": (
        Instruct,
        [{"messages": TALK}, {"messages": TALK[:3]}, {"messages": TALK[1:]}],
        "causal-lm",
    ),
    "dpo": (DPO, [PREFERENCE | {"prompt": f"w{n}"} for n in range(3)], "causal-lm"),
    "labels": (
        lambda words: SequenceLabels(words, 3),
        [{"text": "w1", "labels": 2}, {"text": "w2 w3", "labels": 0}, {"text": "w4", "labels": 1}],
        "sequence-classification",
    ),
    "multiple": (
        lambda words: SequenceLabels(words, 3, multiple=True),
        [{"text": f"w{n}", "labels": [0, 1, 0.5]} for n in range(3)],
        "sequence-classification",
    ),
    "tokens": (
        lambda words: TokenLabels(words, 3),
        [{"words": WORDS[:n], "labels": [1] * n} for n in (3, 1, 5)],
        "token-classification",
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_losses_of_parts_add_up(words: Tokenizer, name: str) -> None:
    """So accumulation over micro-batches is one batch of all of them."""
    make, examples, head = INDEPENDENT[name]
    objective, config = make(words), GPT2 if head == "causal-lm" else BERT
    network = model(config, head, num_labels=3)
    whole = objective.loss(network, objective(examples, NO_RANDOMNESS))
    parts = [objective.loss(network, objective(x, NO_RANDOMNESS)) for x in (examples[:2], examples[2:])]
    assert whole.count == sum(part.count for part in parts)
    assert abs(whole.total - sum(part.total for part in parts)) < 1e-9


def test_models_with_another_head(words: Tokenizer) -> None:
    encoder = model(BERT, "masked-lm")
    for objective, task in (
        (CausalLM(words), "causal-lm"),
        (DPO(words), "causal-lm"),
        (Seq2SeqLM(words, 0.1), "seq2seq-lm"),
    ):
        with pytest.raises(ValueError, match=rf"model\.task='masked-lm' must be '{task}'; load or build"):
            objective.loss(encoder, {})
    with pytest.raises(ValueError, match=r"model\.task=None must be 'masked-lm'"):
        MaskedLM(words).loss(model(BERT, "none"), {})


def test_every_objective_trains(words: Tokenizer) -> None:
    """In the loop, the loss of a few examples falls."""
    small, bert = GPT2 | {"n_layer": 1}, BERT | {"num_hidden_layers": 1}
    t5 = {"model_type": "t5", "vocab_size": 90, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 1}
    t5 |= {"num_heads": 3, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
    texts = [{"text": " ".join(WORDS[n : n + 9])} for n in range(0, 40, 10)]
    electra = GeneratorAndDiscriminator(
        *(model(ELECTRA, head) for head in ("masked-lm", "replaced-token-detection"))
    )
    pairs = [{"anchor": f"w{n}", "positive": f"w{n} w{n + 1}"} for n in range(0, 40, 10)]
    cases: list[tuple[Any, Any, list[dict[str, Any]]]] = [
        (MaskedLM(words, 0.5), model(bert, "masked-lm"), texts),
        (SpanCorruption(words), model(t5, "seq2seq-lm"), texts),
        (Denoising(words), model(t5, "seq2seq-lm"), texts),
        (ReplacedTokens(words, 0.4, discriminator_weight=1), electra, texts),
        (
            Seq2SeqLM(words, label_smoothing=0.1),
            model(t5, "seq2seq-lm"),
            [x | {"target": "w1"} for x in texts],
        ),
        (SentencePairs(words), model(bert, "none"), pairs),
        (Distillation(CausalLM(words), model(GPT2, "causal-lm", seed=1)), model(small, "causal-lm"), texts),
    ]
    for name in ("packed", "instruct", "dpo", "labels", "tokens"):
        make, examples, head = INDEPENDENT[name]
        config = small if head == "causal-lm" else bert
        cases.append((make(words), model(config, head, num_labels=3), examples))
    settings = TrainConfig(steps=25, batch_size=len(texts), learning_rate=1e-2, weight_decay=0.0)
    for objective, network, examples in cases:
        examples = (examples * 4)[: len(texts)]
        result = train(network, examples, objective, settings)
        losses = [row["loss"] for row in result.metrics if "loss" in row]
        assert losses[-1] < losses[0], objective


def test_pairs_with_and_without_a_negative(words: Any) -> None:
    pair = {"anchor": "w1", "positive": "w2"}
    for examples in ([pair, pair | {"negative": "w3"}], [pair | {"negative": "w3"}, pair]):
        with pytest.raises(ValueError, match="either all pairs have a negative, or none"):
            SentencePairs(words)(examples, NO_RANDOMNESS)


def test_one_pair_alone_has_no_target(words: Any) -> None:
    """Without negatives its own positive is the only candidate: nothing can be learned."""
    pairs = [{"anchor": f"w{n}", "positive": f"w{n} w{n + 1}"} for n in range(0, 15, 5)]
    objective, network = SentencePairs(words), model(BERT, "none")
    alone = objective(pairs[:1], NO_RANDOMNESS)
    error = r"{} must be at least 2 pairs in a batch.*; {}add 'negative' to the examples"
    with pytest.raises(ValueError, match=error.format(r"batch\['num_pairs'\]=1", "")):
        objective.loss(network, alone)
    one, two = (TrainConfig(steps=1, batch_size=size) for size in (1, 2))
    for config, dataset, evaluation, parameter, remedy in (
        (one, pairs, None, "batch_size=1", "raise it, or "),
        (two, pairs[:1], None, r"dataset=\[.*\]", "add examples, or "),
        (one, pairs[:1], None, r"dataset=\[.*\]", "add examples, or "),
        (two, pairs, pairs[:1], r"evaluation=\[.*\]", "add examples, or "),
    ):
        with pytest.raises(ValueError, match=error.format(parameter, remedy)) as raised:
            train(network, dataset, objective, config, evaluation=evaluation)
        assert not hasattr(raised.value, "__notes__")  # that name a step
    with torch.no_grad():  # the last batch of an evaluation
        assert objective.loss(network, alone).count == 0
    loss = Run(network, pairs, objective, two).evaluate(pairs)
    whole = objective.loss(network.eval(), objective(pairs[:2], NO_RANDOMNESS))
    assert abs(loss - whole.total.item() / 2) < 1e-9
    train(network, [pair | {"negative": "w30"} for pair in pairs], objective, one)


def test_preferences_of_other_types(words: Any) -> None:
    pair = {
        "prompt": "w1",
        "chosen": "w4",
        "rejected": "w5",
        "reference_chosen": -1,
        "reference_rejected": -1,
    }
    for wrong, error in (
        ({"chosen": None}, r"\['chosen'\]=None must be a string or a list of messages; all three"),
        ({"chosen": [3]}, r"\['chosen'\]=\[3\] must be a string or a list of messages"),
        ({"chosen": TALK}, r"\['rejected'\]='w5' must be a list of messages; all three"),
        ({"rejected": ["w5"]}, r"\['rejected'\]=\['w5'\] must be a string; all three"),
        ({"prompt": 3}, r"\['prompt'\]=3 must be a string; all three"),
        ({"prompt": 3, "chosen": TALK, "rejected": TALK}, r"\['prompt'\]=3 must be a list of messages"),
        ({"reference_chosen": None}, r"\['reference_chosen'\]=None must be a number .*; it is a log-prob"),
        ({"reference_rejected": "low"}, r"\['reference_rejected'\]='low' must be a number"),
        ({"reference_rejected": float("nan")}, r"\['reference_rejected'\]=nan must be in"),
    ):
        with pytest.raises((ValueError, TypeError), match=r"examples\[1\]" + error):
            DPO(words)([pair, pair | wrong], NO_RANDOMNESS)
    stated = pair | {"reference_chosen": torch.tensor(-1.0), "reference_rejected": "-2.5"}
    assert DPO(words)([stated], NO_RANDOMNESS)[REFERENCE].tolist() == [-1.0, -2.5]


def test_preferences_without_a_response(words: Any) -> None:
    pair = {"prompt": "w1 w2 w3", "chosen": "w4", "rejected": "w5"}
    stated = pair | {"reference_chosen": -1.0, "reference_rejected": -1.0}
    with pytest.raises(ValueError, match=r"examples\[1\]\['chosen'\].*; max_length=3 cuts it off"):
        DPO(words, max_length=3)([stated | {"prompt": "w1"}, stated], NO_RANDOMNESS)
