"""One site's data are wrong in one way: it stays out and says which file or expectation; the other four go on."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.data.checks.runner import ValidationResult
from tasks.errors import DataError, DataPinMismatch, PharmafedError, QuorumMissed, ValidationFailed
from tasks.store import layout
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Refusal
from tests.rounds.hub.federation import Federation
from tests.rounds.hub.masked_rounds import FIVE

BAD = "718"
OTHERS = tuple(sorted(set(FIVE) - {BAD}))
Rows = list[list[str]]


def table(folder: Path, name: str) -> Rows:
    return list(csv.reader(io.StringIO((folder / f"{name}.csv").read_text(), newline="")))


def write(folder: Path, name: str, rows: Rows) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    (folder / f"{name}.csv").write_text(text.getvalue())


def missing(folder: Path) -> None:
    (folder / "adlbh.csv").unlink()


def empty(folder: Path) -> None:
    (folder / "cm.csv").write_bytes(b"")


def header_only(folder: Path) -> None:
    write(folder, "adsl", table(folder, "adsl")[:1])


def truncated(folder: Path) -> None:
    path = folder / "advs.csv"
    path.write_bytes(path.read_bytes()[:-40])


def cut_in_a_line(folder: Path) -> None:
    path = folder / "advs.csv"
    path.write_bytes(path.read_bytes()[:-40] + b"\n")


def latin1(folder: Path) -> None:
    text = (folder / "mh.csv").read_text().replace("CARDIAC", "CARDIÄC", 1)
    (folder / "mh.csv").write_bytes(text.encode("latin-1"))


def utf16(folder: Path) -> None:
    (folder / "mh.csv").write_bytes((folder / "mh.csv").read_text().encode("utf-16"))


def duplicate_subject(folder: Path) -> None:
    rows = table(folder, "adsl")
    write(folder, "adsl", [*rows, rows[1]])


def foreign_patient(folder: Path) -> None:
    rows = table(folder, "adsl")
    stranger = ["01-701-1015", "701", *rows[1][2:]]
    write(folder, "adsl", [*rows, stranger])


def foreign_measurement(folder: Path) -> None:
    rows = table(folder, "adlbc")
    write(folder, "adlbc", [*rows, ["01-701-1015", "701", *rows[1][2:]]])


def fahrenheit(folder: Path) -> None:
    rows = table(folder, "advs")
    code, value = rows[0].index("PARAMCD"), rows[0].index("AVAL")
    for row in rows[1:]:
        if row[code] == "TEMP" and row[value]:
            row[value] = f"{float(row[value]) * 1.8 + 32:.1f}"
    write(folder, "advs", rows)


def leaking_column(folder: Path) -> None:
    rows = table(folder, "adsl")
    write(folder, "adsl", [[*rows[0], "CUMDOSE"], *([*row, "4321.5"] for row in rows[1:])])


def unparsable(folder: Path) -> None:
    rows = table(folder, "adsl")
    rows[3][rows[0].index("AGE")] = "ninety-one"
    write(folder, "adsl", rows)


def new_values(before: dict[str, bytes], folder: Path) -> set[str]:
    """Cells of four characters and more that the site's files hold now or held before; ids above all."""
    bodies = [*before.values(), *(path.read_bytes() for path in folder.glob("*.csv"))]
    cells = {cell for body in bodies for cell in re.split(r"[,\n\r]", body.decode("latin-1"))}
    return {cell for cell in cells if re.match(r"01-\d{3}-\d{4}$|\d{4}-\d\d-\d\d$|\d{2,3}\.\d+$|ninety", cell)}


@dataclass(frozen=True)
class Case:
    spoil: Callable[[Path], None]
    error: type[PharmafedError]
    says: str
    expectations: frozenset[str] = frozenset()


