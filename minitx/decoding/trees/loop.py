"""The loop of strategies that verify several tokens per forward: draft a tree, run it, walk along it.

A walk starts at the root of each row. At every node the target chooses the next token as it would without a
draft. Where that token is a child of the node, the walk goes on there; else it ends, and the token is the
next root. So every forward adds at least one token to each row, and one more for each child that was right.

R rows, N nodes, C children, D nodes of a path, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from minitx.decoding.loop import Observer, RowState, logprobs_of
from minitx.decoding.output import Event
from minitx.decoding.processors.chain import unusable
from minitx.decoding.trees.acceptance import match
from minitx.decoding.trees.rules import Rule
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.token_tree import TokenTree


class Path(NamedTuple):
    """The accepted path of each row.

    Attributes:
        tree: the tree.
        nodes: (R, D) long, their numbers, from the root; undefined after `lengths`.
        lengths: (R,) long, how many they are; 0 for rows that had ended before.
    """

    tree: TokenTree
    nodes: Tensor
    lengths: Tensor


class Drafter(Protocol):
    """Proposes trees during one generation; made when the generation starts.

    Attributes:
        nodes: most nodes of a tree, the root included.
        keep_outputs: whether it reads `TreeSession.outputs`.
        hidden_states: whether it reads those of all layers there.
        laws: (R, N, V), logits that the children of each node were drawn from without replacement, in order;
            None where they were chosen.
    """

    nodes: int
    keep_outputs: bool
    hidden_states: bool
    laws: Tensor | None

    def propose(self, session: TreeSession) -> TokenTree:
        """Returns a tree per row, whose root is the row's last token."""

    def observe(self, session: TreeSession, path: Path) -> None:
        """Learns what became of the tree, before the session's cache drops the other branches."""


@torch.inference_mode()
def walk_trees(
    session: TreeSession, drafter: Drafter, rule: Rule, observe: Observer | None = None
) -> Iterator[list[Event]]:
    """Generates until all rows have ended; yields the events of each step of a walk.

    Args:
        session: not yet started.
        drafter: proposes the trees.
        rule: chooses the tokens.
        observe: called with the session and the chosen tokens at every step of a walk.

    Raises:
        ValueError: a row has no token that can be chosen.
    """
    request = session.request
    if request.max_new_tokens == 0:
        return
    rows = RowState.all_of(request)
    session.start(request.num_samples)
    tree = TokenTree.chain(session.context.last(1))  # the first walk has no candidates
    yield from walk(session, tree, rule, rows, observe)
    while any(row.reason is None for row in rows):
        tree = drafter.propose(session)
        session.run(tree)
        path = yield from walk(session, tree, rule, rows, observe)
        drafter.observe(session, path)
        session.keep(path.nodes, path.lengths)


def walk(
    session: TreeSession, tree: TokenTree, rule: Rule, rows: list[RowState], observe: Observer | None
) -> Generator[list[Event], None, Path]:
    """Walks from the root of each row along its tree; yields the events of each step, returns the paths."""
    going = alive(rows, session)
    node = torch.zeros_like(going, dtype=torch.long)
    nodes, count = [], torch.zeros_like(node)
    while bool(going.any()):
        nodes.append(node)
        count = count + going
        numbers, children = tree.children(node)
        token, events = choose(session, rule, rows, going, node, children, observe)
        yield events
        child = match(token, children)
        going = going & alive(rows, session) & (child >= 0)
        if bool(going.any()):
            node = numbers.gather(1, child.clamp(min=0)[:, None]).squeeze(1).clamp(min=0)
            session.stand_at(node)
    return Path(tree, torch.stack(nodes, dim=1), count)


def alive(rows: list[RowState], session: TreeSession) -> Tensor:
    """Returns which rows have not ended, (R,) bool."""
    return torch.tensor([row.reason is None for row in rows], device=session.device)


def choose(
    session: TreeSession,
    rule: Rule,
    rows: list[RowState],
    going: Tensor,
    node: Tensor,
    children: Tensor,
    observe: Observer | None,
) -> tuple[Tensor, list[Event]]:
    """Chooses and appends the next token of the rows that go on; returns the tokens (R,) and their events."""
    request = session.request
    processed = session.process(session.logits)
    token = rule(session, processed, node, children)
    if bool((unusable(processed) & going).any()):
        session.raise_for_empty_rows(going)
    if observe is not None:
        observe(session, token)
    extras: Any = logprobs_of(request, session.logits if request.logprobs == "raw" else processed, token)
    session.append(token, going)
    chosen = zip(token.tolist(), going.tolist(), rows, extras, strict=True)
    events = [
        Event(number, token_id, *row.push(token_id), *extra)
        for number, (token_id, goes, row, extra) in enumerate(chosen)
        if goes
    ]
    return token, events
