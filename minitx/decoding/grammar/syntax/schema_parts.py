"""What a JSON schema is made of: the keywords that are known, references, and schemas that hold together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from minitx.decoding.grammar.syntax.regex import MOST_REPEATS
from minitx.validation import ArgumentValueError

Schema = Mapping[str, Any]

# Keywords that say nothing about a value.
ANNOTATIONS = {
    *("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples"),
    *("deprecated", "readOnly", "writeOnly", "discriminator"),
}
# The types to which a keyword applies.
TYPED = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_COMBINED = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
KNOWN = ANNOTATIONS.union(_COMBINED, *TYPED.values())
_DEEPEST = 50


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_REPEATS


# What the values of keywords must be.
_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("type",), lambda value: {*TYPES}.issuperset(value if _is_strings(value) else [str(value)]), "type"),
    (("enum",), lambda value: isinstance(value, list), "list of values"),
    (("properties",), lambda value: isinstance(value, Mapping), "object"),
    (("required",), _is_strings, "list of names"),
    (("pattern", "format", "$ref"), lambda value: isinstance(value, str), "string"),
    (("anyOf", "oneOf", "allOf", "prefixItems"), lambda value: isinstance(value, list), "list of schemas"),
    (("minLength", "maxLength", "minItems", "maxItems"), _is_size, f"integer from 0 to {MOST_REPEATS}"),
    (TYPED["number"], lambda value: type(value) in (int, float), "number"),
)


class SchemaError(ArgumentValueError):
    """A schema that cannot be used, with the place in it."""

    def __init__(self, schema: Any, place: str, reason: str) -> None:
        super().__init__(
            "JsonSchema(schema)", schema, "a JSON schema of the supported kind", f"{place}: {reason}"
        )


class Document:
    """A whole schema, in which references are looked up.

    Args:
        schema: the whole schema.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def error(self, place: str, reason: str) -> SchemaError:
        """Returns the error about a place of the schema."""
        return SchemaError(self.schema, place, reason)

    def check(self, schema: Any, place: str) -> Schema:
        """Returns a schema as an object of known keywords with values of their kind.

        True is {} and False is {"enum": []}.
        """
        if isinstance(schema, bool):
            return {} if schema else {"enum": []}
        if not isinstance(schema, Mapping):
            raise self.error(place, f"{schema!r:.40} is no schema")
        for keyword, value in schema.items():
            if keyword not in KNOWN:
                raise self.error(place, f"the keyword {keyword!r} is not supported")
            for keywords, fits, kind in _SHAPES:
                if keyword in keywords and not fits(value):
                    raise self.error(place, f"{keyword}={value!r:.40} is no {kind}")
        return {key: value for key, value in schema.items() if key not in ANNOTATIONS}

    def target(self, reference: str, place: str) -> Any:
        """Returns the schema that a reference names: "#" and a JSON pointer (RFC 6901, section 6)."""
        schema, (start, *parts) = self.schema, unquote(reference).split("/")
        if start != "#":
            raise self.error(place, f"the reference {reference!r:.60} does not begin with '#/'")
        for part in parts:
            key = part.replace("~1", "/").replace("~0", "~")
            inside = {str(n): item for n, item in enumerate(schema)} if isinstance(schema, list) else schema
            if not isinstance(inside, Mapping) or key not in inside:
                raise self.error(place, f"there is nothing at {reference!r:.60}")
            schema = inside[key]
        return schema

    def flat(self, schema: Any, place: str, visited: frozenset[str] = frozenset()) -> Schema:
        """Returns a schema without `allOf`, and without a reference beside other keywords or at its top.

        `visited` are the references that led here.
        """
        current = dict(self.check(schema, place))
        reference = current.pop("$ref", None)
        if reference in visited:
            raise self.error(place, f"the reference {reference!r:.60} leads to itself")
        parts = [(part, f"{place}/allOf/{n}", visited) for n, part in enumerate(current.pop("allOf", []))]
        if reference is not None:
            parts.insert(0, (self.target(reference, place), reference, visited | {reference}))
        for part, where, passed in parts:
            current = dict(self.merged(current, self.flat(part, where, passed), where))
        return current

    def merged(self, one: Schema, other: Schema, place: str) -> Schema:
        """Returns the schema of values that match both."""
        merged = dict(one)
        for keyword, value in other.items():
            if keyword not in one:
                merged[keyword] = value
            elif keyword != "properties" and not same(one[keyword], value):
                merged[keyword] = self._both(keyword, one[keyword], value, place)
        if "properties" in one or "properties" in other:
            merged["properties"] = self._properties(one, other)
        return merged

    def _both(self, keyword: str, one: Any, other: Any, place: str) -> Any:
        if keyword == "type":
            return [kind for kind in TYPES if kind in types(one) & types(other)]
        if keyword == "enum":
            return [value for value in one if any(same(value, each) for each in other)]
        if keyword in ("minLength", "minItems", "minimum", "exclusiveMinimum"):
            return max(one, other)
        if keyword in ("maxLength", "maxItems", "maximum", "exclusiveMaximum"):
            return min(one, other)
        if keyword == "required":
            return list(dict.fromkeys([*one, *other]))
        if keyword in ("items", "additionalProperties"):
            return {"allOf": [one, other]}
        if keyword == "anyOf":
            return [{"allOf": [first, second]} for first in one for second in other]
        raise self.error(place, f"{keyword!r} is stated twice for the same value")

    def _properties(self, one: Schema, other: Schema) -> dict[str, Any]:
        """Returns the schema of each property; one that a part does not name is additional there."""
        names = dict.fromkeys([*one.get("properties", {}), *other.get("properties", {})])
        result = {}
        for name in names:
            sides = [
                part.get("properties", {}).get(name, part.get("additionalProperties", True))
                for part in (one, other)
            ]
            sides = [side for side in sides if side is not True]
            result[name] = sides[0] if len(sides) == 1 else {"allOf": sides} if sides else True
        return result

    def disjoint(self, one: Any, other: Any, place: str, depth: int = 0) -> bool:
        """Whether it is certain that no value matches both: by types, values, or a required property."""
        if depth > _DEEPEST:
            return False
        first, second = self.flat(one, place), self.flat(other, place)
        values, others = listed(first), listed(second)
        if values is not None and others is not None:
            return not any(same(value, each) for value in values for each in others)
        shared = kinds(first) & kinds(second)
        if not shared:
            return True
        if shared == {"object"}:
            required = {*first.get("required", ())} & {*second.get("required", ())}
            one, other = first.get("properties", {}), second.get("properties", {})
            return any(
                self.disjoint(one.get(n, True), other.get(n, True), place, depth + 1) for n in required
            )
        return False


def types(stated: str | list[str]) -> set[str]:
    """Returns the types of a `type` keyword; "number" includes "integer"."""
    stated = [stated] if isinstance(stated, str) else stated
    return {*stated, "integer"} if "number" in stated else {*stated}


def kinds(schema: Schema) -> set[str]:
    """Returns the types that the values of a flat schema may have."""
    stated, values = types(schema["type"]) if "type" in schema else {*TYPES}, listed(schema)
    return stated if values is None else stated & {kind_of(value) for value in values}


def pointer(name: str) -> str:
    """Returns a name as it is written in a place of a schema (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def listed(schema: Schema) -> list[Any] | None:
    """Returns the values that `enum` or `const` lists; None without them."""
    if "const" in schema:
        values = schema.get("enum", [schema["const"]])
        return [schema["const"]] if any(same(schema["const"], value) for value in values) else []
    return schema.get("enum")


def kind_of(value: Any) -> str:
    """Returns the type of a JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)
