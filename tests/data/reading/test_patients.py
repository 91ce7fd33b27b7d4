"""The split into training and held-out patients, and the cache of their arrays."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.reading.features import build_inputs, scale_inputs
from tasks.data.reading.labels import as_array, build_labels
from tasks.data.reading.patients import (
    Patients,
    cache_file,
    held_out_split,
    load_patients,
    prepare_patients,
    save_patients,
)
from tasks.data.reading.tables import read_tables
from tasks.errors import StoreError
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.sections import Evaluation, Study

EVALUATION = Evaluation(holdout_fraction=0.17, split_seed=0)
Tables = dict[str, pd.DataFrame]


def labels_of(positive: int, negative: int, seed: int = 0) -> np.ndarray:
    values = np.array([1.0] * positive + [0.0] * negative, dtype=np.float32)
    return np.random.default_rng(seed).permutation(values)


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


@pytest.fixture(scope="module")
def tables(study: Study) -> dict[str, Tables]:
    suites = PROJECT / "expectations"
    return {site: read_tables(PROJECT / study.data.root / site, study.data.tables, suites) for site in study.sites}


@pytest.fixture(scope="module")
def patients(study: Study, tables: dict[str, Tables]) -> dict[str, Patients]:
    return {site: prepare_patients(own, build_inputs(own, study), study, site) for site, own in tables.items()}


# the real sites


def test_thirteen_sites_hold_out_43_of_254(patients: dict[str, Patients]) -> None:
    assert len(patients) == 13
    assert sum(len(p.held_out_labels) for p in patients.values()) == 43
    assert sum(len(p.train_labels) for p in patients.values()) == 211
    sizes = sorted((len(p.train_labels) + len(p.held_out_labels) for p in patients.values()), reverse=True)
    assert sizes == [41, 31, 25, 25, 24, 21, 18, 16, 16, 13, 9, 8, 7]
    assert all(len(p.held_out_labels) >= 1 for p in patients.values())


def test_arrays_are_float32_finite_and_of_one_width(patients: dict[str, Patients], study: Study) -> None:
    for own in patients.values():
        assert own.train_inputs.shape == (len(own.train_labels), len(study.inputs))
        assert own.held_out_inputs.shape == (len(own.held_out_labels), len(study.inputs))
        assert {tensor.dtype for tensor in vars(own).values()} == {torch.float32}
        assert all(torch.isfinite(tensor).all() for tensor in vars(own).values())
        assert set(own.train_labels.unique().tolist()) <= {0.0, 1.0}
    prevalence = np.mean(np.concatenate([torch.cat([p.train_labels, p.held_out_labels]) for p in patients.values()]))
    assert prevalence == pytest.approx(0.48, abs=0.01)


def test_every_patient_is_on_one_side_with_its_own_label(
    patients: dict[str, Patients], study: Study, tables: dict[str, Tables]
) -> None:
    assert len(patients) == 13
    for site, own in patients.items():
        inputs, labels = build_inputs(tables[site], study), build_labels(tables[site], study)
        rows = np.column_stack([scale_inputs(inputs, study), as_array(labels.loc[inputs.index])])
        train = np.column_stack([own.train_inputs, own.train_labels])
        held_out = np.column_stack([own.held_out_inputs, own.held_out_labels])
        assert sorted(map(tuple, rows)) == sorted(map(tuple, np.concatenate([train, held_out])))


def test_the_order_of_rows_in_the_tables_does_not_matter(
    patients: dict[str, Patients], study: Study, tables: dict[str, Tables]
) -> None:
    """Patients go by id, so an export in another order gives the same held_out_split, bit for bit."""
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in tables["717"].items()}
    again = prepare_patients(shuffled, build_inputs(shuffled, study), study, "717")
    for name, tensor in vars(patients["717"]).items():
        torch.testing.assert_close(getattr(again, name), tensor, rtol=1e-6, atol=1e-6)


# the split


@given(
    positive=st.integers(0, 40),
    negative=st.integers(0, 40),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_the_share_is_kept_in_all_and_in_each_label(positive: int, negative: int, fraction: float, seed: int) -> None:
    labels = labels_of(positive, negative, seed)
    held_out = held_out_split(labels, Evaluation(holdout_fraction=fraction, split_seed=seed), "701")
    total = positive + negative
    assert (held_out.shape, held_out.dtype) == ((total,), np.bool_)
    assert held_out.sum() == np.floor(fraction * total + 0.5)
    for value in (0, 1):
        of_label = labels == value
        exact = held_out.sum() * of_label.sum() / max(total, 1)
        assert abs(held_out[of_label].sum() - exact) < 1


def test_the_split_is_a_function_of_seed_and_site() -> None:
    labels = labels_of(30, 30)
    first = held_out_split(labels, EVALUATION, "701")
    assert np.array_equal(held_out_split(labels, EVALUATION, "701"), first)
    assert not np.array_equal(held_out_split(labels, EVALUATION, "702"), first)
    assert not np.array_equal(held_out_split(labels, EVALUATION.model_copy(update={"split_seed": 1}), "701"), first)
    np.random.seed(1)
    assert np.array_equal(held_out_split(labels, EVALUATION, "701"), first)


def test_over_seeds_every_patient_is_held_out_equally_often() -> None:
    """Binomial at 17 of 100 over 2000 seeds: sd 16.8, so 5 sd off for one of 100 has a false-alarm rate of 6e-5."""
    labels = labels_of(50, 50)
    splits = [held_out_split(labels, Evaluation(holdout_fraction=0.17, split_seed=seed), "701") for seed in range(2000)]
    often = np.sum(splits, axis=0)
    spread = np.sqrt(2000 * 0.17 * 0.83)
    assert np.abs(often - 340).max() < 5 * spread
    assert np.abs(often - 340 * 1.3).max() > 5 * spread, "a share 30% off would show"


# the cache


def test_the_cache_gives_back_the_same_arrays(patients: dict[str, Patients], tmp_path: Path) -> None:
    path = tmp_path / "prepared" / "x.safetensors"
    assert load_patients(path) is None
    save_patients(path, patients["717"])
    found = load_patients(path)
    assert found is not None
    for name, tensor in vars(patients["717"]).items():
        assert torch.equal(getattr(found, name), tensor)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["x.safetensors"]


def test_a_broken_cache_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"half a fi")
    with pytest.raises(StoreError, match="not safetensors"):
        load_patients(path)


def test_the_cache_goes_by_data_and_study(study: Study, tmp_path: Path) -> None:
    other = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"split_seed": 1})})
    files = {
        cache_file(tmp_path, version, which)
        for version, which in [("a" * 32, study), ("b" * 32, study), ("a" * 32, other)]
    }
    assert len(files) == 3
    assert cache_file(tmp_path, "a" * 32, study) in files
