"""What a grammar forces: text and tokens that follow without a choice (jump-forward decoding).

A program that appends them itself saves the model calls that would choose them. `generate` does not: the
tokens of a forced text can be split in several ways, among which the model has a choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from minitx.decoding.grammar.automaton import DEAD, START, Automaton
from minitx.decoding.grammar.masks import compile_grammar
from minitx.decoding.grammar.network import Network
from minitx.decoding.grammar.nodes import EVERY
from minitx.decoding.grammar.values import TextGrammar
from minitx.decoding.parameters import check_ids, check_vocabulary
from minitx.decoding.prompts import check_tokenizer
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_strings, check_type

_MOST_BYTES = 2**16  # of a forced text, which may have no end


def forced_text(grammar: TextGrammar, text: str = "") -> str:
    """Returns the text that must follow a beginning; "" where there is a choice, or the text may end.

    Args:
        grammar: of the whole text.
        text: its beginning.

    Raises:
        ArgumentTypeError: no grammar, or no string.
        ArgumentValueError: no text of the grammar begins like this.
    """
    check_type("grammar", grammar, TextGrammar, "a grammar such as Regex(...)")
    check_strings(text=text)
    try:
        automaton = Automaton(Network(grammar.rules, EVERY))
    except ArgumentValueError as error:
        raise ArgumentValueError("grammar", grammar, error.expected, error.hint) from error
    state, data = automaton.read(START, text.encode()), bytearray()
    if state == DEAD:
        raise ArgumentValueError("text", text, f"the beginning of a text of {grammar!r:.60}")
    while len(data) < _MOST_BYTES and (byte := automaton.forced_byte(state)) is not None:
        data.append(byte)
        state = automaton.step(state, byte)
    return data.decode(errors="ignore")  # without half a character at the end


def forced_tokens(grammar: TextGrammar, tokenizer: Tokenizer, ids: Sequence[int] = ()) -> list[int]:
    """Returns the tokens that must follow: each is the only one that the grammar allows.

    Args:
        grammar: of the whole text.
        tokenizer: of the tokens; its end token is forced where nothing else can follow.
        ids: the tokens so far, of the output alone.

    Raises:
        ArgumentTypeError: something of the wrong type.
        ArgumentValueError: the grammar does not allow `ids`, or the tokenizer has no end token.
    """
    check_type("grammar", grammar, TextGrammar, "a grammar such as Regex(...)")
    check_tokenizer(tokenizer)
    ids, end, size = check_ids("ids", ids, empty=True), tokenizer.eos_token_id, len(tokenizer)
    check_vocabulary("ids", ids, size)
    if end is None:
        raise ArgumentValueError("tokenizer", tokenizer, "one with an end token (eos_token)")
    tokens = compile_grammar(grammar, grammar.rules, tokenizer, size, (end,))
    state = tokens.start
    for place, token in enumerate(ids):
        if not bool(tokens.allowed(state)[token]):
            raise ArgumentValueError(f"ids[{place}]", token, f"allowed by {grammar!r:.60}")
        state = tokens.advance(state, token)
    forced: list[int] = []
    while end not in forced and len(forced) < _MOST_BYTES:
        allowed = tokens.allowed(state)
        if int(allowed.sum()) != 1:
            break
        forced.append(int(allowed.int().argmax()))
        state = tokens.advance(state, forced[-1])
    return forced
