"""The folders of the shipped checkpoints: small, safe, described, and the same model in transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import minitx
from minitx.shipped import CARD, FOLDER, SHIPPED, WEIGHTS, ShippedModel

MOST_BYTES = 4_000_000
FILES = {CARD, WEIGHTS, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
FILES |= {"special_tokens_map.json", "chat_template.jinja", "vocab.txt"}
NEEDED = {CARD, WEIGHTS, "config.json", "tokenizer_config.json"}
TEXTS = ["The king of Israel went up to Jerusalem.", "Ann?"]
CLASSES = {
    "minitx/tiny-encoder": "AutoModelForMaskedLM",
    "minitx/tiny-classifier": "AutoModelForSequenceClassification",
    "minitx/tiny-ner": "AutoModelForTokenClassification",
    "minitx/tiny-qa": "AutoModelForQuestionAnswering",
    "minitx/tiny-decoder": "AutoModelForCausalLM",
    "minitx/tiny-instruct": "AutoModelForCausalLM",
    "minitx/tiny-seq2seq": "AutoModelForSeq2SeqLM",
}
# What a model card has to answer: a heading, and a figure below it where there is one to measure.
SECTIONS = {"data": "", "licen[cs]e": "", "recipe|training": r"\d", "quality|measured": r"\d", "time": r"\d"}
each = pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)


def test_the_table_has_all_folders() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {model.folder.name for model in SHIPPED}


@each
def test_its_files(model: ShippedModel) -> None:
    """No pickle, no code, nothing that is left over."""
    names = {path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*")}
    assert NEEDED <= names <= FILES
    assert model.num_bytes() <= MOST_BYTES
    assert (model.folder / WEIGHTS).read_bytes()[:100_000].count(b'"BF16"') > 10


@each
def test_its_card(model: ShippedModel) -> None:
    """Data, licence, recipe, measured quality and time, in sections of their own."""
    card = (model.folder / CARD).read_text("utf-8")
    assert model.license()
    text = re.sub(r"```.*?```", lambda block: block[0].replace("#", ";"), card, flags=re.DOTALL)
    sections = dict(re.findall(r"^#+ (.+)\n((?:(?!#+ ).*\n?)*)", text.split("---\n", 2)[2], re.MULTILINE))
    for title, figure in SECTIONS.items():
        found = [text for name, text in sections.items() if re.search(title, name, re.IGNORECASE)]
        assert any(re.search(figure, text) and text.strip() for text in found), (title, [*sections])


@each
@torch.inference_mode()
def test_transformers_computes_the_same_logits(model: ShippedModel) -> None:
    ours: Any = minitx.load(model.name, dtype="float64")
    theirs = getattr(transformers, CLASSES[model.name]).from_pretrained(model.folder, dtype=torch.float64)
    tokenizer = minitx.load_tokenizer(model.name)
    reference = transformers.AutoTokenizer.from_pretrained(model.folder)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == reference(text)["input_ids"]
        more = {}
        if ours.task == "seq2seq-lm":
            more = {"decoder_input_ids": torch.tensor([[ours.config.decoder_start_token_id, *ids[:4]]])}
        expected = theirs.eval()(torch.tensor([ids]), **more)
        outputs = ours(torch.tensor([ids]), **more)
        for name in ("logits", "start_logits", "end_logits"):
            if name in expected:
                # RMSNorm and T5's softmax are in float32 in transformers: its rounding, by the largest logit
                atol = 2e-6 * max(1.0, float(expected[name].abs().max()))
                torch.testing.assert_close(getattr(outputs, name), expected[name], rtol=0, atol=atol)
    assert ours.training is False


@pytest.mark.parametrize("name", ["minitx/tiny-instruct"])
def test_the_chat_template_is_that_of_transformers(name: str) -> None:
    folder: Path = next(model.folder for model in SHIPPED if model.name == name)
    messages = [{"role": "user", "content": "What is a cat?"}]
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert minitx.load_tokenizer(name).apply_chat_template(messages, add_generation_prompt=True) == prompt
