"""Inputs and labels from hand-made tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.data.reading.features import Tables, build_inputs, scale_inputs
from tasks.data.reading.labels import as_array, build_labels
from tasks.errors import ConfigError
from tasks.study.label import Condition
from tasks.study.sections import Input, Study

NAN = float("nan")
BASE = {
    "study": "small",
    "title": "t",
    "description": "d",
    "owner": "o",
    "data": {"tables": ["adsl", "labs"]},
    "sites": {"701": ["701"]},
    "label": {"name": "bad", "table": "adsl", "positive_when": [{"column": "SEX", "is": "M"}]},
    "inputs": [{"name": "age", "table": "adsl", "column": "AGE", "centre": 75, "scale": 8}],
    "model": {"path": "tasks.models:LogisticRegression"},
    "training": {"lr": 0.1, "local_epochs": 1},
    "privacy": {"mechanism": "none", "i_accept_no_privacy": True},
    "rounds": {"total": 1, "min_sites": 1, "deadline_seconds": 1},
    "evaluation": {"holdout_fraction": 0.2},
}


def study(*inputs: dict[str, Any], positive_when: list[dict[str, Any]] | None = None, table: str = "adsl") -> Study:
    changes: dict[str, Any] = {"inputs": list(inputs)} if inputs else {}
    if positive_when:
        changes["label"] = {"name": "bad", "table": table, "positive_when": positive_when}
    return Study.model_validate(BASE | changes)


def spec(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "table": "labs", "column": "AVAL", "centre": 0, "scale": 1} | fields


@pytest.fixture
def tables() -> Tables:
    """Four patients, not in order of their ids; D has no lab row."""
    adsl = pd.DataFrame(
        {
            "USUBJID": ["C", "A", "D", "B"],
            "AGE": [70.0, 80.0, NAN, 60.0],
            "SEX": pd.Series(["M", "F", "M", None], dtype="str"),
            "DONE": pd.Series(["Y", None, "N", "Y"], dtype="str"),
        }
    )
    labs = pd.DataFrame(
        {
            "USUBJID": ["A", "A", "A", "B", "B", "C"],
            "PARAMCD": ["ALB", "ALB", "ALT", "ALB", "ALB", "ALT"],
            "AVAL": [42.0, 40.0, 20.0, NAN, 38.0, 30.0],
            "ADY": [1.0, -7.0, 1.0, 1.0, 30.0, NAN],
            "NAME": pd.Series(["x", "y", "x", None, "x", "z"], dtype="str"),
        }
    )
    return {"adsl": adsl, "labs": labs}


def built(tables: Tables, **fields: Any) -> list[float]:
    return build_inputs(tables, study(spec(**fields)))["x"].tolist()


# inputs; patients A, B, C, D


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"table": "adsl", "column": "AGE", "reduce": "only"}, [80, 60, 70, NAN]),
        ({"reduce": "last"}, [20, 38, 30, NAN]),
        ({"reduce": "last", "where": {"PARAMCD": "ALB"}}, [40, 38, NAN, NAN]),
        ({"reduce": "last", "where": {"PARAMCD": "ALB"}, "on_or_before": ["ADY", 1]}, [42, NAN, NAN, NAN]),
        ({"reduce": "last", "where": {"PARAMCD": "ALB"}, "on_or_before": ["ADY", -1]}, [40, NAN, NAN, NAN]),
        ({"reduce": "last", "on_or_before": ["ADY", 30]}, [20, 38, NAN, NAN]),
        ({"reduce": "mean"}, [34, 38, 30, NAN]),
        ({"reduce": "mean", "where": {"PARAMCD": "ALB"}}, [41, 38, NAN, NAN]),
        ({"reduce": "mean", "where": {"PARAMCD": "ALB"}, "on_or_before": ["ADY", 1]}, [41, NAN, NAN, NAN]),
        ({"reduce": "any", "column": None}, [1, 1, 1, 0]),
        ({"reduce": "any", "column": None, "where": {"PARAMCD": "ALT"}}, [1, 0, 1, 0]),
        ({"reduce": "any", "column": None, "where": {"PARAMCD": "ALT"}, "on_or_before": ["ADY", 1]}, [1, 0, 0, 0]),
        ({"reduce": "count", "column": None}, [3, 2, 1, 0]),
        ({"reduce": "count", "column": None, "on_or_before": ["ADY", 1]}, [3, 1, 0, 0]),
        ({"reduce": "count_distinct", "column": "NAME"}, [2, 1, 1, 0]),
        ({"reduce": "count_distinct", "column": "NAME", "where": {"PARAMCD": "ALB", "NAME": "x"}}, [1, 1, 0, 0]),
    ],
)
def test_reduce_where_and_on_or_before(tables: Tables, fields: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_array_equal(built(tables, **fields), expected)


def test_last_goes_by_the_day_not_by_the_row(tables: Tables) -> None:
    """A's albumin of day 1 stands before that of day -7."""
    labs = tables["labs"].iloc[::-1]
    fields = {"reduce": "last", "where": {"PARAMCD": "ALB"}, "on_or_before": ["ADY", 30]}
    assert built(tables, **fields)[0] == built(tables | {"labs": labs}, **fields)[0] == 42


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"codes": {"M": 1, "F": 0}}, [0, NAN, 1, 1]),
        ({"codes": {"M": 1}}, [NAN, NAN, 1, 1]),
        ({"codes": {"M": 1}, "other": 0.5}, [0.5, NAN, 1, 1]),
        ({"codes": {"F": 2.5}, "other": 0}, [2.5, NAN, 0, 0]),
    ],
)
def test_codes_and_other(tables: Tables, fields: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_array_equal(built(tables, table="adsl", column="SEX", **fields), expected)


def test_subjects_are_in_order_of_their_ids_whatever_the_order_of_rows(tables: Tables) -> None:
    one = build_inputs(tables, study())
    assert list(one.index) == ["A", "B", "C", "D"]
    assert list(one.columns) == ["age"]
    shuffled = {name: table.sample(frac=1, random_state=3) for name, table in tables.items()}
    pd.testing.assert_frame_equal(build_inputs(shuffled, study()), one)
    pd.testing.assert_frame_equal(build_labels(shuffled, study()), build_labels(tables, study()))


def test_a_row_of_somebody_else_is_not_an_input(tables: Tables) -> None:
    stranger = pd.concat([tables["labs"], tables["labs"].tail(1).assign(USUBJID="Z")])
    assert list(build_inputs(tables | {"labs": stranger}, study(spec(reduce="mean"))).index) == ["A", "B", "C", "D"]


def test_inputs_of_one_patient_do_not_depend_on_the_others(tables: Tables) -> None:
    """What per-patient clipping relies on: leaving somebody out changes nobody else's inputs."""
    specs = [spec(reduce="mean"), spec(name="n", reduce="count", column=None), BASE["inputs"][0]]
    everybody = scale_inputs(build_inputs(tables, study(*specs)), study(*specs))
    for number, left_out in enumerate("ABCD"):
        rest = {name: table[table["USUBJID"] != left_out] for name, table in tables.items()}
        found = scale_inputs(build_inputs(rest, study(*specs)), study(*specs))
        np.testing.assert_array_equal(found, np.delete(everybody, number, axis=0))


# scaling


@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({"centre": 75, "scale": 8}, 83, 1),
        ({"centre": 75, "scale": 8}, 75, 0),
        ({"centre": 75, "scale": 8}, 1000, 4),
        ({"centre": 75, "scale": 8}, -1000, -4),
        ({"centre": 75, "scale": 8, "clip": 1.5}, 1000, 1.5),
        ({"centre": 0.5, "scale": 0.5, "gain": 3}, 1, 3),
        ({"centre": 0, "scale": 1, "gain": 3, "clip": 2}, 1000, 6),
        ({"centre": 20, "scale": 0.45, "transform": "log1p"}, 20, 0),
        ({"centre": 20, "scale": 0.45, "transform": "log1p"}, 21 * np.exp(0.45) - 1, 1),
        ({"centre": 20, "scale": 0.45, "transform": "log1p"}, 0, -4),
        ({"centre": 75, "scale": 8, "gain": 3}, NAN, 0),
        ({"centre": 20, "scale": 0.45, "transform": "log1p"}, NAN, 0),
    ],
)
def test_scaling(fields: dict[str, Any], value: float, expected: float) -> None:
    one = study(spec(**fields))
    found = scale_inputs(pd.DataFrame({"x": [value]}), one)
    assert (found.shape, found.dtype) == ((1, 1), np.float32)
    assert found[0, 0] == pytest.approx(expected, rel=1e-6, abs=1e-6)


