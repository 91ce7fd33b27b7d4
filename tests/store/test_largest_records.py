"""The largest instance of every record fits its limit: made from the record's own schema, and taken by the record."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tasks.data.checks.runner import ValidationResult
from tasks.privacy.ledger.chain import MAX_ENTRY
from tasks.privacy.secure_sum import records as sums
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records import ledger, model, report, round, site
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.record import Record

KINDS: list[type[BaseModel]] = [
    *(
        kind
        for module in (ledger, model, report, round, site, sums)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == module.__name__
    ),
    ValidationResult,
]
#: Entries of a list or dict in the largest instance; the limit is for more of them, each as large.
FEW = 20
#: The widest character first: an emoji in UTF-8, an escaped control character, what needs a backslash, and plain ones.
WIDE = ("\x01", "\U0001f600", '"', "0", "A", "a")


def largest(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """A value that is as large as the schema lets it be, but for the number of entries."""
    if "$ref" in schema:
        return largest(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema or "enum" in schema:
        return max(schema.get("enum", [schema.get("const")]), key=lambda value: len(str(value)))
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return max((largest(member, definitions) for member in schema[union]), key=lambda value: len(str(value)))
    match schema["type"]:
        case "object" if "properties" in schema:
            return {name: largest(part, definitions) for name, part in schema["properties"].items()}
        case "object":
            return _largest_dict(schema, definitions)
        case "array" if "prefixItems" in schema:
            return [largest(part, definitions) for part in schema["prefixItems"]]
        case "array":
            return [largest(schema["items"], definitions)] * min(schema["maxItems"], FEW)
        case "string":
            return _longest(schema)
        case "integer":
            return schema.get("maximum", schema.get("exclusiveMaximum", 0) - 1)
        case "number":
            return _widest_number(schema)
        case other:
            return {"boolean": False, "null": None}[other]


def _largest_dict(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    ((pattern, values),) = schema.get("patternProperties", {None: schema.get("additionalProperties")}).items()
    key = _longest({**schema["propertyNames"], "pattern": pattern})
    count = min(schema["maxProperties"], FEW)
    return {f"{key[:-2]}{number:02d}": largest(values, definitions) for number in range(count)}


def _longest(schema: dict[str, Any]) -> str:
    if schema.get("format") == "date-time":
        return "2026-12-31T23:59:59.999999+23:59"
    if schema.get("format") == "binary":
        return {32: "A" * 43 + "=", 33: "A" * 44, 114: "A" * 152}[schema["maxLength"]]
    if schema["maxLength"] == 88:
        return "A" * 86 + "=="
    length = schema["maxLength"]
    hidden = r"\p{Cc}\p{Cf}\p{Zl}\p{Zp}"  # Python's `re` knows no classes of Unicode
    pattern = (schema.get("pattern") or "").replace(hidden, "\x00-\x1f\x7f-\x9f")
    return next(c * length for c in WIDE if re.fullmatch(pattern or ".*", c * length, re.DOTALL))


def _widest_number(schema: dict[str, Any]) -> float:
    wide = (-2.2250738585072014e-308, 2.2250738585072014e-308, 0.012345678901234567)
    bounds = (schema.get("minimum", -1e999), schema.get("exclusiveMinimum", -1e999), schema.get("maximum", 1e999))
    return next((n for n in wide if bounds[0] <= n <= bounds[2] and n > bounds[1]), bounds[2])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_largest_instance_fits(kind: type[BaseModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """With FEW entries in each list instead of all, which is what the limit is measured against here as well."""
    schema = kind.model_json_schema()
    made = largest(schema, schema.get("$defs", {}))
    try:
        size = len(to_json(kind.model_validate(made)))
    except ValidationError as error:
        size = _without_what_excludes_each_other(kind, made, error)
    limit = _limit_of_few(kind, monkeypatch)
    assert size <= limit
    assert size > 0.5 * limit, "the limit is far from what a record can have"


def _without_what_excludes_each_other(kind: type[BaseModel], made: dict[str, Any], error: ValidationError) -> int:
    """Only a section's own rule may refuse the largest values: of two settings that exclude each other, one goes."""
    assert {line["type"] for line in error.errors()} == {"value_error"}, error
    assert {line["loc"][0] for line in error.errors()} <= {"training", "privacy"}, error
    made = made | {"training": made["training"] | {"local_epochs": None}}
    return len(to_json(kind.model_validate(made)))


def _limit_of_few(kind: type[BaseModel], monkeypatch: pytest.MonkeyPatch) -> int:
    """The limit if every list and dict could hold FEW at most."""
    original = kind.model_json_schema

    def of_few(*arguments: Any, **options: Any) -> dict[str, Any]:
        return _few(original(*arguments, **options))

    with monkeypatch.context() as patch:
        patch.setattr(kind, "model_json_schema", of_few)
        return max_bytes.__wrapped__(kind)


def _few(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: min(value, FEW) if key in ("maxItems", "maxProperties") else _few(value)
            for key, value in schema.items()
        }
    return [_few(part) for part in schema] if isinstance(schema, list) else schema


def test_every_record_is_looked_at() -> None:
    assert len(KINDS) >= 30


def test_one_more_is_too_many() -> None:
    """The control: what the limit is the sum of are limits that hold."""
    schema = LedgerEntry.model_json_schema()
    made = largest(schema, schema["$defs"])
    for change in ({"study": made["study"] + "x"}, {"sequence": made["sequence"] + 1}, {"signature": "A" * 89}):
        with pytest.raises(ValidationError):
            LedgerEntry.model_validate(made | change)


def test_a_ledger_entry_fits_what_the_hub_reads_of_one() -> None:
    assert max_bytes(LedgerEntry) <= MAX_ENTRY
