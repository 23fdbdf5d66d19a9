"""The record of a search, and the tree that it grew.

A search writes down at each step which candidates it looked at and which it kept (`Step`). From that record
(`Trace`) the texts of hypotheses are read when the search is over, and `BeamTree`, which shows all that was
kept.

P prompts, N beams, K candidates, M places in the pool of finished hypotheses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from minitx.decoding.detokenize import text_of

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

_WIDTH = 80


class Link(NamedTuple):
    """One candidate, where it stands in the record: the step, and which of the K of its prompt."""

    step: int
    candidate: int


@dataclass
class Step:
    """What one step decided. P here counts the prompts that were still searched.

    The tensors become lists once they are read.

    Attributes:
        prompts: their numbers.
        parents: (P, K) long, which beam each candidate continues.
        tokens: (P, K) long.
        sums: (P, K), log-probability of each candidate's text, as the chain left it.
        scores: (P, K), by what each candidate's text would be compared with others, were it to end there.
        ends: (P, K) bool, candidates that end.
        kept: (P, N) long, which candidates the next step's beams are.
        exist: (P, N) bool, which of those are beams, and do not fill a place that is empty.
        finished: (P, M) long, codes of the finished hypotheses after this step; -1 for none.
        logprobs: (P, K), and ids and values (P, N, n): what the call wants to know, if anything.
    """

    prompts: list[int]
    parents: Any
    tokens: Any
    sums: Any
    scores: Any
    ends: Any
    kept: Any
    exist: Any
    finished: Any
    logprobs: tuple[Tensor, Tensor, Tensor] | None = None

    def read(self) -> Step:
        """The same, as plain numbers."""
        if isinstance(self.tokens, Tensor):
            for name in ("parents", "tokens", "sums", "scores", "ends", "kept", "exist", "finished"):
                setattr(self, name, getattr(self, name).tolist())
        return self


@dataclass
class Trace:
    """All steps of a search, as they come.

    Attributes:
        width: K. A candidate's code is step * K + its number.
        steps: as they came.
        done: how many steps each prompt was searched for.
    """

    width: int
    steps: list[Step] = field(default_factory=list)
    done: dict[int, int] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Writes a step down.

        On a CPU the one before it is read. Its small tensors would otherwise stay where they are, between the
        large ones of the search, and break up the memory that those leave to the ones after them.
        """
        if self.steps and step.tokens.device.type == "cpu":
            self.steps[-1].read()
        self.steps.append(step)

    def link(self, code: int) -> Link:
        """The candidate with this code."""
        return Link(*divmod(code, self.width))

    def at(self, step: int, name: str, prompt: int) -> Any:
        """A field of `Step` for one prompt, as plain numbers."""
        found = self.steps[step].read()
        return getattr(found, name)[found.prompts.index(prompt)]

    def parent(self, prompt: int, link: Link) -> Link | None:
        """The candidate that this one continues; None for those of the first step."""
        if link.step == 0:
            return None
        beam = self.at(link.step, "parents", prompt)[link.candidate]
        return Link(link.step - 1, self.at(link.step - 1, "kept", prompt)[beam])

    def path(self, prompt: int, link: Link) -> list[Link]:
        """The candidates from the first step to this one."""
        found = [link]
        while (above := self.parent(prompt, found[-1])) is not None:
            found.append(above)
        return found[::-1]

    def token(self, prompt: int, link: Link) -> int:
        found: int = self.at(link.step, "tokens", prompt)[link.candidate]
        return found

    def extras(self, prompt: int, link: Link) -> tuple[Any, ...]:
        """What the call wants to know beside the token, as the last fields of an `Event`."""
        step = self.steps[link.step]
        if step.logprobs is None:
            return ()
        place = step.prompts.index(prompt)
        chosen, ids, values = (part[place] for part in step.logprobs)
        beam = self.at(link.step, "parents", prompt)[link.candidate]
        tops = tuple(zip(ids[beam].tolist(), values[beam].tolist(), strict=True)) or None
        return float(chosen[link.candidate]), tops


