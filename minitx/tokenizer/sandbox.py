"""Jinja's sandbox for chat templates, with bounds on the time and the memory that a template takes.

Jinja's own sandbox keeps a template from files, modules and the caller's objects, but not from computing for
ever. Here every operation that can make a value larger passes `Limits`: calls, filters, operators, loops,
lists and output. Filters for HTML, which no prompt needs, are absent.

Imports jinja2, an optional dependency: `chat` imports this module when a template is used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

LARGEST = 10**7  # characters of a text, or entries of a list with those of its texts
_LARGEST_WIDTH, _LARGEST_EXPONENT, _MOST_BITS = 10**5, 100, 10**5
_MOST_IN_ALL = 10**9
_MOST_SECONDS = 5.0  # of the processor
# Filters and methods that widen a text or list to a number, or by a text.
_WIDENING = ("batch", "center", "indent", "ljust", "rjust", "slice", "to_bytes", "tojson", "zfill")
_REFUSED_METHODS = ("expandtabs", "maketrans", "translate")
_REFUSED_FILTERS = ("striptags", "urlize", "wordwrap", "xmlattr")
_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\d*|\*)(?:\.(\d*|\*))?")
_BRACES = re.compile(r"\{[^{}:]*(?::([^{}]*)([{}]))?")


class Limits:
    """Limits of one rendering, and how much of them is used."""

    def __init__(self) -> None:
        self._end, self._in_all = time.thread_time() + _MOST_SECONDS, 0

    def check_time(self) -> None:
        """Checks that the rendering has time left, else raises SecurityError."""
        if time.thread_time() > self._end:
            raise SecurityError(f"it takes more than {_MOST_SECONDS:g} seconds")

    def check(self, value: Any) -> Any:
        """Returns a new value, or raises SecurityError if it is too large."""
        self.check_time()
        if isinstance(value, str | bytes | list | tuple | dict | int):
            self._in_all += check_size(measure(value))
            if self._in_all > _MOST_IN_ALL:
                raise SecurityError(f"its values take more than {_MOST_IN_ALL} characters in all")
        return value


LIMITS: ContextVar[Limits] = ContextVar("LIMITS")
MARKS: ContextVar[tuple[str, str]] = ContextVar("MARKS", default=("", ""))


def check_size(size: float) -> int:
    """Returns the size of a value that is computed next, or raises SecurityError if it is too large."""
    if size > LARGEST:
        raise SecurityError(f"a value would be too large; the limit is {LARGEST} characters")
    return int(size)


def measure(value: Any) -> int:
    """Returns the size of a value with all that it holds, as far as `LARGEST`."""
    size, waiting = 0, [value]
    while waiting and size <= LARGEST:
        value = waiting.pop()
        size += 1
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, dict):
            waiting += (*value, *value.values())
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise SecurityError(f"an integer would be too large; the limit is {_MOST_BITS} bits")
    return size


def check_growth(name: str, value: Any, args: list[Any]) -> None:
    """Checks the size of the result of a filter or method before it is computed.

    Args:
        name: of the filter or method.
        value: that it is applied to.
        args: its arguments.
    """
    if name in _WIDENING:
        width = max((x if isinstance(x, int) else measure(x) for x in args), default=0)
        if width > _LARGEST_WIDTH:
            raise SecurityError(f"a width of {name} is too large; the limit is {_LARGEST_WIDTH}")
        check_size(width * (str(value).count("\n") + 1 if name == "indent" else 1))
        if name == "tojson":
            check_size(width * measure(value))
    elif name == "replace" and len(args) > 1:
        text, old, new = (x if isinstance(x, bytes) else str(x) for x in (value, *args[:2]))
        check_size(text.count(old) * len(new))  # type: ignore[arg-type]
    elif name == "join" and args:
        separator, items = (value, args[0]) if isinstance(value, str | bytes) else (args[0], value)
        if isinstance(items, list | tuple | str):
            check_size(measure(items) + len(items) * len(str(separator)))
    elif name in ("format", "format_map"):
        check_format(str(value), args)
    elif name == "sum" and any(isinstance(x, list | tuple) for x in args):
        raise SecurityError("sum adds numbers only")


def check_format(form: str, args: Any) -> None:
    """Checks the widths of a format, of either kind, and the size of its values."""
    fields = [*_PERCENT.findall(form), *_BRACES.findall(form)]
    widths = 0
    for field in fields:
        if "*" in field or "{" in field:
            raise SecurityError("a width of a format must be stated in it")
        widths += sum(int(digits[:9]) for part in field for digits in re.findall(r"\d+", part))
    check_size(widths + len(fields) * measure(args))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a filter whose result is checked."""
    first = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def _filter(*args: Any, **kwargs: Any) -> Any:
        limits = LIMITS.get()
        args = tuple(list(x) if name == "join" and isinstance(x, Iterator) else x for x in args)
        check_growth(name, args[first], [*args[first + 1 :], *kwargs.values()])
        return limits.check(function(*args, **kwargs))

    return _filter


