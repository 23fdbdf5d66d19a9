"""Chat templates: messages to the prompt format that a chat model was trained on.

A template is a Jinja program from the checkpoint, and so from its uploader: it runs in Jinja's sandbox on
copies of plain text, numbers, lists and dicts, with bounded time and memory.

Needs jinja2, the extra `chat`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from minitx.extras import missing_extra
from minitx.io import parse_value
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_flags,
    check_optional_strings,
    check_strings,
    check_type,
)

if TYPE_CHECKING:
    from jinja2 import Template

DEFAULT = "default"
_TOOLS = "tool_use"
_JSON = "chat_template.json"
_FILE, _ADDITIONAL = "chat_template.jinja", "additional_chat_templates"


class ChatTemplates:
    """The chat templates of one checkpoint.

    Args:
        templates: name -> template; most checkpoints have one, "default".
        special_tokens: the variables bos_token, eos_token, ... of templates.
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
        """Renders a conversation; arguments as for `Tokenizer.apply_chat_template`.

        Raises:
            ImportError: jinja2 is not installed.
            TypeError: messages, tools or variables that are not plain data.
            ValueError: no such template, one that fails or refuses the messages, or one that does not use the
                tools or a variable.
        """
        check_flags(add_generation_prompt=add_generation_prompt)
        check_optional_strings(template=template)
        if tools is not None:
            check_type("tools", tools, list | tuple, "a list of JSON schemas")
        name, source = self._choose(template, tools)
        inputs: dict[str, Any] = {
            "messages": _messages(messages),
            "tools": None if tools is None else [_plain(f"tools[{i}]", tool) for i, tool in enumerate(tools)],
            "add_generation_prompt": add_generation_prompt,
        }
        extra = {key: _plain(key, value) for key, value in (variables or {}).items()}
        compiled, used, assigned = _compiled(name, source)
        ignored = [key for key in (*extra, *(["tools"] if tools else [])) if key not in used]
        if ignored:
            known = sorted(
                used - {*inputs, *self.special_tokens, *assigned, "raise_exception", "strftime_now"}
            )
            raise ValueError(
                f"The {name} does not use {', '.join(ignored)}; "
                f"beside the messages it uses {', '.join(known) or 'nothing'}."
            )
        return _run(name, compiled, self.special_tokens | extra | inputs)

    def render_marked(
        self, messages: Sequence[Mapping[str, Any]], **options: Any
    ) -> tuple[str, list[tuple[int, int]]]:
        """Renders a conversation, and returns which of its characters a training loss is over.

        Args:
            messages: dicts, usually with "role" and "content".
            options: as for `render`.

        Returns:
            The text of `render`, and the start and end of each `{% generation %}` of the template in it.

        Raises:
            ImportError, TypeError, ValueError: as `render`; a template that cuts such a part.
        """
        _environment()  # an error with its remedy without jinja2
        from minitx.tokenizer.sandbox import MARKS

        name = uuid4().hex  # no message contains it
        marks = (f"<{name}>", f"</{name}>")
        token = MARKS.set(marks)
        try:
            pieces = re.split(f"({'|'.join(marks)})", self.render(messages, **options))
        finally:
            MARKS.reset(token)
        text, edges = "", []
        for piece in pieces:
            if piece in marks:
                edges.append((piece, len(text)))
            else:
                text += piece
        if [mark for mark, _ in edges] != [*marks] * (len(edges) // 2):
            raise ValueError("The chat template nests or cuts the text of {% generation %}.")
        places = [place for _, place in edges]
        return text, list(zip(places[::2], places[1::2], strict=True))

    def saved(
        self, files: Mapping[str, str], config: Mapping[str, Any]
    ) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Returns template files and tokenizer_config.json with the templates as they are now.

        Args:
            files, config: both as they were read; returned as they are if no template has changed.

        Raises:
            ArgumentTypeError: a template that is not text.
            ArgumentValueError: a name that cannot be that of a file.
        """
        if self.templates == named_templates(files, config):
            return files, config
        paths = {}
        for name, text in self.templates.items():
            check_strings(**{f"templates[{name!r}]": text})
            if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
                raise ArgumentValueError("templates", name, "names of files, such as 'tool_use'")
            paths[_FILE if name == DEFAULT else f"{_ADDITIONAL}/{name}.jinja"] = text
        return paths, {key: value for key, value in config.items() if key != "chat_template"}

    def _choose(self, template: str | None, tools: object) -> tuple[str, str]:
        """Returns the name of the template for error messages, and its text."""
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
            hint = "or a template in Jinja"
            raise ArgumentValueError("template", template, f"one of this tokenizer's: {names}", hint)
        return f"chat template {name!r}", self.templates[name]


def named_templates(files: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the templates of a checkpoint by name.

    Template files take precedence over tokenizer_config.json, and that over chat_template.json of older
    processors.

    Args:
        files: path in the folder -> template file, from `files.read_templates`.
        config: tokenizer_config.json.

    Raises:
        ValueError: something other than templates in these places.
    """
    templates = {
        DEFAULT if path == _FILE else PurePosixPath(path).stem: text
        for path, text in files.items()
        if path != _JSON
    }
    if templates:
        return templates
    named = _from_json("tokenizer_config.json", config.get("chat_template"))
    if named or _JSON not in files:
        return named
    value = parse_value(files[_JSON].encode(), Path(_JSON))
    return _from_json(_JSON, value.get("chat_template") if isinstance(value, dict) else value)


def _from_json(file: str, value: Any) -> dict[str, str]:
    """Reads one template, a list of objects with `name` and `template`, an object of templates, or null."""
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
    """Copies messages as plain data. None is treated as absent: most templates would print it."""
    example = '[{"role": "user", "content": "Hello"}]'
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise ArgumentTypeError("messages", messages, f"a list such as {example}")
    if not messages:
        raise ArgumentValueError("messages", messages, f"at least one, as in {example}")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            hint = "apply the template to each conversation on its own"
            raise ArgumentTypeError(f"messages[{index}]", message, f"a dict, as in {example}", hint)
    return [
        {
            key: _plain(f"messages[{index}][{key!r}]", value)
            for key, value in message.items()
            if value is not None
        }
        for index, message in enumerate(messages)
    ]


def _plain(name: str, value: Any) -> Any:
    """Copies plain data into Python's own types, so that templates reach no other methods."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # the value of an enum, not its name
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    if isinstance(value, Mapping):
        return {_plain(name, key): _plain(f"{name}[{key!r}]", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{index}]", item) for index, item in enumerate(value)]
    hint = "a tool is described by its JSON schema" if callable(value) else ""
    raise ArgumentTypeError(name, value, "text, a number, a list or a dict", hint)


# --- Jinja -----------------------------------------------------------------------------------------


def _run(name: str, template: Template, inputs: Mapping[str, Any]) -> str:
    """Renders a template; any exception inside is an error of the template."""
    from minitx.tokenizer.sandbox import LIMITS, Limits

    LIMITS.set(Limits())
    try:
        return template.render(inputs)
    except _Refusal as refusal:
        raise ValueError(f"The {name} refuses these messages: {refusal}") from None
    except Exception as error:  # a template can raise anything
        raise ValueError(f"The {name} failed: {error} ({type(error).__name__}).") from error


class _Refusal(Exception):  # noqa: N818 - raised by a template
    """Raised by a template through `raise_exception`."""


@lru_cache(maxsize=32)
def _compiled(name: str, source: str) -> tuple[Template, frozenset[str], frozenset[str]]:
    """Returns the program, the variables that it uses, and those that it assigns without a default."""
    environment = _environment()
    from jinja2 import TemplateError, meta, nodes

    try:
        program, tree = environment.from_string(source), environment.parse(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise ValueError(f"The {name} is not valid Jinja{where}: {error}") from None
    except Exception as error:  # nested too deeply for Jinja or for Python
        raise ValueError(f"The {name} cannot be compiled: {error} ({type(error).__name__}).") from None
    stored = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    tests = (test for test in tree.find_all(nodes.Test) if test.name == "defined")
    asked = {test.node.name for test in tests if isinstance(test.node, nodes.Name)}
    return program, frozenset(meta.find_undeclared_variables(tree)), frozenset(stored - asked)


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Returns Jinja's sandbox with the extensions and functions that templates on the Hub use."""
    try:
        from minitx.tokenizer.sandbox import make_environment
    except ImportError as error:
        raise ImportError(f"Chat templates need jinja2; {missing_extra('chat')}") from error
    variables = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return make_environment({"tojson": _to_json}, variables)


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    """Returns today's date, for templates that include it."""
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Returns plain JSON; Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
