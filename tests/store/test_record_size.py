"""A record's limit is the sum of its parts'."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from tasks.data.checks.runner import ValidationResult
from tasks.foreign.bounds import MAX_TEXT, SITE_REASON, Name, shorten
from tasks.privacy.secure_sum import records as sums
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records import ledger, model, report, round, site
from tasks.store.records.record import Record
from tasks.store.records.report import SiteMetrics
from tasks.store.records.round import Refusal

TYPES = [
    kind
    for module in (ledger, model, report, round, site, sums)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", [*TYPES, ValidationResult], ids=lambda kind: kind.__name__)
def test_every_record_has_a_largest_size(kind: type[BaseModel]) -> None:
    assert 0 < max_bytes(kind) < 1 << 30


def test_the_largest_refusal_and_metrics_fit_and_are_not_far_from_the_limit() -> None:
    refusal = Refusal(
        study="\U0001f600" * 300,
        server_round=999_999,
        site="x" * 32,
        step="privatize_and_upload",
        reason="\U0001f600" * MAX_TEXT,
    )
    assert 0.9 * max_bytes(Refusal) < len(to_json(refusal)) <= max_bytes(Refusal)
    metrics = SiteMetrics(
        study="\U0001f600" * 300,
        server_round=999_999,
        site="x" * 32,
        model_sha256="f" * 64,
        min_cell=1 << 53,
        num_examples=1 << 53,
        figures={"\U0001f600" * 298 + f"{n:02d}": 2.2250738585072014e-308 for n in range(16)},
        suppressed=("\U0001f600" * 300,) * 17,
        seconds=123456.12345678901,
    )
    assert 0.9 * max_bytes(SiteMetrics) < len(to_json(metrics)) <= max_bytes(SiteMetrics)


@pytest.mark.parametrize("field", ["texts", "numbers", "listed", "mapped"])
def test_a_field_without_a_bound_has_no_size(field: str) -> None:
    annotation = {"texts": str, "numbers": int, "listed": tuple[Name, ...], "mapped": dict[Name, Name]}[field]
    unbounded = type("Unbounded", (Record,), {"__annotations__": {field: annotation}})
    with pytest.raises(TypeError, match=field):
        max_bytes(unbounded)
    bounded = Field(max_length=3) if field != "numbers" else Field(ge=0, le=9)
    assert max_bytes(type("Bounded", (Record,), {"__annotations__": {field: annotation}, field: bounded}))


@pytest.mark.parametrize("text", ["x" * 10_000, "\x00\n\u202e", "\ud800", "", "\U0001f600" * 5000])
def test_a_shortened_reason_is_a_valid_one(text: str) -> None:
    reason = shorten(text, SITE_REASON)
    assert len(reason) <= SITE_REASON
    refusal = Refusal(study="s", server_round=1, site="701", step="unmask", reason=reason)
    assert Refusal.model_validate_json(to_json(refusal)) == refusal
