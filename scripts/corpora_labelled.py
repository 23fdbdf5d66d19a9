"""Labelled records out of facts and word lists: statements, questions and answers, and named entities.

The labels come from rules, not from people: a fact of the World Factbook is put into a sentence, and a
question is asked for the part of it that the fact is about; a name is an entity if WordNet lists it as a
person or a place, if it is a first name, or if titles stand before it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fact:
    """One kind of fact: the key in the Factbook, a statement and the questions that it answers.

    Attributes:
        key: of `facts`, from `countries`.
        pattern: its first group in the value is the answer.
        statement: with {name} and {value}.
        questions: with {name}.
        most: number of parts of a list that are stated; 0: the value is no list.
    """

    key: str
    pattern: str
    statement: str
    questions: tuple[str, ...]
    most: int = 0


_CLAUSE = r"([^,;(:]{3,80})"
_LIST = r"([a-z][^(;:%]+)"
FACTS = (
    Fact(
        "Capital, name",
        r"([^;(+]+)",
        "The capital of {name} is {value}.",
        (
            "What is the capital of {name}?",
            "Which city is the capital of {name}?",
            "Name the capital of {name}.",
        ),
    ),
    Fact(
        "Location",
        _CLAUSE,
        "{name} lies in {value}.",
        ("Where is {name}?", "In which part of the world is {name}?", "Where does {name} lie?"),
    ),
    Fact(
        "Languages",
        r"([A-Z][a-z]+(?: [A-Z][a-z]+)?)",
        "The main language of {name} is {value}.",
        ("Which language is spoken in {name}?", "What is the main language of {name}?"),
    ),
    Fact(
        "Religions",
        r"([A-Z][a-z]+(?: [A-Z][a-z]+)?)",
        "The main religion of {name} is {value}.",
        ("What is the main religion of {name}?", "Which religion has the most members in {name}?"),
    ),
    Fact(
        "Nationality, adjective",
        r"([A-Z][^;,(]+)",
        "The people of {name} are called {value}.",
        ("What are the people of {name} called?", "What is the nationality of someone from {name}?"),
    ),
    Fact(
        "Government type",
        r"([a-z][^;(,]{4,60})",
        "The government of {name} is a {value}.",
        ("What kind of government does {name} have?", "How is {name} governed?"),
    ),
    Fact(
        "Independence",
        r"(\d{1,2} [A-Z][a-z]+ \d{4}) \(from",
        "{name} became independent on {value}.",
        ("When did {name} become independent?", "On which day did {name} become independent?"),
    ),
    Fact(
        "Elevation extremes, highest point",
        r"(.+?) [\d,.]+ m\b",
        "The highest point of {name} is {value}.",
        ("What is the highest point of {name}?", "Which is the highest point of {name}?"),
    ),
    Fact(
        "Elevation extremes, lowest point",
        r"(.+?) -?[\d,.]+ m\b",
        "The lowest point of {name} is {value}.",
        ("What is the lowest point of {name}?",),
    ),
    Fact(
        "Land boundaries, border countries",
        r"(.+)",
        "{name} has borders with {value}.",
        ("Which countries border {name}?", "What are the neighbours of {name}?"),
        4,
    ),
    Fact("Climate", _CLAUSE, "The climate of {name} is {value}.", ("What is the climate of {name}?",)),
    Fact(
        "Natural resources",
        _LIST,
        "The natural resources of {name} include {value}.",
        ("What are the natural resources of {name}?", "Which natural resources does {name} have?"),
        3,
    ),
    Fact(
        "Agriculture - products",
        _LIST,
        "The farmers of {name} produce {value}.",
        ("What do the farmers of {name} produce?", "What is grown in {name}?"),
        3,
    ),
    Fact(
        "Exports - commodities",
        _LIST,
        "{name} exports {value}.",
        ("What does {name} export?", "Which goods does {name} sell to other countries?"),
        3,
    ),
    Fact(
        "National anthem, name",
        r'"([^"]+)"',
        'The national anthem of {name} is "{value}".',
        ("What is the national anthem of {name}?", "What is the anthem of {name} called?"),
    ),
    Fact(
        "Population",
        r"([\d,]{5,}|[\d.]+ (?:million|billion))",
        "About {value} people live in {name}.",
        ("How many people live in {name}?", "What is the population of {name}?"),
    ),
    Fact(
        "Area, total",
        r"([\d.,]+ (?:million )?sq km)",
        "{name} has an area of {value}.",
        ("How large is {name}?", "What is the area of {name}?"),
    ),
    Fact(
        "Exchange rates",
        r"([A-Z]?[a-z]+(?: [a-z]+){0,3}) \([A-Z]{3}\) per",
        "People in {name} pay with {value}.",
        ("What is the currency of {name}?", "Which money is used in {name}?"),
    ),
)


def draw(*parts: object) -> int:
    """Returns a large number that depends on the parts only."""
    text = "|".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


def statements(facts: Mapping[str, str]) -> Iterator[tuple[Fact, str, str]]:
    """Yields the facts of a country, with the answer and the sentence that states it."""
    for fact in FACTS:
        match = re.match(fact.pattern, facts.get(fact.key, ""))
        if match is None or match[1].strip().lower() in ("none", "na", "no official", "see"):
            continue
        value = match[1].strip()
        if fact.most:
            value = _enumerated(value, fact.most)
        if value:
            yield fact, value, fact.statement.format(name=facts["name"], value=value)


def _enumerated(value: str, most: int) -> str:
    """Returns "a, b and c" from "a 3 km, b, c, d"; "" if a part is no name."""
    parts = [re.sub(r" [\d.,]+ ?(km|%).*", "", part).strip() for part in re.split(r", ", value)]
    parts = [part for part in parts if part and not part.startswith(("and ", "other"))][:most]
    if not parts or any(len(part) > 30 or re.search(r"\d", part) for part in parts):
        return ""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def questions(countries: Iterable[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """Yields questions with a context of five sentences, and the answer with its place in it."""
    for facts in countries:
        known = list(statements(facts))
        for number, (fact, value, sentence) in enumerate(known):
            others = [other for _, _, other in known[:number] + known[number + 1 :]]
            others.sort(key=lambda other: draw(facts["name"], fact.key, other))
            sentences = others[:4]
            sentences.insert(draw(facts["name"], fact.key) % (len(sentences) + 1), sentence)
            context = " ".join(sentences)
            prefix = fact.statement[: fact.statement.index("{value}")].format(name=facts["name"])
            start = context.index(sentence) + len(prefix)
            for question in fact.questions:
                yield {
                    "country": facts["name"],
                    "context": context,
                    "question": question.format(name=facts["name"]),
                    "answer": value,
                    "start": start,
                }


def instructions(
    countries: Iterable[Mapping[str, str]], synsets: Iterable[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """Yields chats of one question and its answer, about countries and about words."""
    for facts in countries:
        for fact, _, sentence in statements(facts):
            for question in fact.questions:
                yield _chat(question.format(name=facts["name"]), sentence)
    seen = set()
    for sense in synsets:
        word = sense["words"][0]
        if sense["kind"] == "noun" and not sense["instance"] and word not in seen and word.islower():
            seen.add(word)
            yield _chat(_ask(sense), define(sense))


def _ask(sense: Mapping[str, Any]) -> str:
    """Returns a question about the meaning of a noun."""
    word = sense["words"][0]
    if draw(word) % 3 == 0:
        return f"Define {word}."
    return f"What is {with_article(word)}?" if is_thing(sense) else f"What does {word} mean?"


def _chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def with_article(word: str) -> str:
    """Returns a noun with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def is_thing(sense: Mapping[str, Any]) -> bool:
    """Whether a definition names a kind of thing, so that the noun can have an article."""
    return re.match(r"(\([^)]*\) )?(an?|the|any|one|someone|something) ", sense["gloss"]) is not None


