"""The tree of everything that a search kept for a prompt; `print` draws it.

    score
   -0.123  The cat
   -0.140  ├ sat on the mat  [returned #2]
   -0.118  └ is
   -0.131    ├ asleep  [dropped]
   -0.117    └ here  [returned #1]

A run of tokens without a branch is one line, with the score of the sequence up to the end of the line. The
branch with the best hypothesis comes last. Tokens without a text of their own are numbers, as #5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.record import Link, SearchRecord
from minitx.decoding.text.detokenize import text_of

_WIDTH = 80
_DEEPEST = 40  # columns of branches; deeper ones are cut on the left


@dataclass(frozen=True)
class BeamNode:
    """One token that was kept.

    Attributes:
        step: the number of generated tokens before it.
        parent: the place in the tree of the token before it; None for the first.
        token: its id.
        text: the text that it adds; None without a tokenizer, or where it has none, as half a character.
        logprob: its summand in the log-probability of the sequence, after the chain.
        score: of the sequence up to it; where it ends, that of `Result.scores`.
        finished: it ends a sequence that was a finished hypothesis then.
        rank: place among the returned hypotheses, 0 for the best; None if none of them ends here.
    """

    step: int
    parent: int | None
    token: int
    text: str | None
    logprob: float
    score: float
    finished: bool
    rank: int | None


class BeamTree(Sequence[BeamNode]):
    """The tokens that a search kept for one prompt, step by step; a token comes after its parent."""

    def __init__(
        self, record: SearchRecord, prompt: int, returned: Sequence[Link], request: GenerationRequest
    ) -> None:
        """
        Args:
            record: of the search.
            prompt: its number.
            returned: the last candidates of the hypotheses, best first.
            request: of the search.
        """
        self._record, self._prompt, self._returned, self._request = record, prompt, returned, request

    @cached_property
    def nodes(self) -> tuple[BeamNode, ...]:
        """All nodes; computed when first asked for."""
        record, prompt = self._record, self._prompt
        ranks = {link: rank for rank, link in enumerate(self._returned)}
        places: dict[Link | None, int | None] = {None: None}
        sums: dict[Link | None, float] = {None: 0.0}
        sequences: dict[Link | None, list[int]] = {None: list(self._request.prompts[prompt])}
        nodes: list[BeamNode] = []
        for step in range(record.done.get(prompt, 0)):
            beams = zip(record.at(step, "kept", prompt), record.at(step, "exists", prompt), strict=True)
            codes = [record.link(code) for code in record.at(step, "finished", prompt) if code >= 0]
            finished = {link for link in codes if link.step == step}
            for link in sorted(finished | {Link(step, candidate) for candidate, exists in beams if exists}):
                above = record.parent(prompt, link)
                token, ids = record.value(prompt, link, "tokens"), sequences[above]
                score, sums[link] = (record.value(prompt, link, name) for name in ("scores", "sums"))
                text, logprob = text_of(token, self._request.tokenizer, ids), sums[link] - sums[above]
                places[link], sequences[link] = len(nodes), [*ids, token]
                state = (link in finished, ranks.get(link))
                nodes.append(BeamNode(step, places[above], token, text, logprob, score, *state))
        return tuple(nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, place: Any) -> Any:
        return self.nodes[place]

    def __repr__(self) -> str:
        return f"<BeamTree of {len(self)} tokens; print(...) draws it>"

    def __str__(self) -> str:
        return "\n".join(["   score", *_drawing(self.nodes)])


def _drawing(nodes: Sequence[BeamNode]) -> Iterator[str]:
    """Yields a line for each run of tokens without a branch."""
    children: dict[int | None, list[int]] = {}
    best = [node.rank == 0 for node in nodes]  # later: of the best hypothesis
    for place, node in reversed([*enumerate(nodes)]):
        if best[place] and node.parent is not None:
            best[node.parent] = True
        # In the order of the tree, but for the best branch, which comes last.
        siblings = children.setdefault(node.parent, [])
        siblings.insert(len(siblings) if best[place] else 0, place)
    waiting: list[tuple[list[int], str, str]] = [([], "", "")]
    while waiting:
        run, branch, indent = waiting.pop()
        following = children.get(run[-1] if run else None, [])
        while len(following) == 1:
            run.append(following[0])
            following = children.get(run[-1], [])
        if run:
            yield _line([nodes[place] for place in run], branch, dropped=not following)
        for number, child in enumerate(reversed(following)):
            corner, bar = ("├ ", "│ ") if number else ("└ ", "  ")
            waiting.append(([child], indent + corner, (indent + bar)[-_WIDTH:]))


def _line(run: Sequence[BeamNode], branch: str, dropped: bool) -> str:
    last, end = run[-1], "  [dropped]" if dropped else ""
    if last.rank is not None:
        end = f"  [returned #{last.rank + 1}]"
    elif last.finished:
        end = "  [finished]"
    cut = branch if len(branch) <= _DEEPEST else f"…{branch[1 - _DEEPEST :]}"
    start = f"{last.score:8.3f}  {cut}"
    parts = (_visible(node.text) if node.text else f" #{node.token} " for node in run)
    text = "".join(parts).replace("  #", " #").rstrip(" ")
    text = text if run[0].text else text[1:]
    room = _WIDTH - len(start) - len(end)
    return f"{start}{text if len(text) <= room else f'{text[: room - 1]}…'}{end}"


def _visible(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
