"""From tables to endpoints: by hand for each task, and what can be no endpoint is refused without a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tasks.data.reading.features import Tables
from tasks.data.reading.labels import as_array, build_labels, strata_of
from tasks.data.reading.patients import prepare_patients
from tasks.errors import ConfigError, DataError
from tasks.study.sections import Study

EVENT = [{"column": "CNSR", "is": 0}]


def study(**label: Any) -> Study:
    return Study.model_validate(
        {
            "study": "small",
            "title": "t",
            "description": "d",
            "owner": "o",
            "data": {"tables": ["adsl", "tte", "ae", "qs"]},
            "sites": {"701": ["701"]},
            "label": {"name": "end", "table": "tte", **label},
            "inputs": [{"name": "age", "table": "adsl", "column": "AGE", "centre": 70, "scale": 10}],
            "model": {"path": "tasks.models:Linear"},
            "training": {"lr": 0.1, "local_epochs": 1},
            "privacy": {"mechanism": "none", "i_accept_no_privacy": True},
            "rounds": {"total": 1, "min_sites": 1, "deadline_seconds": 60},
            "evaluation": {"holdout_fraction": 0.4},
        }
    )


@pytest.fixture
def tables() -> Tables:
    subjects = list("ABCDE")
    return {
        "adsl": pd.DataFrame({"USUBJID": subjects[::-1], "AGE": [80.0, 61, 70, 75, 66]}),
        "tte": pd.DataFrame(
            {
                "USUBJID": ["A", "B", "C", "D", "A"],
                "PARAMCD": ["TTDE", "TTDE", "TTDE", "TTDE", "OTHER"],
                "AVAL": [12.0, 90, 45, 0, 3],
                "CNSR": [0, 0, 1, 1, 0],
            }
        ),
        "ae": pd.DataFrame(
            {
                "USUBJID": ["A", "A", "B", "A", "D"],
                "SEV": ["MILD", "SEVERE", "MILD", None, "MODERATE"],
                "DY": [1, 2, -3, 4, 9],
            }
        ),
        "qs": pd.DataFrame(
            {
                "USUBJID": ["A", "A", "B", "B", "C", "D"],
                "VISIT": ["Baseline", "Week 24", "Baseline", "Week 24", "Baseline", "Week 24"],
                "AVAL": [20.0, 26, 18, 11, 30, 25],
            }
        ),
    }


def labels(tables: Tables, **label: Any) -> dict[str, list[float]]:
    found = build_labels(tables, study(**label))
    return {name: row.tolist() for name, row in found.iterrows()}


SURVIVAL = {"task": "survival", "where": {"PARAMCD": "TTDE"}, "time": "AVAL", "event_when": EVENT}
CLASSES = {"none": [], "mild": ["MILD"], "worse": ["MODERATE", "SEVERE"]}


def test_times_end_at_the_cut_off(tables: Tables) -> None:
    """B's event is after it; E has no row and takes no part."""
    expected = {"A": [12, 1], "B": [60, 0], "C": [45, 0], "D": [0, 0]}
    assert labels(tables, **SURVIVAL, until=[30, 60]) == expected
    assert labels(tables, **(SURVIVAL | {"task": "cox", "cut_off": 60})) == expected
    assert labels(tables, **SURVIVAL, until=[30, 90])["B"] == [90, 1], "an event on the last day is one"


def test_the_worst_class_of_a_subjects_rows_counts(tables: Tables) -> None:
    label = {"task": "multiclass", "table": "ae", "column": "SEV", "classes": CLASSES}
    known = {name: own for name, own in CLASSES.items() if own}
    assert labels(tables, **(label | {"classes": known})) == {"A": [1], "B": [0], "D": [1]}
    assert labels(tables, **label, without_rows="none") == {"A": [2], "B": [1], "C": [0], "D": [2], "E": [0]}


def test_a_change_needs_both_values(tables: Tables) -> None:
    label = {
        "task": "regression",
        "table": "qs",
        "column": "AVAL",
        "where": {"VISIT": "Week 24"},
        "low": -10,
        "high": 30,
    }
    assert labels(tables, **label, minus={"VISIT": "Baseline"}) == {"A": [-0.2], "B": [-0.85]}
    assert labels(tables, **label) == {"A": [0.8], "B": [pytest.approx(0.05)], "D": [0.75]}


def test_counts_stop_at_most_and_have_their_exposure(tables: Tables) -> None:
    label = {"task": "count", "table": "ae", "counted_when": [{"column": "DY", "at_least": 1}], "most": 2}
    assert labels(tables, **label) == {"A": [2, 0], "B": [0, 0], "C": [0, 0], "D": [1, 0], "E": [0, 0]}
    tables["tte"].loc[3, "AVAL"] = 15
    exposed = {"time_table": "tte", "time_column": "AVAL", "time_where": {"PARAMCD": "TTDE"}, "time_most": 60}
    found = labels(tables, **label, **exposed, time_unit=30)
    assert {name: np.exp(row[1]) for name, row in found.items()} == pytest.approx(
        {"A": 0.4, "B": 2, "C": 1.5, "D": 0.5}
    )


def test_who_has_no_endpoint_is_on_neither_side_of_the_split(tables: Tables) -> None:
    inputs = pd.DataFrame({"age": [60.0, 70, 80, 90, 100]}, index=pd.Index(list("ABCDE")))
    made = prepare_patients(tables, inputs, study(**SURVIVAL, until=[30, 60]), "701")
    assert made.train_labels.shape == (2, 2)
    assert made.held_out_labels.shape == (2, 2)
    assert sorted(np.concatenate([made.train_inputs, made.held_out_inputs])[:, 0].tolist()) == [-1, 0, 1, 2]


