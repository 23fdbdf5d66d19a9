"""Grammars by enumeration: texts up to a length, and the tokens that begin one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product

from tokenizers import decoders, models

from minitx.decoding.grammar.automaton import DEAD, START, Automaton
from minitx.decoding.grammar.masks import TokenAutomaton, compile_grammar
from minitx.decoding.grammar.network import Network
from minitx.decoding.grammar.nodes import EVERY
from minitx.decoding.grammar.values import TextGrammar
from minitx.tokenizer import Tokenizer
from tests.unit.decoding.vocabularies import byte_characters, made, numbered

EOS = 2


def automaton_of(grammar: TextGrammar) -> Automaton:
    """The automaton over bytes, without a tokenizer."""
    return Automaton(Network(grammar.rules, EVERY))


def accepts(automaton: Automaton, text: str) -> bool:
    state = automaton.read(START, text.encode())
    return state != DEAD and automaton.accepts(state)


def texts(alphabet: str, most: int) -> Iterator[str]:
    """All texts over an alphabet with at most so many characters."""
    for size in range(most + 1):
        yield from map("".join, product(alphabet, repeat=size))


@cache
def small_tokenizer(*tokens: bytes) -> Tokenizer:
    """Byte-level, with these tokens after the special ones (EOS is 2)."""
    characters = byte_characters()
    names = ["".join(characters[byte] for byte in token) for token in tokens]
    return made(models.BPE(vocab=numbered(names), merges=[]), decoders.ByteLevel())


def compiled(grammar: TextGrammar, tokenizer: Tokenizer) -> TokenAutomaton:
    return compile_grammar(grammar, grammar.rules, tokenizer, len(tokenizer), (EOS,))


def expected_tokens(
    tokens: Sequence[bytes], written: bytes, texts: Sequence[bytes], spelled: Callable[[bytes], bool]
) -> set[int]:
    """By definition: the ids (3 for the first) after which tokens can complete one of the texts."""
    ids = {EOS} if written in texts else set()
    for number, token in enumerate(tokens):
        start = written + token
        if any(text.startswith(start) and spelled(text[len(start) :]) for text in texts):
            ids.add(number + 3)
    return ids


def speller(tokens: Sequence[bytes]) -> Callable[[bytes], bool]:
    """Whether tokens can be joined to bytes."""

    @cache
    def spelled(data: bytes) -> bool:
        return not data or any(data.startswith(token) and spelled(data[len(token) :]) for token in tokens)

    return spelled
