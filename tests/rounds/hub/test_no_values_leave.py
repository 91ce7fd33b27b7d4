"""Unusual values planted in one site's tables are looked for in everything that a round leaves outside that site.

Looked through: every object and key in the store, every file of the deployment and the project but the site's own,
stdout, stderr, every log record, and every exception with all that it is chained to.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import struct
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.deploy.finish import finish_round
from tasks.errors import DataError, PharmafedError, QuorumMissed, SiteStepFailed, ValidationFailed
from tasks.rounds.page.index import RunEntry
from tasks.rounds.site import validation
from tasks.rounds.site.daily import validate_daily
from tasks.store import layout
from tests.rounds.hub.federation import Federation

SITE = "717"
SITES = ("715", "717", "718")
PATIENT = "01-717-7391"
DRUG, TERM = "QUOXIMAB-7391", "ZYGOMATIC FLUTTER 7391"
BMI, WEIGHT, DURATION, PRESSURE = 23.45731, 61.73913, 47.39173, 133.73917
CREATININE = 88.173917
BAD_CELL, BAD_ID, BAD_ARM, BAD_COLUMN = "SEVENTY-3917", "01-999-3917X", "ARM-SECRET-3917", "JANE DOE 3917"
BAD_AGE = 773917339177
BAD_DATE = "3917-17-39"
TEXTS = (PATIENT, DRUG, TERM, BAD_CELL, BAD_ID, BAD_ARM, BAD_COLUMN, BAD_DATE)
NUMBERS = (BMI, WEIGHT, DURATION, PRESSURE, CREATININE, float(BAD_AGE))
#: What the planted body-mass index becomes as a model input.
SCALED = (BMI - 25) / 4.5


def needles() -> dict[str, bytes]:
    """Each canary in every form in which it could lie in a file, by what it is."""
    found = {text: text.encode() for text in TEXTS}
    found |= {f"{text} in UTF-16": text.encode("utf-16-le") for text in TEXTS}
    for number in (*NUMBERS, SCALED):
        found[f"{number} as text"] = str(BAD_AGE).encode() if number == BAD_AGE else f"{number:.4f}"[:7].encode()
        found[f"{number} as float32"] = struct.pack("<f", number)
        found[f"{number} as float64"] = struct.pack("<d", number)
    found[f"{BAD_AGE} as int64"] = struct.pack("<q", BAD_AGE)
    return found


def leaks(surfaces: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """(where, which canary) for every canary in a surface's name or content."""
    return {
        (place, canary)
        for canary, needle in needles().items()
        for place, content in surfaces.items()
        if needle in content or needle in place.encode()
    }


# what can be seen from outside


