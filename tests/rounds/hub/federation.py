"""A federation on one machine for the tests of a round: a real object store, thirteen sites, studies made to measure.

The steps run in this process, as the DAG's tasks call them; `in_child` runs one in a process that may be killed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tasks.data.pin import file_digests, listing_digest
from tasks.data.reading.patients import cache_file, save_patients
from tasks.deploy import seaweedfs, sockets
from tasks.deploy.ports import Ports, choose_ports
from tasks.errors import PharmafedError
from tasks.rounds.hub.aggregate import aggregate
from tasks.rounds.hub.close import close_round
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.open import open_round
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.rounds.site import steps
from tasks.rounds.site.context import SiteContext
from tasks.rounds.site.validation import _check_key, checked_patients, data_version
from tasks.store import clock, layout, settings
from tasks.store import identity as enrolment
from tasks.store import objects as storage
from tasks.store.files import write_private
from tasks.store.hub_signature import sign_as_hub
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Manifest, Plan, Selection

DERM, NOCOMP = "xanomeline_derm56", "xanomeline_nocomp24"
SITES = ("701", "703", "704", "705", "708", "709", "710", "713", "715", "716", "717", "718", "pool")
FEW = ("713", "715", "717", "718")
#: Names that the store's identities know from its start, so that a test may make a study without a reload.
SPARE = tuple(f"spare{number:03d}" for number in range(300))
SITE_STEPS = ("validate_data", "train", "privatize_and_upload")
START_SECONDS = 60
LOCAL_DP = {"mechanism": "local_dp", "epsilon": 3, "delta": 1e-5, "clip_norm": 1, "public_num_examples": 211}


@dataclass
class Federation:
    """A deployment's home and project in temporary folders, and the store's process."""

    home: Path
    project: Path
    ports: Ports
    process: subprocess.Popen[bytes] | None = None
    spare: list[str] = field(default_factory=lambda: list(SPARE))
    clients: dict[tuple[str, str], ObjectStore] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path) -> Federation:
        """Folders, credentials and the list of who may do what; nothing runs yet."""
        fed = cls(folder / "home", folder / "project", choose_ports(auto=True))
        _copy_project(fed.project)
        seaweedfs.prepare(fed.home, {name: SITES for name in (DERM, NOCOMP, *SPARE)})
        addresses = settings.Addresses(
            s3_endpoint=fed.ports.s3_endpoint, bucket=layout.BUCKET, airflow_url=fed.ports.airflow_url
        )
        (fed.home / "deployment.json").write_text(addresses.model_dump_json())
        return fed

    # the store

    def start(self) -> None:
        """Start the store and wait until it takes objects."""
        with (self.home / "store.log").open("ab") as log:
            self.process = subprocess.Popen(
                seaweedfs.command(self.home, self.ports), cwd=seaweedfs.folder(self.home), stdout=log, stderr=log
            )
        hub = seaweedfs.credential(self.home, "hub")
        until = time.monotonic() + START_SECONDS
        while not seaweedfs.accepts_writes(self.ports.s3_endpoint, hub):
            assert self.process.poll() is None, f"the store has ended: see {self.home / 'store.log'}"
            assert time.monotonic() < until, "the store takes no objects"
            time.sleep(0.1)

    def stop(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """End the store as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signum)
            self.process.wait(30)
        sockets.remove_abandoned(self.ports.model_dump())

    def store(self, identity: str = "hub", endpoint: str | None = None) -> ObjectStore:
        """A client that the steps do not use, as `hub` or `site-<site>`."""
        where = (identity, endpoint or self.ports.s3_endpoint)
        if where not in self.clients:
            key = seaweedfs.credential(self.home, identity)
            self.clients[where] = ObjectStore.connect(where[1], layout.BUCKET, key, identity)
        return self.clients[where]

    def delete(self, key: str) -> None:
        """Remove an object with the hub's key: no step of the project ever does."""
        self.store().client.delete_object(Bucket=layout.BUCKET, Key=key)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Every object under `prefix`. What has been read once is not fetched again: the store lists all digests."""
        found = self._digests(prefix)
        for key, digest in found.items():
            if digest not in self.bodies:
                self.bodies[digest] = self.store().get(key)
                assert hashlib.md5(self.bodies[digest]).hexdigest() == digest, key
        return {key: self.bodies[digest] for key, digest in found.items()}

    def restore(self, study: str, objects: dict[str, bytes]) -> None:
        """Bring the study's objects back to what they were."""
        store, now = self.store(), self._digests(layout.study_prefix(study) + "/")
        for key in now.keys() - objects.keys():
            self.delete(key)
        for key, body in objects.items():
            if now.get(key) != hashlib.md5(body).hexdigest():
                store.put(key, body, content_type="application/octet-stream")

    def _digests(self, prefix: str) -> dict[str, str]:
        """Key -> MD5 of its object, in the order of the keys."""
        pages = self.store().client.get_paginator("list_objects_v2").paginate(Bucket=layout.BUCKET, Prefix=prefix)
        return {item["Key"]: item["ETag"].strip('"') for page in pages for item in page.get("Contents", [])}

    # studies

    def new_study(self, *, base: str = DERM, sites: Sequence[str] = FEW, name: str | None = None, **parts: Any) -> str:
        """Write a study like the shipped one with these sites; `parts` are merged into its sections or replace them.

        Unless `parts` say so, it has no masks: most tests look at single updates.
        """
        content = yaml.safe_load((settings.PROJECT / "studies" / f"{base}.yaml").read_text())
        content = copy.deepcopy(content)
        content["study"] = name or self.spare.pop(0)
        content["sites"] = {site: content["sites"][site] for site in sites}
        content["rounds"] |= {"min_sites": max(1, len(sites) - 1), "total": 50}
        content["evaluation"]["data_are_public"] = False
        if "channel" not in parts and content.pop("channel", None):
            content["privacy"] = LOCAL_DP
            content["evaluation"].pop("score_bins")
        for section, change in parts.items():
            whole = section in ("privacy", "strategy") or (section == "label" and "task" in change)
            merged = isinstance(change, dict) and not whole
            content[section] = {**content.get(section, {}), **change} if merged else change
        study = str(content["study"])
        (self.project / "studies" / f"{study}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        if base == DERM and not {"label", "inputs", "data"} & parts.keys():
            self._warm(study, sites)
        return study

    def _warm(self, study: str, sites: Iterable[str]) -> None:
        """Keep at each site what checking the shipped study's data has shown: same data, suites, inputs and label.

        Validation takes half a second a site, and most tests are about something else. Data that a test has changed
        have another version, so they are checked.
        """
        for site in sites:
            shipped, own = self.site(DERM, site), self.site(study, site)
            result, patients = checked_patients(shipped)
            assert patients is not None
            version = data_version(shipped)
            save_patients(cache_file(own.work_dir, version, own.study), patients)
            write_private(own.work_dir / "validated" / f"{_check_key(own, version)}.json", to_json(result))

    def own_data(self, folder: str, broken: str) -> Path:
        """A second data root `<folder>/sites`: one site's folder is a copy to break, the others are links."""
        root = self.project / folder / "sites"
        root.mkdir(parents=True)
        for site in SITES:
            source = settings.PROJECT / "data" / "sites" / site
            if site == broken:
                shutil.copytree(source, root / site)
            else:
                (root / site).symlink_to(source)
        self.pin(folder)
        return root / broken

    def pin(self, folder: str) -> None:
        """Pin `<folder>` as it lies on disk now in `<folder>.dvc`, in the form that `write_pin` leaves."""
        root = self.project / folder / "sites"
        files = {f"sites/{site}/{path}": md5 for site in SITES for path, md5 in file_digests(root / site).items()}
        document = {"outs": [{"md5": listing_digest(files), "path": folder}], "meta": {"files": files}}
        (self.project / f"{folder}.dvc").write_text(yaml.safe_dump(document))

    # the steps

    def hub(self, study: str) -> HubContext:
        return HubContext.load(study)

    def site(self, study: str, site: str) -> SiteContext:
        return SiteContext.load(study, site)

    def open(self, study: str, run_id: str = "", **arguments: Any) -> Plan:
        """The plan of the next round, in the run of that name or in a new one."""
        hub = self.hub(study)
        return open_round(hub, run_id or f"run {hub.last_opened() + 1}", **arguments)

    def set_deadline(self, study: str, server_round: int, seconds: float, which: str = "deadline") -> Plan:
        """Let the time be `seconds` before the round's `which`, or `keys_deadline` or `upload_deadline`, and go on.

        Until the test ends, and in this process only: no plan is changed, since no site would follow it.
        """
        plan = self.hub(study).plan(server_round)
        ahead = getattr(plan, which) - timedelta(seconds=seconds) - datetime.now(UTC)
        clock.now = lambda: datetime.now(UTC) + ahead
        return plan

    def put_plan(self, plan: Plan, *, at: int | None = None, study: str | None = None) -> Plan:
        """A plan of a hub that lies: signed with its key, and put where the plan of `at` lies."""
        signed = sign_as_hub(plan, self.home / "secrets" / "hub")
        key = layout.plan(study or plan.study, at or plan.server_round)
        self.store().put(key, to_json(signed), content_type="application/json")
        return signed

    def put_card(self, card: ModelCard) -> ModelCard:
        """A card of a hub that lies."""
        signed = sign_as_hub(card, self.home / "secrets" / "hub")
        key = layout.card(card.study, card.server_round)
        self.store().put(key, to_json(signed), content_type="application/json")
        return signed

    def run_site(self, study: str, server_round: int, site: str, names: Iterable[str] = SITE_STEPS) -> None:
        """The site's tasks in order; the first that fails ends it, as in the DAG."""
        for name in names:
            getattr(steps, name)(self.site(study, site), server_round)

    def run_sites(
        self, study: str, server_round: int, sites: Iterable[str] | None = None, names: Iterable[str] = SITE_STEPS
    ) -> dict[str, PharmafedError]:
        """Every site's tasks; what each failing site raised."""
        failed = {}
        for site in sites or self.hub(study).study.sites:
            try:
                self.run_site(study, server_round, site, names)
            except PharmafedError as error:
                failed[site] = error
        return failed

    def masked_round(self, study: str, server_round: int, lost: Iterable[str] = ()) -> dict[str, PharmafedError]:
        """A masked round from the sites' first step to the last unmasking; `lost` sites die before they upload."""
        failed = self.run_sites(study, server_round, names=("validate_data", "train"))
        freeze_roster(self.hub(study), server_round)
        uploading = [s for s in self.hub(study).study.sites if s not in failed and s not in set(lost)]
        failed |= self.run_sites(study, server_round, uploading, names=("privatize_and_upload",))
        select_updates(self.hub(study), server_round)
        survivors = [site for site in uploading if site not in failed]
        return failed | self.run_sites(study, server_round, survivors, names=("unmask",))

    def validate_global(self, study: str, server_round: int, sites: Iterable[str]) -> None:
        for site in sites:
            steps.validate_global(self.site(study, site), server_round)

    def aggregate(self, study: str, server_round: int) -> Selection:
        return aggregate(self.hub(study), server_round)

    def close(self, study: str, server_round: int) -> RoundMetrics:
        return close_round(self.hub(study), server_round)

    def whole_round(self, study: str, run_id: str) -> RoundMetrics:
        """One round from plan to pointer, without its report."""
        plan = self.open(study, run_id)
        failed = self.run_sites(study, plan.server_round)
        self.aggregate(study, plan.server_round)
        self.validate_global(study, plan.server_round, [site for site in plan.sites if site not in failed])
        return self.close(study, plan.server_round)

    # forging, with the hub's key and the site's own secrets

    def manifest(self, study: str, server_round: int, site: str) -> Manifest:
        return self.store().get_record(layout.update_manifest(study, server_round, site), Manifest)

    def sign(self, manifest: Manifest) -> Manifest:
        unsigned = manifest.model_copy(update={"signature": ""})
        signature = enrolment.sign(settings.site_secrets(manifest.site), to_json(unsigned))
        return unsigned.model_copy(update={"signature": signature})

    def put_manifest(self, study: str, server_round: int, site: str, body: bytes) -> None:
        key = layout.update_manifest(study, server_round, site)
        self.store().put(key, body, content_type="application/json")

    def put_tensors(self, study: str, server_round: int, site: str, body: bytes) -> None:
        key = layout.update_tensors(study, server_round, site)
        self.store().put(key, body, content_type="application/octet-stream")

    def put_ledger(self, entry: LedgerEntry) -> None:
        key = layout.ledger_entry(entry.study, entry.site, entry.sequence)
        self.store().put(key, to_json(entry), content_type="application/json")


def _copy_project(project: Path) -> None:
    for name in ("studies", "expectations"):
        shutil.copytree(settings.PROJECT / name, project / name)
    shutil.copy(settings.PROJECT / "data.dvc", project)
    (project / "data").symlink_to(settings.PROJECT / "data")
    waivers = project / "expectations" / "waivers.yaml"
    waivers.write_text(waivers.read_text().replace("until: 2027-12-31", "until: 2099-12-31"))


# a step in a process that dies

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["tasks.deploy.preload", "tasks.rounds.site.steps", "tasks.deploy.finish", "tasks.data.checks.engine"]
)


