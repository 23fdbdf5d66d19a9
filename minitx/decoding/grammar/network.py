"""From the rules of a grammar to a recursive transition network over bytes (Woods 1970, CACM 13(10)).

Each rule is a nondeterministic automaton whose edges read bytes or call a rule. What cannot be completed is
removed, so that every text that the network can begin to read is the beginning of one that it accepts.
A regular expression is a network of one rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from minitx.decoding.grammar.nodes import (
    Call,
    Characters,
    Either,
    Node,
    Ranges,
    Repeat,
    Rules,
    Series,
    intersection,
    utf8,
)
from minitx.validation import ArgumentValueError

_Item = TypeVar("_Item")

_MOST_STATES = 400_000
_SHARED = 24  # sets of characters with more spellings than this become rules of their own


class Network:
    """The states of all rules.

    Attributes:
        start, final: of each rule, its first and its accepting state.
        edges: of each state, the bytes that it reads: lowest, highest, state after them.
        calls: of each state, the rules that it calls, and the state after each.
        ends: of each state, whether its rule may end there.
        free: states before the trigger of a lazy grammar.
        first_rule: the rule with which reading begins.
    """

    def __init__(self, rules: Rules, alphabet: Ranges, parameter: str = "grammar") -> None:
        """
        Args:
            rules: of the grammar.
            alphabet: the characters that may occur; others are removed from the grammar.
            parameter: that errors name.

        Raises:
            ArgumentValueError: a grammar that is too large, or that no text of the alphabet matches.
        """
        self._rules, self._alphabet, self._parameter = rules, alphabet, parameter
        self.edges: list[list[tuple[int, int, int]]] = []
        self.calls: list[list[tuple[str, int]]] = []
        self._empty: list[list[int]] = []  # states that are reached without reading
        self._owner: list[str] = []
        self.start: dict[str, int] = {}
        self.final: dict[str, int] = {}
        self.free: set[int] = set()
        self._waiting: list[tuple[str, Node]] = []
        self._call(rules.start)
        while self._waiting:
            name, node = self._waiting.pop()
            self._add(node, self.start[name], self.final[name], name)
        self._trim()
        if not self._completes[self.start[rules.start]]:
            hint = "none does, or the tokens cannot spell any"
            raise ArgumentValueError(parameter, rules.start, "matched by some text", hint)
        self.first_rule = self._wait(rules.trigger) if rules.trigger else rules.start
        self._close()

    # --- construction ------------------------------------------------------------------------------

    def _state(self, rule: str) -> int:
        if len(self.edges) >= _MOST_STATES:
            hint = "bounded repetitions are written out; bound them less, or leave the bounds out"
            raise ArgumentValueError(self._parameter, len(self.edges), "an automaton of fewer states", hint)
        self.edges.append([])
        self.calls.append([])
        self._empty.append([])
        self._owner.append(rule)
        return len(self.edges) - 1

    def _call(self, name: str, node: Node | None = None) -> str:
        """Makes the states of a rule, unless it has some; returns its name."""
        if name not in self.start:
            self.start[name], self.final[name] = self._state(name), self._state(name)
            self._waiting.append((name, self._rules.rules[name] if node is None else node))
        return name

    def _add(self, node: Node, begin: int, end: int, rule: str) -> None:
        """Connects two states by the texts of a node."""
        if isinstance(node, Series):
            for part in node.parts[:-1]:
                after = self._state(rule)
                self._add(part, begin, after, rule)
                begin = after
            if node.parts:
                self._add(node.parts[-1], begin, end, rule)
            else:
                self._empty[begin].append(end)
        elif isinstance(node, Either):
            for option in node.options:
                self._add(option, begin, end, rule)
        elif isinstance(node, Repeat):
            self._repeat(node, begin, end, rule)
        elif isinstance(node, Call):
            self.calls[begin].append((self._call(node.rule), end))
        elif isinstance(node, Characters):
            self._characters(node, begin, end, rule)

    def _repeat(self, node: Repeat, begin: int, end: int, rule: str) -> None:
        for _ in range(node.least):
            after = self._state(rule)
            self._add(node.node, begin, after, rule)
            begin = after
        if node.most is None:
            loop = self._state(rule)
            self._empty[begin].append(loop)
            self._add(node.node, loop, loop, rule)
            begin = loop
        for _ in range((node.most or 0) - node.least):
            after = self._state(rule)
            self._empty[begin].append(end)
            self._add(node.node, begin, after, rule)
            begin = after
        self._empty[begin].append(end)

    def _characters(self, node: Characters, begin: int, end: int, rule: str) -> None:
        spellings = utf8(intersection(node.ranges, self._alphabet))
        if len(spellings) > _SHARED and rule[:1] != "\0":
            self.calls[begin].append((self._call(f"\0{node.ranges}", node), end))
            return
        places: dict[tuple[tuple[int, int], ...], int] = {(): begin}
        for spelling in spellings:
            for size in range(1, len(spelling)):
                if spelling[:size] not in places:
                    places[spelling[:size]] = self._state(rule)
                    edge = (*spelling[size - 1], places[spelling[:size]])
                    self.edges[places[spelling[: size - 1]]].append(edge)
            self.edges[places[spelling[:-1]]].append((*spelling[-1], end))

    def _wait(self, trigger: str) -> str:
        """Adds the rule of a lazy grammar: any bytes without the trigger, or up to it and then the grammar.

        Its states are those of Knuth, Morris and Pratt 1977: the number of bytes of the trigger that the
        text ends with.
        """
        name, text = "\0lazy", trigger.encode()
        states = [self._state(name) for _ in text]
        after, end = self._state(name), self._state(name)
        self.start[name], self.final[name] = states[0], end
        for place, state in enumerate(states):
            for byte in range(256):
                read = text[:place] + bytes([byte])
                known = next(size for size in range(len(read), -1, -1) if read.endswith(text[:size]))
                self.edges[state].append((byte, byte, [*states, after][known]))
            self._empty[state].append(end)
        self.calls[after].append((self._rules.start, end))
        self.free = {*states}
        return name

    # --- what can be completed ---------------------------------------------------------------------

    def _trim(self) -> None:
        """Removes edges to states from which their rule cannot end."""
        before: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)  # state -> states and calls
        callers: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for state in range(len(self.edges)):
            for target in self._empty[state]:
                before[target].append((state, ""))
            for _, _, target in self.edges[state]:
                before[target].append((state, ""))
            for rule, target in self.calls[state]:
                before[target].append((state, rule))
                callers[rule].append((state, target))
        completes = [False] * len(self.edges)
        waiting = [*self.final.values()]
        while waiting:
            state = waiting.pop()
            if completes[state]:
                continue
            completes[state] = True
            waiting += [b for b, rule in before[state] if not rule or completes[self.start[rule]]]
            if state == self.start[self._owner[state]]:
                waiting += [b for b, target in callers[self._owner[state]] if completes[target]]
        self._completes = completes
        for state in range(len(self.edges)):
            self._empty[state] = [target for target in self._empty[state] if completes[target]]
            self.edges[state] = [edge for edge in self.edges[state] if completes[edge[2]]]
            calls = self.calls[state]
            self.calls[state] = [(r, t) for r, t in calls if completes[t] and completes[self.start[r]]]

    def _close(self) -> None:
        """Gives each state the edges and calls of the states that it reaches without reading."""
        edges, calls, ends = [], [], []
        final = {*self.final.values()}
        for state in range(len(self.edges)):
            reached, waiting = {state: None}, [state]
            while waiting:
                for target in self._empty[waiting.pop()]:
                    if target not in reached:
                        reached[target] = None
                        waiting.append(target)
            edges.append(_distinct(edge for other in reached for edge in self.edges[other]))
            calls.append(_distinct(call for other in reached for call in self.calls[other]))
            ends.append(not final.isdisjoint(reached))
        self.edges, self.calls, self.ends = edges, calls, ends


def _distinct(items: Iterable[_Item]) -> list[_Item]:
    return list(dict.fromkeys(items))
