"""Reference figures for studies on public data: what pooling all patients would give.

A real federation cannot compute any of this. It happens only where the study says `data_are_public`, and only on a
machine that holds every site's folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from tasks import settings
from tasks.errors import PharmafedError
from tasks.files import write_private
from tasks.privacy.noise import SeededNoise
from tasks.records import Baselines, ModelRef
from tasks.simulation import pool, score, simulate, without_privacy
from tasks.site.context import SiteContext
from tasks.site.guard import no_values_in_errors
from tasks.site.prepared import Patients
from tasks.site.validation import data_version, valid_patients
from tasks.storage import ObjectStore, to_json
from tasks.study import Study, Training
from tasks.tensors import fetch_model

#: Without privacy, training goes on until held-out log-loss turns, which is after about four epochs on this data.
YARDSTICK = Training(optimizer="adam", lr=0.02, batch_size=8, local_epochs=1, l2=0.1)
YARDSTICK_ROUNDS = 4


@dataclass(frozen=True)
class PooledFigures:
    """The global model on all held-out patients together; None where they may not be pooled."""

    auc: float | None = None
    log_loss: float | None = None


def pooled_figures(study: Study, store: ObjectStore, model: ModelRef) -> PooledFigures:
    """AUC and log-loss of a stored model over every site's held-out patients."""
    patients = public_patients(study)
    if patients is None:
        return PooledFigures()
    auc, log_loss = score(study, fetch_model(store, model), patients)
    return PooledFigures(_rounded(auc), _rounded(log_loss))


def public_patients(study: Study) -> dict[str, Patients] | None:
    """Every site's arrays, or None: the data are not public, or not all on this machine and valid."""
    if not study.evaluation.data_are_public:
        return None
    try:
        return {site: _patients(study, site) for site in study.sites}
    except PharmafedError:
        return None


def _patients(study: Study, site: str) -> Patients:
    with no_values_in_errors("reference figures", site):
        return valid_patients(SiteContext.load(study.study, site, connect=False))
    raise AssertionError("unreachable: the guard raises")


def baselines(study: Study) -> Baselines | None:
    """Pooled and local-only training without privacy; kept in the deployment until study or data change."""
    patients = public_patients(study)
    if patients is None:
        return None
    versions = "".join(data_version(SiteContext.load(study.study, site, connect=False)) for site in study.sites)
    key = hashlib.sha256(f"{study.digest}{versions}".encode()).hexdigest()[:32]
    path = settings.home() / "reference" / f"{study.study}-{key}.json"
    if path.exists():
        return Baselines.model_validate_json(path.read_bytes())
    found = compute_baselines(study, patients)
    write_private(path, to_json(found))
    return found


def compute_baselines(study: Study, patients: dict[str, Patients]) -> Baselines:
    """Train on the pool, and at each site alone; score both on all held-out patients together."""
    open_study = without_privacy(study, YARDSTICK)
    pooled = _train_and_score(open_study, {"pool": pool(patients)}, patients)
    alone = [_train_and_score(open_study, {site: own}, patients) for site, own in patients.items()]
    return Baselines(
        study=study.study,
        pooled_auc=pooled[0],
        pooled_log_loss=pooled[1],
        local_only_auc=round(float(np.mean([auc for auc, _ in alone])), 4),
        local_only_log_loss=round(float(np.mean([loss for _, loss in alone])), 4),
        note=f"no privacy, Adam, {YARDSTICK_ROUNDS} epochs; local-only is the mean of {len(alone)} sites",
    )


def _train_and_score(study: Study, patients: dict[str, Patients], held_out: dict[str, Patients]) -> tuple[float, float]:
    *_, last = simulate(study, patients, YARDSTICK_ROUNDS, noise=SeededNoise(bytes(32)))
    auc, log_loss = score(study, last.evaluated, held_out)
    return round(auc or 0.5, 4), round(log_loss or 0.0, 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
