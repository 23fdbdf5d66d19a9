"""The three families on the shipped checkpoints: masks, continuations, answers, pronunciations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minitx
from minitx.demo.part import Part, heading, listed, paragraph
from minitx.pictures.drawings import Highlight
from minitx.pictures.text import columns_of, shorten_line
from minitx.tokenizer import Tokenizer

MASKED = ("The king of [MASK] went to war.", "She was the [MASK] of the house.")
PROMPT = "It was a"
STRATEGIES: dict[str, Any] = {
    "greedy": minitx.Greedy(),
    "4 beams": minitx.Beam(num_beams=4),
    "temperature 1.5": minitx.Sample(temperature=1.5),
    "top-k 10": minitx.Sample(top_k=10),
    "top-p 0.9": minitx.Sample(top_p=0.9),
}
CONTEXT = "The capital of Peru is Lima. The main language of Peru is Spanish. Peru lies in South America."
QUESTION = "What is the main language of Peru?"
CHATS = ("What is the capital of Peru?", "Where is Norway?")
WORDS = ("hello", "knowledge", "thoughtful", "transformer", "minitx")


def masks(highlight: Highlight) -> Part:
    """Fills masks."""
    name = "minitx/tiny-encoder"
    fill = minitx.pipeline("fill-mask", name, dtype="float32", device="cpu", top_k=5)
    results = {text: fill(text) for text in MASKED}
    lines = [heading(name, fill.model, "fills masks", highlight)]
    for text, result in results.items():
        tokens = [f"{token['token_str']} {token['score']:.2f}" for token in result]
        filled = paragraph(", ".join(tokens), "    ").replace(tokens[0], highlight(tokens[0]), 1)
        lines.append(f"  {text}\n{filled}")
    record = {
        text: [{"token": token["token_str"], "score": token["score"]} for token in result]
        for text, result in results.items()
    }
    return Part("\n".join(lines), {"masks": record})


def generated(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[str], strategy: Any, **options: Any
) -> list[str]:
    """Returns a generated text for each prompt."""
    result = minitx.generate(model, list(prompts), strategy, tokenizer=tokenizer, **options)
    return result.texts or []


def continuations(highlight: Highlight) -> Part:
    """Continues a prompt with several strategies."""
    name = "minitx/tiny-decoder"
    model, tokenizer = minitx.load(name, dtype="float32"), minitx.load_tokenizer(name)
    texts = {}
    for label, strategy in STRATEGIES.items():
        options = {"max_new_tokens": 24} | ({"seed": 0} if isinstance(strategy, minitx.Sample) else {})
        (texts[label],) = generated(model, tokenizer, [PROMPT], strategy, **options)
    title = heading(name, model, f"continues {PROMPT!r}", highlight)
    return Part(f"{title}\n{listed(list(texts.items()))}", {"prompt": PROMPT, "continuations": texts})


def answers(highlight: Highlight) -> Part:
    """Finds an answer in a text, and answers questions from memory."""
    reader, talker = "minitx/tiny-qa", "minitx/tiny-instruct"
    find = minitx.pipeline("question-answering", reader, dtype="float32", device="cpu")
    answer = find(question=QUESTION, context=CONTEXT)
    chat = minitx.pipeline("text-generation", talker, dtype="float32", device="cpu")
    replies = {question: _reply(chat, question) for question in CHATS}
    rows = [pair for question, reply in replies.items() for pair in (("you", question), ("model", reply))]
    found = f"{answer['answer']} ({answer['score']:.2f})"
    text = "\n".join(
        [
            heading(reader, find.model, "finds an answer in a text", highlight),
            paragraph(CONTEXT, "  "),
            f"  {QUESTION} {highlight(found)}",
            "",
            heading(talker, chat.model, "answers from its parameters alone", highlight),
            listed(rows),
        ]
    )
    record = {"question": QUESTION, "context": CONTEXT, "answer": answer["answer"], "score": answer["score"]}
    return Part(text, {"answer": record, "replies": replies})


def _reply(chat: Any, question: str) -> str:
    """Returns the greedy answer to a question."""
    messages = [{"role": "user", "content": question}]
    result = chat(messages, max_new_tokens=32, do_sample=False, return_full_text=False)
    return str(result[0]["generated_text"])


def pronunciations(highlight: Highlight) -> Part:
    """Pronounces words, greedily and with beams."""
    name = "minitx/tiny-seq2seq"
    model, tokenizer = minitx.load(name, dtype="float32"), minitx.load_tokenizer(name)
    greedy = generated(model, tokenizer, WORDS, minitx.Greedy(), max_new_tokens=48)
    beams = generated(model, tokenizer, WORDS, minitx.Beam(num_beams=4), max_new_tokens=48)
    cells = [[shorten_line(text, 26) for text in texts] for texts in (WORDS, greedy, beams)]
    rows = [("", "greedy", "4 beams"), *zip(*cells, strict=True)]
    sizes = [max(columns_of(row[column]) for row in rows) + 3 for column in range(3)]
    lines = [heading(name, model, "pronounces words, in the phonetic alphabet", highlight)]
    for row in rows:
        padded = [cell + " " * (size - columns_of(cell)) for cell, size in zip(row, sizes, strict=True)]
        lines.append(f"  {''.join(padded)}".rstrip())
    record = [
        {"word": word, "greedy": first, "beams": second}
        for word, first, second in zip(WORDS, greedy, beams, strict=True)
    ]
    return Part("\n".join(lines), {"pronunciations": record})
