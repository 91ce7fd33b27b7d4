"""No text of a record changes the structure of a page, wherever it stands; without escaping each page would show it."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tasks.report import pages
from tasks.report.canvas import Chart
from tasks.rounds.page import index, plots
from tasks.rounds.page.build import build_report, run_entry
from tasks.store.records.report import Baselines
from tasks.study.sections import Study
from tests.page_structure import HARMLESS, HOSTILE, Structure, require_same_structure, with_texts
from tests.rounds.page.report_samples import Rounds

#: What picks a branch of the code: never text from elsewhere.
CHOICES = frozenset({"status", "mechanism", "channel", "unit", "suppressed"})


def made_of(text: str, study: Study, rounds: Rounds, baselines: Baselines) -> dict[str, bytes]:
    """A round's report whose every text is `text`; sites stay apart by their number."""
    odd = [with_texts(record, text, CHOICES) for record in rounds(status="failed")]
    odd = [
        record.model_copy(
            update={
                "study": study.study,
                "sites": tuple(
                    site.model_copy(update={"site": f"{number}{text}", "reason": text, "contributed": number > 2})
                    for number, site in enumerate(record.sites)
                ),
            }
        )
        for record in odd
    ]
    titled = study.model_copy(update={"title": text, "description": text, "owner": text})
    told = with_texts(baselines, text).model_copy(update={"study": study.study})
    return build_report(titled, odd, told)


@pytest.fixture
def build(study: Study, rounds: Rounds, baselines: Baselines) -> dict[str, Callable[[str], bytes]]:
    """Page -> what builds it of a text."""
    entries = [run_entry(study, record) for record in rounds()]

    def lines(text: str) -> list[object]:
        return [with_texts(entry, text, {"mechanism", "status", "closed_at"}) for entry in entries]

    return {
        "round": lambda text: made_of(text, study, rounds, baselines)["report.html"],
        "index": lambda text: index.rounds_index_page(text, lines(text)),
        "overview": lambda text: index.overview_page({text: lines(text), f"{text}2": []}, exams=True),
        "notice": lambda text: pages.notice_page(text, text, refresh_seconds=10),
    }


PLACES = {"round": 40, "index": 6, "overview": 7, "notice": 3}


@pytest.mark.parametrize("page", PLACES)
def test_a_hostile_text_stays_text(page: str, build: dict[str, Callable[[str], bytes]]) -> None:
    body = require_same_structure(build[page], places=PLACES[page])
    if folder := os.environ.get("PAGES_FOR_A_BROWSER"):
        (Path(folder) / f"{page}.html").write_bytes(body)


@pytest.mark.parametrize("page", PLACES)
def test_without_escaping_the_structure_would_differ(
    page: str, build: dict[str, Callable[[str], bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    careless = pages._environment().overlay(autoescape=False)
    monkeypatch.setattr(pages, "_environment", lambda: careless)
    made = cache(build[page])
    hostile, harmless = Structure(made(HOSTILE)), Structure(made(HARMLESS))
    assert hostile.elements != harmless.elements
    assert {"script", "iframe", "onerror", "onload"} <= set(hostile.dangers)
    with pytest.raises(AssertionError):
        require_same_structure(made, places=1)
    if folder := os.environ.get("PAGES_FOR_A_BROWSER"):
        (Path(folder) / f"{page}-control.html").write_bytes(made(HOSTILE))


def test_a_chart_that_matplotlib_did_not_escape_would_be_noticed(
    build: dict[str, Callable[[str], bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charts go into the page as they are: their texts are matplotlib's to escape."""
    draw = plots.draw

    def careless(*arguments: object) -> list[Chart]:
        return [replace(chart, svg=html.unescape(chart.svg)) for chart in draw(*arguments)]

    monkeypatch.setattr(plots, "draw", careless)
    made = cache(build["round"])
    assert "script" in Structure(made(HOSTILE)).dangers
    with pytest.raises(AssertionError):
        require_same_structure(made, places=1)
