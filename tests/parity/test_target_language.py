"""The language to write in: said by minitx's tokenizer, and by the arguments of transformers' `generate`."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

import minitx
from minitx import Alternatives, Beam, Greedy, Sample, Stop
from minitx.decoding import Chain, ForcedBos, NoRepeatNGram, Strategy, SuppressTokens
from minitx.tokenizer import Tokenizer
from tests.parity.reference import pair
from tests.unit.test_cli_seq2seq import LETTERS, M2M100, MBART, make

NEW = 8
ENGLISH, GERMAN = 4, 5
END = 2
READ = ["a b c d", "e f g"]
PADDING = 1  # is not written: the reference would not count the position of one in the text
VARIED: dict[str, Any] = {"no_repeat_ngram_size": 1, "suppress_tokens": [PADDING]}
LITERAL = (NoRepeatNGram(1), SuppressTokens([PADDING]))


class Family(NamedTuple):
    """How one family of models is told its language.

    Attributes:
        name: of the parity case.
        config: of the models that `make` writes beside a tokenizer, with that class of tokenizer.
        tokenizer_class: as tokenizer_config.json names it.
        codes: of English and German.
        start: the start token that the checkpoint states.
        reference: what transformers is told for German.
    """

    name: str
    config: dict[str, Any]
    tokenizer_class: str
    codes: tuple[str, str]
    start: int | None
    reference: dict[str, int]


BEHIND, INSTEAD = {"forced_bos_token_id": GERMAN}, {"decoder_start_token_id": GERMAN}
MBART_CODES = ("en_XX", "de_DE")
FAMILIES = {
    "m2m100": Family("m2m_100", M2M100, "M2M100Tokenizer", ("en", "de"), END, BEHIND),
    "nllb": Family("m2m_100", M2M100, "NllbTokenizer", ("eng_Latn", "deu_Latn"), END, BEHIND),
    "mbart": Family("mbart", MBART, "MBartTokenizer", MBART_CODES, None, INSTEAD),
    "mbart-for-english": Family("mbart", MBART, "MBartTokenizer", MBART_CODES, ENGLISH, INSTEAD),
    "mbart-50": Family("mbart", MBART, "MBart50Tokenizer", MBART_CODES, END, BEHIND),
}


@pytest.fixture(scope="module", params=FAMILIES)
def translator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A family, the reference, the model and its tokenizer, which writes German."""
    family = FAMILIES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    tokens = [f"__{code}__" if len(code) == 2 else code for code in family.codes]
    special = ["<s>", "<pad>", "</s>", "<unk>", *tokens]
    made = make(root / "tokenizer", family.config, special, tokenizer_class=family.tokenizer_class)
    tokenizer = minitx.load_tokenizer(made, src_lang=family.codes[0], tgt_lang=family.codes[1])
    assert tokenizer.language_id(family.codes[1]) == GERMAN
    sizes = {"vocab_size": len(special) + len(LETTERS), "decoder_start_token_id": family.start}
    return family, *pair(family.name, "seq2seq-lm", torch.float32, root, **sizes), tokenizer


def expected(reference: Any, tokenizer: Tokenizer, told: dict[str, int], **options: Any) -> list[list[int]]:
    """The new tokens that transformers gives for each text alone."""
    found = []
    for text in READ:
        torch.manual_seed(0)
        out = reference.generate(
            torch.tensor([tokenizer.encode(text)]),
            max_new_tokens=NEW,
            eos_token_id=None,
            forced_eos_token_id=None,
            pad_token_id=PADDING,
            use_cache=False,  # as in test_seq2seq_generate.py
            **{"do_sample": False, **VARIED, **told, **options},
        )
        found.append(out[0, 1:].tolist())
    return found


def generated(model: Any, tokenizer: Tokenizer, strategy: Strategy, **options: Any) -> list[list[int]]:
    options = {"max_new_tokens": NEW, "stop": Stop(eos=()), **options}
    return [
        row.tolist()
        for text in READ
        for row in minitx.generate(model, [text], strategy, tokenizer=tokenizer, **options).sequences
    ]


