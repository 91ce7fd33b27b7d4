"""Whole rounds on a real Airflow and a real object store, and what can go wrong in them.

The tests run in the order of the file: the first finds the planted records, later ones have them repaired.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tasks.data.pin import write_pin
from tasks.deploy.state import read_state
from tasks.errors import AccessDenied
from tasks.learning.threads import one_thread
from tasks.privacy.noise.source import SeededNoise
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.rounds import simulate
from tasks.store import layout
from tasks.store.records.model import ModelCard
from tasks.store.records.round import Manifest, Plan
from tasks.store.settings import PROJECT
from tasks.store.weights import to_bytes
from tests.data.drafting.unseen_study import CLINICS
from tests.e2e.conftest import CANARY_SITES, FOUR_SITES, Federation

pytestmark = pytest.mark.e2e
DERM = "xanomeline_derm56"


def test_a_round_without_one_site_is_partial_and_says_so(federation: Federation) -> None:
    assert federation.run(DERM, run_id="partial") == "success"
    metrics = federation.newest(DERM)
    assert metrics.status == "partial"
    assert metrics.message.startswith("12 of 13 contributed")
    assert "713" in metrics.message
    assert "adsl.csv" in metrics.message
    assert "AGE" in metrics.message
    states = federation.states(DERM, "partial")
    assert states["site_713.validate_data"] == "failed"
    assert states["all_sites_in"] == "upstream_failed"
    assert states["validation.site_713"] == "upstream_failed"
    assert sum(state == "success" for state in states.values()) == 5 + 12 * 5


def test_no_record_of_a_patient_leaves_its_site(federation: Federation, canaries: list[bytes]) -> None:
    """After a round in which site 705 took part and site 713 failed on an unreadable cell."""
    assert len(canaries) == 3 + 16 + 9
    places = list(everything_outside_the_sites(federation))
    assert len(places) > 200
    assert find(canaries, places) == []


@pytest.mark.parametrize("place", ["log", "object", "key"])
def test_the_search_finds_a_leak_made_on_purpose(federation: Federation, canaries: list[bytes], place: str) -> None:
    leak, store = canaries[-1], federation.deployment.store("hub")
    log, key = federation.deployment.home / "logs" / "leak.log", f"leaks/{leak.decode() if place == 'key' else 'note'}"
    try:
        if place == "log":
            log.write_bytes(b"subject " + leak)
        else:
            store.put(key, leak if place == "object" else b"", content_type="text/plain")
        assert len(find(canaries, everything_outside_the_sites(federation))) == 1
    finally:
        log.unlink(missing_ok=True)
        store.client.delete_object(Bucket=store.bucket, Key=key)


def everything_outside_the_sites(federation: Federation) -> Iterator[tuple[str, bytes]]:
    """Objects with their keys, XComs, task logs, the metadata database, and every file but the sites' own."""
    store, home = federation.deployment.store("hub"), federation.deployment.home
    for key in store.keys(""):
        yield f"object {key}", key.encode() + b"\n" + store.get(key)
    own = [home / "sites" / site for site in CANARY_SITES] + [home / "secrets", home / "seaweedfs"]
    for path in sorted(p for p in home.rglob("*") if p.is_file() and not any(p.is_relative_to(o) for o in own)):
        yield f"file {path.relative_to(home)}", str(path).encode() + b"\n" + path.read_bytes()
    for run in federation.deployment.api.dag_runs(f"federated_round.{DERM}"):
        xcoms = federation.deployment.api.xcoms(f"federated_round.{DERM}", run["dag_run_id"])
        yield f"xcoms of {run['dag_run_id']}", repr(xcoms).encode()


