"""The rules by which a study's cells are read: whose they are, what they cannot say, and who reads by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tasks.data.checks.parameters import InputReference
from tasks.data.reading.tables import read_tables
from tasks.errors import ConfigError, DataError
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.reading import AppliedRules, ColumnRules, Reading
from tasks.study.sections import Data, Input

FILE = PROJECT / "studies/xanomeline_derm56.yaml"
SUITE = '{"name": "%s", "meta": {"description": "d", "columns": {"id": "string", "v": "number", "country": "string"}}, \
"expectations": [{"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}}]}'


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """The default study with other keys under `data`."""

    def write(data: dict[str, Any]) -> Path:
        content = yaml.safe_load(FILE.read_text())
        content["data"] |= data
        path = tmp_path / FILE.name
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_a_study_that_says_nothing_of_cells_means_what_it_meant() -> None:
    """Every round, card and ledger of a study holds its digest."""
    study = load_study(FILE)
    assert study.digest == "b433a98d7d8512a9859d74ec76018a06be97b13ca49305366c980ecaa3568825"
    spelled_out = study.model_copy(update={"data": study.data.model_copy(update={"reading": Reading(missing=())})})
    assert spelled_out.digest == study.digest


@pytest.mark.parametrize(
    "data",
    [
        {"reading": {"missing": ["."]}},
        {"reading": {"columns": {"adsl.AGE": {"missing": [99]}}}},
        {"max_missing": 0.3},
    ],
)
def test_what_is_said_of_cells_is_part_of_the_study(written: Callable[..., Path], data: dict[str, Any]) -> None:
    study = load_study(written(data))
    assert study.digest != load_study(FILE).digest
    assert Data.model_validate(study.data.model_dump()) == study.data


@pytest.mark.parametrize(
    ("reading", "match"),
    [
        (
            {"columns": {"adxx.AGE": {}}},
            r":\d+: data\.reading\.columns: .* has adxx.AGE, which is no TABLE.COLUMN of adsl, advs",
        ),
        ({"columns": {"AGE": {}}}, "has AGE, which is no TABLE.COLUMN"),
        ({"columns": {"adsl.AGE": {"below_limit": "third"}}}, "below_limit"),
        ({"columns": {"adsl.SEX": {"same": {"M": ["m"], "F": ["m"]}}}}, "stands for two values, or for itself"),
        ({"columns": {"adsl.SEX": {"same": {"M": ["M"]}}}}, "stands for two values, or for itself"),
        ({"missing": [True]}, r"missing\.0: Input should be a valid string"),
        ({"missing": [""]}, "missing"),
        ({"decimal": "point"}, "decimal"),
        ({"mising": ["."]}, r"mising: unknown key; allowed: missing, below_limit, above_limit, decimal, columns"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_line(
    written: Callable[..., Path], reading: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        load_study(written({"reading": reading}))


def test_a_column_that_no_table_has_is_refused(written: Callable[..., Path]) -> None:
    columns = {t: {"AGE", "USUBJID"} for t in load_study(FILE).data.tables}
    with pytest.raises(ConfigError, match="table adsl has no column HEIGHT"):
        load_study(written({"reading": {"columns": {"adsl.HEIGHT": {"missing": ["."]}}}}), columns=columns)


def test_rules_for_all_are_for_columns_of_numbers_and_dates() -> None:
    rules = Reading(
        missing=("NA",), below_limit="half", columns={"t.v": ColumnRules(missing=("99",), below_limit="limit")}
    ).of_table("t")
    assert rules.of("v", is_text=False) == AppliedRules(missing=("NA", "99"), below_limit="limit", is_own_decimal=False)
    assert rules.of("w", is_text=False) == AppliedRules(missing=("NA",), below_limit="half", is_own_decimal=False)
    assert rules.of("country", is_text=True) == AppliedRules()


def test_every_reader_of_a_table_reads_by_the_study(tmp_path: Path) -> None:
    (tmp_path / "expectations").mkdir()
    for table in ("t", "u"):
        (tmp_path / f"expectations/{table}.json").write_text(SUITE % table)
        (tmp_path / f"{table}.csv").write_text("id,v,country\na,.,NA\nb,<4,DE\nc,99,NA\n")
    suites = tmp_path / "expectations"
    with pytest.raises(DataError, match=r"t\.csv: column v: 2 cells are not finite numbers; .*data\.reading"):
        read_tables(tmp_path, ["t"], suites)
    reading = Reading(missing=(".", "NA"), below_limit="half", columns={"t.v": ColumnRules(missing=("99",))})
    tables = read_tables(tmp_path, ["t", "u"], suites, reading)
    assert tables["t"]["v"].isna().tolist() == [True, False, True]
    assert tables["u"]["v"].tolist()[1:] == [2.0, 99.0]
    assert tables["t"]["country"].tolist() == ["NA", "DE", "NA"]


def test_how_much_of_an_input_may_be_missing_is_the_studys_to_say() -> None:
    spec = Input(name="x", table="t", column="v", centre=0, scale=1)
    own = spec.model_copy(update={"max_missing": 1.0})
    assert [InputReference.from_input(s, 0.3).filled for s in (spec, own)] == [0.7, 0.0]
    assert InputReference.from_input(spec).filled == 0.8
    with pytest.raises(ValidationError, match="max_missing"):
        Input(name="x", table="t", column="v", centre=0, scale=1, max_missing=1.2)