def test_the_tokenizer_says_it(translator: Any) -> None:
    family, reference, model, tokenizer = translator
    found = generated(model, tokenizer, Greedy(**VARIED))
    assert found == expected(reference, tokenizer, family.reference)
    assert all((row[0] == GERMAN) == (family.reference is BEHIND) for row in found)
    beams = {"num_beams": 3, "length_penalty": 0.6}
    found = generated(model, tokenizer, Beam(**VARIED, **beams))
    assert found == expected(reference, tokenizer, family.reference, **beams)
    rows = minitx.generate(
        model, READ, Greedy(**VARIED), tokenizer=tokenizer, max_new_tokens=NEW, stop=Stop(eos=())
    )
    assert [row.tolist() for row in rows.sequences] == generated(model, tokenizer, Greedy(**VARIED))
    assert rows.texts is not None
    assert not any(code in text for text in rows.texts for code in family.codes)


def test_sampling_and_what_must_not_come_first(translator: Any) -> None:
    family, reference, model, tokenizer = translator
    settings = {"top_k": 9, "temperature": 1.3}
    wanted = expected(reference, tokenizer, family.reference, do_sample=True, **settings)
    for text, row in zip(READ, wanted, strict=True):
        found = minitx.generate(
            model,
            [text],
            Sample(**VARIED, **settings),
            tokenizer=tokenizer,
            max_new_tokens=NEW,
            stop=Stop(eos=()),
            generator=torch.Generator().manual_seed(0),
        )
        assert found.sequences[0].tolist() == row
    banned = {"begin_suppress_tokens": [*range(6, 20)]}
    found = generated(model, tokenizer, Greedy(**VARIED, **banned))
    assert found == expected(reference, tokenizer, family.reference, **banned)


def test_a_literal_chain_and_a_token_of_the_strategy(translator: Any) -> None:
    family, reference, model, tokenizer = translator
    literal = Greedy(chain=Chain(*LITERAL))
    assert generated(model, tokenizer, literal) == generated(model, tokenizer, Greedy(**VARIED))
    told = {**family.reference, "forced_bos_token_id": 9}
    wanted = expected(reference, tokenizer, told)
    assert {row[0] for row in wanted} == {9}
    assert generated(model, tokenizer, Greedy(**VARIED, forced_bos_token_id=9)) == wanted
    assert generated(model, tokenizer, Greedy(chain=Chain(*LITERAL, ForcedBos(9)))) == wanted


def test_beginnings_of_the_decoder(translator: Any) -> None:
    """Words come behind the language; ids of one's own are not added to, unless they are a start token."""
    family, _, model, tokenizer = translator
    front = [GERMAN] if family.reference is INSTEAD else [END, GERMAN]
    words = generated(model, tokenizer, Greedy(**VARIED), decoder_prompts="h i")
    ids = [[*front, *tokenizer.encode("h i", add_special_tokens=False)]]
    assert words == generated(model, tokenizer, Greedy(**VARIED), decoder_prompts=ids)
    assert generated(model, tokenizer, Greedy(**VARIED)) == generated(
        model, tokenizer, Greedy(**VARIED), decoder_prompts=[front[:1]]
    )


def test_alternatives_differ_behind_the_language(translator: Any) -> None:
    family, _, model, tokenizer = translator
    front = [GERMAN] if family.reference is INSTEAD else [END, GERMAN]
    found = generated(model, tokenizer, Alternatives(), num_samples=3)
    assert found == generated(model, tokenizer, Alternatives(), num_samples=3, decoder_prompts=[front])
    assert len({row[0] for row in found[:3]}) == 3


def test_scores_begin_as_in_training(translator: Any) -> None:
    """By the reference's loss, whose decoder is given the labels behind what mBART's own rule moves there."""
    _, reference, model, tokenizer = translator
    labels = torch.tensor([tokenizer.encode("h i j", as_target=True)])
    with torch.inference_mode():
        loss = reference(torch.tensor([tokenizer.encode(READ[0])]), labels=labels).loss
    found = minitx.score(model, "h i j", sources=READ[0], tokenizer=tokenizer).logprobs[0]
    assert found.mean().item() == pytest.approx(-loss.item(), abs=1e-5)
