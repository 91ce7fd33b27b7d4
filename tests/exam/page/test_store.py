"""Keys of reports: only names that a report can have, and nothing outside."""

from __future__ import annotations

import re

import pytest

from tasks.exam.page.store import checked_history_key, report_key
from tasks.store import layout

GOOD = ("107", "openai--gpt-4o", "ja", "20261122T141500Z", "report.html")


@pytest.mark.parametrize(
    ("models", "folders"),
    [
        (["openai/gpt-4o", "pharmafed/smollm2"], ["openai--gpt-4o", "pharmafed--smollm2"]),
        (["ollama/llama3:8b", "ollama/llama3/8b", "ollama/llama3--8b"], ["ollama--llama3--8b"]),
        (["a/x:y", "a/x::y", "a/x y"], ["a--x--y"]),
        (["a-/b", "a/-b"], ["a---b"]),
        (["a--b/c", "a/b--c"], ["a--b--c"]),
    ],
)
def test_two_models_never_share_a_folder(models: list[str], folders: list[str]) -> None:
    found = [layout.exam_runs("107", model, "ja").split("/")[2] for model in models]
    assert len(set(found)) == len(models)
    for name in found:
        assert name in folders or re.fullmatch(rf"{re.escape(folders[0])}-[0-9a-f]{{8}}", name)
        assert layout.exam_runs("107", name, "ja") == f"exams/107/{name}/ja", "a folder's name is its own"
    if len(folders) == len(models):
        assert found == folders


def test_keys_are_those_that_runs_are_written_under() -> None:
    assert report_key(*GOOD) == "exams/107/openai--gpt-4o/ja/20261122T141500Z/report.html"
    assert checked_history_key("107", "openai--gpt-4o", "history.html") == "exams/107/openai--gpt-4o/history.html"
    assert layout.exam_history("107", "openai/gpt-4o", "history.html") == "exams/107/openai--gpt-4o/history.html"


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
