"""Reference figures for studies on public data: what pooling all patients would give.

A real federation cannot compute any of this. It happens only where the study says `data_are_public`, and only on a
machine that holds every site's folder.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from tasks.data.reading.patients import Patients
from tasks.errors import DataError
from tasks.rounds.pooled import public_patients
from tasks.rounds.site.context import SiteContext
from tasks.rounds.site.validation import data_version
from tasks.simulation.baselines import full_score, local_only, local_score, pooled
from tasks.store import settings
from tasks.store.files import write_private
from tasks.store.objects import to_json
from tasks.store.records.report import Baselines
from tasks.study.sections import Study, Training

#: Chosen on this data before the experiments, and kept. Four rounds is a compromise, not where log-loss turns: over 200
#: splits mean held-out log-loss is lowest after round 1 for pooled training, 6 (LR) and 10 (MLP) for federated.
YARDSTICK = Training(optimizer="adam", lr=0.02, batch_size=8, local_epochs=1, l2=0.1)
YARDSTICK_ROUNDS = 4
#: What the lines are, beside them; also part of the name under which they are kept.
NOTE = (
    f"no privacy, Adam, {YARDSTICK_ROUNDS} epochs; local-only is the mean of the sites' own models on all held-out "
    "patients, weighted by each site's share of them"
)


def baselines(study: Study) -> Baselines | None:
    """Pooled and local-only training without privacy; kept in the deployment until study or data change.

    None where the data are not public, not all on this machine and valid, or too few for a comparison.
    """
    patients = public_patients(study)
    if patients is None:
        return None
    versions = "".join(data_version(SiteContext.load(study.study, site, connect=False)) for site in study.sites)
    key = hashlib.sha256(f"{study.digest}{versions}{NOTE}".encode()).hexdigest()[:32]
    path = settings.home() / "reference" / f"{study.study}-{key}.json"
    with suppress(FileNotFoundError, ValueError):  # what is damaged is made anew
        return Baselines.model_validate_json(path.read_bytes())
    try:
        found = compute_baselines(study, patients)
    except DataError:  # a site has nobody to train on, or all held-out patients one label: there is no line to draw
        return None
    write_private(path, to_json(found))
    return found


def compute_baselines(study: Study, patients: dict[str, Patients]) -> Baselines:
    """Train on the pool, and at each site alone; score both on all held-out patients together.

    Raises:
        DataError: a site has nobody to train on, or the held-out patients do not have both labels.
    """
    study = study.model_copy(update={"training": YARDSTICK})
    *_, together = pooled(study, patients, YARDSTICK_ROUNDS)
    *_, alone = local_only(study, patients, YARDSTICK_ROUNDS)
    of_pool = full_score(study, together.evaluated, patients)
    by_site = local_score(study, {site: own.evaluated for site, own in alone.items()}, patients)
    return Baselines(
        study=study.study,
        pooled={name: round(value, 4) for name, value in of_pool.items()},
        local_only={name: round(value, 4) for name, value in by_site.items()},
        note=NOTE,
    )