@dataclass(frozen=True)
class BeamNode:
    """One token that was kept.

    Attributes:
        step: how many tokens of the text come before it.
        parent: the place in the tree of the token before it; None for the first.
        token: its id.
        text: what the token adds to the text; None without a tokenizer, or where that cannot be shown, as
            half a character.
        logprob: what the token added to the sum of log-probabilities, as the processors left it.
        score: of the text up to it, by what the search compares: where it ends, that of `Result.scores`.
        finished: the text ends with it, as one of the hypotheses kept then.
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
    """What a search kept for one prompt, step by step; a token comes behind the one that it continues.

    `print` draws it, and says below how to read it.
    """

    def __init__(
        self,
        trace: Trace,
        prompt: int,
        returned: Sequence[Link],
        before: Sequence[int],
        tokenizer: Tokenizer | None,
    ) -> None:
        """
        Args:
            trace: of the search.
            prompt: its number.
            returned: the last candidates of the hypotheses, the best first.
            before: the ids that the texts continue.
            tokenizer: for texts.
        """
        self._trace, self._prompt = trace, prompt
        self._returned, self._before, self._tokenizer = returned, before, tokenizer

    @cached_property
    def nodes(self) -> tuple[BeamNode, ...]:
        """All of them; made when first asked for."""
        trace, prompt = self._trace, self._prompt
        ranks = {link: rank for rank, link in enumerate(self._returned)}
        places: dict[Link, int] = {}
        made: list[BeamNode] = []
        texts: list[list[int]] = []  # the last ids of each node's text
        for step in range(trace.done.get(prompt, 0)):
            sums, scores = trace.at(step, "sums", prompt), trace.at(step, "scores", prompt)
            beams = zip(trace.at(step, "kept", prompt), trace.at(step, "exist", prompt), strict=True)
            kept = {candidate for candidate, exists in beams if exists}
            codes = [trace.link(code) for code in trace.at(step, "finished", prompt) if code >= 0]
            finished = {link.candidate for link in codes if link.step == step}
            for candidate in sorted(kept | finished):
                link = Link(step, candidate)
                above = trace.parent(prompt, link)
                before = 0.0 if above is None else trace.at(above.step, "sums", prompt)[above.candidate]
                token = trace.token(prompt, link)
                ids = list(self._before) if above is None else texts[places[above]]
                places[link] = len(made)
                texts.append([*ids, token])
                made.append(
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
        return tuple(made)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, place: Any) -> Any:
        return self.nodes[place]

    def __repr__(self) -> str:
        return f"<BeamTree of {len(self)} tokens; print(...) draws it>"

    def __str__(self) -> str:
        return "\n".join(_Drawing(self.nodes).lines())


LEGEND = """\
score  of the text up to the end of its line   #1, #2   returned, the best first
*      the way to the best text                ended    finished, not returned
├      branches off what stands left of it     dropped  other beams were better
│      in such a branch"""


class _Drawing:
    """The lines of a tree.

    A run of tokens without a branch is a line. Where the tree branches, the best or else the largest branch
    goes on below at the same indentation, behind the others, which are indented: so lines stay short.
    """

    def __init__(self, nodes: Sequence[BeamNode]) -> None:
        self._nodes = nodes
        self._children: dict[int | None, list[int]] = {}
        for place, node in enumerate(nodes):
            self._children.setdefault(node.parent, []).append(place)
        self._sizes = [1] * len(nodes)
        for place in range(len(nodes) - 1, -1, -1):
            parent = nodes[place].parent
            if parent is not None:
                self._sizes[parent] += self._sizes[place]
        self._best: set[int | None] = set()
        at = next((place for place, node in enumerate(nodes) if node.rank == 0), None)
        while at is not None:
            self._best.add(at)
            at = nodes[at].parent

    def lines(self) -> Iterator[str]:
        yield "     score  text"
        yield from self._below(None, "")
        yield ""
        yield LEGEND

    def _below(self, parent: int | None, indent: str) -> Iterator[str]:
        """What continues a token: the branches, each at a line of its own, then the trunk."""
        while children := self._children.get(parent):
            *sides, trunk = sorted(children, key=lambda place: (place in self._best, self._sizes[place]))
            for side in reversed(sides):
                run = self._run(side)
                yield self._line(run, indent + "├ ")
                yield from self._below(run[-1], indent + "│ ")
            run = self._run(trunk)
            yield self._line(run, indent)
            parent = run[-1]

    def _run(self, place: int) -> list[int]:
        """The tokens from this one to where the tree branches or ends."""
        run = [place]
        while len(children := self._children.get(run[-1], [])) == 1:
            run.append(children[0])
        return run

    def _line(self, run: Sequence[int], indent: str) -> str:
        last = self._nodes[run[-1]]
        mark = "*" if run[-1] in self._best else " "
        end = ""
        if last.rank is not None:
            end = f"  [#{last.rank + 1}]"
        elif last.finished:
            end = "  [ended]"
        elif run[-1] not in self._children:
            end = "  [dropped]"
        start = f"{mark} {last.score:8.3f}  {indent}"
        text = "".join(self._shown(self._nodes[place]) for place in run)
        room = max(8, _WIDTH - len(start) - len(end))
        if len(text) > room:
            text = text[: room - 1] + "…"
        return f"{start}{text}{end}"

    @staticmethod
    def _shown(node: BeamNode) -> str:
        if node.text is None:
            return f" #{node.token}"
        return node.text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