def define(sense: Mapping[str, Any]) -> str:
    """Returns the definition of a noun as a sentence."""
    gloss = re.sub(r"^\([^)]*\) ", "", sense["gloss"]).rstrip(".;: ")
    word = sense["words"][0]
    subject = with_article(word) if is_thing(sense) else word
    return f"{subject[0].upper()}{subject[1:]} {'is' if is_thing(sense) else 'means'} {gloss}."


# --- named entities --------------------------------------------------------------------------------

_TITLES = {"Mr.", "Mrs.", "Miss", "Lady", "Sir", "Colonel", "Captain", "Dr.", "President", "King", "Queen"}
_KINDS = {18: "PER", 15: "LOC", 17: "LOC"}  # WordNet's files of persons, places, and objects such as seas
_PLACE_SHARE = 0.2  # of the occurrences of a place that follow "in", "of" and the like
_WORD = re.compile(r"(?:Mr|Mrs|Dr|St)\.|[A-Za-z]+(?:['-](?!s\b)[A-Za-z]+)*|'s\b|\d[\d,.]*\d|\d|[^\sA-Za-z\d]")


def gazetteer(
    synsets: Iterable[Mapping[str, Any]], first_names: Iterable[str], text: str
) -> dict[tuple[str, ...], str]:
    """Returns names, word by word, with PER or LOC.

    Args:
        synsets: WordNet, for persons and places.
        first_names: of persons.
        text: words that follow a title in it three times are names of persons; a place that is a name of
            persons too has to follow "in" or "of" often; a word that is often in lower case is no name.
    """
    kinds: dict[tuple[str, ...], set[str]] = {}
    for sense in synsets:
        if sense["kind"] == "noun" and sense["instance"] and sense["topic"] in _KINDS:
            for word in sense["words"]:
                kinds.setdefault(tuple(_WORD.findall(word)), set()).add(_KINDS[sense["topic"]])
    titles = "|".join(re.escape(title) for title in sorted(_TITLES))
    after = Counter(re.findall(rf"\b(?:{titles}) ([A-Z][a-z]{{2,}})\b", text))
    persons = {*first_names, *(name for name, count in after.items() if count >= 3)}
    counts = Counter(re.findall("[A-Za-z]+", text))
    places = Counter(re.findall(r"\b(?:in|at|into|near|of|from) ([A-Z][a-z]+)\b", text))

    def is_place(words: tuple[str, ...]) -> bool:
        name = words[0]
        often = places[name] >= _PLACE_SHARE * counts[name] > 0
        return "LOC" in kinds.get(words, ()) and (len(words) > 1 or name not in persons or often)

    return {
        words: "LOC" if is_place(words) else "PER"
        for words in (*kinds, *((name,) for name in persons))
        if len(words) > 1 or (words[0][0].isupper() and 20 * counts[words[0].lower()] <= counts[words[0]])
    }


