"""The growing text of one row, and where it ends: at a stop string or at a match of a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy

from minitx.decoding.text.detokenize import Detokenizer

# The most characters between the start of a regex match and the character that completes it. So many are held
# back, since text that may still become part of a match cannot be known for every regular expression.
REACH = 64

# Of a match: the number of characters with which it is complete, its start, its end.
_Match = tuple[int, int, int]


class RowText:
    """The growing text of one row, up to a stop string or a match.

    Text is released as soon as no stop string can begin in it; with a regex, when `REACH` more characters
    have followed.

    Args:
        detokenizer: of the row.
        strings: the stop strings.
        include_stop: keep the stop string or the match in the text.
        regex: searched in the text of all generated tokens as it grows character by character.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        strings: Sequence[str] = (),
        include_stop: bool = False,
        regex: re.Pattern[str] | None = None,
    ) -> None:
        self._detokenizer, self._strings, self._include_stop = detokenizer, strings, include_stop
        self._regex = regex
        self._before = ""  # the released text, if there is a regex: it may look behind
        self._held = ""  # certain, but possibly the beginning of a match
        self._ignored = 0  # characters at the start of `_held` in which a match is ignored

    def copy(self) -> RowText:
        """Returns a copy that can be continued independently."""
        other = copy(self)
        other._detokenizer = self._detokenizer.copy()
        return other

    def push(self, token: int, *, may_stop: bool = True) -> tuple[str, bool]:
        """Appends the row's next token.

        Args:
            token: its id.
            may_stop: a match that this token completes ends the text.

        Returns:
            The text to release, and whether it ends here, at a match.
        """
        searched = len(self._held)
        certain = self._held + self._detokenizer.push(token)
        if not self._strings and self._regex is None:
            return certain, False
        text = certain + self._detokenizer.rest
        if not may_stop:
            self._ignored = len(text)
        match = self._first_match(text, searched)
        if match is not None:
            _, start, end = match
            return text[: end if self._include_stop else start], True
        held = _possible_start(certain, self._strings)
        if self._regex is not None:
            held = max(held, min(REACH, len(certain)))
        released = len(certain) - held
        self._held = certain[released:]
        self._ignored = max(0, self._ignored - released)
        if self._regex is not None:
            self._before += certain[:released]
        return certain[:released], False

    def finish(self) -> str:
        """Returns the text that was held back; the row has ended without a match."""
        return self._held + self._detokenizer.finish()

    def _first_match(self, text: str, searched: int) -> _Match | None:
        """Returns the match that is completed first, after the ignored characters.

        Of several that are completed there the one that begins first: so the boundaries of tokens do not
        matter.

        Args:
            text: the text that is not released.
            searched: the characters at its start in which the regex has been searched before.
        """
        matches = _string_matches(text, self._strings, self._ignored)
        if self._regex is not None:
            matches += _regex_matches(text, self._regex, self._before, searched, self._ignored)
        return min(matches, default=None)


def _string_matches(text: str, strings: Sequence[str], ignored: int) -> list[_Match]:
    """Returns the first match of each stop string after the ignored characters."""
    starts = {string: text.find(string, max(0, ignored - len(string) + 1)) for string in strings}
    found = ((start, start + len(string)) for string, start in starts.items() if start >= 0)
    return [(end, start, end) for start, end in found]


def _regex_matches(
    text: str, regex: re.Pattern[str], before: str, searched: int, ignored: int
) -> list[_Match]:
    """Returns what `re.search` finds first while the text grows by characters; nothing if there is no match.

    Args:
        text: in which the match begins, at most `REACH` characters before the end of the text so far.
        regex: the regular expression.
        before: the text before it.
        searched: characters at the start of the text after which nothing was found.
        ignored: characters at its start in which a match is ignored; 0 for none.
    """
    first, whole = len(before), before + text
    for end in range(first + searched + 1, len(whole) + 1):
        match = regex.search(whole, max(first, end - REACH), end)
        while match is not None and ignored and match.end() <= first + ignored:
            match = regex.search(whole, match.start() + 1, end)
        if match is not None:
            return [(end - first, match.start() - first, match.end() - first)]
    return []


def _possible_start(text: str, strings: Sequence[str]) -> int:
    """Returns the largest number of characters at the end of the text that begin a stop string."""
    longest = max(map(len, strings), default=0)
    sizes = range(min(longest - 1, len(text)), 0, -1)
    return next((size for size in sizes if any(s.startswith(text[-size:]) for s in strings)), 0)