anything = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(
    value=anything,
    centre=st.floats(0, 1e6),
    scale=st.floats(1e-6, 1e6),
    clip=st.floats(0.1, 100),
    gain=st.floats(0.1, 10),
    transform=st.sampled_from(["identity", "log1p"]),
)
def test_scaled_inputs_are_finite_and_bounded(
    value: float, centre: float, scale: float, clip: float, gain: float, transform: str
) -> None:
    fields = {"centre": centre, "scale": scale, "clip": clip, "gain": gain, "transform": transform}
    one = study().model_copy(update={"inputs": (Input.model_validate(spec(**fields)),)})
    found = float(scale_inputs(pd.DataFrame({"x": [value]}), one)[0, 0])
    assert np.isfinite(found)
    assert abs(found) <= clip * gain * (1 + 1e-6)


# labels; patients A, B, C, D


@pytest.mark.parametrize(
    ("table", "conditions", "expected"),
    [
        ("adsl", [{"column": "SEX", "is": "M"}], [0, 0, 1, 1]),
        ("adsl", [{"column": "DONE", "is_not": "Y"}], [1, 0, 0, 1]),
        ("adsl", [{"column": "AGE", "at_most": 70}], [0, 1, 1, 0]),
        ("adsl", [{"column": "AGE", "at_least": 70}], [1, 0, 1, 0]),
        ("adsl", [{"column": "AGE", "is": 80}], [1, 0, 0, 0]),
        ("adsl", [{"column": "AGE", "is_not": 80}], [0, 1, 1, 1]),
        ("adsl", [{"column": "SEX", "is": "M"}, {"column": "DONE", "is_not": "Y"}], [0, 0, 0, 1]),
        ("labs", [{"column": "PARAMCD", "is": "ALB"}], [1, 1, 0, 0]),
        ("labs", [{"column": "PARAMCD", "is": "ALB"}, {"column": "AVAL", "at_most": 39}], [0, 1, 0, 0]),
        ("labs", [{"column": "PARAMCD", "is": "ALT"}, {"column": "AVAL", "at_least": 40}], [0, 0, 0, 0]),
        ("labs", [{"column": "NAME", "is_not": "x"}], [1, 1, 1, 0]),
    ],
)
def test_labels(tables: Tables, table: str, conditions: list[dict[str, Any]], expected: list[float]) -> None:
    """All conditions must hold in one row; a missing value meets `is_not` and nothing else."""
    labels = build_labels(tables, study(positive_when=conditions, table=table))
    assert list(labels.index) == ["A", "B", "C", "D"]
    assert as_array(labels).dtype == np.float32
    assert as_array(labels).tolist() == expected


