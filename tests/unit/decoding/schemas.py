"""Random JSON schemas, and random values that match one."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["a", "ab", "b", "id", "name", "é", 'q"', "x\\y"]
PATTERNS = {"^[a-c]{1,3}$": "abc", "^x+y?$": "xxy", "[0-9]{2}": "a17", "^(é|\n)*$": "é\n", '^"\\\\?$': '"\\'}
FORMATS = {
    "date": "2024-02-29",
    "time": "23:59:59Z",
    "date-time": "1999-12-31T00:00:00.5+01:00",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "email": "a.b@example.org",
    "ipv4": "192.168.0.255",
    "hostname": "a-1.example",
}
TEXT = ["a", "b", '"', "\\", "\n", "é", "猫", "🙂", "\x01", "/", " "]


class Schemas:
    """Makes schemas and values from a seeded source.

    Args:
        seed: of the source.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.defs: dict[str, Any] = {}

    def schema(self) -> dict[str, Any]:
        """Returns a whole schema, at times with definitions that refer to themselves."""
        source = self.random
        self.defs = {}
        if source.random() < 0.25:
            self.defs["leaf"] = self.part(3)
            self.defs["tree"] = {
                "type": "object",
                "properties": {
                    "v": {"$ref": "#/$defs/leaf"},
                    "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                },
                "required": ["v"],
            }
        schema = self.part(0)
        return {**schema, "$defs": self.defs, "title": "T"} if self.defs else schema

    def part(self, depth: int) -> dict[str, Any]:
        """Returns a schema at a depth."""
        source = self.random
        simple = [self._string, self._integer, self._number, self._listed, self._plain]
        nested = [self._array, self._object, self._object, self._any_of, self._one_of, self._all_of]
        kinds = simple if depth >= 3 else simple + nested * 2
        if self.defs and "tree" in self.defs and depth < 3 and source.random() < 0.4:
            return {"$ref": source.choice(["#/$defs/tree", "#/$defs/leaf"])}
        return source.choice(kinds)(depth)

    def _plain(self, depth: int) -> dict[str, Any]:
        kinds = ["boolean", "null", "integer", "string", "number"]
        source = self.random
        if source.random() < 0.3:
            return {"type": source.sample(kinds, 2), "description": "several"}
        return {"type": source.choice(kinds)}

    def _string(self, depth: int) -> dict[str, Any]:
        source = self.random
        kind = source.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": source.choice([*PATTERNS])}
        if kind == 1:
            return {"type": "string", "format": source.choice([*FORMATS])}
        least, most = sorted(source.choices(range(6), k=2))
        limits = {"minLength": least, "maxLength": most}
        return {
            "type": "string",
            **{key: limits[key] for key in source.sample([*limits], source.randrange(3))},
        }

    def _integer(self, depth: int) -> dict[str, Any]:
        source = self.random
        low, high = sorted(source.choices([-1050, -100, -7, -1, 0, 1, 3, 12, 99, 100, 12345], k=2))
        limits = {source.choice(["minimum", "exclusiveMinimum"]): low - 1}
        limits[source.choice(["maximum", "exclusiveMaximum"])] = high + 1.5
        return {
            "type": "integer",
            **{key: limits[key] for key in source.sample([*limits], source.randrange(3))},
        }

    def _number(self, depth: int) -> dict[str, Any]:
        source = self.random
        low, high = sorted(source.choices([-100, -7, -1, 0, 1, 3, 12, 100], k=2))
        limits = {source.choice(["minimum", "exclusiveMinimum"]): low}
        limits[source.choice(["maximum", "exclusiveMaximum"])] = high + 1
        return {
            "type": "number",
            **{key: limits[key] for key in source.sample([*limits], source.randrange(3))},
        }

    def _listed(self, depth: int) -> dict[str, Any]:
        source = self.random
        values = [1, -2.5, "a", "é\n", None, True, [1, "b"], {"k": [], "l": {}}, 0]
        if source.random() < 0.3:
            return {"const": source.choice(values)}
        return {"enum": source.sample(values, source.randrange(1, 4))}

    def _array(self, depth: int) -> dict[str, Any]:
        source, schema = self.random, {"type": "array"}
        if source.random() < 0.8:
            schema["items"] = self.part(depth + 1) if source.random() < 0.9 else False
        if source.random() < 0.3:
            schema["prefixItems"] = [self.part(depth + 1) for _ in range(source.randrange(1, 3))]
        least, most = sorted(source.choices(range(4), k=2))
        if source.random() < 0.3 and schema.get("items") is not False:
            schema["minItems"] = least
        if source.random() < 0.3:
            schema["maxItems"] = most
        return schema

    def _object(self, depth: int) -> dict[str, Any]:
        source = self.random
        names = source.sample(WORDS, source.randrange(4))
        schema: dict[str, Any] = {"type": "object"}
        if names or source.random() < 0.5:
            schema["properties"] = {name: self.part(depth + 1) for name in names}
        schema["required"] = [name for name in names if source.random() < 0.5]
        more = source.random()
        if more < 0.3:
            schema["additionalProperties"] = False
        elif more < 0.6:
            schema["additionalProperties"] = True if more < 0.4 else self.part(depth + 1)
            schema["required"] += ["more"] if more > 0.5 else []
        return schema

    def _any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.part(depth + 1) for _ in range(self.random.randrange(1, 4))]}

    def _one_of(self, depth: int) -> dict[str, Any]:
        source = self.random
        if source.random() < 0.5:
            options = [
                {
                    "type": "object",
                    "properties": {"kind": {"const": kind}, "x": self.part(depth + 1)},
                    "required": ["kind"],
                }
                for kind in ("a", "b")
            ]
            return {"oneOf": options}
        return {"oneOf": [self._string(depth), self._integer(depth), {"type": ["null", "boolean"]}]}

    def _all_of(self, depth: int) -> dict[str, Any]:
        source = self.random
        if source.random() < 0.5:
            return {
                "allOf": [{"type": ["integer", "string"], "minimum": 3}, {"type": "integer", "maximum": 40}]
            }
        names = source.sample(WORDS, 3)
        first = {"type": "object", "properties": {names[0]: self.part(depth + 1)}, "required": [names[0]]}
        second = {"properties": {names[1]: self.part(depth + 1)}, "required": [names[2]]}
        return {**first, "allOf": [second]} if source.random() < 0.5 else {"allOf": [first, second]}

    # --- values --------------------------------------------------------------------------------

    def value(self, schema: Any, depth: int = 0) -> Any:
        """Returns a value that matches a schema of this class, properties in its order."""
        source = self.random
        if schema is True or not (schema.keys() - {"$defs", "title"}):
            return source.choice([1, "a", None, [], {"z": 1}])
        if "$ref" in schema:
            return self.value(self.defs[schema["$ref"].rpartition("/")[2]], depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.value(source.choice(schema[keyword]), depth)
        if "const" in schema or "enum" in schema:
            return schema["const"] if "const" in schema else source.choice(schema["enum"])
        if "allOf" in schema:
            parts = [{key: value for key, value in schema.items() if key != "allOf"}, *schema["allOf"]]
            if any("minimum" in part for part in parts):
                return source.randint(3, 40)
            objects = [self.value({"type": "object", **part}, depth) for part in parts if part]
            joined = {key: value for each in objects for key, value in each.items()}
            names = [name for part in parts for name in part.get("properties", {})]
            names += [name for part in parts for name in part.get("required", [])]
            return {name: joined[name] for name in names if name in joined}
        kind = schema["type"] if isinstance(schema["type"], str) else source.choice(schema["type"])
        return getattr(self, f"_{kind}_value")(schema, depth)

    def _boolean_value(self, schema: Any, depth: int) -> bool:
        return self.random.random() < 0.5

    def _null_value(self, schema: Any, depth: int) -> None:
        return None

    def _string_value(self, schema: Any, depth: int) -> str:
        if "pattern" in schema:
            return PATTERNS[schema["pattern"]]
        if "format" in schema:
            return FORMATS[schema["format"]]
        least = schema.get("minLength", 0)
        size = self.random.randint(least, min(schema.get("maxLength", least + 3), least + 3))
        return "".join(self.random.choices(TEXT, k=size))

    def _integer_value(self, schema: Any, depth: int) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1000) + 1)
        high = int(schema.get("maximum", schema.get("exclusiveMaximum", 20000)) // 1)
        return self.random.choice([low, high, self.random.randint(low, high)])

    def _number_value(self, schema: Any, depth: int) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1000) + 0.25)
        high = schema.get("maximum", schema.get("exclusiveMaximum", 20000) - 0.25)
        free = (
            []
            if {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"} & schema.keys()
            else [1e-7, -2e30, 5e200]
        )
        return self.random.choice([low, high, (low + high) / 2, *free])

    def _array_value(self, schema: Any, depth: int) -> list[Any]:
        heads, items = schema.get("prefixItems", []), schema.get("items", True)
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", least + 2), least + 2)
        most = max(least, min(most, len(heads) if items is False else most))
        size = self.random.randint(least, most if depth < 4 else least)
        return [self.value(heads[n] if n < len(heads) else items, depth + 1) for n in range(size)]

    def _object_value(self, schema: Any, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        more = schema.get("additionalProperties", not properties)
        result = {}
        for name in [*properties, *(name for name in required if name not in properties)]:
            if name in required or (depth < 4 and self.random.random() < 0.5):
                result[name] = self.value(properties.get(name, more or True), depth + 1)
        if more is not False and depth < 4 and self.random.random() < 0.5:
            result["other"] = self.value(more, depth + 1)
        return result
