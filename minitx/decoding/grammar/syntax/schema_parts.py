"""What a JSON schema is made of: the keywords that are known, references, and schemas that hold together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        """Returns a schema as an object whose keywords are known; True is {} and False is {"enum": []}."""
        if isinstance(schema, bool):
            return {} if schema else {"enum": []}
        if not isinstance(schema, Mapping):
            raise self.error(place, f"{schema!r:.40} is no schema")
        for keyword in schema:
            if keyword not in KNOWN:
                raise self.error(place, f"the keyword {keyword!r} is not supported")
        return {key: value for key, value in schema.items() if key not in ANNOTATIONS}

    def target(self, reference: Any, place: str) -> Any:
        """Returns the schema that a reference names."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise self.error(place, f"the reference {reference!r:.60} does not begin with '#'")
        schema = self.schema
        for part in reference.lstrip("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(schema, list) and key.isdigit() and int(key) < len(schema):
                schema = schema[int(key)]
            elif isinstance(schema, Mapping) and key in schema:
                schema = schema[key]
            else:
                raise self.error(place, f"there is nothing at {reference!r:.60}")
        return schema

    def flat(self, schema: Any, place: str, depth: int = 0) -> Schema:
        """Returns a schema without `allOf`, and without a reference beside other keywords or at its top."""
        if depth > _DEEPEST:
            raise self.error(place, "references and allOf lead to themselves")
        current = dict(self.check(schema, place))
        parts = [(self.target(current.pop("$ref"), place), place)] if "$ref" in current else []
        parts += [
            (part, f"{place}/allOf") for part in self.schemas(current.pop("allOf", []), f"{place}/allOf")
        ]
        for part, where in parts:
            current = dict(self.merged(current, self.flat(part, where, depth + 1), where))
        return current

    def schemas(self, value: Any, place: str) -> list[Any]:
        """Checks that the value of a keyword is a list."""
        if not isinstance(value, list):
            raise self.error(place, f"{value!r:.40} is no list of schemas")
        return value

    def merged(self, one: Schema, other: Schema, place: str) -> Schema:
        """Returns the schema of values that match both."""
        merged = dict(one)
        for keyword, value in other.items():
            if keyword not in one:
                merged[keyword] = value
            elif one[keyword] != value:
                merged[keyword] = self._both(keyword, one[keyword], value, place)
        if "properties" in one or "properties" in other:
            merged["properties"] = self._properties(one, other)
        return merged

    def _both(self, keyword: str, one: Any, other: Any, place: str) -> Any:
        if keyword == "type":
            return [kind for kind in TYPES if kind in self.types(one, place) & self.types(other, place)]
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
        if keyword == "properties":
            return one
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

    def types(self, stated: Any, place: str) -> set[str]:
        """Returns the types of a `type` keyword; "number" includes "integer"."""
        kinds: set[str] = {*stated} if isinstance(stated, list) else {stated}
        if not kinds <= {*TYPES}:
            raise self.error(place, f"the type {stated!r:.40} is not known")
        return kinds | ({"integer"} if "number" in kinds else set())

    def disjoint(self, one: Any, other: Any, place: str, depth: int = 0) -> bool:
        """Whether it is certain that no value matches both: by types, values, or a required property."""
        if depth > _DEEPEST:
            return False
        first, second = self.flat(one, place), self.flat(other, place)
        values, others = listed(first), listed(second)
        if values is not None and others is not None:
            return not any(same(value, each) for value in values for each in others)
        kinds = [self.kinds(schema, place) for schema in (first, second)]
        if not kinds[0] & kinds[1]:
            return True
        if kinds[0] & kinds[1] == {"object"}:
            required = {*first.get("required", ())} & {*second.get("required", ())}
            pairs = [
                (first.get("properties", {}).get(n), second.get("properties", {}).get(n)) for n in required
            ]
            return any(
                a is not None and b is not None and self.disjoint(a, b, place, depth + 1) for a, b in pairs
            )
        return False

    def kinds(self, schema: Schema, place: str) -> set[str]:
        """Returns the types that the values of a flat schema may have."""
        kinds = self.types(schema["type"], place) if "type" in schema else {*TYPES}
        values = listed(schema)
        return kinds if values is None else kinds & {kind_of(value) for value in values}


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
