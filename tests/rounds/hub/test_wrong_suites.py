"""A suite that is wrong stops a round as the suite's fault, and one that guards nothing is told, at sites and hub."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tasks.data.checks.runner import ValidationResult
from tasks.deploy import preload
from tasks.deploy.commands import data as cli
from tasks.deploy.finish import finish_round
from tasks.errors import ConfigError, ValidationFailed
from tasks.rounds.site.daily import validate_daily
from tasks.store import layout
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Refusal
from tasks.store.records.site import DailyValidation
from tests.rounds.hub.federation import FEW, Federation

TWO = FEW[:2]
OPEN = {"privacy": {"mechanism": "none", "i_accept_no_privacy": True}, "evaluation": {"score_bins": None}}
BETWEEN, MEDIAN = "expect_column_values_to_be_between", "expect_column_median_to_be_between"
NO_ROW = f"advs/AVAL[ABLFL==YES]/{BETWEEN}"
LINE = {"type": BETWEEN, "kwargs": {"column": "AVAL", "min_value": 0, "row_condition": 'ABLFL=="YES"'}}


@pytest.fixture
def suites(fed: Federation) -> Iterator[Path]:
    """Suites of the study's own, to be edited."""
    own = fed.project / "own_suites"
    yield Path(shutil.copytree(fed.project / "expectations", own))
    shutil.rmtree(own)


def new_study(fed: Federation, **parts: object) -> str:
    """At two sites: their data are checked anew for each change of a suite."""
    return fed.new_study(sites=TWO, data={"suites": "own_suites"}, **parts)


def edit(path: Path, old: str, new: str) -> int:
    """Replace a text that stands there once; returns its line."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def add(path: Path, line: dict[str, object]) -> None:
    suite = json.loads(path.read_text())
    path.write_text(json.dumps({**suite, "expectations": [*suite["expectations"], line]}, indent=1))


def test_a_wrong_suite_is_no_site_s_wrong_data(fed: Federation, suites: Path) -> None:
    study = new_study(fed)
    number = edit(suites / "advs.json", 'PARAMCD==\\"TEMP\\"', 'PARAMCD==\\"TMEP\\"')
    told = f'advs.json:{number}: {MEDIAN} (AVAL where PARAMCD=="TMEP") row_condition: no row meets it'
    plan = fed.open(study)
    failed = fed.run_sites(study, plan.server_round, TWO)
    assert {type(error) for error in failed.values()} == {ConfigError}
    assert len(failed) == 2
    for site, error in failed.items():
        assert told in str(error)
        assert "did you mean TEMP?" in str(error)
        assert "Correct the data" not in str(error)
        refusal = fed.store().get_record(layout.refusal(study, plan.server_round, site), Refusal)
        assert refusal.reason.startswith("ConfigError: ")
        assert told in refusal.reason
        assert layout.data_validation(study, plan.server_round, site) not in fed.objects()
    with pytest.raises(ConfigError, match="row_condition: no row meets it"):
        validate_daily(TWO[0], [study])
    daily = fed.store().get_record(layout.daily_validation(TWO[0]), DailyValidation)
    assert daily.outcomes[study].startswith("ConfigError: ")


def test_the_daily_check_blames_the_data_where_they_are_wrong_too(fed: Federation, suites: Path) -> None:
    wrong, data = new_study(fed), fed.new_study(sites=TWO, data={"suites": "strict"})
    strict = Path(shutil.copytree(fed.project / "expectations", fed.project / "strict"))
    edit(suites / "advs.json", '"min_value": 35, "max_value": 38.5', '"min_value": 35, "max_valeu": 38.5')
    edit(strict / "adsl.json", '"min_value": 50, "max_value": 95', '"min_value": 94, "max_value": 95')
    with pytest.raises(
        ValidationFailed, match=f"{wrong}: ConfigError: .*{data}: ValidationFailed: .*adsl/AGE/"
    ) as caught:
        validate_daily(TWO[0], [wrong, data])
    shutil.rmtree(strict)
    assert "max_valeu: it has no such argument; did you mean max_value?" in str(caught.value)


READERS: dict[str, Callable[[Federation, str], object]] = {
    "data check": lambda fed, study: CliRunner().invoke(cli.app, ["check", study], catch_exceptions=False),
}


@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_a_suite_checks_it(reader: str, fed: Federation, suites: Path) -> None:
    study = new_study(fed)
    number = edit(suites / "cm.json", '"column": "CMTRT"', '"colum": "CMTRT"')
    with pytest.raises(
        ConfigError, match=rf"cm\.json:{number}: .* colum: it has no such argument; did you mean column\?"
    ):
        READERS[reader](fed, study)


def test_a_wrong_suite_does_not_keep_the_process_that_forks_the_tasks_from_starting(
    fed: Federation, suites: Path
) -> None:
    new_study(fed)
    (suites / "cm.json").write_text("{")
    importlib.reload(preload)


def test_a_column_that_no_table_has_is_the_study_s_fault(fed: Federation, suites: Path) -> None:
    study = new_study(fed)
    path = fed.project / "studies" / f"{study}.yaml"
    content = yaml.safe_load(path.read_text())
    content["inputs"][0]["column"] = "AGEE"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        with pytest.raises(ConfigError, match=rf"{study}\.yaml:\d+: table adsl has no column AGEE"):
            validate_daily(TWO[0], [study])
    finally:
        path.unlink()


def closed(fed: Federation, study: str) -> tuple[RoundMetrics, str]:
    """A round's record, and its page."""
    plan = fed.open(study)
    failed = fed.run_sites(study, plan.server_round)
    assert failed == {}
    fed.aggregate(study, plan.server_round)
    fed.validate_global(study, plan.server_round, plan.sites)
    finish_round(study, plan.server_round)
    left = fed.objects(f"{layout.study_prefix(study)}/").items()
    (page,) = (body for key, body in left if "/reports/" in key and key.endswith(".html"))
    return fed.store().get_record(layout.round_metrics(study, 1), RoundMetrics), page.decode()


