"""Whatever dies in a round, running the step again gives the same round: the store, a site, the hub, the network."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from tasks.errors import BudgetExhausted, DeadlinePassed, PrivacyError, QuorumMissed, RoundRefused, StoreUnavailable
from tasks.rounds.hub.aggregate import aggregate
from tasks.rounds.hub.close import close_round
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.open import open_round
from tasks.rounds.site import steps
from tasks.store import clock, layout
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import Pointer
from tasks.store.records.round import Plan, Refusal
from tasks.store.records.site import Enrolment
from tasks.store.weights import sha256
from tasks.study.privacy import NoPrivacy
from tests.rounds.hub.federation import Federation, hub_step, in_child, run_and_die, site_step

SITES = ("715", "717", "718")
SITE = "717"
NO_PRIVACY = {"mechanism": "none", "i_accept_no_privacy": True}
#: Thousands of small steps: a training that lasts long enough to be killed in.
LONG = {"optimizer": "adam", "lr": 0.01, "batch_size": 1, "local_iterations": 2500, "average_iterates": "none"}


def uploaded(fed: Federation, **parts: Any) -> str:
    """A study whose first round has all updates in."""
    study = fed.new_study(sites=SITES, **parts)
    fed.open(study)
    assert fed.run_sites(study, 1) == {}
    return study


def of(fed: Federation, study: str) -> dict[str, bytes]:
    return fed.objects(layout.study_prefix(study) + "/")


def raw(fed: Federation, study: str, site: str = SITE) -> dict[str, bytes]:
    """The raw update at the site, without the time it took."""
    folder = own_folder(fed, study, site)
    tensors = load_file(folder / "raw.safetensors")
    tensors["meta"] = load_file(folder / "meta.safetensors")["meta"][:2]
    return {name: tensor.tobytes() for name, tensor in tensors.items()}


def own_folder(fed: Federation, study: str, site: str = SITE) -> Path:
    """What the site keeps of the first round."""
    return fed.home / "sites" / site / "rounds" / study / "0001"


def forget_spend(fed: Federation, study: str, site: str = SITE) -> None:
    shutil.rmtree(fed.home / "sites" / site / "ledger" / study, ignore_errors=True)


# the store is down


def to_open(fed: Federation) -> tuple[str, Callable[[str], object]]:
    return fed.new_study(sites=SITES), fed.open


def to_site(step: str) -> Callable[[Federation], tuple[str, Callable[[str], object]]]:
    def prepare(fed: Federation) -> tuple[str, Callable[[str], object]]:
        study = fed.new_study(sites=SITES)
        fed.open(study)
        names = ("validate_data", "train", "privatize_and_upload")
        fed.run_site(study, 1, SITE, names[: names.index(step)])
        return study, lambda study: fed.run_site(study, 1, SITE, (step,))

    return prepare


def to_aggregate(fed: Federation) -> tuple[str, Callable[[str], object]]:
    return uploaded(fed), lambda study: fed.aggregate(study, 1)


def to_validate_global(fed: Federation) -> tuple[str, Callable[[str], object]]:
    study = uploaded(fed)
    fed.aggregate(study, 1)
    return study, lambda study: fed.validate_global(study, 1, (SITE,))


def to_close(fed: Federation) -> tuple[str, Callable[[str], object]]:
    study = uploaded(fed)
    fed.aggregate(study, 1)
    return study, lambda study: fed.close(study, 1)


STEPS = {
    "open_round": to_open,
    "validate_data": to_site("validate_data"),
    "train_local": to_site("train"),
    "privatize_and_upload": to_site("privatize_and_upload"),
    "aggregate": to_aggregate,
    "validate_global": to_validate_global,
    "close_round": to_close,
}
#: Objects that carry a time of day or a duration; all others are the same bytes in every run.
TIMED = ("plan.json", "manifest.json", "card.json", "metrics.json")


def untimed(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key: body for key, body in objects.items() if not key.endswith(TIMED) and "/ledger/" not in key}


def test_every_step_outlives_the_store(fed: Federation) -> None:
    """Each step fails with StoreUnavailable, leaves nothing behind, and after the restart does what it would have."""
    stages = {}
    for name, prepare in STEPS.items():
        study, step = prepare(fed)
        before = of(fed, study)
        step(study)
        after = of(fed, study)
        assert name == "train_local" or after.keys() > before.keys()
        fed.restore(study, before)
        if name == "privatize_and_upload":
            forget_spend(fed, study)
        stages[name] = (study, step, before, after)
    trained = raw(fed, stages["train_local"][0])
    (own_folder(fed, stages["train_local"][0]) / "raw.safetensors").unlink()
    fed.stop()
    try:
        for study, step, *_ in stages.values():
            with pytest.raises(StoreUnavailable, match="does not answer"):
                step(study)
    finally:
        fed.start()
    for study, step, before, after in stages.values():
        assert of(fed, study) == before
        step(study)
        found = of(fed, study)
        assert found.keys() == after.keys()
        assert untimed(found) == untimed(after)
    assert raw(fed, stages["train_local"][0]) == trained
    assert len(stages) == 7


@contextmanager
def cutting(fed: Federation, part: str, *, answers: bool) -> Iterator[str]:
    """A way to the store on which the line breaks: in the answer's body, or in the request, where its path has `part`.

    Yields its address.
    """
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", fed.ports.s3)) as store:
            threading.Thread(target=pump, args=(store, client, doomed := [False]), daemon=True).start()
            while data := client.recv(65536):
                doomed[0] = part.encode() in data.split(b"\r\n", 1)[0]
                if doomed[0] and not answers:
                    return
                store.sendall(data)

    def pump(store: socket.socket, client: socket.socket, doomed: list[bool]) -> None:
        try:
            while data := store.recv(65536):
                if doomed[0] and b"\r\n\r\n" in data:
                    client.sendall(data[: data.index(b"\r\n\r\n") + 14])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("step", "part", "answers"),
    [
        ("validate_data", "plan.json", True),
        ("train", "model.safetensors", True),
        ("privatize_and_upload", "update.safetensors", False),
        ("privatize_and_upload", "manifest.json", False),
        ("privatize_and_upload", "ledger/", False),
    ],
)
def test_a_line_that_breaks_is_no_refusal(fed: Federation, step: str, part: str, answers: bool) -> None:
    study = fed.new_study(sites=SITES)
    fed.open(study)
    names = ("validate_data", "train", "privatize_and_upload")
    fed.run_site(study, 1, SITE, names[: names.index(step)])
    with cutting(fed, part, answers=answers) as endpoint:
        ctx = replace(fed.site(study, SITE), connection=fed.store(f"site-{SITE}", endpoint))
        with pytest.raises(StoreUnavailable):
            getattr(steps, step)(ctx, 1)
    assert not fed.store().exists(layout.refusal(study, 1, SITE))
    fed.run_site(study, 1, SITE)
    assert fed.store().exists(layout.update_manifest(study, 1, SITE))


def test_the_hub_outlives_a_line_that_breaks(fed: Federation) -> None:
    study = uploaded(fed)
    for part in ("manifest.json", "update.safetensors", "plan.json", "models/0000", "enrolments/"):
        with cutting(fed, part, answers=True) as endpoint:
            hub = replace(fed.hub(study), store=fed.store("hub", endpoint))
            with pytest.raises(StoreUnavailable):
                aggregate(hub, 1)
        assert not fed.store().exists(layout.selection(study, 1))
    assert len(fed.aggregate(study, 1).chosen) == 3


# a site is killed


def test_killed_in_the_middle_of_training(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, privacy=NO_PRIVACY, training=LONG)
    fed.open(study)
    path = own_folder(fed, study) / "raw.safetensors"
    fed.run_site(study, 1, SITE, ("validate_data",))
    in_child(fed, site_step("train", study, SITE, 1)).join(60)  # the first child waits for the others' parent
    path.unlink()
    started = time.monotonic()
    child = in_child(fed, site_step("train", study, SITE, 1))
    child.join(60)
    seconds = time.monotonic() - started
    assert child.exitcode == 0
    undisturbed = raw(fed, study)
    path.unlink()
    killed = 0
    for share in (0.3, 0.5, 0.7, 0.85):
        child = in_child(fed, site_step("train", study, SITE, 1))
        child.join(share * seconds)
        child.kill()
        child.join(30)
        killed += child.exitcode != 0
        assert not path.exists() or raw(fed, study) == undisturbed
    assert killed >= 1
    fed.run_site(study, 1, SITE, ("train",))
    assert raw(fed, study) == undisturbed
    assert not of(fed, study).keys() & {layout.refusal(study, 1, SITE), layout.update_tensors(study, 1, SITE)}


UPLOADS = [
    (when, ending)
    for ending in (f"ledger/{SITE}/000001.json", "/rounds/0001/update.safetensors", "/rounds/0001/manifest.json")
    for when in ("before", "after")
]


@dataclass
class Trained:
    """A study in which site 717 has trained: its objects, and the raw update."""

    fed: Federation
    study: str
    objects: dict[str, bytes]
    raw: bytes

    @property
    def raw_file(self) -> Path:
        return own_folder(self.fed, self.study) / "raw.safetensors"

    @property
    def release_file(self) -> Path:
        return own_folder(self.fed, self.study) / "release.safetensors"

    def back(self) -> None:
        """Before anything was drawn, recorded or uploaded."""
        self.fed.restore(self.study, self.objects)
        forget_spend(self.fed, self.study)
        self.release_file.unlink(missing_ok=True)
        self.raw_file.write_bytes(self.raw)


@pytest.fixture(scope="module")
def trained(fed: Federation) -> Trained:
    study = fed.new_study(sites=SITES, rounds={"deadline_seconds": 3600})
    fed.open(study)
    fed.run_site(study, 1, SITE, ("validate_data", "train"))
    return Trained(fed, study, of(fed, study), (own_folder(fed, study) / "raw.safetensors").read_bytes())


@pytest.mark.parametrize("die", UPLOADS, ids=lambda die: f"{die[0]}-{die[1].split('/')[-1]}")
def test_killed_around_each_write_of_an_upload(fed: Federation, trained: Trained, die: tuple[str, str]) -> None:
    """The noise was drawn by the run that died: the next one uploads the bytes that it kept, and draws none."""
    study = trained.study
    trained.back()
    run_and_die(fed, site_step("privatize_and_upload", study, SITE, 1), die)
    kept = trained.release_file.read_bytes()
    left = of(fed, study).keys() - trained.objects.keys()
    assert len(left) == UPLOADS.index(die) // 2 + (die[0] == "after")
    if layout.update_tensors(study, 1, SITE) in left:
        assert layout.ledger_entry(study, SITE, 1) in left
    assert trained.raw_file.exists()
    fed.run_site(study, 1, SITE)
    found = of(fed, study)
    assert found[layout.update_tensors(study, 1, SITE)] == kept
    assert not trained.raw_file.exists()
    assert [key for key in found if "/ledger/" in key] == [layout.ledger_entry(study, SITE, 1)]
    own = list((fed.home / "sites" / SITE / "ledger" / study).glob("*.json"))
    assert [path.read_bytes() for path in own] == [found[layout.ledger_entry(study, SITE, 1)]]
    entry = LedgerEntry.model_validate_json(own[0].read_bytes())
    assert (entry.spend.releases, entry.release_sha256) == (1, sha256(kept))
    assert layout.refusal(study, 1, SITE) not in found


def test_the_noise_is_fresh_unless_it_was_kept(fed: Federation, trained: Trained) -> None:
    drawn = []
    for _ in range(2):
        trained.back()
        fed.run_site(trained.study, 1, SITE, ("privatize_and_upload",))
        drawn.append(fed.store().get(layout.update_tensors(trained.study, 1, SITE)))
        before = of(fed, trained.study)
        fed.run_site(trained.study, 1, SITE)
        assert of(fed, trained.study) == before, "once more is once"
        assert not trained.raw_file.exists()
    assert drawn[0] != drawn[1]


def test_a_round_never_pays_once_and_releases_twice(fed: Federation, trained: Trained) -> None:
    """Killed after the ledger, and the kept bytes lost before the rerun: it draws others, and none of them leave."""
    study = trained.study
    trained.back()
    run_and_die(fed, site_step("privatize_and_upload", study, SITE, 1), ("before", "update.safetensors"))
    kept = trained.release_file.read_bytes()
    trained.release_file.unlink()
    with pytest.raises(PrivacyError, match="has already recorded another release"):
        fed.run_site(study, 1, SITE, ("privatize_and_upload",))
    assert not fed.store().exists(layout.update_tensors(study, 1, SITE))
    refusal = fed.store().get_record(layout.refusal(study, 1, SITE), Refusal)
    assert refusal.reason.startswith("PrivacyError: round 1 of ")
    assert trained.release_file.read_bytes() != kept
    trained.release_file.write_bytes(kept)
    fed.run_site(study, 1, SITE, ("privatize_and_upload",))
    assert fed.store().get(layout.update_tensors(study, 1, SITE)) == kept


def test_a_site_that_lost_its_disk_knows_what_it_has_spent(fed: Federation) -> None:
    study = fed.new_study(sites=SITES)
    for number in (1, 2):
        fed.whole_round(study, f"run-{number}")
    forget_spend(fed, study)
    shutil.rmtree(fed.home / "sites" / SITE / "rounds" / study)
    fed.open(study, "run-3")
    fed.run_site(study, 3, SITE)
    assert fed.manifest(study, 3, SITE).spend.releases == 3
    assert len(list((fed.home / "sites" / SITE / "ledger" / study).glob("*.json"))) == 3


# the hub is killed

HUB_WRITES = [
    (step, when, ending)
    for step, ending in (
        (aggregate, "0001/selection.json"),
        (aggregate, "models/0001/model.safetensors"),
        (aggregate, "models/0001/card.json"),
        (close_round, "latest.json"),
        (close_round, "records/0001/metrics.json"),
    )
    for when in ("before", "after")
]


@pytest.fixture(scope="module")
def closed(fed: Federation) -> tuple[str, dict[str, bytes], dict[str, bytes]]:
    """A study, its objects before aggregation, and after an undisturbed close."""
    study = uploaded(fed)
    before = of(fed, study)
    fed.aggregate(study, 1)
    fed.close(study, 1)
    return study, before, of(fed, study)


@pytest.mark.parametrize(("step", "when", "ending"), HUB_WRITES, ids=lambda value: getattr(value, "__name__", value))
def test_killed_around_each_write_of_the_hub(
    fed: Federation, closed: tuple[str, dict[str, bytes], dict[str, bytes]], step: Any, when: str, ending: str
) -> None:
    study, before, after = closed
    fed.restore(study, before)
    if step is close_round:
        fed.aggregate(study, 1)
    run_and_die(fed, hub_step(step, study, 1), (when, ending))
    pointer = fed.store().client.head_object(Bucket=layout.BUCKET, Key=layout.latest(study))
    moved = fed.store().get_record(layout.latest(study), Pointer).server_round
    assert moved == (step is close_round and (when, ending) != ("before", "latest.json"))
    fed.aggregate(study, 1)
    metrics = fed.close(study, 1)
    found = of(fed, study)
    assert found.keys() == after.keys()
    assert untimed(found) == untimed(after)
    assert (metrics.status, metrics.num_contributors) == ("complete", 3)
    if moved:
        now = fed.store().client.head_object(Bucket=layout.BUCKET, Key=layout.latest(study))
        assert (now["ETag"], now["LastModified"]) == (pointer["ETag"], pointer["LastModified"])
    assert fed.close(study, 1) == metrics
    assert of(fed, study) == found
    assert fed.hub(study).closed_rounds() == [metrics]


@pytest.mark.parametrize("number", [1, 2])
def test_a_pointer_that_another_run_moved_is_left_alone(
    fed: Federation, closed: tuple[str, dict[str, bytes], dict[str, bytes]], number: int
) -> None:
    study, before, _ = closed
    fed.restore(study, before)
    fed.aggregate(study, 1)
    theirs = fed.hub(study).pointer()[0]
    assert theirs is not None
    theirs = theirs.model_copy(update={"server_round": number})
    fed.store().put(layout.latest(study), to_json(theirs), content_type="application/json")
    with pytest.raises(RoundRefused, match=f"is at round {number} already: round 1 is void"):
        fed.close(study, 1)
    assert fed.store().get_record(layout.latest(study), Pointer) == theirs
    assert not fed.store().exists(layout.round_metrics(study, 1))


def test_a_pointer_moved_between_look_and_swap_is_noticed(fed: Federation) -> None:
    """Two closes of the same round at once: both find the pointer moved, none doubles it."""
    study = uploaded(fed)
    fed.aggregate(study, 1)
    contexts = [HubContext(fed.hub(study).study, fed.store()) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(close_round, hub, 1) for hub in contexts]
    errors = [future.exception() for future in futures]
    assert sum(error is None for error in errors) >= 1
    assert not [error for error in errors if isinstance(error, RoundRefused)]
    assert fed.store().get_record(layout.latest(study), Pointer).server_round == 1
    assert len(fed.hub(study).closed_rounds()) == 1


# two runs, and one that died


def test_rounds_opened_at_the_same_moment_are_one(fed: Federation) -> None:
    for _ in range(3):
        study = fed.new_study(sites=SITES)
        contexts = [HubContext(fed.hub(study).study, fed.store()) for _ in range(4)]
        barrier = threading.Barrier(4)

        def start(number: int, contexts: list[HubContext] = contexts, barrier: threading.Barrier = barrier) -> Plan:
            barrier.wait()
            return open_round(contexts[number], f"run-{number}")

        with ThreadPoolExecutor(4) as pool:
            plans = list(pool.map(start, range(4)))
        assert len({plan.run_id for plan in plans}) == 1
        assert {plan.server_round for plan in plans} == {1}
        assert sum(key.endswith("plan.json") for key in of(fed, study)) == 1


def test_an_open_plan_is_taken_up_until_its_deadline(fed: Federation) -> None:
    study = fed.new_study(sites=SITES)
    plan = fed.open(study, "died")
    assert fed.open(study, "another") == plan
    fed.run_site(study, 1, SITE, ("validate_data", "train"))
    late = fed.set_deadline(study, 1, -1)
    assert fed.open(study, "died") == late
    new = fed.open(study, "third")
    assert (new.server_round, new.run_id, new.base_model) == (2, "third", plan.base_model)
    for step in ("validate_data", "train", "privatize_and_upload"):
        with pytest.raises(DeadlinePassed, match=r"round 1 at site 717: the deadline .* is over"):
            fed.run_site(study, 1, SITE, (step,))
    assert not fed.store().exists(layout.update_tensors(study, 1, SITE))
    assert not list(fed.store().keys(layout.ledger_prefix(study)))
    with pytest.raises(QuorumMissed, match="0 of 3 contributed, 2 are needed"):
        fed.aggregate(study, 1)
    fed.run_site(study, 2, SITE)
    assert fed.manifest(study, 2, SITE).server_round == 2


# deadlines


def test_a_silent_site_costs_the_deadline_and_no_more(fed: Federation) -> None:
    study = fed.new_study(sites=SITES)
    fed.open(study)
    assert fed.run_sites(study, 1, ("715", "718")) == {}
    fed.run_site(study, 1, SITE, ("validate_data", "train"))
    plan = fed.set_deadline(study, 1, 1.5)
    selection = fed.aggregate(study, 1)
    over = (clock.now() - plan.deadline).total_seconds()
    assert 0 <= over < 5
    assert selection.missing == {SITE: "no answer before the deadline"}
    with pytest.raises(RoundRefused, match="takes no more updates"):
        fed.run_site(study, 1, SITE, ("privatize_and_upload",))
    assert not fed.store().exists(layout.update_manifest(study, 1, SITE))
    assert fed.aggregate(study, 1) == selection
    metrics = fed.close(study, 1)
    assert metrics.message == f"2 of 3 contributed. Missing: {SITE}: no answer before the deadline"
    assert metrics.status == "partial"


def test_work_is_stopped_at_the_deadline(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, privacy=NO_PRIVACY, training=LONG | {"local_iterations": 500_000})
    fed.open(study)
    fed.run_site(study, 1, SITE, ("validate_data",))
    fed.set_deadline(study, 1, 1.0)
    started = time.monotonic()
    with pytest.raises(DeadlinePassed, match="train_local of round 1 at site 717: stopped at the deadline"):
        fed.run_site(study, 1, SITE, ("train",))
    assert time.monotonic() - started < 10
    assert not (own_folder(fed, study) / "raw.safetensors").exists()


def forget_checks(fed: Federation, study: str) -> None:
    for path in (fed.home / "sites" / SITE / "validated").glob(f"{study}-*"):
        path.unlink()


def test_a_deadline_in_the_middle_of_a_validation_is_no_failed_expectation(fed: Federation) -> None:
    """The checks catch what breaks in them, and must not take the deadline for a fault of the data."""
    seconds, stopped, now = 0.0, 0, clock.now
    for share in (1.0, 1.0, 0.2, 0.4, 0.6):
        study = fed.new_study(sites=(SITE,))
        clock.now = now
        fed.open(study)
        forget_checks(fed, study)
        if share < 1:
            fed.set_deadline(study, 1, share * seconds)
        started = time.monotonic()
        try:
            fed.run_site(study, 1, SITE, ("validate_data",))
        except DeadlinePassed:
            stopped += 1
            assert not fed.store().exists(layout.data_validation(study, 1, SITE))
            reason = fed.store().get_record(layout.refusal(study, 1, SITE), Refusal).reason
            assert reason.startswith("DeadlinePassed: validate_data of round 1 at site 717: ")
        seconds = time.monotonic() - started if share == 1 else seconds
    assert stopped >= 1


def test_a_quorum_out_of_reach_ends_the_wait(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, rounds={"min_sites": 3, "deadline_seconds": 3600})
    fed.open(study)
    fed.run_site(study, 1, "715")
    refusal = Refusal(study=study, server_round=1, site=SITE, step="train_local", reason="DataError: no patients")
    fed.store(f"site-{SITE}").create_record(layout.refusal(study, 1, SITE), refusal)
    started = time.monotonic()
    with pytest.raises(QuorumMissed) as caught:
        fed.aggregate(study, 1)
    assert time.monotonic() - started < 10
    assert str(caught.value).startswith("1 of 3 contributed, 3 are needed. Missing: 717: train_local: DataError: no")
    metrics = fed.close(study, 1)
    assert metrics.status == "failed"
    assert {row.site: row.contributed for row in metrics.sites} == dict.fromkeys(SITES, False)
    assert "717: train_local: DataError: no patients" in metrics.message
    assert fed.store().get_record(layout.latest(study), Pointer).server_round == 0


# what may not be opened


def test_a_spent_budget_ends_the_study_at_hub_and_site(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, rounds={"total": 2})
    for number in (1, 2):
        fed.whole_round(study, f"run-{number}")
    with pytest.raises(BudgetExhausted, match=r"0 of 3 sites can take part.*717: privacy budget spent: 2 of 2 rounds"):
        fed.open(study, "run-3")
    before = of(fed, study)
    hub = fed.hub(study)
    pointer = hub.pointer()[0]
    assert pointer is not None
    models = {"base_model": pointer.model, "evaluated_model": pointer.evaluated_model}
    fed.put_plan(hub.plan(2).model_copy(update={"server_round": 3, "run_id": "forged", **models}))
    with pytest.raises(BudgetExhausted, match=r"release 3 is refused: epsilon 3(.0)? pays for 2 rounds"):
        fed.run_site(study, 3, SITE)
    new = of(fed, study).keys() - before.keys()
    assert new == {layout.plan(study, 3), layout.data_validation(study, 3, SITE), layout.refusal(study, 3, SITE)}
    reason = fed.store().get_record(layout.refusal(study, 3, SITE), Refusal).reason
    assert reason.startswith("BudgetExhausted: release 3 is refused")
    at_site = fed.home / "sites" / SITE / "rounds" / study / "0003"
    assert at_site.is_dir()
    assert not list(at_site.glob("*.safetensors")), "the site has looked at patients for nothing"
    assert len(list((fed.home / "sites" / SITE / "ledger" / study).glob("*.json"))) == 2


def test_one_site_without_budget_is_left_out_and_named(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, rounds={"total": 2})
    fed.whole_round(study, "run-1")
    entry = fed.store().get_record(layout.ledger_entry(study, SITE, 1), LedgerEntry)
    spend = entry.spend.model_copy(update={"releases": 2})
    fed.put_ledger(entry.model_copy(update={"sequence": 2, "spend": spend}))
    plan = fed.open(study, "run-2")
    assert plan.sites == ("715", "718")
    assert plan.left_out == {SITE: "privacy budget spent: 2 of 2 rounds"}


def test_a_closed_study_is_refused(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, closed=True)
    with pytest.raises(RoundRefused, match=f"study {study} is closed: set `closed: false` in studies/{study}.yaml"):
        fed.open(study)
    assert of(fed, study) == {}


def test_too_few_enrolled_sites_are_refused_by_name(fed: Federation) -> None:
    study = fed.new_study(sites=SITES)
    store = fed.store()
    kept = {site: store.get_record(layout.enrolment(site), Enrolment) for site in ("715", SITE)}
    try:
        for site, enrolment in kept.items():
            revoked = to_json(enrolment.model_copy(update={"active": False}))
            store.put(layout.enrolment(site), revoked, content_type="application/json")
        with pytest.raises(
            RoundRefused, match=r"1 of 3 sites can take part, 2 are needed \(715: not enrolled; 717: no"
        ):
            fed.open(study)
        assert fed.open(study, min_sites=1).sites == ("718",)
    finally:
        for site, enrolment in kept.items():
            store.put(layout.enrolment(site), to_json(enrolment), content_type="application/json")


def test_without_privacy_no_budget_ends(fed: Federation) -> None:
    study = fed.new_study(sites=SITES, privacy=NO_PRIVACY, rounds={"total": 1})
    fed.whole_round(study, "run-1")
    plan = fed.open(study, "run-2")
    assert (plan.server_round, plan.sites) == (2, SITES)
    assert isinstance(plan.privacy, NoPrivacy)
    model = load(fed.store().get(layout.model(study, 1)))
    assert all(np.isfinite(value).all() for value in model.values())
