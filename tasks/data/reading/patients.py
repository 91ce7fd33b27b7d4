"""A site's patients as arrays, split into training and held-out, kept at the site for as long as data and study stay.

The cache is keyed by the data's version and the study's digest, so a warm round reads one file instead of nine tables.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tasks.data.reading.features import scale_inputs
from tasks.data.reading.labels import as_array, build_labels, strata_of
from tasks.store.files import write_private
from tasks.store.weights import from_bytes, to_bytes
from tasks.study.sections import Evaluation, Study


@dataclass(frozen=True)
class Patients:
    """Training and held-out patients: inputs (patients, inputs) and labels, both float32.

    labels: (patients,), or (patients, parts) where the study's task says so.
    """

    train_inputs: torch.Tensor
    train_labels: torch.Tensor
    held_out_inputs: torch.Tensor
    held_out_labels: torch.Tensor


def prepare_patients(tables: dict[str, pd.DataFrame], inputs: pd.DataFrame, study: Study, site: str) -> Patients:
    """Scale, label and split one site's patients."""
    values, labels = scaled_and_labelled(tables, inputs, study)
    held_out = held_out_split(strata_of(study.label, labels), study.evaluation, site)
    return Patients(
        *(torch.from_numpy(a) for a in (values[~held_out], labels[~held_out], values[held_out], labels[held_out]))
    )


def scaled_and_labelled(
    tables: dict[str, pd.DataFrame], inputs: pd.DataFrame, study: Study
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Inputs (patients, inputs) and labels of those who have an endpoint; the others take no part."""
    labels = build_labels(tables, study)
    return scale_inputs(inputs.loc[labels.index], study), as_array(labels)


def held_out_split(strata: npt.NDArray[np.int64], evaluation: Evaluation, site: str) -> npt.NDArray[np.bool_]:
    """Which patients are held out: `holdout_fraction` of the site, the same share of each stratum, seeded by site.

    Each stratum's share is rounded by largest remainder, so a site holds out round(fraction * patients) in all.
    """
    seed = hashlib.sha256(f"{evaluation.split_seed}/{site}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    wanted = int(np.floor(evaluation.holdout_fraction * len(strata) + 0.5))
    classes = np.unique(strata)
    shares = np.array([(strata == c).sum() * wanted / max(len(strata), 1) for c in classes])
    takes = np.floor(shares).astype(int)
    for index in np.argsort(takes - shares, kind="stable")[: wanted - takes.sum()]:
        takes[index] += 1
    held_out = np.zeros(len(strata), dtype=bool)
    for value, take in zip(classes, takes, strict=True):
        held_out[rng.permutation(np.flatnonzero(strata == value))[:take]] = True
    return held_out


def cache_file(work_dir: Path, data_version: str, study: Study) -> Path:
    """Where the arrays of this data and this study lie."""
    return work_dir / "prepared" / f"{study.study}-{study.digest[:16]}-{data_version[:32]}.safetensors"


def save_patients(path: Path, patients: Patients) -> None:
    """Write the cache in one step; only the site's own account may read it."""
    write_private(path, to_bytes(vars(patients)))


def load_patients(path: Path) -> Patients | None:
    """Read the cache; None when there is none."""
    try:
        return Patients(**from_bytes(path.read_bytes()))
    except FileNotFoundError:
        return None