def test_a_comparison_with_zero_is_a_comparison() -> None:
    assert Condition.model_validate({"column": "CNSR", "is": 0}).is_ == 0
    tables = {"adsl": pd.DataFrame({"USUBJID": ["A", "B"], "CNSR": [0.0, 1.0]})}
    for condition in ({"column": "CNSR", "is": 0}, {"column": "CNSR", "at_most": 0}):
        assert as_array(build_labels(tables, study(positive_when=[condition]))).tolist() == [1, 0]


def test_missing_says_who_has_no_value(tables: Tables) -> None:
    """C has rows of another test only, B one of two values, D no row."""
    built = build_inputs(tables, study(spec(where={"PARAMCD": "ALB"}, reduce="missing", column="AVAL")))
    assert built["x"].to_dict() == {"A": 0.0, "B": 0.0, "C": 1.0, "D": 1.0}
    built = build_inputs(tables, study(spec(table="adsl", reduce="missing", column="AGE")))
    assert built["x"].to_dict() == {"A": 0.0, "B": 0.0, "C": 0.0, "D": 1.0}


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ({"column": "SEX", "is": 1}, "column SEX holds texts, but the study compares it with a number"),
        ({"column": "SEX", "is_not": 0}, "column SEX holds texts"),
        ({"column": "AGE", "is": "70"}, "column AGE holds numbers, but the study compares it with a text"),
    ],
)
def test_a_comparison_that_could_never_hold_is_refused(tables: Tables, condition: dict[str, Any], match: str) -> None:
    """Otherwise everybody would be negative, and nothing would fail."""
    with pytest.raises(ConfigError, match=match):
        build_labels(tables, study(positive_when=[condition]))


