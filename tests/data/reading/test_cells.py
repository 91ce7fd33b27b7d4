"""From text to value: trimmed, respelled, without codes, beyond limits, typed; what is none of these is counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.data.checks.suite import ColumnType
from tasks.data.reading.cells import as_number, trim, typed
from tasks.study.reading import AppliedRules, CellRules, TableRules

NAN = float("nan")


def read(cells: list[str | None], type_: ColumnType = "number", **rules: object) -> tuple[list[object], int]:
    values, bad = typed(trim(pd.Series(cells, dtype=str)), type_, AppliedRules.model_validate(rules))
    return [None if pd.isna(value) else value for value in values], bad


def test_blanks_around_a_cell_are_no_part_of_it() -> None:
    """Those that SAS, R, Excel and web forms leave: spaces, tabs, no-break and ideographic spaces, zero width."""
    cells = ["No ", "  No", "\tNo", "No\u00a0", "No\u3000", "\ufeffNo", "No\u200b", "N o"]
    assert read(cells, "string") == (["No"] * 7 + ["N o"], 0)
    assert read(["   ", "\u00a0", "\u200b", ""], "string") == ([None] * 4, 0)
    assert read([" 7", "3.5  "]) == ([7.0, 3.5], 0)
    values, bad = typed(trim(pd.Series([" 2024-02-29 "], dtype=str)), "date", AppliedRules())
    assert (str(values[0].date()), bad) == ("2024-02-29", 0)


def test_a_long_run_of_blanks_costs_no_time() -> None:
    """A search for blanks at the end that began anew at each of them would take hours."""
    assert read([" " * 1_000_000 + "x" + " " * 1_000_000 + "y"], "string")[0] == ["x" + " " * 1_000_000 + "y"]


@pytest.mark.parametrize(
    ("rules", "cells", "values", "bad"),
    [
        ({"missing": ["."]}, [".", "5", ".5"], [None, 5.0, 0.5], 0),
        ({"missing": ["99"]}, ["99", "99.0", "9.9e1", "98"], [None, None, None, 98.0], 0),
        ({"missing": ["-9"]}, ["-9", "-9.00", "9"], [None, None, 9.0], 0),
        ({"missing": [99], "decimal": "comma"}, ["99,0", "9,5"], [None, 9.5], 0),
        ({"below_limit": "half"}, ["<0.3", "< 0.30", "<=0.3", "≤0.3", "1"], [0.15, 0.15, 0.15, 0.15, 1.0], 0),
        ({"below_limit": "limit"}, ["<0.3"], [0.3], 0),
        ({"below_limit": "missing"}, ["<0.3", "1"], [None, 1.0], 0),
        ({"below_limit": "half"}, [">90"], [None], 1),
        ({"above_limit": "limit"}, [">90", ">=90", "<1"], [90.0, 90.0, None], 1),
        ({"decimal": "comma"}, ["3,5", "3.5", ",5", "-1,25", "4"], [3.5, 3.5, 0.5, -1.25, 4.0], 0),
        ({"decimal": "comma", "below_limit": "half"}, ["<0,3"], [0.15], 0),
        ({"decimal": "comma"}, ["1,234", "1.234", "-12.345", "<1.234", "0.512"], [1.234, None, None, None, 0.512], 3),
        ({"decimal": "either"}, ["1,234", "1.234", "3,5"], [1.234, 1.234, 3.5], 0),
        ({"decimal": "comma"}, ["1.234,5", "1,2,3"], [None, None], 2),
        ({"same": {"1": ["Y", "Yes"], "0": ["N"]}}, ["Y", "Yes", "N", "1"], [1.0, 1.0, 0.0, 1.0], 0),
        ({}, ["3,5", "<0.3", ".", "NA", "nan", "inf", "1e999", "12 mg"], [None] * 8, 8),
    ],
)
def test_numbers_are_read_by_the_rules(
    rules: dict[str, object], cells: list[str], values: list[object], bad: int
) -> None:
    assert read(list(cells), **rules) == (values, bad)


def test_a_country_na_stays_a_country() -> None:
    rules = AppliedRules()
    assert typed(pd.Series(["NA", "DE"], dtype=str), "string", rules)[0].tolist() == ["NA", "DE"]
    assert read(["NA", "DE"], "string", missing=["NA"]) == ([None, "DE"], 0)


def test_a_code_is_missing_in_a_column_of_dates_too() -> None:
    assert read(["UNK", "2024-05", "2024-05-06T10:30"], "partial_date", missing=["UNK"]) == (
        [None, "2024-05", "2024-05-06T10:30"],
        0,
    )
    values, bad = typed(
        pd.Series(["UNK", "2024-05-06", "06.05.2024"], dtype=str), "date", AppliedRules(missing=("UNK",))
    )
    assert (values.isna().tolist(), bad) == ([True, False, True], 1)


def test_only_finite_numbers_are_numbers() -> None:
    assert [as_number(text) for text in ("99", "-9.0", ".", "inf", "1e999", "nan")] == [99, -9, None, None, None, None]
    assert not np.isnan(as_number("0") or 0.0)


def test_a_comma_before_three_digits_is_read_by_the_columns_own_rule_alone() -> None:
    """987 and 1,234 of platelets stand beside decimal commas of other columns."""
    cells = pd.Series(["987", "1,234", "3,5", "0,125", "<1,234"], dtype=str)
    of_all = TableRules(every=CellRules(decimal="comma", below_limit="limit"))
    values, bad = typed(cells, "number", of_all.of("platelets", is_text=False))
    assert ([None if pd.isna(v) else v for v in values], bad) == ([987.0, None, 3.5, 0.125, None], 2)
    own = of_all.model_copy(update={"columns": {"crp": AppliedRules(decimal="comma")}})
    assert typed(cells, "number", own.of("crp", is_text=False))[1] == 0