def find(needles: Iterable[bytes], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Where any of the needles stands."""
    needles = list(needles)
    return [name for name, content in places if any(needle in content for needle in needles)]


def test_the_command_runs_rounds_and_prints_them(federation: Federation) -> None:
    for site in CANARY_SITES:
        shutil.copytree(PROJECT / "data/sites" / site, federation.project / "data/sites" / site, dirs_exist_ok=True)
    write_pin(federation.project / "data")
    printed = federation.command("round", DERM, "--rounds", "1")
    assert printed.count("13 of 13 contributed") == 1
    assert "2 of 20" in printed
    assert "report.html" in printed


def test_the_bucket_holds_every_object_of_the_round(federation: Federation) -> None:
    hub = federation.hub(DERM)
    number = hub.last_opened()
    plan = hub.store.get_record(layout.plan(DERM, number), Plan)
    study, of_round = layout.study_prefix(DERM), re.compile(rf"/{number:04d}[/.]")
    keys = {key for key in hub.store.keys(f"{study}/") if of_round.search(key)}
    keys -= {key for key in keys if key.startswith((f"{study}/models/", f"{study}/reports/"))}
    wanted = {layout.plan(DERM, number), layout.selection(DERM, number), layout.round_metrics(DERM, number)}
    wanted |= {layout.roster(DERM, number), layout.survivors(DERM, number)}
    wanted |= {layout.selected(DERM, number), layout.closed(DERM, number)}
    for site in plan.sites:
        wanted |= {layout.update_tensors(DERM, number, site), layout.update_manifest(DERM, number, site)}
        wanted |= {layout.site_metrics(DERM, number, site), layout.data_validation(DERM, number, site)}
        wanted |= {layout.key_message(DERM, number, site), layout.unmask_answer(DERM, number, site)}
        manifest = hub.store.get_record(layout.update_manifest(DERM, number, site), Manifest)
        assert [(spec.name, spec.dtype) for spec in manifest.tensors] == [("masked", "U64")]
    assert len(plan.sites) == 13
    assert keys == wanted
    card = hub.store.get_record(layout.card(DERM, number), ModelCard)
    assert len(card.contributors) == 13
    assert hub.pointer()[0].model == card.model
    assert hub.store.exists(layout.report(DERM, number, "auc.png"))


def test_a_sites_key_reads_no_other_update_and_writes_no_model(federation: Federation) -> None:
    number = federation.hub(DERM).last_opened()
    site = federation.deployment.store("site-701")
    assert site.get(layout.update_manifest(DERM, number, "701"))
    for key in (layout.update_manifest(DERM, number, "703"), layout.update_tensors(DERM, number, "703")):
        with pytest.raises(AccessDenied):
            site.get(key)
    for key in (layout.model(DERM, number + 1), layout.latest(DERM), layout.plan(DERM, number + 1)):
        with pytest.raises(AccessDenied):
            site.create(key, b"mine")
    with pytest.raises(AccessDenied):
        site.create(layout.update_tensors(DERM, number + 1, "703"), b"mine")
    with pytest.raises(AccessDenied):
        list(site.keys("studies/"))


def test_two_runs_at_once_make_two_rounds_one_after_the_other(federation: Federation) -> None:
    api, dag = federation.deployment.api, "federated_round.four_sites"
    api.wait_for_dag(dag)
    for run_id in ("first", "second"):
        api.trigger(dag, {"rounds": 1}, run_id)
    assert [api.wait_for_run(dag, run_id, 480)["state"] for run_id in ("first", "second")] == ["success", "success"]
    first, second = federation.hub("four_sites").closed_rounds()
    assert (first.server_round, second.server_round) == (1, 2)
    assert first.closed_at <= second.opened_at
    assert {first.run_id, second.run_id} == {"first", "second"}


def test_a_round_survives_the_loss_of_the_object_store(federation: Federation) -> None:
    api, dag = federation.deployment.api, "federated_round.four_sites"
    api.trigger(dag, {"rounds": 1}, "outage")
    _wait_for(lambda: federation.states("four_sites", "outage").get("open_round") == "success")
    pid = read_state(federation.deployment.home).services["seaweedfs"].pid
    os.kill(pid, signal.SIGKILL)
    assert api.wait_for_run(dag, "outage", 480)["state"] == "success"
    assert federation.newest("four_sites").run_id == "outage"
    assert len(federation.newest("four_sites").sites) == len(FOUR_SITES)


def test_what_is_cleared_afterwards_starts_and_pays_nothing(federation: Federation) -> None:
    """With the web UI's default, that clears what comes after a task: `next_round` has started its run already."""
    api, dag, study = federation.deployment.api, "federated_round.one_more", "one_more"
    api.wait_for_dag(dag)
    api.trigger(dag, {"rounds": 2}, "series")
    assert api.wait_for_run(dag, "series", 480)["state"] == "success"
    assert api.wait_for_run(dag, "next__series__1_to_go", 480)["state"] == "success"
    hub = federation.hub(study)
    before = {key: hub.store.get(key) for key in hub.store.keys(layout.study_prefix(study)) if "/reports/" not in key}
    for tasks, state in ((["aggregate"], "success"), (None, "failed")):
        api.clear(dag, "series", tasks)
        assert api.wait_for_run(dag, "series", 480)["state"] == state
        assert len(api.dag_runs(dag)) == 2
        now = {key: hub.store.get(key) for key in hub.store.keys(layout.study_prefix(study)) if "/reports/" not in key}
        assert now == before
    assert "has had round 1" in api.log(dag, "series", "open_round", try_number=2)


def test_the_simulation_makes_the_same_models_to_the_last_byte(federation: Federation) -> None:
    """Three rounds of Airflow, one of them through an outage of the store."""
    hub = federation.hub("four_sites")
    closed = hub.closed_rounds()
    assert [metrics.status for metrics in closed] == ["complete"] * 3
    patients = split_sites(read_sites(hub.study, federation.project), hub.study.evaluation)
    simulated = simulate(hub.study, patients, len(closed), noise=SeededNoise(bytes(32)))
    with one_thread():  # as at a site
        models = [to_bytes(made.weights) for made in simulated]
    cards = [hub.store.get_record(layout.card("four_sites", m.server_round), ModelCard) for m in closed]
    assert [hub.store.get(card.model.key) == model for card, model in zip(cards, models, strict=True)] == [True] * 3


def test_the_ledger_of_the_rounds_can_be_proven(federation: Federation, tmp_path: Path) -> None:
    written = len(list(federation.hub(DERM).store.keys(f"{layout.ledger_prefix(DERM)}/")))
    assert written >= 13
    spent = json.loads(federation.command("privacy", "spend", DERM, "--json"))
    assert sum(row["releases"] for row in spent["sites"]) == written
    folder = str(tmp_path / "out")
    assert f"{written} entries of 13 sites" in federation.command("privacy", "export", DERM, "--to", folder)
    reports = json.loads(federation.command("privacy", "verify", folder, "--json"))
    assert sum(report["entries"] for report in reports) == written
    assert [report["problems"] for report in reports] == [[]] * 13


def test_the_daily_check_of_all_sites_passes(federation: Federation) -> None:
    api = federation.deployment.api
    api.trigger("site_data_validation", {}, "daily")
    assert api.wait_for_run("site_data_validation", "daily", 480)["state"] == "success"
    assert len(list(federation.deployment.store("hub").keys("federation/data_validation/"))) == 13 + len(CLINICS)


def _wait_for(condition, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.2)


def test_the_reports_lie_on_disk(federation: Federation) -> None:
    folder = Path(federation.deployment.home) / "reports" / DERM
    assert (folder / "0002" / "report.html").stat().st_size > 10_000
