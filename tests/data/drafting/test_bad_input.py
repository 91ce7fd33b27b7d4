"""What cannot be drafted is refused, naming file, line or column and never a cell; nothing is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.data.drafting.check import check_sites
from tasks.data.drafting.draft import Draft, DraftOptions, draft_study
from tasks.data.drafting.place import place
from tasks.errors import ConfigError, DataError, PharmafedError
from tests.data.drafting.unseen_study import CLINICS, PATIENTS, REMARK, SPIROMETRY, Row, read_csv, write_csv

LABEL = DraftOptions(label="patients.exacerbation")


def edit(change: Callable[[Row], Row], *clinics: str, columns: tuple[str, ...] = PATIENTS) -> Callable[[Path], None]:
    """Change each row of patients.csv at these clinics, or at all."""

    def spoil(folder: Path) -> None:
        for clinic in clinics or CLINICS:
            path = folder / clinic / "patients.csv"
            write_csv(path, columns, [change(row) for row in read_csv(path)])

    return spoil


def rewrite(change: Callable[[bytes], bytes], file: str = "cork/patients.csv") -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes())) and None


def no_sub_folders(folder: Path) -> None:
    for clinic in CLINICS:
        shutil.rmtree(folder / clinic)


def repeat_a_patient(folder: Path) -> None:
    path = folder / "delft/patients.csv"
    rows = read_csv(path)
    write_csv(path, PATIENTS, [*rows[:4], rows[1], *rows[4:]])


def keep(rows: int, table: str = "patients") -> Callable[[Path], None]:
    columns = {"patients": PATIENTS, "spirometry": SPIROMETRY}[table]

    def spoil(folder: Path) -> None:
        path = folder / f"evora/{table}.csv"
        write_csv(path, columns, read_csv(path)[:rows])

    return spoil


def rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new) and None


def two_id_columns(folder: Path) -> None:
    for clinic in CLINICS:
        for table, columns in (("patients", PATIENTS), ("spirometry", SPIROMETRY)):
            path = folder / clinic / f"{table}.csv"
            write_csv(path, ("case_no", *columns), [{**r, "case_no": r["patient_id"][1:]} for r in read_csv(path)])


CORK = r"cork/patients\.csv: "


def nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Bad:
    spoil: Callable[[Path], None]
    error: type[PharmafedError]
    match: str
    options: DraftOptions = LABEL


def labelled(label: str) -> DraftOptions:
    return DraftOptions(label=label)


BAD = {
    "no folder": Bad(shutil.rmtree, ConfigError, "asthma: no such folder"),
    "no sub-folders": Bad(no_sub_folders, ConfigError, "asthma: no sub-folders: make one per site"),
    "a table missing": Bad(
        lambda folder: (folder / "cork/spirometry.csv").unlink(), DataError, "cork: lacks spirometry.csv, which other"
    ),
    "a table in another form": Bad(
        rename("cork/spirometry.csv", "cork/spirometry.csv.txt"),
        DataError,
        r"cork: lacks spirometry\.csv, .*; it has spirometry\.csv\.txt: export that as spirometry\.csv",
    ),
    "a workbook for a table": Bad(
        rename("cork/spirometry.csv", "cork/Spirometry.XLSX"), DataError, r"it has Spirometry\.XLSX: export that as"
    ),
    "a table of one site": Bad(
        lambda folder: shutil.copy(folder / "cork/patients.csv", folder / "cork/deaths.csv") and None,
        DataError,
        r"cork/deaths\.csv: only 1 of 6 sites have such a file: remove it, or add it to the others",
    ),
    "a copy beside the file": Bad(
        lambda folder: shutil.copy(folder / "cork/patients.csv", folder / "cork/patients (1).csv") and None,
        ConfigError,
        r"cork/patients \(1\)\.csv: a table is named with .*: rename or remove it",
    ),
    "one table in capitals": Bad(
        rename("cork/patients.csv", "cork/Patients.csv"),
        ConfigError,
        r"cork/Patients\.csv: a table is named with small",
    ),
    "an ending in capitals": Bad(
        rename("cork/patients.csv", "cork/patients.CSV"),
        ConfigError,
        r"cork/patients\.CSV: a table's file ends in \.csv,",
    ),
    "a line for spreadsheets": Bad(
        rewrite(lambda raw: b"sep=,\n" + raw), DataError, CORK + "line 1 tells a spreadsheet the separator: delete it"
    ),
    "a header lacks a column": Bad(
        edit(lambda row: row, "cork", columns=PATIENTS[:3] + PATIENTS[4:]),
        DataError,
        CORK + r"lacks age, compared with aalborg/patients\.csv",
    ),
    "a header with other names": Bad(
        edit(lambda row: {**row, "years": row["age"]}, "cork", columns=("years", *PATIENTS[:3], *PATIENTS[4:])),
        DataError,
        CORK + r"lacks age and has years more, compared with",
    ),
    "no rows": Bad(keep(0), DataError, r"evora/patients\.csv: no rows, only a header"),
    "no visits": Bad(keep(0, "spirometry"), DataError, r"evora/spirometry\.csv: no rows, only a header"),
    "too few patients": Bad(keep(4), DataError, r"evora/patients\.csv: 4 patients, fewer than 5: merge this site"),
    "visits of strangers": Bad(keep(7), DataError, r"evora/spirometry\.csv: 102 rows of spirometry are of subjects"),
    "a patient twice": Bad(
        repeat_a_patient,
        ConfigError,
        r"nearest patient_id \(.*delft/patients\.csv: row 5 after the header repeats one, and 0 more",
    ),
    "a patient twice, column given": Bad(
        repeat_a_patient,
        DataError,
        r"no table has one row per patient_id: .*delft/patients\.csv: row 5 after the header repeats one",
        DraftOptions(label="patients.exacerbation", subject="patient_id"),
    ),
    "two ids": Bad(two_id_columns, ConfigError, "more than one column could name the subject: .*case_no.*patient_id"),
    "an id that a table lacks": Bad(
        nothing, ConfigError, r"subject column clinic is not in spirometry\.csv", DraftOptions(subject="clinic")
    ),
    "no label table": Bad(nothing, ConfigError, r"--label x\.y: write TABLE\.COLUMN.*patients, spiro", labelled("x.y")),
    "no label column": Bad(
        nothing, ConfigError, "patients has no column attack; it has: patient_id, clinic", labelled("patients.attack=1")
    ),
    "a constant label": Bad(
        edit(lambda row: {**row, "exacerbation": "0"}), DataError, "exacerbation: it has the same value everywhere"
    ),
    "many outcomes": Bad(nothing, DataError, "patients.age: it has 58 different values", labelled("patients.age")),
    "a label with gaps": Bad(nothing, DataError, "label patients.bmi: 17 cells are empty", labelled("patients.bmi")),
    "which is positive?": Bad(nothing, ConfigError, "which of its two values is positive", labelled("patients.sex")),
    "nobody is positive": Bad(nothing, DataError, "fewer than 5 patients are positive", labelled("patients.sex=X")),
    "everybody is positive": Bad(nothing, DataError, "fewer than 5 patients are neg", labelled("spirometry.day=0")),
    "not a number": Bad(nothing, ConfigError, "the column holds numbers", labelled("patients.age=old")),
    "no label to be found": Bad(
        edit(lambda row: row, columns=(*PATIENTS[:-2], "exacerbation", "rescue_course")),
        ConfigError,
        "no column is plainly the label; say which with --label",
        DraftOptions(),
    ),
    "two labels to be found": Bad(
        edit(
            lambda row: {**row, "event": row["exacerbation"], "outcome": row["rescue_course"]},
            columns=(*PATIENTS[:-2], "event", "outcome"),
        ),
        ConfigError,
        r"more than one column could be the label: patients\.event, patients\.outcome",
        DraftOptions(),
    ),
    "Latin-1": Bad(
        rewrite(lambda raw: raw.replace(b",F,", b",\xe9,", 1)),
        DataError,
        CORK + r"not UTF-8 .*\(line \d+\)$",
    ),
    "UTF-16": Bad(
        rewrite(lambda raw: raw.decode().encode("utf-16")), DataError, CORK + r"looks like UTF-16: .*\(line 1\)$"
    ),
    "semicolons": Bad(
        rewrite(lambda raw: raw.replace(b",", b";")),
        DataError,
        CORK + r"columns are separated by semicolons",
    ),
    "tabs": Bad(rewrite(lambda raw: raw.replace(b",", b"\t")), DataError, CORK + r"columns are sep.* tabs"),
    "cut off": Bad(rewrite(lambda raw: raw[:-3]), DataError, CORK + r".*the last line has no end"),
    "a short line": Bad(
        rewrite(lambda raw: raw + b"P999,C-03\n"), DataError, CORK + r"line 57 has 2 fields, the header has 12"
    ),
    "an empty file": Bad(rewrite(lambda raw: b""), DataError, CORK + r"the file is empty"),
    "a column without a name": Bad(
        rewrite(lambda raw: raw.replace(b"age", b"", 1)), DataError, CORK + r"column 4 has no usable name"
    ),
    "a column twice": Bad(rewrite(lambda raw: raw.replace(b"sex", b"age", 1)), DataError, r"names stand twice"),
    "a site with blanks": Bad(rename("cork", "County Cork"), ConfigError, "County Cork: a site is named with letters"),
    "a table in capitals": Bad(
        lambda folder: [(folder / c / "patients.csv").rename(folder / c / "Patients.csv") for c in CLINICS] and None,
        ConfigError,
        r"Patients\.csv: a table is named with small letters",
    ),
    "no tables": Bad(
        lambda folder: [path.unlink() for path in folder.rglob("*.csv")] and None, ConfigError, "no CSV files"
    ),
    "a study's name": Bad(nothing, ConfigError, "not 'My study': give another --name", DraftOptions(name="My study")),
    "no budget": Bad(nothing, ConfigError, r"privacy\.distributed_dp\.epsilon", DraftOptions(epsilon=0)),
    "no rounds": Bad(nothing, ConfigError, r"rounds\.total", DraftOptions(rounds=0)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(folder: Path, project: Path, case: str) -> None:
    bad = BAD[case]
    cells = {row[column] for row in read_csv(folder / "cork/patients.csv") for column in ("remarks", "enrolled")}
    bad.spoil(folder)
    before = sorted(project.rglob("*"))
    with pytest.raises(bad.error, match=bad.match) as caught:
        draft_study(folder, bad.options, project / "expectations")
    assert sorted(project.rglob("*")) == before
    assert len(cells) > 55
    assert not {cell for cell in cells | {REMARK} if cell in str(caught.value)}
    assert caught.value.__context__ is None or not re.search(r"P\d{3}", repr(caught.value.__context__))


def test_what_desktops_leave_behind_is_left_aside(folder: Path, project: Path, drafted: tuple[Draft, Path]) -> None:
    """In one site's folder, in several, and beside them; the draft is the one without."""
    shutil.copytree(folder / "cork", folder / "__MACOSX/cork")
    for name in ("._patients.csv", "~$patients.csv", "desktop.ini", "Thumbs.db", ".DS_Store", "patients.csv~"):
        (folder / "cork" / name).write_bytes(b"\0\5\x16\7")
    (folder / "delft/._spirometry.csv").write_bytes(b"\0\5\x16\7")
    (folder / "fulda/@eaDir").mkdir()
    (folder / "notes.txt").write_text("who sent what")
    draft = draft_study(folder, LABEL, project / "expectations")
    assert dict(draft.texts) == dict(drafted[0].texts)
    assert len(draft.copies) == 2 * len(CLINICS)


def test_other_programs_tables_are_drafted_alike(folder: Path, project: Path, drafted: tuple[Draft, Path]) -> None:
    """One site's export ends lines in CR LF, one's begins with a byte-order mark, one's ends in empty lines."""
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cork": lambda raw: raw.replace(b"\n", b"\r\n"),
        "delft": lambda raw: b"\xef\xbb\xbf" + raw,
        "evora": lambda raw: raw + b"\n\n",
        "fulda": lambda raw: raw.replace(b"\n", b"\r") + b",,,,,,,,,,,\r",
    }
    for site, change in changes.items():
        (folder / site / "patients.csv").write_bytes(change((folder / site / "patients.csv").read_bytes()))
    draft = draft_study(folder, LABEL, project / "expectations")
    assert dict(draft.texts) == dict(drafted[0].texts)
    place(draft, project)
    assert all(result.success for result in check_sites(draft.study, project).values())


def test_a_project_without_the_suite_for_inputs_is_refused(unseen: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no suite .*inputs\.json"):
        draft_study(unseen, LABEL, tmp_path)
