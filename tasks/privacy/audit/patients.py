"""On whom the attacks run. No audit puts a patient's value into the report of a study whose data are not public."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tasks.data.reading.patients import Patients
from tasks.privacy.audit.observer import PatientGroup
from tasks.study.sections import Study

SYNTHETIC = 240


@dataclass(frozen=True)
class Audience:
    """Inputs (patients, inputs) float32 and labels (patients,) float32, and whether they are of real people."""

    inputs: torch.Tensor
    labels: torch.Tensor
    real: bool

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def group(self) -> PatientGroup:
        """All of them."""
        return self.inputs, self.labels

    @property
    def words(self) -> str:
        """Who they are, for the report."""
        if self.real:
            return f"{len(self)} real patients: the study's data are public and lie on this machine"
        return (
            f"{len(self)} synthetic patients, drawn from the study's public scaling constants: "
            "no real patient's value is used or shown"
        )


def audit_patients(study: Study, found: Mapping[str, Patients] | None, *, seed: int = 0) -> Audience:
    """All patients of all sites where they are public and were `found` on this machine, else synthetic ones."""
    if found is None:
        return synthetic_patients(study, SYNTHETIC, seed=seed)
    each = [found[site] for site in sorted(found)]
    inputs = torch.cat([torch.cat([p.train_inputs, p.held_out_inputs]) for p in each])
    labels = torch.cat([torch.cat([p.train_labels, p.held_out_labels]) for p in each])
    return Audience(inputs, labels, real=True)


def synthetic_patients(study: Study, count: int, *, seed: int) -> Audience:
    """Standard normal inputs, clipped and weighted as the study's are; labels from a random linear model."""
    rng = np.random.default_rng([seed, 240])
    gain, limit = (np.array([getattr(spec, name) for spec in study.inputs]) for name in ("gain", "clip"))
    inputs = np.clip(rng.standard_normal((count, len(gain))), -limit, limit) * gain
    logits = inputs @ rng.standard_normal(len(gain)) / np.sqrt(len(gain))
    labels = rng.random(count) < 1 / (1 + np.exp(-logits))
    return Audience(torch.from_numpy(inputs).float(), torch.from_numpy(labels).float(), real=False)
