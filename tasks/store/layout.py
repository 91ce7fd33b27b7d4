"""Where everything lies in the object store: the only place that spells a key.

One bucket is one federation. What a round releases, models, plans, cards and ledgers are created once, never changed.
Written again are `latest.json`, reports, what the hub tells of a round's end, and a site's own refusal and validation.

    studies/<study>/rounds/<r>/         the hub writes, sites read: plan, roster, survivors, encrypted sum, how it ended
    studies/<study>/models/<r>/         the hub writes, sites read: models and their cards
    studies/<study>/records/<r>/        the hub's own: selection, round record
    studies/<study>/runs/               the hub's own: which round each run has had
    studies/<study>/sites/<site>/...    one site writes and reads, the hub reads
    studies/<study>/keys/<site>/...     one site writes, every site reads: its public keys for the masks
    studies/<study>/ledger/<site>/...   one site writes and reads, the hub reads

A key that a site writes has the site before anything that varies, so that every right of a site is a prefix: the store
lets a `*` stand for `/` too, so one in the middle of a right would reach under other sites' keys and the hub's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

BUCKET = "pharmafed"


def study_prefix(study: str) -> str:
    return f"studies/{study}"


def plans_prefix(study: str) -> str:
    return f"{study_prefix(study)}/rounds"


def models_prefix(study: str) -> str:
    return f"{study_prefix(study)}/models"


def round_prefix(study: str, server_round: int) -> str:
    return f"{plans_prefix(study)}/{server_round:04d}"


def plan(study: str, server_round: int) -> str:
    """What the round is: base model, hyper-parameters, privacy, deadline, sites."""
    return f"{round_prefix(study, server_round)}/plan.json"


def site_round_prefix(study: str, server_round: int, site: str) -> str:
    """What one site writes in one round, for the hub's eyes."""
    return f"{study_prefix(study)}/sites/{site}/rounds/{server_round:04d}"


def record_prefix(study: str) -> str:
    """What the hub keeps for itself of every round."""
    return f"{study_prefix(study)}/records"


def key_message(study: str, server_round: int, site: str) -> str:
    """A site's public keys for the masks of one round, and its secrets' shares, sealed to the other sites."""
    return f"{study_prefix(study)}/keys/{site}/{server_round:04d}.json"


def roster(study: str, server_round: int) -> str:
    """Whose masks the round's uploads carry, frozen before the first one is made."""
    return f"{round_prefix(study, server_round)}/roster.json"


def survivors(study: str, server_round: int) -> str:
    """Whose masked uploads the hub has, frozen before any site helps to open their sum."""
    return f"{round_prefix(study, server_round)}/survivors.json"


def unmask_answer(study: str, server_round: int, site: str) -> str:
    return f"{site_round_prefix(study, server_round, site)}/unmask.json"


def encrypted_sum(study: str, server_round: int) -> str:
    """Which encrypted updates the hub has added, and the digest of their sum."""
    return f"{round_prefix(study, server_round)}/encrypted/sum.json"


def encrypted_sum_body(study: str, server_round: int) -> str:
    return f"{round_prefix(study, server_round)}/encrypted/sum.ckks"


def decrypted_sum(study: str, server_round: int, site: str) -> str:
    """What one site decrypted the sum to; beside its unmask answer, which signs it."""
    return f"{site_round_prefix(study, server_round, site)}/decrypted.safetensors"


def update_tensors(study: str, server_round: int, site: str) -> str:
    return f"{site_round_prefix(study, server_round, site)}/update.safetensors"


def update_manifest(study: str, server_round: int, site: str) -> str:
    return f"{site_round_prefix(study, server_round, site)}/manifest.json"


def refusal(study: str, server_round: int, site: str) -> str:
    """Why a site sends no update this round."""
    return f"{site_round_prefix(study, server_round, site)}/refusal.json"


def data_validation(study: str, server_round: int, site: str) -> str:
    return f"{site_round_prefix(study, server_round, site)}/data_validation.json"


def site_metrics(study: str, server_round: int, site: str) -> str:
    return f"{site_round_prefix(study, server_round, site)}/metrics.json"


def selected(study: str, server_round: int) -> str:
    """For the sites: the round takes no more updates, and whose it has."""
    return f"{round_prefix(study, server_round)}/selected.json"


def closed(study: str, server_round: int) -> str:
    """For the sites: the round is over, and how it ended."""
    return f"{round_prefix(study, server_round)}/closed.json"


def run(study: str, run_id: str) -> str:
    """The hub's own: which round an Airflow run has had. A run's name is anything; its digest is a key."""
    return f"{study_prefix(study)}/runs/{hashlib.sha256(run_id.encode()).hexdigest()[:32]}.json"


def selection(study: str, server_round: int) -> str:
    """Which updates go into the model, frozen before the first byte is averaged."""
    return f"{record_prefix(study)}/{server_round:04d}/selection.json"