MEDIAN, UNIQUE = "expect_column_median_to_be_between", "expect_column_values_to_be_unique"
REGEX, IN_SET = "expect_column_values_to_match_regex", "expect_column_values_to_be_in_set"
COLUMNS, COUNT = "expect_table_columns_to_match_set", "expect_table_row_count_to_be_between"
CASES = {
    "missing": Case(missing, DataError, r"adlbh\.csv: no such file"),
    "empty": Case(empty, DataError, r"cm\.csv: the file is empty"),
    "header only": Case(header_only, ValidationFailed, "", frozenset({f"adsl/{COUNT}"})),
    "truncated": Case(truncated, DataError, r"advs\.csv: truncated: the last line has no end"),
    "cut in a line": Case(
        cut_in_a_line, DataError, r"advs\.csv: some line has some fields?, the header has 12, first of some lines"
    ),
    "Latin-1": Case(latin1, DataError, r"mh\.csv: not UTF-8"),
    "UTF-16": Case(utf16, DataError, r"mh\.csv: looks like UTF-16"),
    "duplicate subject": Case(duplicate_subject, ValidationFailed, "", frozenset({f"adsl/USUBJID/{UNIQUE}"})),
    "foreign patient": Case(
        foreign_patient, ValidationFailed, "", frozenset({f"adsl/USUBJID/{REGEX}", f"adsl/SITEID/{IN_SET}"})
    ),
    "foreign measurement": Case(foreign_measurement, ValidationFailed, "", frozenset({f"adlbc/USUBJID/{IN_SET}"})),
    "wrong units": Case(
        fahrenheit,
        ValidationFailed,
        "",
        frozenset({f"advs/AVAL[PARAMCD==TEMP]/{MEDIAN}", f"inputs/temperature/{MEDIAN}"}),
    ),
    "leaking column": Case(leaking_column, ValidationFailed, "leaking: CUMDOSE", frozenset({f"adsl/{COLUMNS}"})),
    "unparsable": Case(unparsable, DataError, r"adsl\.csv: column AGE: some cells are not whole numbers"),
}


