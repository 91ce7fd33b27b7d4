"""The audit's page: complete, the same bytes twice, and plain about what it shows."""

from __future__ import annotations

import html
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.privacy.audit.report import build_audit_report
from tasks.privacy.audit.run import run_audit
from tasks.privacy.audit.verdict import Audit
from tasks.report import pages
from tests.page_structure import HARMLESS, HOSTILE, Structure, require_same_structure, with_texts
from tests.privacy.audit.audit_samples import QUICK, ROUNDS, sample_patients, sample_spend, sample_study, stand_in


@pytest.fixture(scope="module")
def audit() -> Audit:
    study = sample_study()
    observers = stand_in(study, 2)
    effort = replace(QUICK, iterations=4, site_rounds=0, min_transcripts=10)
    return run_audit(
        study,
        observers.raw,
        observers.released,
        sample_spend(),
        ROUNDS,
        seed=2,
        patients=sample_patients(study),
        effort=effort,
    )


def test_the_page_is_complete_in_itself(audit: Audit) -> None:
    files = build_audit_report(audit)
    page = html.unescape(files["audit.html"].decode())
    assert audit.words in page
    assert audit.patients in page
    assert page.count("<svg ") == sum(name.endswith(".png") for name in files) == 6
    outside = [url for url in re.findall(r'(?:src|href)="([^"]*)"', page) if not url.startswith("#")]
    assert outside == []
    for finding in audit.findings:
        assert all(figure.name in page for figure in finding.figures)


def test_the_same_audit_gives_the_same_bytes(audit: Audit) -> None:
    assert build_audit_report(audit) == build_audit_report(audit)


def test_the_record_is_read_back(audit: Audit) -> None:
    files = build_audit_report(audit)
    assert Audit.model_validate_json(files["audit.json"]) == audit
    assert all(body.startswith(b"\x89PNG") for name, body in files.items() if name.endswith(".png"))


def test_a_broken_promise_is_the_first_thing_said(audit: Audit) -> None:
    broken = audit.model_copy(update={"outcome": "broken", "words": "The promise is broken."})
    page = build_audit_report(broken)["audit.html"].decode()
    assert page.index('class="banner bad"') < page.index("What was audited")


def hostile_page(audit: Audit, text: str) -> bytes:
    """The page of an audit whose every text is `text`; choices are not free."""
    choices = {"mechanism", "outcome", "attack", "unit", "on", "study_digest"}
    return build_audit_report(with_texts(audit, text, choices))["audit.html"]


def test_a_hostile_text_stays_text(audit: Audit) -> None:
    body = require_same_structure(lambda text: hostile_page(audit, text), places=12)
    if folder := os.environ.get("PAGES_FOR_A_BROWSER"):
        (Path(folder) / "audit.html").write_bytes(body)


def test_without_escaping_the_structure_would_differ(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    careless = pages._environment().overlay(autoescape=False)
    monkeypatch.setattr(pages, "_environment", lambda: careless)
    hostile, harmless = (Structure(hostile_page(audit, text)) for text in (HOSTILE, HARMLESS))
    assert hostile.elements != harmless.elements
    assert {"script", "iframe", "onerror", "onload"} <= set(hostile.dangers)
