"""Where everything lies in the object store: the only place that spells a key, by the forms of `keys`.

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

from tasks.store.keys import EXAMS as EXAMS
from tasks.store.keys import ROUND, SITE_ROUND, STUDY, fill, spell
from tasks.store.keys import STUDIES as STUDIES
from tasks.store.keys import above as above
from tasks.store.keys import parse as parse
from tasks.store.keys import rounds_of as rounds_of

BUCKET = "pharmafed"


def study_prefix(study: str) -> str:
    """Above all objects of a study."""
    return fill(STUDY, study=study)


def round_prefix(study: str, server_round: int) -> str:
    """What the hub tells all sites in one round."""
    return fill(ROUND, study=study, server_round=server_round)


def plan(study: str, server_round: int) -> str:
    """What the round is: base model, hyper-parameters, privacy, deadline, sites."""
    return spell("plan", study=study, server_round=server_round)


def site_round_prefix(study: str, server_round: int, site: str) -> str:
    """What one site writes in one round, for the hub's eyes."""
    return fill(SITE_ROUND, study=study, site=site, server_round=server_round)


def key_message(study: str, server_round: int, site: str) -> str:
    """A site's public keys for the masks of one round, and its secrets' shares, sealed to the other sites."""
    return spell("key_message", study=study, site=site, server_round=server_round)


def roster(study: str, server_round: int) -> str:
    """Whose masks the round's uploads carry, frozen before the first one is made."""
    return spell("roster", study=study, server_round=server_round)


def survivors(study: str, server_round: int) -> str:
    """Whose masked uploads the hub has, frozen before any site helps to open their sum."""
    return spell("survivors", study=study, server_round=server_round)


def unmask_answer(study: str, server_round: int, site: str) -> str:
    return spell("unmask_answer", study=study, site=site, server_round=server_round)


def encrypted_sum(study: str, server_round: int) -> str:
    """Which encrypted updates the hub has added, and the digest of their sum."""
    return spell("encrypted_sum", study=study, server_round=server_round)


def encrypted_sum_body(study: str, server_round: int) -> str:
    return spell("encrypted_sum_body", study=study, server_round=server_round)


def decrypted_sum(study: str, server_round: int, site: str) -> str:
    """What one site decrypted the sum to; beside its unmask answer, which signs it."""
    return spell("decrypted_sum", study=study, site=site, server_round=server_round)


def update_tensors(study: str, server_round: int, site: str) -> str:
    return spell("update_tensors", study=study, site=site, server_round=server_round)


def update_manifest(study: str, server_round: int, site: str) -> str:
    return spell("update_manifest", study=study, site=site, server_round=server_round)


def refusal(study: str, server_round: int, site: str) -> str:
    """Why a site sends no update this round."""
    return spell("refusal", study=study, site=site, server_round=server_round)


def data_validation(study: str, server_round: int, site: str) -> str:
    return spell("data_validation", study=study, site=site, server_round=server_round)


def site_metrics(study: str, server_round: int, site: str) -> str:
    return spell("site_metrics", study=study, site=site, server_round=server_round)


def selected(study: str, server_round: int) -> str:
    """For the sites: the round takes no more updates, and whose it has."""
    return spell("selected", study=study, server_round=server_round)


def closed(study: str, server_round: int) -> str:
    """For the sites: the round is over, and how it ended."""
    return spell("closed", study=study, server_round=server_round)


def run(study: str, run_id: str) -> str:
    """The hub's own: which round an Airflow run has had. A run's name is anything; its digest is a key."""
    return spell("run", study=study, digest=hashlib.sha256(run_id.encode()).hexdigest()[:32])


def selection(study: str, server_round: int) -> str:
    """Which updates go into the model, frozen before the first byte is averaged."""
    return spell("selection", study=study, server_round=server_round)


def round_metrics(study: str, server_round: int) -> str:
    """The closed round: who contributed, metrics, spend, timings. Its presence closes the round."""
    return spell("round_metrics", study=study, server_round=server_round)


