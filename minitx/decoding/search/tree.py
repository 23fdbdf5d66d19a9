"""The tree of everything that a search kept for a prompt; `print` draws it.

    score
   -0.123  The cat
   -0.140  ├ sat on the mat  [returned #2]
   -0.118  └ is
   -0.131    ├ asleep  [dropped]
   -0.117    └ here  [returned #1]

A run of tokens without a branch is one line, with the score of the sequence up to the end of the line. The
branch with the best hypothesis comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from minitx.decoding.detokenize import text_of
from minitx.decoding.search.record import Link, SearchRecord

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

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
        self,
        record: SearchRecord,
        prompt: int,
        returned: Sequence[Link],
        prompt_ids: Sequence[int],
        tokenizer: Tokenizer | None,
    ) -> None:
        """
        Args:
            record: of the search.
            prompt: its number.
            returned: the last candidates of the hypotheses, best first.
            prompt_ids: the ids that the sequences continue.
            tokenizer: for texts.
        """
        self._record, self._prompt = record, prompt
        self._returned, self._prompt_ids, self._tokenizer = returned, prompt_ids, tokenizer

    @cached_property
    def nodes(self) -> tuple[BeamNode, ...]:
        """All nodes; computed when first asked for."""
        record, prompt = self._record, self._prompt
        ranks = {link: rank for rank, link in enumerate(self._returned)}
        places: dict[Link, int] = {}
        nodes: list[BeamNode] = []
        sequences: list[list[int]] = []  # ids up to each node
        for step in range(record.done.get(prompt, 0)):
            sums, scores = record.at(step, "sums", prompt), record.at(step, "scores", prompt)
            beams = zip(record.at(step, "kept", prompt), record.at(step, "exists", prompt), strict=True)
            kept = {candidate for candidate, exists in beams if exists}
            codes = [record.link(code) for code in record.at(step, "finished", prompt) if code >= 0]
            finished = {link.candidate for link in codes if link.step == step}
            for candidate in sorted(kept | finished):
                link = Link(step, candidate)
                above = record.parent(prompt, link)
                before = 0.0 if above is None else record.at(above.step, "sums", prompt)[above.candidate]
                token = record.token(prompt, link)
                ids = list(self._prompt_ids) if above is None else sequences[places[above]]
                places[link] = len(nodes)
                sequences.append([*ids, token])
                nodes.append(
                    BeamNode(
                        step=step,
                        parent=None if above is None else places[above],
                        token=token,
                        text=text_of(token, self._tokenizer, ids),
                        logprob=sums[candidate] - before,
                        score=scores[candidate],
                        finished=candidate in finished,
                        rank=ranks.get(link),
                    )
                )
        return tuple(nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, place: Any) -> Any:
        return self.nodes[place]

    def __repr__(self) -> str:
        return f"<BeamTree of {len(self)} tokens; print(...) draws it>"

    def __str__(self) -> str:
        return "\n".join(["   score", *_Drawing(self.nodes).lines()])


class _Drawing:
    """The lines of a tree."""

    def __init__(self, nodes: Sequence[BeamNode]) -> None:
        self._nodes = nodes
        self._children: dict[int | None, list[int]] = {}
        best = [False] * len(nodes)  # nodes of the best hypothesis
        for place in range(len(nodes) - 1, -1, -1):
            node = nodes[place]
            best[place] = best[place] or node.rank == 0
            if best[place] and node.parent is not None:
                best[node.parent] = True
            # In the order of the tree, but for the best branch, which comes last.
            siblings = self._children.setdefault(node.parent, [])
            siblings.insert(len(siblings) if best[place] else 0, place)

    def lines(self) -> Iterator[str]:
        """Yields a line for each run of tokens without a branch."""
        roots = self._children.get(None, [])
        waiting = [(place, "", "") for place in roots] if len(roots) == 1 else [*self._branches(roots, "")]
        while waiting:
            place, branch, indent = waiting.pop()
            run = [place]
            while len(children := self._children.get(run[-1], [])) == 1:
                run.append(children[0])
            yield self._line(run, branch)
            waiting += self._branches(children, indent[-_WIDTH:])

    @staticmethod
    def _branches(children: Sequence[int], indent: str) -> Iterator[tuple[int, str, str]]:
        """Yields each child with its own indentation and that of the lines below it, the last child first."""
        for number, child in enumerate(reversed(children)):
            corner, bar = ("├ ", "│ ") if number else ("└ ", "  ")
            yield child, indent + corner, indent + bar

    def _line(self, run: Sequence[int], branch: str) -> str:
        last, end = self._nodes[run[-1]], ""
        if last.rank is not None:
            end = f"  [returned #{last.rank + 1}]"
        elif last.finished:
            end = "  [finished]"
        elif run[-1] not in self._children:
            end = "  [dropped]"
        cut = branch if len(branch) <= _DEEPEST else f"…{branch[1 - _DEEPEST :]}"
        start = f"{last.score:8.3f}  {cut}"
        text, room = "".join(map(self._text, run)), _WIDTH - len(start) - len(end)
        return f"{start}{text if len(text) <= room else f'{text[: room - 1]}…'}{end}"

    def _text(self, place: int) -> str:
        node = self._nodes[place]
        if node.text is None:
            return f" #{node.token}"
        return node.text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