def test_an_array_has_as_many_axes_as_the_task_says(tables: Tables) -> None:
    assert as_array(build_labels(tables, study(**SURVIVAL, until=[30, 60]))).shape == (4, 2)
    assert as_array(build_labels(tables, study(positive_when=EVENT))).shape == (5,)


@pytest.mark.parametrize(
    ("label", "values", "expected"),
    [
        ({"positive_when": EVENT}, [1, 0, 1], [1, 0, 1]),
        ({"task": "multiclass", "column": "SEV", "classes": CLASSES, "without_rows": "none"}, [2, 0, 1], [2, 0, 1]),
        ({"task": "regression", "column": "AVAL", "low": 0, "high": 1}, [0.5, -1, 1], [0, 0, 0]),
        ({"task": "count", "most": 9}, [[3, 0.1], [0, 0.2], [1, 0]], [1, 0, 1]),
        (SURVIVAL | {"until": [60]}, [[3, 1], [60, 0], [9, 1]], [1, 0, 1]),
        (SURVIVAL | {"task": "cox", "cut_off": 60}, [[3, 1], [60, 0], [9, 1]], [1, 0, 1]),
    ],
)
def test_classes_and_events_are_held_out_in_equal_shares(
    label: dict[str, Any], values: list[Any], expected: list[int]
) -> None:
    assert strata_of(study(**label).label, np.array(values, dtype=np.float32)).tolist() == expected


@pytest.mark.parametrize(
    ("change", "label", "says"),
    [
        ({"AVAL": -1.0}, SURVIVAL | {"until": [60]}, "column AVAL of table tte is below 0, and is a time since"),
        (
            {"AVAL": np.nan},
            SURVIVAL | {"until": [60]},
            "column AVAL of table tte is missing, and is when follow-up ended",
        ),
        ({"PARAMCD": "TTDE"}, SURVIVAL | {"until": [60]}, "table tte has several rows of a subject for the label"),
        ({}, SURVIVAL | {"time": "PARAMCD", "until": [60]}, "column PARAMCD of table tte holds texts"),
    ],
    ids=["negative", "missing", "double", "texts"],
)
def test_what_is_no_time_is_refused(tables: Tables, change: dict[str, Any], label: dict[str, Any], says: str) -> None:
    place = 4 if "PARAMCD" in change else 1
    for column, value in change.items():
        tables["tte"].loc[place, column] = value
    with pytest.raises(DataError, match=says):
        build_labels(tables, study(**label))


def test_a_class_that_the_label_does_not_know_is_refused_without_its_name(tables: Tables) -> None:
    label = {"task": "multiclass", "table": "ae", "column": "SEV", "classes": {"mild": ["MILD"], "other": ["MODERATE"]}}
    with pytest.raises(
        DataError, match=r"column SEV of table ae has rows whose value is none of label\.classes"
    ) as caught:
        build_labels(tables, study(**label))
    assert "SEVERE" not in str(caught.value)


def test_a_number_outside_its_public_bounds_is_refused_without_its_value(tables: Tables) -> None:
    label = {"task": "regression", "table": "qs", "column": "AVAL", "where": {"VISIT": "Week 24"}, "low": 0, "high": 25}
    with pytest.raises(
        DataError, match=r"column AVAL of table qs is outside of label\.low to label\.high, in some rows"
    ) as caught:
        build_labels(tables, study(**label))
    assert "26" not in str(caught.value)


def test_an_exposure_of_nothing_is_refused(tables: Tables) -> None:
    exposed = {"time_table": "tte", "time_column": "AVAL", "time_where": {"PARAMCD": "TTDE"}, "time_most": 60}
    with pytest.raises(
        DataError, match="column AVAL of table tte is not above 0, and is a time of exposure, in some rows"
    ):
        build_labels(tables, study(task="count", table="ae", most=2, **exposed))


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (SURVIVAL | {"until": [30, 30]}, "label.until must ascend"),
        (SURVIVAL | {"until": [0, 30]}, "greater than 0"),
        (SURVIVAL | {"until": []}, "at least 1 item"),
        (SURVIVAL, "until"),
        ({"task": "regression", "column": "AVAL", "low": 3, "high": 3}, "label.high must be above label.low"),
        ({"task": "regression", "column": "AVAL", "low": float("-inf"), "high": 3}, "finite number"),
        (
            {"task": "multiclass", "column": "SEV", "classes": {"a": ["x"], "b": ["x"]}},
            "a value stands for two classes",
        ),
        ({"task": "multiclass", "column": "SEV", "classes": {"a": ["x"]}}, "at least 2 items"),
        ({"task": "multiclass", "column": "SEV", "classes": {"a": [], "b": ["x"]}}, "a has no value"),
        (
            {"task": "multiclass", "column": "S", "classes": {"a": ["y"], "b": ["x"]}, "without_rows": "c"},
            "none of a, b",
        ),
        ({"task": "count", "most": 0}, "greater than 0"),
        ({"task": "count", "most": 3, "time_column": "AVAL"}, "go together"),
        ({"task": "count", "most": 3, "time_column": "X", "time_table": "no", "time_most": 3}, "time_column is no"),
        ({"task": "ordinal", "column": "SEV"}, "task"),
        ({"task": "binary", "positive_when": EVENT, "until": [3]}, "Extra inputs"),
    ],
)
def test_a_label_that_can_mean_nothing_is_refused_when_the_study_is_read(label: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        study(**label)


def test_a_text_is_not_compared_with_numbers(tables: Tables) -> None:
    with pytest.raises(ConfigError, match="column CNSR holds numbers, but the study compares it with a text"):
        build_labels(tables, study(**(SURVIVAL | {"event_when": [{"column": "CNSR", "is": "0"}], "until": [60]})))
