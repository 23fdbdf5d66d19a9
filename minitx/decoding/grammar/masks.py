"""Which tokens a grammar allows: the automaton over bytes, walked with the bytes of all tokens at once.

Willard and Louf 2023, "Efficient Guided Generation for Large Language Models", arXiv:2307.09702, index the
tokens of each state of an automaton in advance; here a state's are found when it is first reached, and kept.

V vocabulary, N nodes of the tree of bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.grammar.automaton import DEAD, START, START_OF_TEXT, Automaton
from minitx.decoding.grammar.network import Network
from minitx.decoding.grammar.nodes import EVERY, Rules
from minitx.decoding.grammar.vocabulary import Vocabulary, read_vocabulary
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError

ENDED = -1  # the state after an end token
_MASK_BYTES = 2**25  # of the masks that a grammar keeps
_MOST_STATES = 100_000  # with which a grammar is kept for the next call
_MOST_EXPLORED = 500  # states that are explored for dead ends, if the tokens cannot spell every byte
_MOST_GRAMMARS = 32  # kept per tokenizer

# Generations in several threads may share a grammar, which makes its states when they are reached.
_LOCK = threading.RLock()
_VOCABULARIES: WeakKeyDictionary[Tokenizer, dict[tuple[int, int], Vocabulary]] = WeakKeyDictionary()
_COMPILED: WeakKeyDictionary[Tokenizer, OrderedDict[object, TokenAutomaton]] = WeakKeyDictionary()


class TokenAutomaton:
    """A grammar for the tokens of one tokenizer. States are integers, those of `Automaton`.

    Only caches change after construction: the result of a method depends on its arguments alone.

    Attributes:
        ends: the ids that may end a row; only where the text is complete.
        vocabulary: the bytes of each token.
        automaton: over bytes.
    """

    def __init__(
        self, rules: Rules, vocabulary: Vocabulary, ends: Sequence[int], triggers: Iterable[int] = ()
    ) -> None:
        """
        Args:
            rules: of the grammar.
            vocabulary: of the model.
            ends: ids of end tokens.
            triggers: special tokens whose name is the trigger of a lazy grammar.

        Raises:
            ArgumentValueError: no text of the tokens matches.
        """
        self.vocabulary, self.ends = vocabulary, tuple(sorted({*ends}))
        self._ends, self._triggers = frozenset(ends), frozenset(triggers)
        self._allowed: OrderedDict[int, Tensor] = OrderedDict()
        self._steps: dict[tuple[int, int], int] = {}
        self._live: frozenset[int] | None = None  # None: all states are
        self._usable: Tensor | None = None  # None: all tokens are
        self._lazy = bool(rules.trigger)
        self._after_trigger = DEAD
        pieces = vocabulary.pieces
        without = [t for t, piece in enumerate(pieces) if not piece and t not in self._ends]
        self._special = torch.tensor(without, dtype=torch.long)
        self._ends_tensor = torch.tensor(self.ends, dtype=torch.long)
        if vocabulary.complete or not self._explored(rules):
            self._use(Automaton(Network(rules, vocabulary.alphabet)))
        if self._lazy:
            self._after_trigger = self.automaton.read(START, rules.trigger.encode())

    @property
    def start(self) -> int:
        """The state before the first token."""
        return START

    @property
    def start_of_text(self) -> int:
        """The state before the first token, where no text comes before it."""
        return START_OF_TEXT if self.vocabulary.strips else START

    def accepts(self, state: int) -> bool:
        """Whether the text may end here."""
        with _LOCK:
            return state > DEAD and self.automaton.accepts(state)

    def advance(self, state: int, token: int) -> int:
        """Returns the state after a token: DEAD if it is not allowed, ENDED after an end token."""
        if state <= DEAD:
            return state
        if token in self._ends:
            return ENDED
        piece = self.vocabulary.pieces[token] if token < len(self.vocabulary.pieces) else None
        if piece is None:
            if self._lazy and self.automaton.is_free(state):
                return self._after_trigger if token in self._triggers else START
            return state
        number = self._steps.get((state, token))
        if number is None:
            with _LOCK:
                number = self._steps[state, token] = self.automaton.read(state, piece)
        return number

    def allowed(self, state: int) -> Tensor:
        """Returns the tokens that may come next: (V,) bool on the CPU, to be read only."""
        with _LOCK:
            mask = self._allowed.get(state)
            if mask is None:
                mask = self._allowed[state] = self._mask(state)
                if len(self._allowed) * len(mask) > _MASK_BYTES:
                    self._allowed.popitem(last=False)
            self._allowed.move_to_end(state)
        return mask

    def following(self, state: int) -> Tensor:
        """Returns the state after each token, (V,) long; DEAD for those without text."""
        tree = self.vocabulary.tree
        states = self.automaton.walk(state, self._levels)
        states[0] = DEAD  # the root, where tokens without text are
        return F.pad(states, (0, len(tree.byte) - len(states)), value=DEAD)[tree.node]

    def _use(self, automaton: Automaton) -> None:
        tree = self.vocabulary.tree
        classes = automaton.classes[tree.byte]
        self.automaton = automaton
        self._levels = [(parents, classes[first : first + len(parents)]) for first, parents in tree.levels]

    def _mask(self, state: int) -> Tensor:
        if state <= DEAD:  # a row that has ended takes any token, a dead one none
            return torch.full((len(self.vocabulary.pieces),), state == ENDED)
        following = self.following(state)
        mask = following != DEAD
        if self._live is not None:
            mask &= torch.isin(following, torch.tensor([*self._live]))
        if self._usable is not None:
            free = [s for s in torch.unique(following).tolist() if self._lazy and self.automaton.is_free(s)]
            mask &= self._usable | torch.isin(following, torch.tensor(free))
        if self.vocabulary.first_only and state == self.start_of_text:
            mask[[*self.vocabulary.first_only]] = False
        if self._lazy and self.automaton.is_free(state):
            mask[self._special] = True
        mask[self._ends_tensor] = self.automaton.accepts(state)
        return mask

    def _explored(self, rules: Rules) -> bool:
        """Finds the states from which tokens can complete the text, where they cannot spell every byte.

        If there are too many states, the texts of characters that are tokens are used, and the tokens that
        end between characters: from there, single characters lead to the end.

        Returns:
            Whether `automaton` is set: there are few states, or only such tokens.
        """
        vocabulary = self.vocabulary
        if vocabulary.spells_itself:
            return False
        self._use(Automaton(Network(rules, EVERY)))
        before: dict[int, set[int]] = {}
        waiting = deque({self.start, self.start_of_text})
        known = {*waiting}
        while waiting and len(known) <= _MOST_EXPLORED:
            state = waiting.popleft()
            for target in torch.unique(self.following(state)).tolist():
                if target == DEAD:
                    continue
                before.setdefault(target, set()).add(state)
                if target not in known:
                    known.add(target)
                    waiting.append(target)
        if waiting:
            usable = torch.zeros(len(vocabulary.pieces), dtype=torch.bool)
            usable[[*vocabulary.texts]] = True
            self._usable = usable
            return False
        live, waiting = set[int](), deque(state for state in known if self.automaton.accepts(state))
        while waiting:
            state = waiting.pop()
            if state not in live:
                live.add(state)
                waiting += before.get(state, ())
        if self.start not in live:
            raise ArgumentValueError("grammar", rules.start, "one whose texts the tokens can spell")
        self._live = frozenset(live)
        return True


def compile_grammar(
    grammar: object, rules: Rules, tokenizer: Tokenizer, size: int, ends: Sequence[int]
) -> TokenAutomaton:
    """Returns a grammar for the tokens of a tokenizer; the same one for equal arguments.

    Args:
        grammar: the value that stands for the rules; with a hash.
        rules: of the grammar.
        tokenizer: of the model.
        size: V, of the model.
        ends: ids of end tokens.

    Raises:
        ArgumentValueError: a tokenizer whose tokens have no bytes, or a grammar that none of its texts match.
    """
    with _LOCK:
        return _compiled(grammar, rules, tokenizer, size, ends)


def _compiled(
    grammar: object, rules: Rules, tokenizer: Tokenizer, size: int, ends: Sequence[int]
) -> TokenAutomaton:
    tokens = len(tokenizer)
    vocabularies = _VOCABULARIES.setdefault(tokenizer, {})
    if (size, tokens) not in vocabularies:
        vocabularies[size, tokens] = read_vocabulary(tokenizer, size)
    compiled, key = _COMPILED.setdefault(tokenizer, OrderedDict()), (grammar, size, tokens, tuple(ends))
    if key not in compiled or len(compiled[key].automaton) > _MOST_STATES:
        trigger = tokenizer.token_to_id(rules.trigger) if rules.trigger else None
        triggers = {trigger} & {*tokenizer.special_ids}
        special = [token for token in triggers if token is not None]
        try:
            compiled[key] = TokenAutomaton(rules, vocabularies[size, tokens], ends, special)
        except ArgumentValueError as error:
            raise ArgumentValueError("grammar", grammar, error.expected, error.hint) from error
        if len(compiled) > _MOST_GRAMMARS:
            compiled.popitem(last=False)
    compiled.move_to_end(key)
    return compiled[key]