@dataclass
class Bench:
    """One study on data of its own, so that the four others are checked once for all cases."""

    fed: Federation
    study: str
    folder: Path
    pristine: dict[str, bytes]

    def back(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        for name, body in self.pristine.items():
            (self.folder / name).write_bytes(body)
        self.fed.pin("spoilt")


@pytest.fixture(scope="module")
def _bench(fed: Federation) -> Bench:
    folder = fed.own_data("spoilt", BAD)
    study = fed.new_study(sites=FIVE, data={"root": "spoilt/sites", "pin": "spoilt.dvc"})
    return Bench(fed, study, folder, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture
def bench(_bench: Bench) -> Iterator[Bench]:
    yield _bench
    _bench.back()


def round_without_one(bench: Bench, failed: dict[str, PharmafedError], number: int) -> RoundMetrics:
    """The rest of the round, in which four contribute; checks what the hub wrote down about the fifth."""
    fed, study = bench.fed, bench.study
    selection = fed.aggregate(study, number)
    assert [chosen.site for chosen in selection.chosen] == list(OTHERS)
    metrics = fed.close(study, number)
    assert (metrics.status, metrics.num_contributors) == ("partial", 4)
    refusal = fed.store().get_record(layout.refusal(study, number, BAD), Refusal)
    assert refusal.step == "validate_data"
    assert refusal.reason == f"{type(failed[BAD]).__name__}: {failed[BAD]}"
    assert metrics.message == f"4 of 5 contributed. Missing: {BAD}: validate_data: {refusal.reason}"
    written = set(fed.store().keys(f"{layout.site_round_prefix(study, number, BAD)}/"))
    assert written - {layout.data_validation(study, number, BAD)} == {layout.refusal(study, number, BAD)}
    ledger = fed.store().keys(f"{layout.ledger_prefix(study)}/{BAD}/")
    assert number not in {fed.store().get_record(key, LedgerEntry).server_round for key in ledger}
    return metrics


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_site_with_bad_data_stays_out_and_says_why(bench: Bench, case: Case) -> None:
    fed, study = bench.fed, bench.study
    case.spoil(bench.folder)
    fed.pin("spoilt")
    number = fed.open(study, case.spoil.__name__).server_round
    failed = fed.run_sites(study, number)
    assert failed.keys() == {BAD}
    assert type(failed[BAD]) is case.error
    assert re.search(case.says, str(failed[BAD]))
    metrics = round_without_one(bench, failed, number)
    row = next(row for row in metrics.sites if row.site == BAD)
    assert case.expectations <= set(row.failed_expectations)
    for expectation in case.expectations:
        assert expectation in row.reason
    if case.error is ValidationFailed:
        record = fed.store().get_record(layout.data_validation(study, number, BAD), ValidationResult)
        assert not record.success
        assert row.data_valid is False
    written = fed.objects(f"{layout.site_round_prefix(study, number, BAD)}/")
    written |= {key: fed.store().get(key) for key in (layout.round_metrics(study, number),)}
    assert len(written) == 2 + (case.error is ValidationFailed)
    values = new_values(bench.pristine, bench.folder)
    assert len(values) > 100
    told = b"".join(written.values()).decode()
    assert {value for value in values if re.search(rf"(?<![\d.]){re.escape(value)}(?![\d.])", told)} == set()


def test_the_search_for_values_can_find_one(bench: Bench) -> None:
    values = new_values(bench.pristine, bench.folder)
    assert "01-718-1066" in values
    assert "2013-07-07" in values
    assert "158.8" in values


@pytest.mark.parametrize("kind", ["changed", "missing", "extra"])
def test_data_that_are_not_as_pinned_are_refused(bench: Bench, kind: str) -> None:
    """Valid data, but not the data that were agreed on."""
    fed, study = bench.fed, bench.study
    if kind == "missing":
        (bench.folder / "cm.csv").unlink()
    elif kind == "extra":
        (bench.folder / "extra.csv").write_text("A\n1\n")
    else:
        write(bench.folder, "cm", table(bench.folder, "cm")[:-1])
    number = fed.open(study, f"pin {kind}").server_round
    failed = fed.run_sites(study, number)
    assert failed.keys() == {BAD}
    assert type(failed[BAD]) is DataPinMismatch
    named = "some file(s) that are not pinned" if kind == "extra" else f"cm.csv {kind}"
    assert f"is not what spoilt.dvc pins: {named};" in str(failed[BAD])
    metrics = round_without_one(bench, failed, number)
    assert next(row.data_valid for row in metrics.sites if row.site == BAD) is None


def test_data_changed_between_the_steps_are_noticed(bench: Bench) -> None:
    fed, study = bench.fed, bench.study
    number = fed.open(study, "between").server_round
    fed.run_site(study, number, BAD, ("validate_data",))
    write(bench.folder, "cm", table(bench.folder, "cm")[:-1])
    with pytest.raises(DataPinMismatch):
        fed.run_site(study, number, BAD, ("train",))
    bench.back()
    fed.run_site(study, number, BAD, ("validate_data", "train"))
    write(bench.folder, "cm", table(bench.folder, "cm")[:-1])
    with pytest.raises(DataPinMismatch):
        fed.run_site(study, number, BAD, ("privatize_and_upload",))
    assert not fed.store().exists(layout.update_manifest(study, number, BAD))
    fed.set_deadline(study, number, -1)
    assert fed.close(study, number).status == "failed"


def test_corrected_data_bring_the_site_back_in_the_same_round(bench: Bench) -> None:
    fed, study = bench.fed, bench.study
    empty(bench.folder)
    number = fed.open(study, "corrected").server_round
    assert fed.run_sites(study, number).keys() == {BAD}
    bench.back()
    assert fed.run_sites(study, number, (BAD,)) == {}
    assert len(fed.aggregate(study, number).chosen) == 5
    assert fed.close(study, number).status == "complete"


def test_a_strict_study_refuses_to_go_on_without_it(bench: Bench) -> None:
    fed = bench.fed
    data = {"root": "spoilt/sites", "pin": None}
    study = fed.new_study(sites=FIVE, data=data, rounds={"strict": True, "min_sites": 3})
    leaking_column(bench.folder)
    fed.open(study)
    assert fed.run_sites(study, 1).keys() == {BAD}
    with pytest.raises(QuorumMissed, match=r"4 of 5 contributed and the study is strict\. Missing: 718: validate_da"):
        fed.aggregate(study, 1)
    metrics = fed.close(study, 1)
    assert metrics.status == "failed"
    assert metrics.message.startswith("0 of 5 contributed, 5 are needed. Missing: ")
    assert f"{BAD}: validate_data: ValidationFailed: site 718:" in metrics.message
    assert not fed.store().exists(layout.model(study, 1))
    assert fed.hub(study).pointer()[0].server_round == 0  # type: ignore[union-attr]
