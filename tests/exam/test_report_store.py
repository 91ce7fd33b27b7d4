"""Keys of reports: only names that a report can have, and nothing outside."""

from __future__ import annotations

import pytest

from tasks.exam import report_store
from tasks.exam.report_store import checked_history_key, report_key

GOOD = ("107", "openai--gpt-4o", "ja", "20261122T141500Z", "report.html")


def test_keys_are_those_that_runs_are_written_under() -> None:
    assert report_key(*GOOD) == "exams/107/openai--gpt-4o/ja/20261122T141500Z/report.html"
    assert checked_history_key("107", "openai--gpt-4o", "history.html") == "exams/107/openai--gpt-4o/history.html"
    assert report_store.history_key("107", "openai/gpt-4o", "history.html") == "exams/107/openai--gpt-4o/history.html"


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "..%2f", "a\x00", "a\n", "-x", "x" * 300])
def test_a_part_that_leads_elsewhere_is_no_part(place: int, part: str) -> None:
    parts = [*GOOD]
    parts[place] = part
    with pytest.raises(ValueError, match="no report can lie there"):
        report_key(*parts)
    if place < 2:
        with pytest.raises(ValueError, match="no report can lie there"):
            checked_history_key(parts[0], parts[1], "history.html")


@pytest.mark.parametrize("name", ["run.json", "responses.jsonl", "answers.jsonl", "../report.html", "history.html", ""])
def test_a_file_that_a_report_does_not_have_is_not_served(name: str) -> None:
    with pytest.raises(ValueError, match="no report can lie there"):
        report_key(*GOOD[:4], name)
