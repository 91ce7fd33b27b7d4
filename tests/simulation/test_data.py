"""Splits of a study: those of the sites' own preparation, from tables that are read once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.data.reading.features import build_inputs
from tasks.data.reading.patients import prepare_patients
from tasks.data.reading.tables import read_tables
from tasks.errors import DataError
from tasks.simulation.data import SiteArrays, data_key, read_sites, split_sites
from tasks.store.settings import PROJECT
from tasks.study.sections import Study


@pytest.mark.parametrize("seed", [0, 7])
def test_a_split_is_the_sites_own_to_the_last_bit(study: Study, arrays: dict[str, SiteArrays], seed: int) -> None:
    evaluation = study.evaluation.model_copy(update={"split_seed": seed})
    made = split_sites(arrays, evaluation)
    assert list(made) == list(study.sites)
    for site in ("701", "703", "pool"):
        tables = read_tables(PROJECT / study.data.root / site, study.data.tables, PROJECT / "expectations")
        own = study.model_copy(update={"evaluation": evaluation})
        expected = prepare_patients(tables, build_inputs(tables, study), own, site)
        for name, array in vars(expected).items():
            assert len(array)
            assert torch.equal(getattr(made[site], name), array), (site, name)


def test_another_seed_holds_others_out(study: Study, arrays: dict[str, SiteArrays]) -> None:
    splits = [
        split_sites(arrays, study.evaluation.model_copy(update={"split_seed": seed}))["701"].held_out_inputs
        for seed in range(3)
    ]
    assert not torch.equal(splits[0], splits[1])
    assert not torch.equal(splits[1], splits[2])


def test_only_what_is_read_makes_another_key(study: Study) -> None:
    fewer = study.model_copy(update={"inputs": study.inputs[:-1]})
    retrained = study.model_copy(update={"training": study.training.model_copy(update={"lr": 0.1})})
    assert data_key(retrained) == data_key(study)
    assert data_key(fewer) != data_key(study)


def test_a_missing_table_is_named(study: Study, tmp_path: Path) -> None:
    (tmp_path / "expectations").symlink_to(PROJECT / "expectations")
    with pytest.raises(DataError, match=r"data/sites/701/adsl\.csv: no such file"):
        read_sites(study, tmp_path)