def model(study: str, server_round: int) -> str:
    """The iterate that the next round starts from; round 0 is the initial model."""
    return spell("model", study=study, server_round=server_round)


def averaged_model(study: str, server_round: int) -> str:
    """The mean of the iterates so far, where the study asks for one; it is what sites validate."""
    return spell("averaged_model", study=study, server_round=server_round)


def strategy_state(study: str, server_round: int) -> str:
    """What the hub's strategy keeps from a round for the next, where it keeps something."""
    return spell("strategy_state", study=study, server_round=server_round)


def card(study: str, server_round: int) -> str:
    return spell("card", study=study, server_round=server_round)


def latest(study: str) -> str:
    """The pointer to the newest closed round, moved by compare-and-swap."""
    return spell("latest", study=study)


def ledger_prefix(study: str) -> str:
    return above("ledger_entry", study=study).rstrip("/")


def ledger_entry(study: str, site: str, sequence: int) -> str:
    """A site's entries are numbered 1, 2, 3 ... in the order of writing, whatever round they are for."""
    return spell("ledger_entry", study=study, site=site, sequence=sequence)


def report(study: str, server_round: int, name: str) -> str:
    return spell("report", study=study, server_round=server_round, name=name)


def audit(study: str, started: str, name: str) -> str:
    """One file of an audit; `started` is when it ran, as 20261122T141500Z."""
    return spell("audit", study=study, started=started, name=name)


def exam_runs(exam: str, model: str, language: str) -> str:
    """Above all runs of a model in one language; `model` is its name or its folder's."""
    return f"{_exam_model(exam, model)}/{language}"


def exam_run(exam: str, model: str, language: str, run: str, name: str) -> str:
    """One file of a run, in the store and under the deployment's directory; `run` is as 20261122T141500Z."""
    return f"{exam_runs(exam, model, language)}/{run}/{name}"


def exam_history(exam: str, model: str, name: str) -> str:
    """A file of a model's history; `model` is its name or its folder's."""
    return f"{_exam_model(exam, model)}/{name}"


def _exam_model(exam: str, model: str) -> str:
    """Above all of a model's runs; what a model's name may hold and a key may not becomes `--`.

    Where that leaves open which model it was, beyond the one slash after its provider, part of its sha256 is added:
    `openai/gpt-4o` is `openai--gpt-4o`, and `ollama/llama3:8b` is not `ollama/llama3/8b`. A folder's name is its own.
    """
    folder = re.sub(r"[^A-Za-z0-9._-]+", "--", model)
    if model not in (folder, folder.replace("--", "/", 1)):
        folder += f"-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
    return f"{EXAMS}{exam}/{folder}"


def enrolment(site: str) -> str:
    """A site's certificate, token and status, written by the hub when it enrols."""
    return spell("enrolment", site=site)


def sealing_key(site: str) -> str:
    """The key to which other sites seal what only this site may read; signed by it, public."""
    return spell("sealing_key", site=site)


def daily_validation(site: str) -> str:
    """The newest daily check of a site's data; the one object besides `latest.json` that is written again."""
    return spell("daily_validation", site=site)


def layout_version() -> str:
    """Says which layout a bucket has: `tasks.store.version` refuses to work on another."""
    return spell("layout_version")


def health() -> str:
    """Written to see whether the store takes writes."""
    return spell("health")


def probe(number: int) -> str:
    """The same, without content, in a folder of its own for each number."""
    return spell("probe", part=number)


def remedy(key: str) -> str:
    """What helps where an object is damaged: who writes it, and how it comes back."""
    place = parse(key)
    if place is not None and place.kind == "latest":
        return f"run `pharmafed repair {place.study}`"
    if place is not None and place.study and place.site:
        return f"only site {place.site} and the hub can write it; put it back from a copy of the object store"
    return "put it back from a copy of the object store"


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
