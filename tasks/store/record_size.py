"""How many bytes a record can have: the sum of its parts, read from the schema that pydantic makes of the model."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import BaseModel

from tasks.foreign.bounds import BYTES_PER_CHARACTER

Schema = dict[str, Any]
#: The longest float (`-2.2250738585072014e-308`) and the longest time with quotes and an offset, with room to spare.
_FLOAT, _TIME = 25, 48
#: JSON writes a control character as `\\u0000`.
_ESCAPED = 6


@cache
def max_bytes(record: type[BaseModel]) -> int:
    """The most bytes that `store.objects.to_json` makes of any valid instance: indented by two, with a last newline.

    Raises:
        TypeError: a field has no bound, and the record could have any size; the message names the field.
    """
    schema = record.model_json_schema()
    return _Sizes(schema.get("$defs", {})).of(schema, 0, record.__name__) + 1


class _Sizes:
    """The sizes of JSON values of one schema; `depth` is how far a value is indented, `place` names it in errors."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self.definitions = definitions

    def of(self, schema: Schema, depth: int, place: str) -> int:
        """The most bytes of a value."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self.of(self.definitions[name], depth, f"{place}:{name}")
        if "const" in schema or "enum" in schema:
            return max(len(json.dumps(value)) for value in schema.get("enum", [schema.get("const")]))
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return max(self.of(member, depth, place) for member in schema[union])
        match schema.get("type"):
            case "object":
                return self._object(schema, depth, place)
            case "array":
                return self._array(schema, depth, place)
            case "string":
                return _string(schema, place)
            case "integer":
                return _integer(schema, place)
            case "number":
                return _FLOAT
            case "boolean" | "null":
                return len("false")
            case other:
                raise TypeError(f"{place} has no bound: {other}")

    def _object(self, schema: Schema, depth: int, place: str) -> int:
        if "properties" in schema:
            lines = [
                len(json.dumps(name)) + 2 + self.of(part, depth + 1, f"{place}.{name}")
                for name, part in schema["properties"].items()
            ]
            return _block(lines, depth)
        patterns = schema.get("patternProperties", {})
        values = next(iter(patterns.values()), schema.get("additionalProperties"))
        if "maxProperties" not in schema or not isinstance(values, dict):
            raise TypeError(f"{place} has no bound: give the dict a max_length")
        keys = {**schema.get("propertyNames", {}), "pattern": next(iter(patterns), None)}
        line = _string(keys, f"{place}'s keys") + 2 + self.of(values, depth + 1, f"{place}[]")
        return _block([line] * schema["maxProperties"], depth)

    def _array(self, schema: Schema, depth: int, place: str) -> int:
        if "prefixItems" in schema:
            return _block([self.of(part, depth + 1, place) for part in schema["prefixItems"]], depth)
        if "maxItems" not in schema:
            raise TypeError(f"{place} has no bound: give the tuple a max_length")
        return _block([self.of(schema["items"], depth + 1, f"{place}[]")] * schema["maxItems"], depth)


def _block(lines: list[int], depth: int) -> int:
    """Brackets around lines, each with a newline and a comma."""
    return 2 + sum(line + 2 + 2 * (depth + 1) for line in lines) + 1 + 2 * depth


def _string(schema: Schema, place: str) -> int:
    if schema.get("format") == "date-time":
        return _TIME
    if "maxLength" not in schema:
        raise TypeError(f"{place} has no bound: give the string a max_length")
    if schema.get("format") == "binary":
        return 2 + 4 * -(-int(schema["maxLength"]) // 3)
    each = BYTES_PER_CHARACTER.get(schema.get("pattern") or "", _ESCAPED)
    return 2 + each * int(schema["maxLength"])


def _integer(schema: Schema, place: str) -> int:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None or high is None:
        raise TypeError(f"{place} has no bound: give the integer a smallest and a largest value")
    return max(len(str(int(low))), len(str(int(high))))
