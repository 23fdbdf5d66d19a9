"""JSON schemas: 1,000 random ones against jsonschema in both directions, and each keyword."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch

import minitx
from minitx.decoding import JsonSchema
from minitx.decoding.generate import generate
from minitx.decoding.grammar.automaton import DEAD, Automaton
from minitx.decoding.grammar.network import Network
from minitx.decoding.grammar.nodes import EVERY, Node, Rules
from minitx.decoding.grammar.syntax.json_text import integers, numbers
from minitx.decoding.grammar.values import TextGrammar
from tests.unit.decoding.grammars import EOS, accepts, automaton_of, compiled
from tests.unit.decoding.schemas import FORMATS, Schemas
from tests.unit.decoding.test_grammar import TOKENIZERS, model_of
from tests.unit.decoding.vocabularies import byte_level

COMPACT: Any = {"separators": (",", ":")}
TOKENIZER = byte_level('{"', '":', '", "', ': "', "[]", "{}", "}}", '"}', "]}", "true", "null", "10", "12")
CLOSING = [TOKENIZER.encode(sign)[0] for sign in '"]}'] + [EOS]


def is_valid(value: Any, schema: Any) -> bool:
    kind = jsonschema.Draft202012Validator
    checker = jsonschema.FormatChecker(["date", "uuid", "email", "ipv4"])
    return bool(kind(schema, format_checker=checker).is_valid(value))


def random_text(grammar: TextGrammar, logits: torch.Tensor) -> str | None:
    """A text drawn token by token from a random model of pairs of tokens; None if it does not end."""
    tokens, state, last, ids = compiled(grammar, TOKENIZER), 1, 0, list[int]()
    for step in range(150):
        scores = logits[last] - torch.empty(len(TOKENIZER)).exponential_().log()
        scores[CLOSING] += step / 3
        last = int(scores.masked_fill(~tokens.allowed(state), -torch.inf).argmax())
        assert bool(tokens.allowed(state)[last])
        if last == EOS:
            return TOKENIZER.decode(ids)
        ids.append(last)
        state = tokens.advance(state, last)
        assert state != DEAD
    return None


@pytest.mark.parametrize("part", range(10))
def test_a_hundred_random_schemas(part: int) -> None:
    """What is drawn is valid, and what is valid is accepted."""
    source, logits = Schemas(part), torch.randn(len(TOKENIZER), len(TOKENIZER))
    earlier: list[Any] = []
    ended = contradictions = 0
    for _ in range(100):
        schema = source.schema()
        grammar = JsonSchema(schema)
        for _ in range(3):
            value = source.value(schema)
            if not is_valid(value, schema):  # parts of allOf that contradict each other
                contradictions += 1
                continue
            automaton = compiled(grammar, TOKENIZER).automaton
            for form in ({}, COMPACT):
                written = json.dumps(value, ensure_ascii=False, **form)
                assert accepts(automaton, written), (schema, written)
        for other in earlier:  # values of other schemas: accepted only if they are valid
            written = json.dumps(other, ensure_ascii=False)
            assert not accepts(compiled(grammar, TOKENIZER).automaton, written) or is_valid(other, schema)
        earlier = [*earlier[-6:], value]
        text = random_text(grammar, logits)
        if text is not None:
            ended += 1
            assert is_valid(json.loads(text), schema), (schema, text)
    assert ended > 80
    assert contradictions < 10


# --- each keyword ----------------------------------------------------------------------------------

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 10, 99, 100, 101, -100, 2.5, 1.0, -0.5, 1e-7, 3.25, 12, 120),
    *("", "a", "ab", "abc", "abcd", "é", "\n", '"', "\\", "x1", "2024-02-29", "2023-02-29", "2024-12-31"),
    *([], [1], [1, "a"], ["a"], [1, 2, 3], [[1]], [None], [1, 2], {}, {"a": 1}, {"a": "x"}, {"b": 2}),
    *({"a": 1, "b": 2}, {"a": 1, "c": [1]}, {"a": 1, "b": 2, "c": 3}, {"n": {"n": {}}}, {"n": {"n": 1}}),
    *({"kind": "a", "x": 1}, {"kind": "b", "y": "z"}, {"kind": "b", "x": 1}),
]
SCHEMAS: list[Any] = [
    *(
        True,
        {},
        False,
        {"type": "null"},
        {"type": ["integer", "null"]},
        {"type": "number"},
        {"type": "integer"},
    ),
    *(
        {"type": "string"},
        {"type": "array"},
        {"type": "object"},
        {"minLength": 2},
        {"maximum": 5, "minLength": 2},
    ),
    *({"type": "string", "minLength": 2, "maxLength": 3}, {"type": "string", "pattern": "b|^a$"}),
    *(
        {"type": "string", "pattern": r"^[\\s\\\\]$"},
        {"type": "string", "format": "date"},
        {"const": {"a": 1}},
    ),
    *({"enum": [1, "a", None, {"b": 2}]}, {"enum": [1, "a"], "type": "string"}, {"const": 1, "enum": [1, 2]}),
    *(
        {"type": "integer", "minimum": 7, "exclusiveMaximum": 100},
        {"type": "integer", "exclusiveMinimum": -1.5},
    ),
    *({"type": "number", "minimum": -1, "maximum": 3}, {"type": "number", "exclusiveMinimum": 1}),
    *({"type": "number", "exclusiveMaximum": 0}, {"type": "array", "items": {"type": "integer"}}),
    *({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, {"maxItems": 1}),
    *({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2, "items": False},),
    *(
        {"type": "array", "minItems": 1, "maxItems": 2, "items": True},
        {"type": "array", "minItems": 3, "maxItems": 1},
    ),
    {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True},
    {
        "type": "object",
        "properties": {"a": {}, "b": {}, "c": {}},
        "required": ["b"],
        "additionalProperties": False,
    },
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": False, "b": {}}, "additionalProperties": False},
    {"anyOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 100}, {"type": "boolean"}]},
    {"type": "integer", "anyOf": [{"minimum": 100}, {"maximum": -1}]},
    {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
    {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}, "x": {}}, "required": ["kind"]},
            {"type": "object", "properties": {"kind": {"enum": ["b"]}, "y": {}}, "required": ["kind"]},
        ],
        "type": "object",
    },
    {"allOf": [{"type": ["integer", "string"]}, {"minimum": 7}, {"maxLength": 1}]},
    {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}, "type": "object"}}},
    {"$ref": "#/$defs/a%20b%25~1c", "$defs": {"a b%/c": {"const": 7}}},
    {"$ref": "#/definitions/a~1b", "maximum": 50, "definitions": {"a/b": {"type": "integer", "minimum": 7}}},
]


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_each_keyword_agrees_with_jsonschema(number: int) -> None:
    """But for what is documented: no unlisted properties, no exponents beside bounds, 1.0 is no integer."""
    schema = SCHEMAS[number]
    if schema is False:
        with pytest.raises(ValueError, match="#: no value matches this schema"):
            JsonSchema(schema)
        return
    try:
        automaton = automaton_of(JsonSchema(schema))
    except ValueError:
        assert not any(is_valid(value, schema) for value in VALUES)
        return
    for value in VALUES:
        text = json.dumps(value, ensure_ascii=False)
        if accepts(automaton, text):
            assert is_valid(value, schema), text
        elif is_valid(value, schema):
            limited = {"properties", "oneOf", "allOf", "$ref", "anyOf"} & schema.keys()
            assert (isinstance(value, dict) and limited) or text in ("1.0", "1e-07"), text


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (0, 9), (7, 123), (-5, 5), (-123, -7), (99, 101), (-10, 1000)]
)
def test_integers_between_bounds(low: int, high: int) -> None:
    def automaton(node: Node) -> Automaton:
        return Automaton(Network(Rules("x", {"x": node}), EVERY))

    between, above, below = map(automaton, (integers(low, high), integers(low, None), integers(None, high)))
    for value in range(-1100, 1100):
        assert accepts(between, str(value)) == (low <= value <= high)
        assert accepts(above, str(value)) == (low <= value)
        assert accepts(below, str(value)) == (value <= high)
    for text in ("", "-", "00", "01", "-0", "1.0", "+1"):
        assert not accepts(between, text)


@pytest.mark.parametrize("opened", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (0, 1), (-1, 1), (-3, -1), (2, 11), (-2, 0), (None, 2), (-2, None)]
)
def test_numbers_between_bounds(low: int | None, high: int | None, opened: tuple[bool, bool]) -> None:
    try:
        automaton = Automaton(Network(Rules("x", {"x": numbers(low, high, *opened)}), EVERY))
    except ValueError:
        assert low == high
        assert any(opened)
        return
    for step in range(-50, 50):
        for shift in ("", "00"):
            text = str(step / 4) + shift
            value = float(text)
            above = low is None or (value > low if opened[0] else value >= low)
            below = high is None or (value < high if opened[1] else value <= high)
            written = accepts(automaton, text) or (value == 0 and accepts(automaton, text.lstrip("-")))
            assert written == (above and below), text


def test_white_space() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"const": [1, 2]}},
    }
    forms = {
        "none": json.dumps({"a": [1, 2], "b": [1, 2]}, **COMPACT),
        "one": json.dumps({"a": [1, 2], "b": [1, 2]}),
        "any": json.dumps({"a": [1, 2], "b": [1, 2]}, indent=2),
    }
    for number, whitespace in enumerate(forms):
        automaton = automaton_of(JsonSchema(schema, whitespace))  # type: ignore[arg-type]
        assert [accepts(automaton, text) for text in forms.values()] == [n <= number for n in range(3)]
        assert accepts(automaton, '{"a":[]}')
        assert not accepts(automaton, '{"a" :[]}') or whitespace == "any"


def test_other_properties_have_other_names() -> None:
    schema = {
        "properties": {"ab": {}, "": {}, 'q"': {}},
        "additionalProperties": {"type": "integer"},
        "type": "object",
    }
    automaton = automaton_of(JsonSchema(schema))
    for name in ("a", "abc", "b", "q", 'q"q', "é", "\n", "x\\"):
        assert accepts(automaton, json.dumps({name: 1}, ensure_ascii=False)), name
        assert not accepts(automaton, json.dumps({name: "x"}, ensure_ascii=False)), name
    for name in ("ab", "", 'q"'):
        assert accepts(automaton, json.dumps({name: "x"}))
    assert not accepts(automaton, '{"\\u0061b": 1}')  # is "ab" too
    assert accepts(automaton, '{"ab": "x", "c": 1, "d": 2}')
    assert not accepts(automaton, '{"c": 1, "ab": "x"}')


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


INTEGERS, STRINGS = ({"type": "array", "items": {"type": kind}} for kind in ("integer", "string"))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            _object(a=_object(b=INTEGERS), **{"a/properties/b": STRINGS}),
            {"a": {"b": [1]}, "a/properties/b": ["x"]},
        ),
        (
            _object(x=_object(**{"y item": {"type": "string"}}), **{"x property y": INTEGERS}),
            {"x": {"y item": "s"}, "x property y": [1]},
        ),
        (
            _object(x=_object(y=INTEGERS), **{"x/properties/y item": {"type": "string"}}),
            {"x": {"y": [1]}, "x/properties/y item": "s"},
        ),
        (
            _object(x=INTEGERS, **{"x item": {"type": "null"}, "after 0": STRINGS}),
            {"x": [2], "x item": None, "after 0": ["s"]},
        ),
    ],
)
def test_names_of_properties_are_not_taken_for_places(schema: Any, value: Any) -> None:
    automaton = automaton_of(JsonSchema(schema))
    assert accepts(automaton, json.dumps(value))
    for wrong, right in (("1", '"x"'), ('"x"', "1"), ('"s"', "1"), ("null", "1"), ("2", '"x"')):
        text = json.dumps(value)
        if wrong in text:
            assert not accepts(automaton, text.replace(wrong, right)), text


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        ({"const": 1.0}, ["1", "1.0"]),
        ({"enum": [1, 1.0]}, ["1", "1.0"]),
        ({"enum": [[2.0, -3.0], 0.5]}, ["[2, -3]", "[2.0, -3]", "[2, -3.0]", "[2.0, -3.0]", "0.5"]),
        ({"const": 1}, ["1"]),
        ({"const": 1e30}, ["1e+30"]),
        ({"const": -0.0}, ["-0", "-0.0"]),
        ({"type": "number", "minimum": -1, "maximum": 1}, ["0", "0.0", "-1", "-1.0", "-0.5"]),
    ],
)
def test_spellings_of_equal_numbers(schema: Any, texts: list[str]) -> None:
    """Those that the page about grammars names."""
    automaton = automaton_of(JsonSchema(schema))
    others = [
        "0",
        "0.0",
        "-0",
        "-0.0",
        "1",
        "1.0",
        "1.00",
        "10",
        "-1",
        "-1.0",
        "-0.5",
        "0.5",
        "1e+30",
        "1e30",
    ]
    others += ["[2, -3]", "[2.0, -3]", "[2, -3.0]", "[2.0, -3.0]"]
    accepted = [text for text in others if accepts(automaton, text)]
    bounded = {"0.5", "1", "1.0", "1.00"} if "minimum" in schema else set()
    assert {*accepted} - bounded == {*texts}


def test_strings_may_be_escaped() -> None:
    automaton = automaton_of(JsonSchema({"type": "string", "minLength": 2, "maxLength": 2}))
    for text in ("🙂é", 'a"', "\\\n", "\x7f/"):
        assert accepts(automaton, json.dumps(text))
        assert accepts(automaton, json.dumps(text, ensure_ascii=False))
    for wrong in ('"\\ud800a"', '"a\n"', '"a\\x"', '"abc"', '"a"', '"\\u12"', '"aé'):
        assert not accepts(automaton, wrong), wrong


@pytest.mark.parametrize("name", [*FORMATS])
def test_formats(name: str) -> None:
    wrong = {
        "date": ["2023-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "2024-1-1"],
        "time": ["24:00:00Z", "12:60:00Z", "12:00:00", "12:00Z"],
        "date-time": ["2024-02-30T00:00:00Z", "2024-02-01 00:00:00Z"],
        "uuid": ["123e4567e89b12d3a456426614174000"],
        "email": ["a", "@b.c", "a@b", "a b@c.d"],
        "ipv4": ["256.1.1.1", "1.1.1", "01.1.1.1"],
        "hostname": ["-a.b", "a..b", ""],
    }
    automaton = automaton_of(JsonSchema({"type": "string", "format": name}))
    assert accepts(automaton, json.dumps(FORMATS[name]))
    for text in wrong[name]:
        assert not accepts(automaton, json.dumps(text)), text


def test_every_day_of_the_calendar_is_a_date() -> None:
    automaton = automaton_of(JsonSchema({"format": "date", "type": "string"}))
    for year in (1000, 1900, 2000, 2023, 2024, 9996):
        for month in range(14):
            for day in range(33):
                text = f"{year:04}-{month:02}-{day:02}"
                assert accepts(automaton, f'"{text}"') == is_valid(text, {"format": "date"}), text


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"not": {}}}}, "#/properties/a: the keyword 'not' is not supported"),
        ({"type": "number", "multipleOf": 2}, "'multipleOf' is not supported"),
        ({"patternProperties": {}}, "'patternProperties' is not"),
        ({"type": "text"}, "#: type='text' is no type"),
        ({"type": {"a": 1}}, "#: type={'a': 1} is no type"),
        ({"type": [["a"]]}, r"#: type=\[\['a'\]\] is no type"),
        ({"items": {"type": None}}, "#/items: type=None is no type"),
        ({"properties": {"a/b~": {"enum": "abc"}}}, "#/properties/a~1b~0: enum='abc' is no list of values"),
        ({"type": "integer", "enum": {"a": 1}}, "#: enum={'a': 1} is no list of values"),
        ({"type": "string", "format": ["date"]}, r"#: format=\['date'\] is no string"),
        ({"type": "string", "pattern": 1}, "#: pattern=1 is no string"),
        ({"type": "object", "required": [[1]]}, r"#: required=\[\[1\]\] is no list of names"),
        ({"type": "object", "required": [1]}, r"#: required=\[1\] is no list of names"),
        ({"type": "object", "required": "a"}, "#: required='a' is no list of names"),
        ({"type": "array", "maxItems": 1.5}, "#: maxItems=1.5 is no integer from 0 to"),
        ({"type": "array", "minItems": False}, "#: minItems=False is no integer from 0 to"),
        ({"type": "string", "minLength": True}, "#: minLength=True is no integer from 0 to"),
        ({"type": "number", "maximum": True}, "#: maximum=True is no number"),
        ('{"type": "integer", "maximum": 1e999}', "#: maximum=inf is no number|it is no JSON"),
        ({"allOf": [{"minimum": 1}, {"minimum": "a"}]}, "#/allOf/1: minimum='a' is no number"),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": 5}]}, "#/allOf/1: properties=5 is no object"),
        ({"anyOf": {"type": "null"}}, "#: anyOf={'type': 'null'} is no list of schemas"),
        ({"type": "array", "prefixItems": {}}, "#: prefixItems={} is no list of schemas"),
        ({"allOf": [{"const": True}, {"const": 1}]}, "#/allOf/1: 'const' is stated twice"),
        ({"$ref": 1}, r"#: \$ref=1 is no string"),
        ({"$ref": "#a"}, "#: the reference '#a' does not begin with '#/'"),
        (
            {"properties": {"a": {"$ref": "#/$defs/%61%20"}}},
            "#/properties/a: there is nothing at '#/\\$defs/%61%20'",
        ),
        ("[" * 100_000, "it is no JSON"),
        ('{"const": ' + "1" * 5000 + "}", "it is no JSON"),
        ({"type": "string", "format": "iri"}, "the format 'iri'; known are date, time"),
        ({"type": "string", "pattern": "a", "minLength": 1}, "pattern and minLength of the same string"),
        ({"type": "string", "pattern": "(?=a)"}, "#: pattern=.*lookahead"),
        ({"type": "string", "minLength": -1}, "minLength=-1 is no integer from 0"),
        ({"type": "number", "minimum": 0.5}, "the bound 0.5 of a number, which is no integer"),
        ({"type": "number", "minimum": "1"}, "minimum='1' is no number"),
        ({"items": [{}], "type": "array"}, "use prefixItems"),
        (
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "option 1 may match with another one; use anyOf",
        ),
        ({"oneOf": [{"minimum": 1}, {"type": "null"}]}, "use anyOf"),
        ({"$ref": "other.json"}, "does not begin with '#/'"),
        ({"$ref": "#/$defs/x"}, "there is nothing at '#/\\$defs/x'"),
        ({"enum": ["a"], "minLength": 1}, "enum or const beside minLength"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "'pattern' is stated twice"),
        ({"allOf": {}}, "is no list of schemas"),
        ({"properties": {"a": 5}}, "5 is no schema"),
        ({"properties": []}, r"#: properties=\[\] is no object"),
        ({"$ref": "#"}, "#: no value matches this schema"),
        ({"enum": []}, "#: no value matches this schema"),
        ({"const": "\ud800"}, "#: no value matches this schema"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "#: no value matches this schema"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "#: no value matches this schema"),
        (
            {"anyOf": [{"enum": []}, {"type": "number", "minimum": 3, "exclusiveMaximum": 3}]},
            "#, #/anyOf/0, #/anyOf/1: no",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": False, "minItems": 1}},
                "required": ["a"],
            },
            "#, #/properties/a/items: no value matches this schema",
        ),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "kind; #: no value matches this schema",
        ),
        ({"allOf": [{"$ref": "#"}], "type": "null"}, "kind; #/allOf/0: the reference '#' leads to itself"),
        (
            {"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"allOf": [{}, {"$ref": "#/$defs/a"}]}}},
            r"kind; #/\$defs/a/allOf/1: the reference '#/\$defs/a' leads to itself",
        ),
        ("{", "it is no JSON"),
        ({"const": float("nan")}, "it is no JSON"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_place(schema: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        automaton_of(JsonSchema(schema))


def test_schemas_are_values() -> None:
    class Model:
        """As pydantic's."""

        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {
                "title": "Model",
                "type": "object",
                "properties": {"a": {"title": "A", "type": "integer"}},
            }

    schema = Model.model_json_schema()
    one = JsonSchema(schema)
    assert one == JsonSchema(json.dumps(schema)) == JsonSchema(Model) != JsonSchema(schema, whitespace="none")
    assert hash(one) == hash(JsonSchema(Model))
    assert eval(repr(one), {"JsonSchema": JsonSchema}) == one
    for wrong in (5, None, [1], int):
        with pytest.raises(TypeError, match=r"JsonSchema\(schema\)"):
            JsonSchema(wrong)
    with pytest.raises(ValueError, match="whitespace"):
        JsonSchema({}, whitespace="two")  # type: ignore[arg-type]