def test_rows_of_a_number_are_not_sought_among_texts(tables: Tables) -> None:
    with pytest.raises(ConfigError, match="column PARAMCD holds texts"):
        build_inputs(tables, study(spec(where={"PARAMCD": 1}, reduce="any")))


# what is missing


def test_a_last_value_is_carried_forward_only_so_far(tables: Tables) -> None:
    """A's albumin is of day 1 and of day -7; B's of day 30 and, empty, of day 1."""
    asked = {"where": {"PARAMCD": "ALB"}, "reduce": "last", "column": "AVAL"}
    assert built(tables, **asked, on_or_before=["ADY", 0]) == [40.0, *[pytest.approx(NAN, nan_ok=True)] * 3]
    assert np.isnan(built(tables, **asked, on_or_before=["ADY", 0], within=7)).all(), "seven days before day 0: no more"
    assert built(tables, **asked, on_or_before=["ADY", 0], within=7.5)[0] == 40.0
    assert built(tables, **asked, on_or_before=["ADY", 40], within=11)[1] == 38.0


def test_who_has_no_value_gets_the_one_that_is_declared(tables: Tables) -> None:
    inputs = build_inputs(tables, study(spec(table="adsl", column="AGE")))
    own = {"table": "adsl", "column": "AGE", "centre": 70, "scale": 10}
    assert scale_inputs(inputs, study(spec(**own))).flatten().tolist() == [1, -1, 0, 0]
    assert scale_inputs(inputs, study(spec(**own, missing_as=95))).flatten().tolist() == [1, -1, 0, 2.5]
    assert scale_inputs(inputs, study(spec(**own, missing_as=500))).flatten()[3] == 4, "within the clip"
    logged = own | {"transform": "log1p", "scale": 0.1}
    expected = (np.log1p(80) - np.log1p(70)) / 0.1
    assert scale_inputs(inputs, study(spec(**logged, missing_as=80))).flatten()[3] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"within": 3}, "within needs on_or_before"),
        ({"within": 0, "on_or_before": ["ADY", 1]}, "greater than 0"),
        ({"missing_as": 3, "reduce": "count"}, "missing_as has no meaning with reduce: count"),
        ({"missing_as": 3, "reduce": "missing"}, "missing_as has no meaning with reduce: missing"),
        ({"missing_as": -1, "transform": "log1p"}, "missing_as is -1, which has no log1p"),
        ({"missing_as": float("nan")}, "finite number"),
    ],
)
def test_a_rule_for_what_is_missing_that_means_nothing_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        study(spec(**fields))