def test_without_privacy_the_report_tells_what_checks_nothing_at_any_site(fed: Federation, suites: Path) -> None:
    study = new_study(fed, **OPEN)
    add(suites / "advs.json", LINE)
    metrics, page = closed(fed, study)
    assert metrics.status == "complete", "no site is out for it"
    assert metrics.idle_expectations == (NO_ROW,)
    assert f"checks nothing: {NO_ROW}" in page
    assert all(row.data_valid and not row.failed_expectations for row in metrics.sites)
    told = fed.store().get_record(layout.data_validation(study, 1, "715"), ValidationResult)
    few = {check.id for check in told.checks if check.rows == "few"}
    assert {NO_ROW, f"cm/CMENDY/{BETWEEN}", f"cm/CMSTDY/{BETWEEN}"} <= few, (
        "four patients of 715 have such rows, or none"
    )
    assert not any(check.rows == "none" for check in told.checks)


def test_with_privacy_nothing_of_it_leaves_a_site(fed: Federation, suites: Path) -> None:
    study = new_study(fed)
    add(suites / "advs.json", LINE)
    metrics, page = closed(fed, study)
    assert metrics.idle_expectations == ()
    assert "checks nothing" not in page.lower()
    left = fed.objects(layout.study_prefix(study) + "/")
    assert len(left) > 10
    assert [key for key, body in left.items() if b'"few"' in body or b'"rows"' in body] == []
    kept = [p.read_text() for p in (fed.home / "sites" / "715").rglob("validated/*.json") if study in p.name]
    assert any(f'{NO_ROW}",' in each and each.count('"rows": "none"') == 2 for each in kept), "the site itself knows"


def check(study: str, out: Path) -> tuple[int, str, dict[str, dict[str, object]]]:
    result = CliRunner().invoke(cli.app, ["check", study, "--out", str(out)])
    return result.exit_code, " ".join(result.output.split()), json.loads(out.read_text())


def test_data_check_fails_where_an_expectation_guards_nothing(fed: Federation, suites: Path, tmp_path: Path) -> None:
    study, out = new_study(fed), tmp_path / "validation.json"
    code, _, right = check(study, out)
    assert code == 0
    assert [sorted(site) for site in right.values()] == [["expectations", "failed", "success", "waived"]] * len(TWO)
    add(suites / "advs.json", LINE)
    code, output, found = check(study, out)
    assert code == 2
    assert f"{NO_ROW}: checks nothing: no site has a row for it; correct its row condition" in output
    assert {site["checks_nothing"] for site in found.values()} == {1}
    assert {site["failed"] for site in found.values()} == {0}
    own = CliRunner().invoke(cli.app, ["check", study, "--site", TWO[0]])
    assert own.exit_code == 0, "one site may have no such row"
    assert f"{NO_ROW}: checks nothing: no row here, which may be right" in " ".join(own.output.split())
    suite = json.loads((suites / "advs.json").read_text())
    suite["expectations"][-1] |= {"meta": {"may_check_nothing": True}}
    (suites / "advs.json").write_text(json.dumps(suite))
    code, _, allowed = check(study, out)
    assert code == 0
    assert {site["expectations"] for site in allowed.values()} == {site["expectations"] for site in found.values()}


def test_a_median_of_no_row_is_told_as_the_suite_s_too(fed: Federation, suites: Path, tmp_path: Path) -> None:
    study = new_study(fed)
    add(suites / "advs.json", {**LINE, "type": MEDIAN})
    code, output, found = check(study, tmp_path / "validation.json")
    assert code == 2
    assert f"{NO_ROW.replace(BETWEEN, MEDIAN)}: checks nothing: no site has a row for it" in output
    assert {(site["failed"], site["checks_nothing"]) for site in found.values()} == {(1, 1)}
