"""The drafted study as data: privacy, channel, rounds and the rest follow from sites and patients alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tasks.data.drafting.label import LabelRule
from tasks.data.drafting.subjects import MIN_CELL, Subjects
from tasks.errors import ConfigError
from tasks.study.reading import Reading
from tasks.study.sections import Input, Study

#: Masks hide a site among others; with fewer sites than this, each protects its own update.
SITES_FOR_MASKS = 4
#: With fewer than this, the noise of a site that is lost within a round cannot be made up by the others.
_SITES_FOR_DROPOUTS = 5
HOLDOUT_FRACTION = 0.2
_QUORUM = 0.75
_SCORE_BINS = 5


@dataclass(frozen=True)
class Wishes:
    """What the command was told: name, title, total epsilon, number of rounds."""

    name: str
    title: str
    epsilon: float = 3.0
    rounds: int = 20


def study_content(
    wishes: Wishes,
    tables: list[str],
    subjects: Subjects,
    outcome: LabelRule,
    inputs: tuple[Input, ...],
    reading: Reading | None = None,
) -> dict[str, Any]:
    """The study file's keys in order; `Study.model_validate` takes it.

    Its tables and suites lie in folders of its own, so that two studies may both have a table `patients`.

    Raises:
        ConfigError: there is no input.
    """
    if not inputs:
        raise ConfigError("no column can be an input: all were left out, or only ids, dates and free text are there")
    sites = {site: [code] for site, code in subjects.site_codes.items()}
    masked = len(sites) >= SITES_FOR_MASKS
    read = (reading or Reading()).model_dump(mode="json", exclude_defaults=True)
    bins = {"score_bins": _SCORE_BINS} if masked else {}
    return {
        "study": wishes.name,
        "title": wishes.title,
        "description": f"Drafted by `pharmafed study init`. {len(sites)} sites train one logistic regression.",
        "owner": "data-science",
        "data": {
            "root": own_root(wishes.name),
            "suites": f"expectations/{wishes.name}",
            "tables": tables,
            "subject": subjects.column,
            "pin": "data.dvc",
            **({"reading": read} if read else {}),
        },
        "sites": sites,
        "label": _label(outcome),
        "inputs": [spec.model_dump(exclude_defaults=True) for spec in inputs],
        "model": {"path": "tasks.models:LogisticRegression"},
        "training": _TRAINING,
        "privacy": _privacy(wishes, sum(map(training_patients, subjects.patients.values())), len(sites)),
        "channel": "masks" if masked else "plain",
        "rounds": {
            "total": wishes.rounds,
            "min_sites": quorum(len(sites), masked),
            "deadline_seconds": 240,
            "strict": False,
        },
        "evaluation": {"holdout_fraction": HOLDOUT_FRACTION, "split_seed": 0, "min_cell": MIN_CELL, **bins},
    }


def own_root(study: str) -> str:
    """The folder of a drafted study's sites."""
    return f"data/studies/{study}"


def as_study(content: dict[str, Any]) -> Study:
    """The content as a study.

    Raises:
        ConfigError: an option makes it none, for example an epsilon of zero.
    """
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "study"
    raise ConfigError(f"no study can be drafted: {place}: {str(first['msg']).removeprefix('Value error, ')}")


def training_patients(patients: int) -> int:
    """How many of a site's patients are trained on: what `tasks.data.reading.patients.held_out_split` leaves."""
    return patients - math.floor(HOLDOUT_FRACTION * patients + 0.5)


def quorum(sites: int, masked: bool) -> int:
    """Three quarters of the sites, and what masks with one lost and one colluding site need to be opened."""
    needed = max((sites + 1) // 2 + 1, 3) if masked else 1
    return max(needed, math.ceil(_QUORUM * sites))


#: The step that patient-level privacy accounts for; the same as in the flagship study.
_TRAINING = {
    "optimizer": "sgd",
    "lr": 0.3,
    "batch_size": "full",
    "local_iterations": 1,
    "l2": 0.01,
    "optimizer_state": "restart",
    "weighting": "plain",
    "average_iterates": "second_half",
}


def _label(outcome: LabelRule) -> dict[str, Any]:
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in outcome.column.lower()).strip("_")[:60]
    name = name if name[:1].isalpha() else f"label_{name}"
    return {
        "name": name,
        "table": outcome.table,
        "positive_when": [outcome.condition],
    }


def _privacy(wishes: Wishes, examples: int, sites: int) -> dict[str, Any]:
    masked = sites >= SITES_FOR_MASKS
    shares = {"tolerated_dropouts": int(sites >= _SITES_FOR_DROPOUTS), "colluding_sites": 1} if masked else {}
    return {
        "mechanism": "distributed_dp" if masked else "local_dp",
        "epsilon": wishes.epsilon,
        "delta": delta(examples),
        "clip_norm": 1,
        "public_num_examples": examples,
        **shares,
    }


def delta(examples: int) -> float:
    """At most 1e-5, and at most a tenth of one patient's share, as a power of ten."""
    return float(10.0 ** min(-5, -math.ceil(math.log10(10 * examples))))