# --- rows ------------------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["cats", "dogs"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
}


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        (minitx.Sample(), {"seed": 0, "num_samples": 3}),
        (minitx.Greedy(), {}),
        (minitx.Beam(num_beams=3), {"num_samples": 2}),
        (minitx.StochasticBeam(num_beams=3), {"seed": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_are_valid_and_a_batch_is_its_rows(strategy: Any, more: dict[str, Any]) -> None:
    tokenizer = TOKENIZERS["bytes"]
    model = model_of(tokenizer, n_positions=128)
    prompts = [[10, 20, 30], [7], [50, 60]]
    options: Any = {"max_new_tokens": 100, "tokenizer": tokenizer, "schema": PERSON, **more}
    batch = generate(model, prompts, strategy, **options)
    for text, reason in zip(batch.texts, batch.finish_reasons, strict=True):
        assert reason == "eos"
        assert is_valid(json.loads(text), PERSON)
    rows = [generate(model, [prompt], strategy, **options) for prompt in prompts]
    assert [text for row in rows for text in row.texts] == [*batch.texts]


def test_a_row_has_one_grammar() -> None:
    tokenizer = TOKENIZERS["bytes"]
    with pytest.raises(ValueError, match=r"schema=.*left out with grammar="):
        generate(
            model_of(tokenizer),
            [[5]],
            max_new_tokens=3,
            tokenizer=tokenizer,
            schema={},
            grammar=JsonSchema({}),
        )
