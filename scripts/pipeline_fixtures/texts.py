"""Texts of the fixtures: sentences that train the tokenizers, questions, contexts and tables."""

from __future__ import annotations

from typing import Any

ENGLISH = (
    "The quick brown fox jumps over the lazy dog near the old river bank.",
    "My name is Clara and I live in Berkeley, California, with two cats.",
    "The tower is 324 metres tall, about the same height as an 81-storey building.",
    "Where do I live? Who wrote the letter, and how many pages does it have?",
    "Scientists said on Tuesday that the new vaccine works well in most patients.",
    "He didn't know that she'd left; they've been waiting since 9:30 a.m. (or so).",
    "An apple a day keeps the doctor away, summarize: translate English to French.",
)
GERMAN = (
    "Die Universität Zürich wurde 1833 gegründet und hat über 25.000 Studierende.",
    "Wo wohnst du? Ich wohne in einem kleinen Haus am Fluss, schöne Grüße!",
)
FRENCH = ("Où habites-tu ? J'habite à Montréal depuis l'été dernier, près du café.",)
CHINESE = ("长城是中国古代的军事防御工程。", "我住在北京,你叫什么名字?今天天气很好。")
ARABIC = ("أين تقع القاهرة؟ تقع القاهرة في مصر على نهر النيل.", "اسمي سارة وأعيش في مدينة صغيرة.")
EMOJI = ("I love pizza 🍕 and coffee ☕️ so much 😀!", "👩‍👩‍👧 family 🏳️‍🌈 flags 🇩🇪")
# The letters are followed by their marks: e + U+0301 and so on.
COMBINING = ("Cafe\u0301 in Zu\u0308rich, a nin\u0303o and n\u0323a\u0304", "हिन्दी में नमस्ते")
HEBREW = ("שלום עולם, איפה אתה גר?",)
CORPUS = (*ENGLISH, *GERMAN, *FRENCH, *CHINESE, *ARABIC, *EMOJI, *COMBINING, *HEBREW)

LONG = " ".join(
    (
        ENGLISH[2],
        ENGLISH[4],
        GERMAN[0],
        ENGLISH[5],
        EMOJI[0],
        ENGLISH[1],
        CHINESE[0],
        COMBINING[0],
        ENGLISH[0],
    )
)
MIDDLE = " ".join((ENGLISH[1], GERMAN[1], ENGLISH[2]))

QUESTIONS_AND_CONTEXTS = (
    ("Where do I live?", ENGLISH[1]),
    ("How tall is the tower?", ENGLISH[2]),
    ("Wann wurde die Universität gegründet?", GERMAN[0]),
    ("Où habites-tu ?", FRENCH[0]),
    ("你叫什么名字?", CHINESE[1]),
    ("长城是什么?", CHINESE[0] + CHINESE[1]),
    ("أين تقع القاهرة؟", ARABIC[0]),
    ("What do I love?", EMOJI[0]),
    ("Who? 😀", EMOJI[1] + " " + EMOJI[0]),
    ("Where is the cafe\u0301?", COMBINING[0]),
    ("नमस्ते?", COMBINING[1]),
    ("איפה?", HEBREW[0] + " " + ARABIC[1]),
    ("Who wrote it?", "  two  spaces,\ttabs\nand\r\nlines \u00a0 here \u200b ok  "),
    ("the?", "The THE the tHe the. The, the"),
    ("x", "y"),
)

_WINNERS = ("Clara", "Sarah", "the fox", "a very long name of a winner")
TABLES: dict[str, dict[str, Any]] = {
    "repositories": {
        "Repository": ["Transformers", "Datasets", "Tokenizers"],
        "Stars": ["36542", "4512", "3934"],
        "Language": ["Python", "Python", "Rust, Python and NodeJS"],
    },
    "actors": {
        "Actors": ["Brad Pitt", "Leonardo Di Caprio", "George Clooney"],
        "Age": ["56", "45", "59"],
        "Number of movies": ["87", "53", "69"],
        "Date of birth": ["7 february 1967", "10 june 1996", "28 november 1967"],
    },
    "prices": {
        "Item": ["pizza 🍕", "Cafe\u0301", "北京 tea", "", "Grüße"],
        "Price": ["$1,234.50", "3.5", "-7", "n/a", "12%"],
        "Sold": ["2001-05-09", "May 2001", "9 May", "2001", "1st"],
    },
    "one cell": {"name": ["Clara"]},
    "one column": {"Age": ["1", "2", "3", "3", "2"]},
    "long": {
        "Year": [str(1990 + year) for year in range(14)],
        "Winner": [
            ("Clara", "Sarah", "the fox", "a very long name of a winner")[year % 4] for year in range(14)
        ],
        "Points": [str(7 * year % 11) for year in range(14)],
    },
}
QUERIES = {
    "repositories": (
        "How many stars does the Transformers repository have?",
        "Which language?",
        "more than 4000",
    ),
    "actors": ("How old is Brad Pitt?", "What is the total number of movies?", "Who was born in 1967?"),
    "prices": ("What costs 3.5?", "Wie viel kostet 北京 tea?", "🍕"),
    "one cell": ("Who?", "name"),
    "one column": ("How many are 3?", "the greatest age"),
    "long": ("Who won in 1995?", "How many points?", "Which year had the most points, and who won it?"),
}