class _Generation(Extension):
    """Writes the texts of `MARKS` around `{% generation %}`, which holds the tokens of the training loss."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Any) -> nodes.Node:
        """Parses the body of the tag."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opening, closing = (
            nodes.Output([self.call_method("mark", [nodes.Const(index)])], lineno=line) for index in (0, 1)
        )
        return nodes.Scope([opening, *body, closing], lineno=line)

    def mark(self, index: int) -> str:
        """Returns the opening mark (0) or the closing one (1) of this rendering."""
        return MARKS.get()[index]


class _PlainNamespace(Namespace):
    """Jinja's namespace, without names that begin with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:  # a value may be called self
        self, *positional = args
        for key in dict(*positional, **values):
            _PlainNamespace._check(key)
        Namespace.__init__(self, *positional, **values)

    def __setitem__(self, key: str, value: Any) -> None:
        _PlainNamespace._check(key)
        super().__setitem__(key, value)

    @staticmethod
    def _check(key: object) -> None:
        if str(key).startswith("_"):
            raise SecurityError(f"a namespace takes no name that begins with _, such as {key!r}")


class _Generator(CodeGenerator):
    """Generates the code of a template, in which loops, lists, joined texts and output are checked."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Writes a loop."""
        steps = nodes.EnvironmentAttribute("steps")
        node.iter = nodes.Call(steps, [node.iter], [], None, None).set_lineno(node.lineno)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Writes the operator ~."""
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Writes a list."""
        self.write("environment.checked(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Writes a dict."""
        self.write("environment.checked(")
        super().visit_Dict(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Writes a tuple, which may be the names that are assigned to."""
        self.write("environment.checked(" if node.ctx == "load" else "(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.checked({super()._output_const_repr(group)})"


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounds."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        return attr not in _REFUSED_METHODS and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Returns the result of an operator."""
        sizes = [len(value) if hasattr(value, "__len__") else value for value in (left, right)]
        if operator == "*" and sizes != [left, right]:
            check_size(sizes[0] * sizes[1])
        if operator == "**" and abs(right) > _LARGEST_EXPONENT:
            raise SecurityError(f"an exponent would be too large; the limit is {_LARGEST_EXPONENT}")
        if operator == "%" and isinstance(left, str | bytes):
            check_format(left if isinstance(left, str) else left.decode("latin-1"), right)
        return self.checked(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls a function, macro or method."""
        method = (
            obj if hasattr(obj, "__self__") else getattr(obj, "__wrapped__", obj)
        )  # str.format is wrapped
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            check_growth(method.__name__, owner, [*args, *kwargs.values()])
        return self.checked(super().call(context, obj, *args, **kwargs))

    def checked(self, value: Any) -> Any:
        """Returns a value that is not too large."""
        return LIMITS.get().check(value)

    def concat(self, parts: Iterable[Any]) -> str:
        """Joins the parts of the operator ~, or the output."""
        texts = [str(part) for part in parts]
        check_size(sum(map(len, texts)))
        return str(self.checked("".join(texts)))

    def steps(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yields the items of a loop."""
        limits = LIMITS.get()
        for item in items:
            limits.check_time()
            yield item


@pass_context
def _output(context: Any, value: Any) -> Any:
    """Returns the text of an expression in the output."""
    return LIMITS.get().check(value if isinstance(value, str) else str(value))


def make_environment(
    filters: Mapping[str, Callable[..., Any]], variables: Mapping[str, Any]
) -> ImmutableSandboxedEnvironment:
    """Returns the environment of chat templates, with further filters and global variables."""
    extensions = [_Generation, loopcontrols]
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_output, optimized=False
    )
    named = {**environment.filters, **filters}
    environment.filters = {
        name: _bounded(name, function) for name, function in named.items() if name not in _REFUSED_FILTERS
    }
    del environment.globals["lipsum"]
    environment.globals |= {"namespace": _PlainNamespace, **variables}
    return environment