def named_entities(
    documents: Iterable[str], names: Mapping[tuple[str, ...], str], most: int
) -> Iterator[dict[str, Any]]:
    """Yields sentences of 5 to 50 words with a label for each: O, B-PER, I-PER, B-LOC or I-LOC.

    Args:
        documents: text.
        names: from `gazetteer`.
        most: number of sentences; of those without a name, one in twenty is taken.
    """
    longest = max(map(len, names))
    rows = []
    for document in documents:
        for sentence in re.split(r"(?<=[a-z\"'][.!?]) +(?=[A-Z\"'])|\n", document):
            words = _WORD.findall(sentence)
            if not 5 <= len(words) <= 50:
                continue
            labels = _label(words, names, longest)
            key = draw(sentence)
            if any(label != "O" for label in labels) or key % 20 == 0:
                rows.append((key, {"words": words, "label": labels}))
    for _, row in sorted(rows, key=lambda entry: entry[0])[:most]:
        yield row


def _label(words: list[str], names: Mapping[tuple[str, ...], str], longest: int) -> list[str]:
    """Returns the labels of a sentence: the longest names of the list, and capitalized words after titles."""
    labels = ["O"] * len(words)
    index = 0
    while index < len(words):
        size, kind = 1, "O"
        for length in range(min(longest, len(words) - index), 0, -1):
            if found := names.get(tuple(words[index : index + length])):
                size, kind = length, found
                break
        if (
            index
            and words[index - 1] in _TITLES
            and words[index][0].isupper()
            and words[index] not in _TITLES
        ):
            kind = "PER"
            while index + size < len(words) and words[index + size][0].isupper():
                size += 1
        if kind != "O":
            labels[index : index + size] = [f"B-{kind}", *[f"I-{kind}"] * (size - 1)]
        index += size
    return labels


# --- pronunciation ----------------------------------------------------------------------------------

# ARPAbet to the IPA's letters for American English; a stress mark stands before its vowel.
_VOWELS = {
    "AA": "ɑ",
    "AE": "æ",
    "AH": "ʌ",
    "AO": "ɔ",
    "AW": "aʊ",
    "AY": "aɪ",
    "EH": "ɛ",
    "ER": "ɝ",
    "EY": "eɪ",
    "IH": "ɪ",
    "IY": "i",
    "OW": "oʊ",
    "OY": "ɔɪ",
    "UH": "ʊ",
    "UW": "u",
}
_CONSONANTS = {
    "B": "b",
    "CH": "tʃ",
    "D": "d",
    "DH": "ð",
    "F": "f",
    "G": "ɡ",
    "HH": "h",
    "JH": "dʒ",
    "K": "k",
    "L": "l",
    "M": "m",
    "N": "n",
    "NG": "ŋ",
    "P": "p",
    "R": "ɹ",
    "S": "s",
    "SH": "ʃ",
    "T": "t",
    "TH": "θ",
    "V": "v",
    "W": "w",
    "Y": "j",
    "Z": "z",
    "ZH": "ʒ",
}
_STRESS = {"0": "", "1": "ˈ", "2": "ˌ"}


def to_ipa(phones: str) -> str:
    """Returns ARPAbet ("HH AH0 L OW1") in the IPA ("həlˈoʊ"); an unstressed AH is ə."""
    symbols = []
    for phone in phones.split():
        vowel, stress = phone[:-1], phone[-1]
        if phone == "AH0":
            symbols.append("ə")
        else:
            symbols.append(_CONSONANTS.get(phone) or _STRESS[stress] + _VOWELS[vowel])
    return "".join(symbols)
