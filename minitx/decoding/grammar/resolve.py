"""From the options `grammar=` and `schema=` of a call to the processor in front of its chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minitx.decoding.grammar.masks import compile_grammar
from minitx.decoding.grammar.processor import GrammarMask
from minitx.decoding.grammar.values import JsonSchema, TextGrammar
from minitx.decoding.processors.chain import Chain
from minitx.decoding.request import GenerationRequest
from minitx.validation import ArgumentValueError, check_type

_KINDS = "a grammar: Choices(...), Regex(...), JsonSchema(...), Grammar(...) or Lazy(...)"


def with_grammar(request: GenerationRequest, options: Mapping[str, Any]) -> GenerationRequest:
    """Returns the request with the processor of the call's grammar before all others, if it has one.

    Raises:
        ArgumentTypeError, ArgumentValueError: something else than a grammar, no tokenizer, no end token, or
            no text that the tokenizer can spell matches.
    """
    grammar, schema = options.get("grammar"), options.get("schema")
    hint = 'e.g. Choices(["yes", "no"]), from minitx.decoding'
    check_type("grammar", grammar, TextGrammar | None, _KINDS, hint)
    if schema is not None:
        if grammar is not None:
            raise ArgumentValueError("schema", schema, "left out with grammar=", "each row has one grammar")
        grammar = JsonSchema(schema)
    if grammar is None:
        return request
    if request.tokenizer is None:
        hint = "a grammar is about text"
        raise ArgumentValueError("tokenizer", None, "the model's tokenizer, for a grammar", hint)
    ends = (*request.stop.eos, *request.stop.tokens)
    if not ends:
        hint = "a grammar ends a row by an end token, and neither checkpoint nor tokenizer states one; "
        raise ArgumentValueError("stop", request.stop, "a Stop with end tokens", f"{hint}e.g. Stop(eos=2)")
    if request.stop.tokens and any(request.min_new_tokens):
        hint = "a stop token within a row is no text of the grammar"
        raise ArgumentValueError("min_new_tokens", request.min_new_tokens, "0 with Stop(tokens=...)", hint)
    automaton = compile_grammar(grammar, grammar.rules, request.tokenizer, request.vocab_size, ends)
    processor = GrammarMask(automaton, type(grammar).__name__)
    return replace(request, chain=Chain(processor, *request.chain.processors))
