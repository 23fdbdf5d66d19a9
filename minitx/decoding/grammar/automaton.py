"""The automaton of a grammar: numbered states over bytes, made when they are reached.

A state is the set of items of an Earley parser (Earley 1970, CACM 13(2)) over the network: an item is a
state of a rule and the automaton state in which the rule was called. Sets with equal items have the same
number. For a grammar without recursion these are the states of the deterministic automaton that the subset
construction gives; with recursion, states are created when they are reached. A call at the very end of a
rule returns to the caller of that rule, so that lists and chains of rules need no more states than loops.

Nothing here depends on a tokenizer but the alphabet; `masks.py` walks over the bytes of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from minitx.decoding.grammar.network import Network
from minitx.validation import ArgumentValueError

DEAD = 0  # no text begins like this
START = 1
START_OF_TEXT = 2  # a first space is skipped, for tokenizers that drop it
_UNKNOWN = -1  # of the table: not yet computed
_NOWHERE = -1  # the caller of the first rule
_MOST_STATES = 1_000_000

# A state of the network, the automaton state that called its rule, and the rule that ends with it.
_Item = tuple[int, int, str]


class Automaton:
    """A deterministic automaton over bytes whose states are numbers: DEAD, START, START_OF_TEXT and others.

    Attributes:
        classes: (256,) long, the class of each byte; bytes of a class lead to the same states.
        parameter: that errors name.
    """

    def __init__(self, network: Network, parameter: str = "grammar") -> None:
        self._network, self.parameter = network, parameter
        bounds = {0, ord(" "), ord(" ") + 1}
        for edges in network.edges:
            for low, high, _ in edges:
                bounds |= {low, high + 1}
        starts = sorted(bounds - {256})
        sizes = [end - start for start, end in zip(starts, [*starts[1:], 256], strict=True)]
        self.classes = torch.arange(len(starts)).repeat_interleave(torch.tensor(sizes))
        self._class_of: list[int] = self.classes.tolist()
        self._targets: dict[int, dict[int, list[int]]] = {}  # of network states: class -> states after it
        # The state after a state and a class, at `state << shift + class`, is kept as the place of its row.
        self._width, self._shift = len(starts), (len(starts) - 1).bit_length()
        self._table = torch.full((64 << self._shift,), _UNKNOWN)
        self._rows: list[list[int]] = []  # the states as lists, for single bytes
        self._numbers: dict[frozenset[_Item], int] = {}
        self._kernels: list[frozenset[_Item]] = []
        self._callers: list[dict[str, list[_Item]]] = []
        self._readers: list[list[_Item] | None] = []
        self._accepts: list[bool] = []
        rule = network.first_rule
        for kernel in (
            frozenset[_Item](),
            frozenset([(network.start[rule], _NOWHERE, rule)]),
            frozenset[_Item](),
        ):
            self._append(kernel)
        self._numbers[frozenset()] = DEAD
        self._accepts[START_OF_TEXT] = self.accepts(START)
        for byte_class in range(len(starts)):
            space = byte_class == self._class_of[ord(" ")]
            self._rows[DEAD][byte_class] = DEAD
            self._rows[START_OF_TEXT][byte_class] = START if space else self._step(START, byte_class)

    def __len__(self) -> int:
        """The number of states so far."""
        return len(self._kernels)

    def accepts(self, state: int) -> bool:
        """Whether the text may end here."""
        self._close(state)
        return self._accepts[state]

    def is_free(self, state: int) -> bool:
        """Whether a lazy grammar still waits for its trigger here."""
        kernel = self._kernels[START if state == START_OF_TEXT else state]
        return any(place in self._network.free for place, _, _ in kernel)

    def step(self, state: int, byte: int) -> int:
        """Returns the state after a byte; DEAD where no text continues so."""
        return self._step(state, self._class_of[byte])

    def read(self, state: int, data: bytes) -> int:
        """Returns the state after several bytes."""
        for byte in data:
            state = self._step(state, self._class_of[byte])
        return state

    def walk(self, state: int, levels: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Reads the bytes of a whole tree at once.

        Args:
            state: at the root.
            levels: of each level below, its nodes' parents, as places in the level above, and the classes of
                their bytes: both (M,) long, on the CPU.

        Returns:
            The state at each node, (N,) long, level by level from the root; of lower levels that no text
            reaches, none.
        """
        rows = torch.tensor([state << self._shift])  # places in the table
        parts = [rows]
        for parents, classes in levels:
            places = rows.index_select(0, parents) + classes
            rows = self._table.index_select(0, places)
            lowest, highest = map(int, rows.aminmax())
            if lowest == _UNKNOWN:
                self._fill(places[rows < 0])
                rows = self._table.index_select(0, places)
                highest = int(rows.max())
            parts.append(rows)
            if highest == DEAD:
                break
        return torch.cat(parts) >> self._shift

    def _fill(self, places: Tensor) -> None:
        """Computes these places of the table, (M,) long."""
        missing, mask = torch.unique(places), (1 << self._shift) - 1
        states = [self._step(place >> self._shift, place & mask) for place in missing.tolist()]
        self._table[missing] = torch.tensor(states) << self._shift  # the table may have grown meanwhile

    def forced_byte(self, state: int) -> int | None:
        """Returns the only byte with which the text can continue; None if there is a choice, or the end."""
        if state == DEAD or self.accepts(state):
            return None
        live = [c for c in range(self._width) if self._step(state, c) != DEAD]
        bytes_ = (self.classes == live[0]).nonzero().flatten().tolist() if len(live) == 1 else []
        return bytes_[0] if len(bytes_) == 1 else None

    def _by_class(self, place: int) -> dict[int, list[int]]:
        """Returns the states of the network after one, by the class of the byte between."""
        targets = self._targets.get(place)
        if targets is None:
            targets = self._targets[place] = {}
            for low, high, target in self._network.edges[place]:
                for byte_class in range(self._class_of[low], self._class_of[high] + 1):
                    targets.setdefault(byte_class, []).append(target)
        return targets

    def _number(self, kernel: frozenset[_Item]) -> int:
        """Returns the state of a set of items."""
        number = self._numbers.get(kernel)
        return self._append(kernel) if number is None else number

    def _append(self, kernel: frozenset[_Item]) -> int:
        number = len(self._kernels)
        if number >= _MOST_STATES:
            hint = "the text has led to more; a grammar that is less ambiguous has fewer"
            raise ArgumentValueError(self.parameter, number, f"of at most {_MOST_STATES} states", hint)
        self._numbers[kernel] = number
        self._kernels.append(kernel)
        self._callers.append({})
        self._readers.append(None)
        self._accepts.append(False)
        self._rows.append([_UNKNOWN] * self._width)
        if number << self._shift == len(self._table):
            self._table = torch.cat((self._table, torch.full_like(self._table, _UNKNOWN)))
        return number

    def _step(self, state: int, byte_class: int) -> int:
        number = self._rows[state][byte_class]
        if number == _UNKNOWN:
            items: set[_Item] = set()
            for place, origin, rule in self._close(state):
                for target in self._by_class(place).get(byte_class, ()):
                    items.add((target, origin, rule))
            number = self._number(frozenset(items))
            self._rows[state][byte_class] = number
        return number

    def _close(self, state: int) -> list[_Item]:
        """Adds the items of called and completed rules; returns those that read a byte."""
        known = self._readers[state]
        if known is not None:
            return known
        network, callers = self._network, self._callers[state]
        waiting = list(self._kernels[state])
        items, completed, readers = set(waiting), set[str](), []

        def _add(item: _Item) -> None:
            if item not in items:
                items.add(item)
                waiting.append(item)

        while waiting:
            item = place, origin, rule = waiting.pop()
            if network.edges[place]:
                readers.append(item)
            if network.ends[place]:
                if origin == _NOWHERE:
                    self._accepts[state] = True
                else:
                    if origin == state:
                        completed.add(rule)
                    for caller in self._callers[origin].get(rule, ()):
                        _add(caller)
            for called, target in network.calls[place]:
                first = network.start[called]
                only_ends = network.ends[target] and not network.edges[target] and not network.calls[target]
                if only_ends:
                    _add((first, origin, rule))
                    continue
                callers.setdefault(called, []).append((target, origin, rule))
                _add((first, state, called))
                if called in completed:
                    _add((target, origin, rule))
        self._readers[state] = readers
        return readers
