"""text-generation against transformers: the same token ids, texts and conversations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from minitx.inspect.compare.reference import quiet
from minitx.pipelines.pipeline import Pipeline, pipeline
from tests.parity.generators import KINDS, build

LONG = "The quick brown fox jumps over the lazy dog. " * 150  # 3,450 tokens
TEXTS = ["Hello world", "我住在北京 🍕", "e\u0301 cafe\u0301", "أين تقع", " Once\n\n  upon "]
SYSTEM, USER = {"role": "system", "content": "Be nice."}, {"role": "user", "content": "Hello "}
CHAT = [SYSTEM, USER]
BEGUN = [USER, {"role": "assistant", "content": "Once upon "}]
# qwen2 states sampling in generation_config.json; the others nothing
STATED = {"qwen2": {"eos_token_id": [4, 0], "do_sample": True, "top_p": 0.9, "repetition_penalty": 1.1}}
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12}
BEAMS: dict[str, Any] = {"do_sample": False, "num_beams": 3, "max_new_tokens": 9}
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": GREEDY,
    "ids": {**GREEDY, "return_tensors": True},
    "new text": {**GREEDY, "return_full_text": False},
    "special tokens": {**GREEDY, "skip_special_tokens": False, "return_full_text": False},
    "beams": BEAMS,
    "several": {**BEAMS, "num_return_sequences": 3, "return_full_text": False},
    "penalties": {**BEAMS, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2},
    "lengths": {"do_sample": False, "max_length": 40, "min_length": 38, "repetition_penalty": 1.3},
    "prefix": {"do_sample": False, "prefix": "The fox ", "max_length": 40},
    "stop": {**GREEDY, "stop_sequence": ["o", " d"], "max_new_tokens": 30},
    "end": {**GREEDY, "eos_token_id": [*range(60, 120)], "min_new_tokens": 3},
    "bans": {**GREEDY, "suppress_tokens": [*range(5, 200)], "bad_words_ids": [[201], [203, 204]]},
    "no special tokens": {**GREEDY, "add_special_tokens": False},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Pipeline]:
    """The pipelines of transformers and of minitx, of the same folder."""
    folder = build(
        tmp_path_factory.mktemp("generators") / request.param, request.param, STATED.get(request.param)
    )
    with quiet():
        theirs = transformers.pipeline("text-generation", str(folder), device="cpu", dtype=torch.float32)
    return theirs, pipeline("text-generation", folder, device="cpu")


def expected(theirs: Any, inputs: Any, **options: Any) -> Any:
    with quiet():
        return theirs(inputs, **options)


def check(theirs: Any, ours: Any, pieces: bool) -> None:
    """Equal; with pieces but for the first space of a continuation, which transformers drops."""
    if isinstance(theirs, dict) or (isinstance(theirs, list) and not isinstance(theirs[0], int)):
        assert len(theirs) == len(ours)
        keys = list(theirs) if isinstance(theirs, dict) else range(len(theirs))
        assert not isinstance(theirs, dict) or keys == list(ours)
        for key in keys:
            check(theirs[key], ours[key], pieces)
    elif pieces and isinstance(theirs, str) and theirs != ours:
        spaces = [at for at, letter in enumerate(ours) if letter == " "]
        assert theirs in [ours[:at] + ours[at + 1 :] for at in spaces]
    else:
        assert theirs == ours


@pytest.mark.parametrize("name", OPTIONS)
def test_texts(pair: tuple[Any, Pipeline], name: str) -> None:
    """Alone and in a list, which minitx runs in batches."""
    theirs, ours = pair
    pieces, options = "llama" in repr(ours), OPTIONS[name]
    listed = expected(theirs, TEXTS, **options)
    check(listed, ours(TEXTS, **options), pieces)
    assert ours(TEXTS, **options) == [ours(text, **options) for text in TEXTS]
    check(expected(theirs, TEXTS[0], **options), ours(TEXTS[0], **options), pieces)


@pytest.mark.parametrize("name", ["greedy", "ids", "new text", "several", "stop"])
def test_conversations(pair: tuple[Any, Pipeline], name: str) -> None:
    theirs, ours = pair
    for chats in (CHAT, BEGUN, [CHAT, BEGUN], [CHAT]):
        options = OPTIONS[name]
        check(expected(theirs, chats, **options), ours(chats, **options), "llama" in repr(ours))
    for option in ({"continue_final_message": False}, {"continue_final_message": True}):
        options = OPTIONS[name] | option
        check(expected(theirs, BEGUN, **options), ours(BEGUN, **options), "llama" in repr(ours))
        check(expected(theirs, [USER], **options), ours([USER], **options), "llama" in repr(ours))


def test_variables_of_the_template(pair: tuple[Any, Pipeline]) -> None:
    theirs, ours = pair
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    documents = [{"title": "a", "text": "b"}]
    options = {**GREEDY, "tools": tools, "documents": documents, "return_tensors": True}
    found = ours(CHAT, **options, template_variables={"short": True})
    assert found == expected(theirs, CHAT, **options, tokenizer_encode_kwargs={"short": True})


def test_the_empty_text(pair: tuple[Any, Pipeline]) -> None:
    theirs, ours = pair
    if theirs.tokenizer.bos_token_id is None:
        with pytest.raises(ValueError, match="at least one token"):
            ours("", **GREEDY)
        return
    assert ours("", **GREEDY) == expected(theirs, "", **GREEDY)


def test_long_texts(pair: tuple[Any, Pipeline]) -> None:
    """Whole where the model has room; else cut off as handle_long_generation="hole" does."""
    theirs, ours = pair
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "return_tensors": True}
    if theirs.model.config.model_type != "gpt2":
        assert ours(LONG, **options) == expected(theirs, LONG, **options)
        return
    hole = expected(theirs, LONG, **options, handle_long_generation="hole")
    with pytest.warns(UserWarning, match="1 of 1 inputs of text-generation were too long"):
        assert ours(LONG, **options) == hole
    with pytest.warns(UserWarning, match="too long"):
        assert ours([LONG, "a"], **options, handle_long_generation="hole")[0] == hole
    with pytest.raises(ValueError, match="at most 194 tokens"):
        ours(LONG, **options, overflow="error")