def in_child(fed: Federation, step: Callable[[], object], *, die: tuple[str, str] | None = None) -> Any:
    """Start `step` in a process of its own, with fresh connections.

    Args:
        die: ("before" or "after", end of a key): the process kills itself around the writing of that object.
    """
    child = _FORKS.Process(target=_child, args=(str(fed.home), str(fed.project), step, die))
    child.start()
    return child


def run_and_die(fed: Federation, step: Callable[[], object], die: tuple[str, str]) -> None:
    """`in_child`, which must end by the kill."""
    child = in_child(fed, step, die=die)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, f"the step was not killed {die}: exit code {child.exitcode}"


def _child(home: str, project: str, step: Callable[[], object], die: tuple[str, str] | None) -> None:
    os.environ |= {"PHARMAFED_HOME": home, "PHARMAFED_PROJECT": project}
    if die is not None:
        storage.ObjectStore._call = _killing(*die)  # type: ignore[method-assign]
    step()


def _killing(when: str, ending: str) -> Any:
    original = storage.ObjectStore._call

    def call(self: ObjectStore, operation: str, key: str | None, **arguments: Any) -> Any:
        hit = operation == "put_object" and key is not None and key.endswith(ending)
        if hit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(self, operation, key, **arguments)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return call


def site_step(name: str, study: str, site: str, server_round: int) -> Callable[[], object]:
    """A site's step that can be sent to another process."""
    return partial(_site_step, name, study, site, server_round)


def _site_step(name: str, study: str, site: str, server_round: int) -> None:
    getattr(steps, name)(SiteContext.load(study, site), server_round)


def hub_step(step: Callable[..., object], study: str, *arguments: Any) -> Callable[[], object]:
    """A hub's step that can be sent to another process."""
    return partial(_hub_step, step, study, *arguments)


def _hub_step(step: Callable[..., object], study: str, *arguments: Any) -> None:
    step(HubContext.load(study), *arguments)


def json_of(body: bytes) -> Any:
    return json.loads(body)
