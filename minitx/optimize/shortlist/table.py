"""Which tokens a translation may need: a table from source tokens to target tokens.

The text file has the layout of CTranslate2's vocabulary map (vmap): on each line the tokens of a source
phrase, a tab, and target tokens; an empty phrase lists tokens that are always needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minitx.io import write_atomically
from minitx.validation import ArgumentTypeError, check_integer, check_path

_LONGEST_PHRASE = 16
Tokens = Sequence[str] | Mapping[int, str]  # by id


class HasTokens(Protocol):
    """A tokenizer: tokens by id and back."""

    special_ids: tuple[int, ...]

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token, or None."""


@dataclass(frozen=True)
class ShortlistTable:
    """Target tokens by source phrase.

    Attributes:
        phrases: ids of a source phrase -> ids of the target tokens that it may need.
        always: ids of target tokens that every sentence may need: ends, punctuation, the most frequent ones.
    """

    phrases: Mapping[tuple[int, ...], tuple[int, ...]]
    always: frozenset[int]

    def candidates(self, sources: Iterable[Sequence[int]]) -> list[int]:
        """Returns the tokens that these sentences may need, for `vocabulary_shortlist`, in ascending order.

        Args:
            sources: ids of each sentence.

        Raises:
            ArgumentTypeError: a sentence that is no sequence of ids.
        """
        longest = max(map(len, self.phrases), default=0)
        found = set(self.always)
        for source in sources:
            if isinstance(source, str) or not isinstance(source, Sequence):
                raise ArgumentTypeError("sources", source, "a sequence of ids for each sentence")
            for begin in range(len(source)):
                for end in range(begin + 1, min(begin + longest, len(source)) + 1):
                    found.update(self.phrases.get(tuple(source[begin:end]), ()))
        return sorted(found)

    @classmethod
    def read(
        cls, path: str | Path, tokenizer: HasTokens, *, target_tokenizer: HasTokens | None = None
    ) -> ShortlistTable:
        """Reads a file in the layout of CTranslate2's vocabulary map; special tokens are always candidates.

        Args:
            path: of the file, in UTF-8.
            tokenizer: of the source tokens.
            target_tokenizer: of the target tokens; None for the same.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a line without a tab, a phrase of more than 16 tokens, or a token that the vocabulary
                lacks.
        """
        path, target = check_path("path", path), target_tokenizer or tokenizer
        phrases: dict[tuple[int, ...], set[int]] = {}
        always = set(target.special_ids)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}).") from None

        def _ids(text: str, vocabulary: HasTokens, number: int) -> list[int]:
            ids = []
            for token in text.split(" "):
                if (index := vocabulary.token_to_id(token) if token else None) is not None:
                    ids.append(index)
                elif token:
                    hint = "is it a table for another tokenizer?"
                    raise ValueError(f"{path} line {number}: the vocabulary has no {token!r:.60}; {hint}")
            return ids

        for number, line in enumerate(lines, start=1):
            source, tab, targets = line.removesuffix("\r").partition("\t")
            if not line.strip():
                continue
            if not tab or "\t" in targets:
                raise ValueError(f"{path} line {number}: expected a source phrase, a tab and target tokens.")
            phrase, ids = tuple(_ids(source, tokenizer, number)), _ids(targets, target, number)
            if len(phrase) > _LONGEST_PHRASE:
                raise ValueError(f"{path} line {number}: a phrase of more than {_LONGEST_PHRASE} tokens.")
            (phrases.setdefault(phrase, set()) if phrase else always).update(ids)
        return cls({phrase: tuple(sorted(ids)) for phrase, ids in phrases.items()}, frozenset(always))

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
        *,
        per_token: int = 20,
        frequent: int = 100,
        always: Iterable[int] = (),
    ) -> ShortlistTable:
        """Builds a table from translated sentences.

        Each source token has the target tokens with the highest Dice coefficient, 2 n(s, t) / (n(s) + n(t)),
        where n counts the pairs of sentences with the source token, the target token, or both.

        Args:
            pairs: ids of a source and of a target sentence.
            per_token: most target tokens per source token.
            frequent: how many of the most frequent target tokens are always candidates.
            always: further ones, such as the tokenizer's `special_ids`.

        Raises:
            ArgumentTypeError, ArgumentValueError: `per_token` below 1, or `frequent` below 0.
        """
        per_token, frequent = check_integer("per_token", per_token, 1), check_integer("frequent", frequent)
        left, right, both = Counter[int](), Counter[int](), dict[int, Counter[int]]()
        for source, target in pairs:
            words, translations = {*source}, {*target}
            left.update(words)
            right.update(translations)
            for word in words:
                both.setdefault(word, Counter()).update(translations)
        phrases: dict[tuple[int, ...], tuple[int, ...]] = {}
        for word, counts in both.items():
            scores = {t: 2 * n / (left[word] + right[t]) for t, n in counts.items()}
            best = sorted(scores, key=lambda t: (-scores[t], t))[:per_token]
            phrases[word,] = tuple(sorted(best))
        usual = sorted(right, key=lambda t: (-right[t], t))[:frequent]
        return cls(phrases, frozenset([*usual, *always]))

    def write(self, path: str | Path, tokens: Tokens, *, target_tokens: Tokens | None = None) -> None:
        """Writes the layout that `read` reads.

        Args:
            path: of the file.
            tokens: source tokens by id.
            target_tokens: target tokens by id; None for the same.
        """
        targets = tokens if target_tokens is None else target_tokens
        lines = {(): sorted(self.always)} | {key: [*ids] for key, ids in sorted(self.phrases.items())}
        text = "".join(
            f"{' '.join(tokens[s] for s in phrase)}\t{' '.join(targets[t] for t in ids)}\n"
            for phrase, ids in lines.items()
        )
        write_atomically(check_path("path", path), lambda place: place.write_text(text, encoding="utf-8"))