def round_metrics(study: str, server_round: int) -> str:
    """The closed round: who contributed, metrics, spend, timings. Its presence closes the round."""
    return f"{record_prefix(study)}/{server_round:04d}/metrics.json"


def model(study: str, server_round: int) -> str:
    """The iterate that the next round starts from; round 0 is the initial model."""
    return f"{models_prefix(study)}/{server_round:04d}/model.safetensors"


def averaged_model(study: str, server_round: int) -> str:
    """The mean of the iterates so far, where the study asks for one; it is what sites validate."""
    return f"{models_prefix(study)}/{server_round:04d}/averaged.safetensors"


def card(study: str, server_round: int) -> str:
    return f"{models_prefix(study)}/{server_round:04d}/card.json"


def latest(study: str) -> str:
    """The pointer to the newest closed round, moved by compare-and-swap."""
    return f"{study_prefix(study)}/latest.json"


def ledger_prefix(study: str) -> str:
    return f"{study_prefix(study)}/ledger"


def ledger_entry(study: str, site: str, sequence: int) -> str:
    """A site's entries are numbered 1, 2, 3 ... in the order of writing, whatever round they are for."""
    return f"{ledger_prefix(study)}/{site}/{sequence:06d}.json"


def report(study: str, server_round: int, name: str) -> str:
    return f"{study_prefix(study)}/reports/{server_round:04d}/{name}"


def audit(study: str, started: str, name: str) -> str:
    """One file of an audit; `started` is when it ran, as 20261122T141500Z."""
    return f"{study_prefix(study)}/audits/{started}/{name}"


def exam_runs(exam: str, model: str, language: str) -> str:
    """Above all runs of a model; what a model's name may hold and a key may not becomes `--`.

    Where that leaves open which model it was, beyond the one slash after its provider, part of its sha256 is added:
    `openai/gpt-4o` is `openai--gpt-4o`, and `ollama/llama3:8b` is not `ollama/llama3/8b`. A folder's name is its own.
    """
    folder = re.sub(r"[^A-Za-z0-9._-]+", "--", model)
    if model not in (folder, folder.replace("--", "/", 1)):
        folder += f"-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
    return f"exams/{exam}/{folder}/{language}"


def exam_run(exam: str, model: str, language: str, run: str, name: str) -> str:
    """One file of a run, in the store and under the deployment's directory; `run` is as 20261122T141500Z."""
    return f"{exam_runs(exam, model, language)}/{run}/{name}"


def enrolment(site: str) -> str:
    """A site's certificate, token and status, written by the hub when it enrols."""
    return f"federation/enrolments/{site}.json"


def sealing_key(site: str) -> str:
    """The key to which other sites seal what only this site may read; signed by it, public."""
    return f"federation/sealing_keys/{site}.json"


def daily_validation(site: str) -> str:
    """The newest daily check of a site's data; the one object besides `latest.json` that is written again."""
    return f"federation/data_validation/{site}.json"


def layout_version() -> str:
    """Says which layout a bucket has: `tasks.store.version` refuses to work on another."""
    return "federation/layout.json"


def remedy(key: str) -> str:
    """What helps where an object is damaged: who writes it, and how it comes back."""
    found = re.fullmatch(r"studies/([^/]+)/(?:latest\.json|(?:sites|keys|ledger)/([^/]+)/.*)", key)
    if found is None:
        return "put it back from a copy of the object store"
    study, site = found.groups()
    if site is None:
        return f"run `pharmafed repair {study}`"
    return f"only site {site} and the hub can write it; put it back from a copy of the object store"


def rounds_of(keys: Iterable[str], folder: str, name: str) -> dict[int, str]:
    """Round -> key of its object `name` in `folder`, in order. What somebody has put beside them is not among them."""
    pattern = re.compile(rf"{re.escape(folder)}/([0-9]{{4,6}})/{re.escape(name)}")
    found = {int(match[1]): key for key in keys if (match := pattern.fullmatch(key))}
    return dict(sorted(found.items()))


def site_writable(study: str, site: str) -> list[str]:
    """The keys that a site's credential may write in one study: prefixes, each with its only `*` at its end."""
    own = [f"{study_prefix(study)}/{part}/{site}/*" for part in ("sites", "keys", "ledger")]
    return [*own, f"{daily_validation(site)}*"]


def site_readable(study: str, site: str) -> list[str]:
    """The keys that a site's credential may read in one study: models, plans, public keys and its own."""
    shared = [f"{study_prefix(study)}/{part}/*" for part in ("models", "rounds", "keys")]
    return [
        *shared,
        f"{latest(study)}*",
        "federation/sealing_keys/*",
        *site_writable(study, site),
        f"{enrolment(site)}*",
    ]
