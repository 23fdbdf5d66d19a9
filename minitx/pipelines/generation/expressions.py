"""Objects from text: calls of named constructors with literal arguments, as in a line of Python.

    Beam(num_beams=4, length_penalty=0.6)
    Speculative(draft=PromptLookup(), target=Sample(temperature=0.8))

Nothing else is evaluated: no attributes, operators, indices or other names.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from minitx import decoding
from minitx.checkpoint.load import load
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.tokenizer import load_tokenizer

LONGEST = 10_000  # characters; Python's parser has no limit of its own
_CONSTANTS = {"inf": float("inf"), "none": None, "null": None, "true": True, "false": False}


def strategy_from_text(text: str) -> Strategy:
    """Returns the strategy that a text such as "Beam(num_beams=4)" or "greedy" describes.

    Args:
        text: a call with literal arguments; see `evaluate`. `load("folder")` is a model, for drafts.

    Raises:
        ValueError: not of this form, or not a strategy.
        TypeError, ValueError: as the strategy raises.
    """
    strategy = evaluate(text, constructors())
    if not isinstance(strategy, Strategy):
        raise ValueError(f"{text!r:.60} is not a strategy such as Sample(top_p=0.9) or Beam(num_beams=4)")
    return strategy


def object_from_text(text: str) -> Any:
    """Returns the object that a text such as "KGW(bias=2)" describes.

    Raises:
        ValueError: as `evaluate`, and for every mistake that a constructor finds.
    """
    try:
        return evaluate(text, constructors())
    except TypeError as error:
        raise ValueError(str(error).removesuffix(".")) from None


@cache
def constructors() -> Mapping[str, Callable[..., Any]]:
    """Returns what a text may call: the classes of `minitx.decoding`, `Sample.like` and the loaders."""
    public = {name: getattr(decoding, name) for name in decoding.__all__}
    classes = {name: value for name, value in public.items() if isinstance(value, type)}
    return {**classes, "Sample.like": Sample.like, "load": load, "load_tokenizer": load_tokenizer}


def evaluate(text: str, constructors: Mapping[str, Callable[..., Any]]) -> Any:
    """Returns the object that a call, or a literal, describes.

    Args:
        text: such as "Sample(top_p=0.9)"; a name alone is called without arguments: "Greedy". Lists, tuples,
            dicts, numbers, strings, True, False, None and inf are literals.
        constructors: what may be called, by name.

    Raises:
        ValueError: not of this form, or an unknown name, without a full stop at its end. Errors of a
            constructor are passed on.
    """
    try:
        tree = ast.parse(text.strip()[: LONGEST + 1], mode="eval")
        compile(tree, "text", "eval")  # refuses what the parser does not, such as a repeated keyword
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r:.60} is not of the form NAME(FIELD=VALUE, ...)") from None
    if len(text) > LONGEST:
        raise ValueError(f"{text!r:.60} has more than {LONGEST:,} characters")
    return _value(tree.body, constructors)


def _value(node: ast.expr, constructors: Mapping[str, Callable[..., Any]]) -> Any:
    match node:
        case ast.Constant(value=value) if not isinstance(value, bytes | complex) and value is not ...:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = _value(operand, constructors)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number
        case ast.List(elts=items):
            return [_value(item, constructors) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, constructors) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip((key for key in keys if key is not None), values, strict=True)
            return {_value(key, constructors): _value(value, constructors) for key, value in pairs}
        case ast.Name(id=name) if name.lower() in _CONSTANTS and name not in constructors:
            return _CONSTANTS[name.lower()]
        case ast.Name(id=name):
            return _constructor(name, constructors)()
        case ast.Call(func=ast.Name() | ast.Attribute() as named, args=arguments, keywords=keywords):
            name = ast.unparse(named)
            if all(keyword.arg for keyword in keywords):
                fields = {str(keyword.arg): _value(keyword.value, constructors) for keyword in keywords}
                values = [_value(argument, constructors) for argument in arguments]
                return _constructor(name, constructors)(*values, **fields)
    source = ast.unparse(node)
    raise ValueError(f"{source!r:.60} is not a number, a string, a list or a call such as Sample(top_p=0.9)")


def _constructor(name: str, constructors: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Returns the constructor of a name, in any capitals if it is the only one."""
    if name in constructors:
        return constructors[name]
    same = [known for known in constructors if known.lower() == name.lower()]
    if len(same) == 1:
        return constructors[same[0]]
    similar = get_close_matches(name, [*constructors], n=1)
    hint = f"did you mean {similar[0]}?" if similar else "minitx strategies lists what can be called"
    raise ValueError(f"there is no {name!r:.40}; {hint}")
