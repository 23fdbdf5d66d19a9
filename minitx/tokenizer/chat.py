"""Chat templates: messages to the one text that a chat model was trained on.

A checkpoint brings its template as a program in the Jinja language, and whoever uploaded the checkpoint
wrote it: so it runs in Jinja's sandbox, and what it gets to see is rebuilt from plain text, numbers,
lists and dicts. It can take time and memory; files, modules and the caller's objects are out of its reach.

Needs jinja2, the extra `chat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from minitx.extras import missing_extra

if TYPE_CHECKING:
    from jinja2 import Template

DEFAULT = "default"
_TOOLS = "tool_use"
_JSON = "chat_template.json"
_FILE = "chat_template.jinja"


class ChatTemplates:
    """The chat templates of one checkpoint.

    Args:
        templates: by their names; most checkpoints have one, "default".
        special_tokens: what templates call bos_token, eos_token, ...
    """

    def __init__(self, templates: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self.templates = dict(templates)
        self.special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation; `Tokenizer.apply_chat_template` explains the arguments.

        Raises:
            ImportError: jinja2 is not installed.
            TypeError: messages, tools or variables that are not of plain data.
            ValueError: no such template, one that fails or refuses the messages, or one that would
                ignore the tools or a variable.
        """
        name, source = self._choose(template, tools)
        inputs: dict[str, Any] = {
            "messages": _messages(messages),
            "tools": None if tools is None else [_plain(f"tools[{i}]", tool) for i, tool in enumerate(tools)],
            "add_generation_prompt": add_generation_prompt,
        }
        given = {key: _plain(key, value) for key, value in (variables or {}).items()}
        compiled, used, own = _compiled(name, source)
        ignored = [key for key in (*given, *(["tools"] if tools else [])) if key not in used]
        if ignored:
            known = sorted(used - {*inputs, *self.special_tokens, *own, "raise_exception", "strftime_now"})
            raise ValueError(
                f"The {name} does not use {', '.join(ignored)}; "
                f"beside the messages it reads {', '.join(known) or 'nothing'}."
            )
        return _run(name, compiled, self.special_tokens | given | inputs)

    def _choose(self, template: str | None, tools: object) -> tuple[str, str]:
        """What to call the template in messages, and its text."""
        if template is not None and template not in self.templates and "{" in template:
            return "chat template", template
        names = ", ".join(map(repr, self.templates)) or "none"
        if template is None and not self.templates:
            raise ValueError(
                "This tokenizer has no chat template: its files hold neither chat_template.jinja nor a "
                "chat_template in tokenizer_config.json; base models have none. Write the prompt as text, or "
                "pass a template in Jinja."
            )
        name = template
        if name is None and tools is not None and _TOOLS in self.templates:
            name = _TOOLS
        if name is None:
            name = next(iter(self.templates)) if len(self.templates) == 1 else DEFAULT
        if name not in self.templates:
            raise ValueError(f"There is no chat template {name!r}; choose one of this tokenizer's: {names}.")
        return f"chat template {name!r}", self.templates[name]