@dataclass
class Heard(logging.Handler):
    """Every log record of this process, and every exception that a step raised."""

    records: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.DEBUG)

    def __hash__(self) -> int:
        return id(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(f"{record.getMessage()} {record.args!r} {record.exc_info!r} {record.exc_text}")
        if record.exc_info and record.exc_info[1]:
            self.error(record.exc_info[1])

    def error(self, error: BaseException) -> None:
        self.errors.append(everything_of(error))


def everything_of(error: BaseException) -> str:
    """An exception as text: with its traceback, and with all that it is chained to, suppressed or not."""
    texts = ["".join(traceback.format_exception(error))]
    todo, seen = [error], set()
    while todo:
        one = todo.pop()
        seen.add(id(one))
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", ""))]
        todo += [e for e in (one.__cause__, one.__context__) if e is not None and id(e) not in seen]
    return "\n".join(texts)


def outside(fed: Federation, folder: str, heard: Heard, printed: str) -> dict[str, bytes]:
    """All that someone who is not at the site could read."""
    own = [fed.home / "sites" / SITE, fed.home / "secrets" / "sites" / SITE, fed.project / folder / "sites" / SITE]
    surfaces = {f"object {key}": body for key, body in fed.objects().items()}
    for root in (fed.home, fed.project):
        for path in root.rglob("*"):
            if path.is_file() and not any(path.is_relative_to(place) for place in own):
                surfaces[f"file {path.relative_to(root)}"] = path.read_bytes()
    surfaces["printed"] = printed.encode()
    surfaces["logged"] = "\n".join(heard.records).encode()
    surfaces["raised"] = "\n".join(heard.errors).encode()
    return surfaces


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, root = Heard(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


# planting


Rows = list[dict[str, str]]


def change(folder: Path, table: str, edit: Callable[[Rows], object]) -> None:
    path = folder / f"{table}.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    edit(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


def first(rows: Rows, **where: str) -> dict[str, str]:
    return next(row for row in rows if all(row[key] == value for key, value in where.items()))


def plant_valid(folder: Path) -> None:
    """Values that pass every expectation, among them an id; each reaches a model input, but for the texts."""
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text().replace("01-717-1004", PATIENT))
    mine = {"USUBJID": PATIENT}
    change(
        folder,
        "adsl",
        lambda rows: first(rows, **mine).update(BMIBL=str(BMI), WEIGHTBL=str(WEIGHT), DURDIS=str(DURATION)),
    )
    change(folder, "advs", lambda rows: first(rows, **mine, PARAMCD="SYSBP").update(AVAL=str(PRESSURE)))
    change(folder, "adlbc", lambda rows: first(rows, **mine, PARAMCD="CREAT", ABLFL="Y").update(AVAL=str(CREATININE)))
    change(folder, "cm", lambda rows: first(rows, **mine).update(CMTRT=DRUG))
    change(folder, "mh", lambda rows: first(rows, **mine).update(MHDECOD=TERM))


def plant_in(table: str, **cells: str) -> Callable[[Path], None]:
    return lambda folder: change(folder, table, lambda rows: rows[2].update(cells))


def plant_column(folder: Path) -> None:
    change(folder, "adsl", lambda rows: [row.update({BAD_COLUMN: BAD_CELL}) for row in rows])


def plant_broken_line(folder: Path) -> None:
    path = folder / "adtte.csv"
    path.write_text(path.read_text() + f"{BAD_ID},{BAD_CELL}\n")


def plant_header(folder: Path) -> None:
    path = folder / "adtte.csv"
    path.write_text(f"{BAD_ID},{BAD_CELL}\n" + path.read_text().split("\n", 1)[1])


def plant_latin1(folder: Path) -> None:
    path = folder / "cm.csv"
    path.write_bytes(path.read_bytes() + f"{BAD_ID},{BAD_CELL},\xe9\n".encode("latin-1"))


FAILING: dict[str, tuple[Callable[[Path], None], type[PharmafedError]]] = {
    "a cell that is no number": (plant_in("adsl", AGE=BAD_CELL), DataError),
    "a date that is none": (plant_in("adsl", TRTSDT=BAD_DATE), DataError),
    "a value out of range": (plant_in("adsl", AGE=str(BAD_AGE)), ValidationFailed),
    "a strange id": (plant_in("adsl", USUBJID=BAD_ID), ValidationFailed),
    "a strange id in another table": (plant_in("advs", USUBJID=BAD_ID), ValidationFailed),
    "a strange arm": (plant_in("adsl", TRT01P=BAD_ARM), ValidationFailed),
    "a surplus column": (plant_column, ValidationFailed),
    "a line too short": (plant_broken_line, DataError),
    "a line of data for a header": (plant_header, DataError),
    "another encoding": (plant_latin1, DataError),
}
#: Those of which a whole round is run, with its report; the site by itself is enough for the others.
IN_A_ROUND = ("a date that is none", "a value out of range")
ALONE = {name: case for name, case in FAILING.items() if name not in IN_A_ROUND}


@dataclass
class Bench:
    fed: Federation
    study: str
    folder: Path
    pristine: dict[str, bytes]
    #: The same without reference lines, for which the hub checks every site's data once more.
    quiet: str

    def plant(self, spoil: Callable[[Path], None]) -> None:
        """The valid canaries, and one that is not."""
        for name, body in self.pristine.items():
            (self.folder / name).write_bytes(body)
        plant_valid(self.folder)
        spoil(self.folder)
        self.fed.pin("canaries")


@pytest.fixture(scope="module")
def bench(new_fed: Federation) -> Bench:
    fed = new_fed
    folder = fed.own_data("canaries", SITE)
    data = {"root": "canaries/sites", "pin": "canaries.dvc"}
    study, quiet = (
        fed.new_study(sites=SITES, data=data, evaluation={"data_are_public": public, "min_cell": 2})
        for public in (True, False)
    )
    return Bench(fed, study, folder, {path.name: path.read_bytes() for path in folder.iterdir()}, quiet)


def whole_round(bench: Bench, heard: Heard, study: str, run_id: str) -> tuple[int, dict[str, PharmafedError]]:
    """Every step of a round and of the daily check, at every site and at the hub, and the report."""
    fed = bench.fed
    number = fed.open(study, run_id).server_round
    failed = fed.run_sites(study, number)
    fed.aggregate(study, number)
    fed.validate_global(study, number, [site for site in SITES if site not in failed])
    finish_round(study, number)
    try:
        validate_daily(SITE, [study])
    except PharmafedError as error:
        heard.error(error)
    for error in failed.values():
        heard.error(error)
    return number, failed


def test_values_that_pass_do_not_leave(bench: Bench, heard: Heard, capfd: pytest.CaptureFixture[str]) -> None:
    bench.plant(lambda folder: None)
    number, failed = whole_round(bench, heard, bench.study, "valid")
    assert failed == {}
    own = {str(p): p.read_bytes() for p in bench.folder.iterdir()}
    planted = {canary for _, canary in leaks(own)}
    assert {PATIENT, DRUG, TERM} <= planted
    assert {f"{n} as text" for n in NUMBERS if n != BAD_AGE} <= planted
    kept = {str(p): p.read_bytes() for p in (bench.fed.home / "sites" / SITE).rglob("*.safetensors")}
    assert f"{SCALED} as float32" in {canary for _, canary in leaks(kept)}
    out, err = capfd.readouterr()
    surfaces = outside(bench.fed, "canaries", heard, out + err)
    assert f"object {layout.update_tensors(bench.study, number, SITE)}" in surfaces
    assert any(place.startswith("file reports/") for place in surfaces)
    assert len(surfaces) > 200
    assert len(heard.records) > 100
    assert "round 1: 3 updates" in out
    assert leaks(surfaces) == set()


@pytest.mark.parametrize(("spoil", "kind"), ALONE.values(), ids=ALONE.keys())
def test_values_that_fail_do_not_leave(
    bench: Bench,
    heard: Heard,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    kind: type[PharmafedError],
) -> None:
    """What the site itself does with each; a whole round and its report with one of either kind, see below."""
    bench.plant(spoil)
    fed, study = bench.fed, bench.quiet
    number = fed.open(study).server_round
    for check in (lambda: fed.run_site(study, number, SITE, ("validate_data",)), lambda: validate_daily(SITE, [study])):
        with pytest.raises(kind) as caught:
            check()
        heard.error(caught.value)
    out, err = capfd.readouterr()
    surfaces = outside(fed, "canaries", heard, out + err)
    assert f"object {layout.refusal(study, number, SITE)}" in surfaces
    assert f"object {layout.daily_validation(SITE)}" in surfaces
    assert leaks(surfaces) == set()
    fed.set_deadline(study, number, -1)
    with pytest.raises(QuorumMissed):
        fed.aggregate(study, number)
    fed.close(study, number)


@pytest.mark.parametrize("name", IN_A_ROUND)
def test_a_round_and_its_report_without_the_site_hold_nothing_of_it(
    bench: Bench, heard: Heard, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    spoil, kind = FAILING[name]
    bench.plant(spoil)
    number, failed = whole_round(bench, heard, bench.study, f"{name} round")
    assert failed.keys() == {SITE}
    assert type(failed[SITE]) is kind
    assert len(heard.errors) == 2
    out, err = capfd.readouterr()
    surfaces = outside(bench.fed, "canaries", heard, out + err)
    assert f"object {layout.refusal(bench.study, number, SITE)}" in surfaces
    assert leaks(surfaces) == set()


def test_a_step_that_breaks_says_nothing_of_the_data(
    bench: Bench, heard: Heard, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the code below a step, whose message quotes the record it choked on."""
    bench.plant(lambda folder: None)
    fed, study = bench.fed, bench.study
    number = fed.open(study, "breaks").server_round
    for path in (fed.home / "sites" / SITE / "prepared").glob(f"{study}-*"):
        path.unlink()

    def choke(*_: object) -> None:
        raise ValueError(f"could not convert {DRUG} of {PATIENT}: {BMI}") from KeyError(PATIENT)

    monkeypatch.setattr(validation, "prepare_patients", choke)
    for step in ("validate_data", "train"):
        with pytest.raises(SiteStepFailed, match=r"ValueError at tasks/rounds/site/validation\.py:\d+") as caught:
            fed.run_site(study, number, SITE, (step,))
        heard.error(caught.value)
    with pytest.raises(ValidationFailed) as daily:
        validate_daily(SITE, [study])
    heard.error(daily.value)
    fed.set_deadline(study, number, -1)
    with pytest.raises(QuorumMissed):
        fed.aggregate(study, number)
    fed.close(study, number)
    out, err = capfd.readouterr()
    surfaces = outside(bench.fed, "canaries", heard, out + err)
    assert len(heard.errors) == 3
    assert leaks(surfaces) == set()


# the search itself finds what leaks


def test_the_search_finds_a_log_line(heard: Heard) -> None:
    logging.getLogger("some.library").debug("patient %s has BMI %s", PATIENT, BMI)
    found = leaks({"logged": "\n".join(heard.records).encode()})
    assert found == {("logged", PATIENT), ("logged", f"{BMI} as text")}


def test_the_search_finds_a_logged_exception(heard: Heard) -> None:
    try:
        int(BAD_CELL)
    except ValueError:
        logging.getLogger("some.library").exception("a cell")
    assert leaks({"raised": "\n".join(heard.errors).encode()}) == {("raised", BAD_CELL)}


def test_the_search_finds_an_object_a_key_and_a_file(bench: Bench) -> None:
    fed = bench.fed
    key = f"federation/leak/{PATIENT}"
    path = fed.home / "reports" / "leak.bin"
    path.parent.mkdir(exist_ok=True)
    try:
        fed.store().put(key, struct.pack("<3f", 1.0, SCALED, 2.0), content_type="application/octet-stream")
        path.write_bytes(b"\0" + struct.pack("<d", CREATININE) + struct.pack("<q", BAD_AGE))
        found = leaks(outside(fed, "canaries", Heard(), f"BMI {BMI}"))
    finally:
        fed.delete(key)
        path.unlink()
    visible = {(place, canary) for place, canary in found if not place.startswith("file seaweedfs/")}
    assert visible == {
        (f"object {key}", PATIENT),
        (f"object {key}", f"{SCALED} as float32"),
        ("file reports/leak.bin", f"{CREATININE} as float64"),
        ("file reports/leak.bin", f"{BAD_AGE} as int64"),
        ("printed", f"{BMI} as text"),
    }
    for path in (fed.home / "seaweedfs").rglob("*"):
        if path.is_file() and leaks({"": path.read_bytes()}):
            return
    pytest.fail("the store's own files were not searched")


def test_the_search_finds_what_goes_from_task_to_task() -> None:
    xcom = json.dumps({"round": 1, "sites": {SITE: {"worst": [PATIENT, BMI]}}})
    assert {canary for _, canary in leaks({"xcom": xcom.encode()})} == {PATIENT, f"{BMI} as text"}
    assert "worst" not in RunEntry.model_fields


def raise_chained(how: str) -> None:
    try:
        raise KeyError(DRUG)
    except KeyError as error:
        if how == "cause":
            raise DataError("a table cannot be read") from error
        if how == "hidden":
            raise DataError("a table cannot be read") from None
        if how == "note":
            noted = DataError("a table cannot be read")
            noted.add_note(f"near {DRUG}")
            raise noted from None
        raise DataError("a table cannot be read")  # noqa: B904


@pytest.mark.parametrize("how", ["cause", "context", "hidden", "note"])
def test_the_search_finds_a_chained_exception(how: str) -> None:
    with pytest.raises(DataError) as caught:
        raise_chained(how)
    assert DRUG not in str(caught.value)
    assert leaks({"raised": everything_of(caught.value).encode()}) == {("raised", DRUG)}
