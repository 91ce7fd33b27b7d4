"""Every split of a study's patients. The tables are read once; a split costs microseconds.

Only files that read as declared are used. Expectations are not checked here: that is `validate`'s part, in the nightly
round and in the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tasks.data.reading.features import build_inputs
from tasks.data.reading.labels import strata_of
from tasks.data.reading.patients import Patients, held_out_split, scaled_and_labelled
from tasks.data.reading.tables import read_tables
from tasks.store import settings
from tasks.study.sections import Evaluation, Study


@dataclass(frozen=True)
class SiteArrays:
    """One site's patients before any split: inputs (patients, inputs) and labels, float32, and their strata."""

    inputs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    strata: npt.NDArray[np.int64]


def read_sites(study: Study, project: Path | None = None) -> dict[str, SiteArrays]:
    """Every site's patients, scaled and labelled as the study says.

    Args:
        project: the folder that `data.root` and `data.suites` are relative to; the project's own by default.

    Raises:
        DataError: a table is missing or cannot be read as declared.
    """
    return {site: _read_site(study, site, project or settings.project_dir()) for site in study.sites}


def _read_site(study: Study, site: str, project: Path) -> SiteArrays:
    folder, suites = project / study.data.root / site, project / study.data.suites
    pin_file = project / study.data.pin if study.data.pin is not None else None
    tables = read_tables(folder, study.data.tables, suites, study.data.reading, pin_file=pin_file)
    inputs, labels = scaled_and_labelled(tables, build_inputs(tables, study), study)
    return SiteArrays(inputs, labels, strata_of(study.label, labels))


def split_sites(arrays: Mapping[str, SiteArrays], evaluation: Evaluation) -> dict[str, Patients]:
    """Hold patients out at every site, seeded by `evaluation.split_seed`: the sites' own arrays, to the last bit."""
    return {site: _split_site(own, evaluation, site) for site, own in arrays.items()}


def _split_site(own: SiteArrays, evaluation: Evaluation, site: str) -> Patients:
    held_out = held_out_split(own.strata, evaluation, site)
    parts = (own.inputs[~held_out], own.labels[~held_out], own.inputs[held_out], own.labels[held_out])
    return Patients(*(torch.from_numpy(part) for part in parts))


def data_key(study: Study) -> str:
    """The same for two studies whose `read_sites` are the same."""
    return study.model_dump_json(by_alias=True, include={"data", "sites", "label", "inputs"})
