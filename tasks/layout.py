"""Where everything lies in the object store: the only place that spells a key.

One bucket is one federation. Every object is created once and never changed, but for `latest.json`.
"""

from __future__ import annotations

BUCKET = "pharmafed"


def study_prefix(study: str) -> str:
    return f"studies/{study}"


def round_prefix(study: str, server_round: int) -> str:
    return f"{study_prefix(study)}/rounds/{server_round:04d}"


def plan(study: str, server_round: int) -> str:
    """What the round is: base model, hyper-parameters, privacy, deadline, sites."""
    return f"{round_prefix(study, server_round)}/plan.json"


def update_tensors(study: str, server_round: int, site: str) -> str:
    return f"{round_prefix(study, server_round)}/updates/{site}/update.safetensors"


def update_manifest(study: str, server_round: int, site: str) -> str:
    return f"{round_prefix(study, server_round)}/updates/{site}/manifest.json"


def refusal(study: str, server_round: int, site: str) -> str:
    """Why a site sends no update this round."""
    return f"{round_prefix(study, server_round)}/updates/{site}/refusal.json"


def data_validation(study: str, server_round: int, site: str) -> str:
    return f"{round_prefix(study, server_round)}/validation/{site}/data_validation.json"


def site_metrics(study: str, server_round: int, site: str) -> str:
    return f"{round_prefix(study, server_round)}/validation/{site}/metrics.json"


def selection(study: str, server_round: int) -> str:
    """Which updates go into the model, frozen before the first byte is averaged."""
    return f"{round_prefix(study, server_round)}/selection.json"


def round_metrics(study: str, server_round: int) -> str:
    """The closed round: who contributed, metrics, spend, timings. Its presence closes the round."""
    return f"{round_prefix(study, server_round)}/metrics.json"


def model(study: str, server_round: int) -> str:
    """The iterate that the next round starts from; round 0 is the initial model."""
    return f"{study_prefix(study)}/models/{server_round:04d}/model.safetensors"


def averaged_model(study: str, server_round: int) -> str:
    """The mean of the iterates so far, where the study asks for one; it is what sites validate."""
    return f"{study_prefix(study)}/models/{server_round:04d}/averaged.safetensors"


def card(study: str, server_round: int) -> str:
    return f"{study_prefix(study)}/models/{server_round:04d}/card.json"


def latest(study: str) -> str:
    """The pointer to the newest closed round, moved by compare-and-swap."""
    return f"{study_prefix(study)}/latest.json"


def ledger_prefix(study: str) -> str:
    return f"{study_prefix(study)}/ledger"


def ledger_entry(study: str, site: str, server_round: int) -> str:
    return f"{ledger_prefix(study)}/{site}/{server_round:04d}.json"


def report(study: str, server_round: int, name: str) -> str:
    return f"{study_prefix(study)}/reports/{server_round:04d}/{name}"


def enrolment(site: str) -> str:
    """A site's certificate, token and status, written by the hub when it enrols."""
    return f"federation/enrolments/{site}.json"


def daily_validation(site: str) -> str:
    """The newest daily check of a site's data; the one object besides `latest.json` that is written again."""
    return f"federation/data_validation/{site}.json"


def site_writable(study: str, site: str) -> list[str]:
    """Patterns of the keys that a site's credential may write in one study; `*` stands for the round."""
    rounds = f"{study_prefix(study)}/rounds/*"
    own = [f"{rounds}/updates/{site}/*", f"{rounds}/validation/{site}/*", f"{ledger_prefix(study)}/{site}/*"]
    return [*own, daily_validation(site)]


def site_readable(study: str, site: str) -> list[str]:
    """Patterns of the keys that a site's credential may read in one study: models, plans and its own."""
    shared = [f"{study_prefix(study)}/models/*", f"{study_prefix(study)}/rounds/*/plan.json", latest(study)]
    return shared + site_writable(study, site) + [enrolment(site)]
