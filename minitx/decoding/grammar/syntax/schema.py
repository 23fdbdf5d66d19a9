"""JSON schemas (2020-12) as grammars.

Supported: `type` (also a list), `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`,
`prefixItems`, `minItems`, `maxItems`, `minLength`, `maxLength`, `pattern`, `format`, `minimum`, `maximum` and
their exclusive forms, `anyOf`, `oneOf`, `allOf`, `$ref` within the schema, also recursive, and `$defs`. Every
other keyword but annotations such as `title` is refused by name.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from minitx.decoding.grammar.nodes import (
    EMPTY,
    Call,
    Characters,
    Either,
    Node,
    Repeat,
    Rules,
    Series,
    either,
    literal,
    matches_some,
    optional,
    series,
    union,
)
from minitx.decoding.grammar.syntax.json_text import (
    FORMATS,
    NUMBER,
    any_value,
    integers,
    numbers,
    other_strings,
    quoted,
    spelled,
    value_of,
)
from minitx.decoding.grammar.syntax.regex import parse_regex
from minitx.decoding.grammar.syntax.schema_parts import (
    TYPED,
    Document,
    Schema,
    kind_of,
    kinds,
    listed,
    pointer,
)
from minitx.validation import ArgumentValueError

Whitespace = Literal["none", "one", "any"]

_NOTHING = Either(())
_SPACES = Repeat(Characters(union([(9, 10), (13, 13), (32, 32)])), 0, 20)
_BESIDE_VALUES = {"type", "enum", "const"}


def schema_rules(schema: Any, whitespace: Whitespace = "one") -> Rules:
    """Returns the rules of the JSON texts of a schema.

    Args:
        schema: the parsed schema.
        whitespace: between the parts, as `JsonSchema` has it.

    Raises:
        SchemaError: a keyword, value or combination that is not supported, or a schema that no value matches,
            with its place.
    """
    return _Builder(schema, whitespace).whole()


class _Builder:
    """Makes the rules of a schema; each reference and each list of properties is a rule."""

    def __init__(self, schema: Any, whitespace: Whitespace) -> None:
        self._document, self._whitespace = Document(schema), whitespace
        self._rules: dict[str, Node] = any_value(self._sign)
        self._unmatched: list[str] = []  # places of schemas without any value

    def whole(self) -> Rules:
        """Returns the rules."""
        self._rules["schema"] = self._node(self._document.schema, "#")
        rules = Rules("schema", self._rules)
        if not matches_some(rules):
            places = list(dict.fromkeys(["#", *self._unmatched]))
            raise self._document.error(", ".join(places[:4]), "no value matches this schema")
        return rules

    def _sign(self, sign: str) -> Node:
        """Returns a sign with the space that may be around it."""
        if self._whitespace == "none" or (self._whitespace == "one" and sign not in ",:"):
            return literal(sign)
        if self._whitespace == "one":
            return series(sign, optional(" "))
        return Series((EMPTY if sign in "{[" else _SPACES, literal(sign), EMPTY if sign in "}]" else _SPACES))

    def _rule(self, node: Node) -> Call:
        name = f"rule {len(self._rules)}"
        self._rules[name] = node
        return Call(name)

    def _node(self, schema: Any, place: str) -> Node:
        """Returns the node of a schema at a place of the document."""
        node = self._unchecked(schema, place)
        if node == _NOTHING:
            self._unmatched.append(place)
        return node

    def _unchecked(self, schema: Any, place: str) -> Node:
        document = self._document
        checked = document.check(schema, place)
        if "$ref" in checked:
            name = f"ref {json.dumps(checked)}"
            if name not in self._rules:
                self._rules[name] = EMPTY  # until it is known; the reference may be recursive
                alone = len(checked) == 1
                target = document.target(checked["$ref"], place) if alone else document.flat(schema, place)
                self._rules[name] = self._node(target, str(checked["$ref"]) if alone else place)
            return Call(name)
        flat = document.flat(schema, place)
        if not flat:
            return Call("any")
        for keyword in ("anyOf", "oneOf"):
            if keyword in flat:
                return self._options(flat, keyword, f"{place}/{keyword}")
        values = listed(flat)
        if values is not None:
            return self._values(values, flat, place)
        types = kinds(flat)
        if "number" in types:
            types -= {"integer"}
        return either(*(self._kind(kind, flat, place) for kind in sorted(types))) if types else _NOTHING

    def _options(self, schema: Schema, keyword: str, place: str) -> Node:
        document, rest = self._document, {key: value for key, value in schema.items() if key != keyword}
        options = schema[keyword]
        if keyword == "oneOf":
            for number, option in enumerate(options):
                if not all(document.disjoint(option, other, place) for other in options[:number]):
                    raise document.error(place, f"option {number} may match with another one; use anyOf")
        joined = [{"allOf": [rest, option]} if rest else option for option in options]
        return either(*(self._node(option, f"{place}/{number}") for number, option in enumerate(joined)))

    def _values(self, values: list[Any], schema: Schema, place: str) -> Node:
        others = schema.keys() - _BESIDE_VALUES
        if others and values:
            raise self._document.error(place, f"enum or const beside {', '.join(sorted(others))}")
        types = kinds(schema)
        nodes = [value_of(value, self._sign) for value in values if kind_of(value) in types]
        return either(*nodes) if nodes else _NOTHING

    def _kind(self, kind: str, schema: Schema, place: str) -> Node:
        """Returns the node of the values of one type."""
        own = TYPED["number" if kind == "integer" else kind] if kind not in ("boolean", "null") else ()
        limits = {key: schema[key] for key in own if key in schema}
        if kind == "boolean":
            return either("true", "false")
        if kind == "null":
            return literal("null")
        if kind == "string":
            return self._string(limits, place)
        if kind == "array":
            return self._array(limits, place) if limits else Call("array")
        if kind == "object":
            return self._object(limits, place) if limits else Call("object")
        return self._number(kind, limits, place)

    def _string(self, limits: Schema, place: str) -> Node:
        error = self._document.error
        sized = [name for name in ("minLength", "maxLength") if name in limits]
        shaped = [name for name in ("pattern", "format") if name in limits]
        if len(shaped) > 1 or (shaped and sized):
            raise error(place, f"{' and '.join([*shaped, *sized])} of the same string")
        if "format" in limits:
            if limits["format"] not in FORMATS:
                raise error(place, f"the format {limits['format']!r:.30}; known are {', '.join(FORMATS)}")
            return series('"', parse_regex(FORMATS[limits["format"]]), '"')
        if "pattern" in limits:
            try:
                pattern = parse_regex(limits["pattern"], search=True, parameter="pattern")
            except ArgumentValueError as problem:
                raise error(place, str(problem)) from problem
            return series('"', spelled(pattern), '"')
        least, most = limits.get("minLength", 0), limits.get("maxLength")
        if most is not None and most < least:
            return _NOTHING
        return series('"', Repeat(Call("character"), least, most), '"')

    def _number(self, kind: str, limits: Schema, place: str) -> Node:
        if not limits:
            return integers(None, None) if kind == "integer" else NUMBER
        low, open_low = _bound(limits.get("minimum"), limits.get("exclusiveMinimum"), max)
        high, open_high = _bound(limits.get("maximum"), limits.get("exclusiveMaximum"), min)
        if kind == "integer":
            least = None if low is None else math.floor(low) + 1 if open_low else math.ceil(low)
            most = None if high is None else math.ceil(high) - 1 if open_high else math.floor(high)
            return integers(least, most)
        for bound in (low, high):
            if bound is not None and bound != int(bound):
                raise self._document.error(place, f"the bound {bound} of a number, which is no integer")
        least, most = (None if bound is None else int(bound) for bound in (low, high))
        return numbers(least, most, open_low, open_high)

    def _array(self, limits: Schema, place: str) -> Node:
        least, most = limits.get("minItems", 0), limits.get("maxItems")
        if isinstance(limits.get("items"), list):
            raise self._document.error(place, "items as a list; use prefixItems")
        heads = [
            self._node(schema, f"{place}/prefixItems/{n}")
            for n, schema in enumerate(limits.get("prefixItems", []))
        ]
        item = self._rule(self._node(limits.get("items", True), f"{place}/items"))
        if most is not None and most < least:
            return _NOTHING
        heads = heads if most is None else heads[:most]
        comma, size = self._sign(","), len(heads)
        left = None if most is None else most - max(size, 1)
        if most == 0:
            inside: Node = EMPTY
        elif size == 0:
            inside = Series((item, Repeat(Series((comma, item)), max(least - 1, 0), left)))
            inside = optional(inside) if least == 0 else inside
        else:
            inside = Repeat(Series((comma, item)), max(least - size, 0), left)
            for number in range(size - 1, -1, -1):
                inside = Series((EMPTY if number == 0 else comma, heads[number], inside))
                inside = optional(inside) if number >= least else inside
        return Series((self._sign("["), inside, self._sign("]")))

    def _object(self, limits: Schema, place: str) -> Node:
        properties, required = limits.get("properties", {}), limits.get("required", [])
        more = limits.get("additionalProperties", not properties)
        names = [*properties, *(name for name in dict.fromkeys(required) if name not in properties)]
        entries = []
        for name in names:
            stated = properties.get(name, limits.get("additionalProperties", True))
            value = self._node(stated, f"{place}/properties/{pointer(name)}")
            node = Series((quoted(name), self._sign(":"), value))
            entries.append((self._rule(node), name in required))
        comma = self._sign(",")
        last: Node = EMPTY
        first: list[Node] = []
        if more is not False:
            key = series('"', other_strings(names, Call("character"), Call("characters")))
            value = self._node(more, f"{place}/additionalProperties")
            extra = self._rule(Series((key, self._sign(":"), value)))
            last = Repeat(Series((comma, extra)))
            first = [Series((extra, last))]
        may_be_empty = True
        tail: Node = self._rule(last)
        for number in range(len(entries) - 1, -1, -1):
            entry, needed = entries[number]
            first = [Series((entry, tail)), *([] if needed else first)]
            may_be_empty &= not needed
            step = Series((comma, entry))
            tail = self._rule(Series((step if needed else optional(step), tail)))
        inside = either(*([EMPTY] if may_be_empty else []), *first)
        return Series((self._sign("{"), inside, self._sign("}")))


def _bound(closed: Any, opened: Any, choose: Any) -> tuple[Any, bool]:
    """Returns the stricter of two bounds, and whether it is excluded itself."""
    if closed is None or opened is None:
        return (closed, False) if opened is None else (opened, True)
    return (opened, True) if choose(closed, opened) == opened else (closed, False)