def named_templates(files: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a checkpoint by their names.

    Template files come before tokenizer_config.json, and that before chat_template.json of older
    processors.

    Args:
        files: the template files by their paths in the folder, as `files.read_templates` gives them.
        config: tokenizer_config.json.

    Raises:
        ValueError: something else than templates in their places.
    """
    found = {
        DEFAULT if path == _FILE else PurePosixPath(path).stem: text
        for path, text in files.items()
        if path != _JSON
    }
    if found:
        return found
    named = _from_json("tokenizer_config.json", config.get("chat_template"))
    if named or _JSON not in files:
        return named
    try:
        value = json.loads(files[_JSON])
    except ValueError as error:
        raise ValueError(f"{_JSON}: not valid JSON ({error}); is the file complete?") from None
    return _from_json(_JSON, value.get("chat_template") if isinstance(value, dict) else value)


def _from_json(file: str, value: Any) -> dict[str, str]:
    """One template, a list of objects with `name` and `template`, an object of templates, or nothing."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = {item.get("name"): item.get("template") for item in value}
    if not isinstance(value, dict) or not all(
        isinstance(text, str) for pair in value.items() for text in pair
    ):
        raise ValueError(
            f"{file} has chat_template={value!r:.80}; it must be a template, or a list of objects with "
            "'name' and 'template'."
        )
    return value


def _messages(messages: Any) -> list[dict[str, Any]]:
    """The messages as plain data. What is None counts as absent: most templates would print it."""
    example = '[{"role": "user", "content": "Hello"}]'
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise TypeError(
            f"messages is {messages!r:.60} ({type(messages).__name__}); expected a list such as {example}."
        )
    if not messages:
        raise ValueError(f"There are no messages; expected at least one, as in {example}.")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(
                f"messages[{index}] is {message!r:.60} ({type(message).__name__}); expected a dict, as in "
                f"{example}. Of several conversations apply the template to each."
            )
    return [
        {
            key: _plain(f"messages[{index}][{key!r}]", value)
            for key, value in message.items()
            if value is not None
        }
        for index, message in enumerate(messages)
    ]


def _plain(name: str, value: Any) -> Any:
    """A copy of plain data, with no methods but those of Python's own types."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enum the value, not its name
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    if isinstance(value, Mapping):
        return {_plain(name, key): _plain(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{index}]", item) for index, item in enumerate(value)]
    hint = " A tool is described by its JSON schema." if callable(value) else ""
    raise TypeError(
        f"{name} is a {type(value).__name__}; a chat template gets text, numbers, lists and dicts.{hint}"
    )


# --- Jinja -----------------------------------------------------------------------------------------


def _run(name: str, template: Template, inputs: Mapping[str, Any]) -> str:
    """Renders; all that can go wrong within is an error of the template."""
    try:
        return template.render(inputs)
    except _Refusal as refusal:
        raise ValueError(f"The {name} refuses these messages: {refusal}") from None
    except Exception as error:  # whatever its author did not think of
        raise ValueError(f"The {name} failed: {error} ({type(error).__name__}).") from error


class _Refusal(Exception):  # noqa: N818 - it is the template that finds an error
    """What a template throws with `raise_exception`."""


@lru_cache(maxsize=32)
def _compiled(name: str, source: str) -> tuple[Template, frozenset[str], frozenset[str]]:
    """The program, the names that it reads, and those of them that it also sets without asking first."""
    environment = _environment()
    from jinja2 import TemplateError, meta, nodes

    try:
        program, tree = environment.from_string(source), environment.parse(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise ValueError(f"The {name} is no valid Jinja{where}: {error}") from None
    stored = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    tests = (test for test in tree.find_all(nodes.Test) if test.name == "defined")
    asked = {test.node.name for test in tests if isinstance(test.node, nodes.Name)}
    return program, frozenset(meta.find_undeclared_variables(tree)), frozenset(stored - asked)


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Jinja's sandbox with what templates on the Hub expect to find in it."""
    try:
        from jinja2 import nodes
        from jinja2.exceptions import SecurityError
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from jinja2.utils import Namespace
    except ImportError as error:
        raise ImportError(f"Chat templates need jinja2; {missing_extra('chat')}") from error

    class Generation(Extension):
        """`{% generation %}` marks for training what the model is to learn; the text is the same."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class PlainNamespace(Namespace):
        """Jinja's, without names that mean something to Python."""

        def __init__(*args: Any, **values: Any) -> None:  # a value may be called self
            self, *given = args
            for key in dict(*given, **values):
                PlainNamespace.check(key)
            Namespace.__init__(self, *given, **values)

        def __setitem__(self, key: str, value: Any) -> None:
            PlainNamespace.check(key)
            super().__setitem__(key, value)

        @staticmethod
        def check(key: object) -> None:
            if str(key).startswith("_"):
                raise SecurityError(f"a namespace takes no name that begins with _, such as {key!r}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "namespace": PlainNamespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    """Today's date, for templates that tell it to the model."""
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter would write it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
