"""Chat templates: the same text as transformers gives, errors that help, and a sandbox that holds."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from minitx.extras import missing_extra
from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.tokenizer import chat as chat_module

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
WORDS = [*SPECIAL.values(), "<unk>", "user", "assistant", "Hi", "Hello", ":", "[INST]", "[/INST]"]

TALK = [
    {"role": "system", "content": "  Be <b>brief</b> & 'kind'. "},
    {"role": "user", "content": "Hi there 猫\n"},
    {"role": "assistant", "content": "Hello!", "extra": None},
    {"role": "user", "content": "What is 2 + 2?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The wéather <now>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLS = [
    *TALK,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}],
    },
    {"role": "tool", "content": "21 °C", "name": "weather"},
]

# As the families of templates on the Hub are written; the texts are this test's own.
CHAT_ML = """\
{%- if tools %}
    {{- "<|im_start|>system\\n" }}
    {%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
    {{- "# Tools\\n" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{% generation %}{{- '\\n' + message.content }}{% endgeneration %}{% endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n' + (call.function | tojson(indent=2)) + '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif not (message.role == 'system' and tools) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
LLAMA_2 = """\
{% if messages[0]['role'] == 'system' %}
{% set loop_messages = messages[1:] %}
{% set system = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' %}
{% else %}{% set loop_messages = messages %}{% set system = '' %}{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate user, assistant, user, ...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}{{ ' ' ~ message['content'] | trim ~ ' ' ~ eos_token }}{% endif %}
{% endfor %}
"""
LLAMA_3 = """\
{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception("One call at a time!") }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
MISTRAL = """\
{%- set system = none %}
{%- if messages[0].role == "system" %}
    {%- set system = messages[0].content %}{% set loop_messages = messages[1:] %}
{%- else %}{% set loop_messages = messages %}{% endif %}
{%- set user = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0, seen='') %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if loop.index0 > 8 %}{% break %}{% endif %}
    {%- if message.role == "tool" %}{% continue %}{% endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message.role == "user" %}
        {%- if tools is not none and message == user[-1] %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {{- tool.function | tojson(sort_keys=true) }}{{ ", " if not loop.last }}
            {%- endfor %}
            {{- "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " }}{{ (system + "\\n\\n") if loop.first and system }}{{ message.content + "[/INST]" }}
    {%- elif message.content is defined and message.content %}
        {{- " " + message.content | trim + eos_token }}
    {%- endif %}
{%- endfor %}
{{- "" if ns.index else raise_exception("nothing") }}
"""
GEMMA = """\
{{ bos_token }}
{%- macro part(content) -%}
    {%- if content is string -%}{{ content | trim }}
    {%- else -%}{%- for item in content -%}
        {{ item['text'] | trim if item['type'] == 'text' else '<image>' }}
    {%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first = part(messages[0]['content']) + '\\n\\n' -%}{%- set loop_messages = messages[1:] -%}
{%- else -%}{%- set first = '' -%}{%- set loop_messages = messages -%}{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}{{ part(message['content'] or '') }}
    {{- '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""
TEMPLATES = {"ChatML": CHAT_ML, "Llama 2": LLAMA_2, "Llama 3": LLAMA_3, "Mistral": MISTRAL, "Gemma": GEMMA}
USE_TOOLS = ("ChatML", "Llama 3", "Mistral")


def backend() -> Backend:
    made = Backend(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $0", special_tokens=[("<s>", 0)])
    made.add_special_tokens(list(SPECIAL.values()))
    return made


def make(folder: Path, template: Any = None, files: dict[str, Any] | None = None, **config: Any) -> Tokenizer:
    backend().save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL, **config}
    if template is not None:
        stated["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    (folder / "config.json").write_text('{"model_type": "any"}')
    for name, content in (files or {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return load_tokenizer(folder)


def render(folder: Path, template: str, messages: Any = None, **options: Any) -> str:
    return make(folder, template).apply_chat_template(messages or TALK, **options)


# The text


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("conversation", ["talk", "without system", "one", "calls"])
@pytest.mark.parametrize("prompted", [True, False])
def test_the_same_text_as_in_transformers(
    tmp_path: Path, family: str, conversation: str, prompted: bool
) -> None:
    messages = {"talk": TALK, "without system": TALK[1:], "one": TALK[1:2], "calls": CALLS}[conversation]
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend(), **SPECIAL)
    theirs.chat_template = TEMPLATES[family]
    ours = make(tmp_path, TEMPLATES[family])
    for tools in [None, TOOLS] if family in USE_TOOLS else [None]:
        options = {"add_generation_prompt": prompted, "tools": tools}
        try:
            expected = theirs.apply_chat_template(messages, tokenize=False, **options)
        except TemplateError as error:
            with pytest.raises(ValueError, match=f"refuses these messages: {error}"):
                ours.apply_chat_template(messages, **options)
            continue
        assert ours.apply_chat_template(messages, **options) == expected
        ids = theirs.apply_chat_template(messages, return_dict=False, **options)
        assert ours.encode_chat(messages, **options) == ids


@pytest.mark.parametrize(
    ("family", "variables"),
    [("ChatML", {"enable_thinking": False}), ("Llama 3", {"date_string": "1 May", "custom_tools": TOOLS})],
)
def test_further_variables(tmp_path: Path, family: str, variables: dict[str, Any]) -> None:
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend(), **SPECIAL)
    ours = make(tmp_path, TEMPLATES[family])
    text = ours.apply_chat_template(TALK, **variables)
    assert text != ours.apply_chat_template(TALK)
    assert text == theirs.apply_chat_template(
        TALK, chat_template=TEMPLATES[family], tokenize=False, add_generation_prompt=True, **variables
    )


def test_content_in_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": " a "}, {"type": "image"}, {"type": "text", "text": "b"}]
    text = render(tmp_path, GEMMA, [{"role": "user", "content": parts}], add_generation_prompt=False)
    assert text == "<s><start_of_turn>user\na<image>b<end_of_turn>\n"


def test_what_the_template_wrote_is_all(tmp_path: Path) -> None:
    """The tokenizer adds no second <s>."""
    tokenizer = make(tmp_path, "{{ bos_token }} user : Hi")
    assert tokenizer.decode(tokenizer.encode_chat(TALK)) == "<s> user : Hi"
    assert tokenizer.decode(tokenizer.encode("<s> user")) == "<s> <s> user"


def test_json_is_not_written_for_html(tmp_path: Path) -> None:
    template = "{{ messages[0].content | tojson }} {{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true) }}"
    messages = [{"content": "<b>'&é"}]
    assert render(tmp_path, template, messages) == '"<b>\'&é" {"a": "é", "b": 1}'
    template = "{{ {'a': 'é'} | tojson(ensure_ascii=true, separators=(',', ':')) }}"
    assert render(tmp_path, template) == r'{"a":"\u00e9"}'


def test_the_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now() -> Any:
            from datetime import datetime

            return datetime(2024, 7, 26)

    monkeypatch.setattr(chat_module, "datetime", Clock)
    assert render(tmp_path, "{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


def test_what_generation_marks_is_a_scope(tmp_path: Path) -> None:
    template = "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"
    assert render(tmp_path, template) == "21"


def test_special_tokens_that_are_not_there_are_empty(tmp_path: Path) -> None:
    assert render(tmp_path, "[{{ cls_token }}{{ eos_token }}]") == "[</s>]"
    assert render(tmp_path, "[{{ eos_token }}]", eos_token="!") == "[!]"


# Where templates are read from


def test_all_the_places(tmp_path: Path) -> None:
    jinja = {
        "chat_template.jinja": "jinja é",
        "additional_chat_templates/tool_use.jinja": "tools {{ tools }}",
    }
    old = {"chat_template.json": json.dumps({"chat_template": "json"})}
    named = [{"name": "default", "template": "one"}, {"name": "rag", "template": "two"}]
    for index, (template, files, expected) in enumerate(
        [
            ("config", {}, {"default": "config"}),
            (named, {}, {"default": "one", "rag": "two"}),
            ({"default": "one"}, {}, {"default": "one"}),
            (None, old, {"default": "json"}),
            ("config", old, {"default": "config"}),
            ("config", jinja | old, {"default": "jinja é", "tool_use": "tools {{ tools }}"}),
            (None, {}, {}),
        ]
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        tokenizer = make(folder, template, files)
        assert tokenizer.chat.templates == expected
        tokenizer.save(folder / "saved")
        again = load_tokenizer(folder / "saved")
        assert again.chat.templates == expected
        for name in files:
            assert (folder / "saved" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("place", ["config", "list", "jinja", "json", "none"])
def test_changed_templates_are_saved(tmp_path: Path, place: str) -> None:
    stated = {"config": "a", "list": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]}
    files = {
        "jinja": {"chat_template.jinja": "a", "additional_chat_templates/rag.jinja": "b"},
        "json": {"chat_template.json": json.dumps({"chat_template": "a"})},
    }
    tokenizer = make(tmp_path, stated.get(place), files.get(place, {}))
    tokenizer.chat.templates.pop("rag", None)
    tokenizer.chat.templates |= {"default": "{{ messages | length }}", "tool_use": "é"}
    expected = dict(tokenizer.chat.templates)
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").chat.templates == expected
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert theirs.chat_template == expected
    tokenizer.chat.templates.clear()
    tokenizer.save(tmp_path / "without")
    assert load_tokenizer(tmp_path / "without").chat.templates == {}


def test_templates_of_another_tokenizer_are_not_kept(tmp_path: Path) -> None:
    tokenizer = make(tmp_path, "a", {"additional_chat_templates/rag.jinja": "b", "chat_template.jinja": "c"})
    tokenizer.save(tmp_path)
    del tokenizer.chat.templates["rag"]
    with pytest.raises(FileExistsError, match=r"already holds additional_chat_templates/rag\.jinja, which"):
        tokenizer.save(tmp_path)


@pytest.mark.parametrize(("name", "template"), [("../a", "a"), ("", "a"), ("a", 3), (3, "a")])
def test_templates_that_cannot_be_files(tmp_path: Path, name: Any, template: Any) -> None:
    tokenizer = make(tmp_path, "a")
    tokenizer.chat.templates[name] = template
    with pytest.raises((ValueError, TypeError), match="templates"):
        tokenizer.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_saved_template_is_read_by_transformers(tmp_path: Path) -> None:
    make(tmp_path, CHAT_ML).save(tmp_path / "saved")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert theirs.chat_template == CHAT_ML


def test_which_template_is_taken(tmp_path: Path) -> None:
    named = [
        {"name": "rag", "template": "rag"},
        {"name": "default", "template": "default"},
        {"name": "tool_use", "template": "tools {{ tools | length }}"},
    ]
    tokenizer = make(tmp_path, named)
    assert tokenizer.apply_chat_template(TALK) == "default"
    assert tokenizer.apply_chat_template(TALK, tools=TOOLS) == "tools 1"
    assert tokenizer.apply_chat_template(TALK, template="rag") == "rag"
    assert tokenizer.apply_chat_template(TALK, template="{{ messages | length }}") == "4"
    with pytest.raises(ValueError, match=r"^template='rga' must be one of this tokenizer's: 'rag'"):
        tokenizer.apply_chat_template(TALK, template="rga")


def test_one_template_needs_no_name_and_several_without_a_default_do(tmp_path: Path) -> None:
    assert make(tmp_path, [{"name": "rag", "template": "r"}]).apply_chat_template(TALK) == "r"
    tokenizer = make(tmp_path, [{"name": "a", "template": "1"}, {"name": "b", "template": "2"}])
    with pytest.raises(ValueError, match=r"^template=None must be one of this tokenizer's: 'a', 'b'"):
        tokenizer.apply_chat_template(TALK)


@pytest.mark.parametrize("value", [3, [3], [{"name": "a"}], [{"template": "a"}], {"a": None}])
def test_what_is_no_template(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r"tokenizer_config.json has chat_template=.*it must be a template"):
        make(tmp_path, value)
    (tmp_path / "json").mkdir()
    for content in (json.dumps({"chat_template": value}), json.dumps(3)):
        with pytest.raises(ValueError, match=r"chat_template.json has chat_template="):
            make(tmp_path / "json", None, {"chat_template.json": content})
    with pytest.raises(ValueError, match=r"chat_template.json: not valid JSON"):
        make(tmp_path / "json", None, {"chat_template.json": "{"})
    with pytest.raises(ValueError, match=r"chat_template.json: not valid JSON .*recursion"):
        make(tmp_path / "json", None, {"chat_template.json": "[" * 200_000})
    with pytest.raises(ValueError, match=r"chat_template.json: holds half of a surrogate pair"):
        make(tmp_path / "json", None, {"chat_template.json": r'{"chat_template": "\ud800"}'})


# Errors


def test_no_template(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no chat template: its files hold neither .* a template in Jinja"):
        make(tmp_path).apply_chat_template(TALK)
    assert make(tmp_path).apply_chat_template(TALK, template="{{ messages[1].role }}") == "user"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('only <users> speak') }}", "refuses these messages: only <users> speak"),
        ("a\n{% if %}", "is not valid Jinja, line 2: Expected an expression"),
        ("{% nonsense %}", "is not valid Jinja, line 1: Encountered unknown tag 'nonsense'"),
        ("{{ messages[0].content + 1 }}", r"failed: .*\(TypeError\)"),
        ("{{ messages[9].content.x }}", r"failed: .*\(UndefinedError\)"),
        ("{% include 'x' %}", "failed: no loader"),
        ("{{ {1: 2} | tojson | nothing }}", "is not valid Jinja, line 1: No filter named 'nothing'"),
    ],
)
def test_templates_that_fail(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"The chat template 'default' {message}"):
        render(tmp_path, template)


def test_what_a_template_would_ignore_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not use enable_thinkin; .* it uses enable_thinking"):
        render(tmp_path, CHAT_ML, enable_thinkin=False)
    with pytest.raises(ValueError, match="does not use tools; beside the messages it uses nothing"):
        render(tmp_path, GEMMA, tools=TOOLS)
    assert render(tmp_path, GEMMA, tools=[]) == render(tmp_path, GEMMA)


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ("Hi", TypeError, "^messages='Hi' must be a list such as"),
        ({"role": "user"}, TypeError, "must be a list such as"),
        (None, TypeError, "^messages=None must be a list such as"),
        ([], ValueError, r"^messages=\[\] must be at least one"),
        (["Hi"], TypeError, r"^messages\[0\]='Hi' must be a dict"),
        ([TALK], TypeError, "; apply the template to each"),
        ([{"content": [{"x": {1, 2}}]}], TypeError, r"^messages\[0\]\['content'\]\[0\]\['x'\]=\{1, 2\} must"),
    ],
)
def test_what_are_no_messages(tmp_path: Path, messages: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path, GEMMA).apply_chat_template(messages)


def test_tools_are_schemas(tmp_path: Path) -> None:
    def weather(city: str) -> str:
        """A function."""
        return city

    with pytest.raises(TypeError, match=r"^tools\[0\]=<function.* described by its JSON schema"):
        render(tmp_path, CHAT_ML, tools=[weather])


def test_without_jinja2_the_extra_is_named(tmp_path: Path) -> None:
    make(tmp_path, CHAT_ML)
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from minitx.tokenizer import load_tokenizer\n"
        f"load_tokenizer({str(tmp_path)!r}).apply_chat_template([{{'role': 'user', 'content': 'Hi'}}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ImportError: Chat templates need jinja2; {missing_extra('chat')}" in done.stderr


def test_loading_a_tokenizer_imports_no_jinja2(tmp_path: Path) -> None:
    make(tmp_path, CHAT_ML)
    code = (
        "import sys\nfrom minitx.tokenizer import load_tokenizer\n"
        f"load_tokenizer({str(tmp_path)!r})\nassert 'jinja2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The sandbox


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ (''|attr('__class__'))('x') }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ strftime_now.__code__.co_filename.x }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ dict.mro() }}",
        "{{ dict.__subclasses__() }}",
        "{{ range(10 ** 9) | list }}",
        "{{ '{0.__class__.__mro__}'.format(1) .x.y }}",
        "{{ '%s'.__mod__ }}{{ self.__init__.__globals__.x }}",
        "{{ joiner.__init__.__globals__.x }}",
        "{{ namespace.__init__.__globals__.x }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = dict %}",
        "{{ namespace({'__html__': 1}) }}",
        "{{ self._TemplateReference__context.environment.from_string('x') }}",
    ],
)
def test_no_way_out_of_the_sandbox(tmp_path: Path, template: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(ValueError, match="The chat template 'default' failed"):
        render(tmp_path, template, messages)
    assert messages == [{"role": "user", "content": "Hi"}]


def test_templates_get_copies_of_plain_data(tmp_path: Path) -> None:
    """An object's own methods are out of reach, and dict.update reaches nothing of the caller's."""

    class Text(str):
        def danger(self) -> str:
            return "reached"

        def __str__(self) -> str:
            return "other"

    class Role(str, enum.Enum):  # noqa: UP042 - as older code has it
        USER = "user"

    messages = [{"role": Role.USER, "content": Text("Hi")}]
    assert render(tmp_path, "{{ messages[0].role ~ messages[0].content }}", messages) == "userHi"
    with pytest.raises(ValueError, match="failed"):
        render(tmp_path, "{{ messages[0].content.danger() }}", messages)
    render(tmp_path, "{{ dict.update(messages[0], {'role': 'x'}) }}", messages)
    assert messages[0]["role"] is Role.USER


GROWING = (
    "{% set ns = namespace(a=START) %}{% for i in range(90) %}{% set ns.a = GROWN %}{% endfor %}{{ ns.a }}"
)


@pytest.mark.parametrize(
    "template",
    [
        "{{ '%999999999d' % 5 }}",
        "{{ '%*d' % (10 ** 9, 5) }}",
        "{{ '%999999999s' | format('a') }}",
        "{{ '{:>999999999}'.format(5) }}",
        "{{ '{:{}}'.format(5, '999999999') }}",
        "{{ ('{0}' * 100000).format('a' * 100000) }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ ([0] * 10 ** 10) | length }}",
        "{{ 10 ** 9999 }}",
        "{{ 'a'.center(10 ** 10) }}",
        "{{ 'a' | center(width=10 ** 10) }}",
        "{{ ['a'] | map('center', 10 ** 10) | list }}",
        "{{ ('\\n' * 1000000) | indent('x' * 100000) }}",
        "{{ [1] | batch(10 ** 10, 0) | list }}",
        "{{ [1] | slice(10 ** 9) | list }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ (5).to_bytes(10 ** 10, 'big') }}",
        "{{ [[1]] | tojson(indent=10 ** 10) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ (('a' * 1000000) | safe).replace('a', 'b' * 1000000) }}",
        "{{ ([1] * 100000) | tojson(separators=('x' * 1000000, ':')) }}",
        "{% filter replace('a', 'b' * 100000) %}{{ 'a' * 1000000 }}{% endfilter %}",
        "{{ (['x'] * 1000000) | join('y' * 1000000) }}",
        "{{ ('y' * 1000000).join(['x'] * 1000000) }}",
        "{{ 'a'.translate({97: 'b' * 1000}) }}",
        "{{ [[1]] | sum(start=[]) }}",
        "{{ lipsum(n=10 ** 7) }}",
        "{% set b = 'x' * 9000000 %}{% for i in range(99999) %}{{ b }}{% endfor %}",
        "{% set b %}{% for i in range(99999) %}{{ 'x' * 100000 }}{% endfor %}{% endset %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
        GROWING.replace("START", "'x'").replace("GROWN", "ns.a ~ ns.a"),
        GROWING.replace("START", "'x'").replace("GROWN", "ns.a + ns.a"),
        GROWING.replace("START", "[1]").replace("GROWN", "[ns.a, ns.a]"),
        GROWING.replace("START", "[1]").replace("GROWN", "(ns.a, ns.a)"),
        GROWING.replace("START", "[1]").replace("GROWN", "{1: ns.a, 2: ns.a}"),
        GROWING.replace("START", "9").replace("GROWN", "ns.a * ns.a"),
    ],
)
def test_time_and_memory_of_a_template_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr("minitx.tokenizer.sandbox._MOST_SECONDS", 1.0)
    start = time.thread_time()
    with pytest.raises(ValueError, match=r"The chat template 'default' failed: .*[a-z]"):
        render(tmp_path, template)
    assert time.thread_time() - start < 3


def test_what_a_bounded_template_still_computes(tmp_path: Path) -> None:
    template = (
        "{% for a, b in {'x': 1}.items() %}{{ a ~ b ~ none }}{% endfor %}"
        "{% for i in [[1], [2, 3]] recursive %}{{ loop.index }}/{{ loop.length }}"
        "{% if i is iterable %}({{ loop(i) }}){% endif %}{% endfor %}"
        "{{ '%-4s|%05.1f|%%' % ('a', 2) }}{{ '{:>3}{}'.format('b', 'c') }}{{ ('a', 'b') | join(', ') }}"
        "{{ 'a-b' | replace('-', '+') }}{{ 'x' | center(3) }}{{ 2 ** 10 + 7 % 4 }}{{ [1, 2] | sum }}"
        "{{ [] + [1] }}"
    )
    expected = "x1None1/2(1/1)2/2(1/22/2)a   |002.0|%  bca, ba+b x 10273[1]"
    assert render(tmp_path, template) == expected


def test_a_long_conversation(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a" * 1000}, {"role": "assistant", "content": "b"}] * 2000
    text = render(tmp_path, CHAT_ML, messages)
    assert text.count("a" * 1000) == 2000
