"""Where reports lie, on disk and in the object store, and which round an Airflow run closed.

Below the deployment's directory:
    reports/<study>/index.html              the rounds of a study
    reports/<study>/<round>/report.html     with its plots, metrics.json and run.json
    reports/<study>/runs/<sha256>.json      run.json again, by the digest of the run id
    reports/<study>/audits/<time>/audit.html    a privacy audit, with its plots and audit.json
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import ObjectMissing
from tasks.foreign.inside import MAX_BYTES, read_inside, write_inside
from tasks.learning.metrics import METRICS
from tasks.report.stores import ReadableStore, ReportStore, readable
from tasks.rounds.page.index import RunEntry, rounds_index_page
from tasks.store import layout, settings

#: Every file that a report may have, and its type: no other name is ever written or served.
CONTENT_TYPES = {
    "report.html": "text/html; charset=utf-8",
    **{f"{name}.png": "image/png" for name in METRICS},
    "patients_per_client.png": "image/png",
    "privacy.png": "image/png",
    "seconds.png": "image/png",
    "metrics.json": "application/json",
    "run.json": "application/json",
}
#: Of one line of an index, and how many lines it has at most.
MAX_ENTRY_BYTES, MAX_LISTED = 1 << 16, 10_000
_STUDY = re.compile(r"[a-z][a-z0-9_]{0,63}")


def reports_dir() -> Path:
    """The copies of all reports on this machine."""
    return settings.home() / "reports"


def is_study(name: str) -> bool:
    """Whether a study can have this name; a folder of reports is one only then."""
    return _STUDY.fullmatch(name) is not None


def round_dir(study: str, server_round: int) -> str:
    """`<study>/<round>`, relative to the folder of all reports.

    Raises:
        ValueError: not a study's name, or not a round.
    """
    if not is_study(study) or not 0 < server_round < 1_000_000:
        raise ValueError(f"no report can lie under study {study!r}, round {server_round}")
    return f"{study}/{server_round:04d}"


def publish_report(
    store: ReportStore, study_name: str, server_round: int, files: Mapping[str, bytes], local_dir: Path | None = None
) -> Path:
    """Write a report to the object store and to disk, and bring the study's index up to date.

    Args:
        store: the object store, with the hub's credential.
        files: what `build_report` returned.
        local_dir: the folder of all reports; by default the deployment's own.

    Returns:
        the local `report.html`.

    Raises:
        ValueError: a file's name is not one that a report has.
        ConfigError: somebody put a link where a folder of reports belongs; nothing is written through it.
        StoreError: the store refused; nothing was written to disk then.
    """
    if unknown := sorted(set(files).difference(CONTENT_TYPES)):
        raise ValueError(f"a report has no file {', '.join(unknown)}; it has: {', '.join(CONTENT_TYPES)}")
    root = local_dir or reports_dir()
    folder = round_dir(study_name, server_round)
    for name, body in files.items():
        store.put(layout.report(study_name, server_round, name), body, content_type=CONTENT_TYPES[name])
    for name, body in files.items():
        write_inside(root, f"{folder}/{name}", body)
    run = RunEntry.model_validate_json(files["run.json"])
    write_inside(root, _run_file(study_name, run.run_id), files["run.json"])
    _write_index(root, study_name)
    return root / folder / "report.html"


def _write_index(root: Path, study: str) -> None:
    write_inside(root, f"{study}/index.html", rounds_index_page(study, list_rounds(study, root)))


def list_rounds(study: str, root: Path | None = None) -> list[RunEntry]:
    """The rounds of a study that have a report on this machine, oldest first."""
    if not is_study(study):
        return []
    base = root or reports_dir()
    found = sorted(path.relative_to(base) for path in islice((base / study).glob("[0-9]*/run.json"), MAX_LISTED))
    return [entry for path in found if (entry := _entry(base, path)) is not None]


def list_studies(root: Path | None = None) -> list[str]:
    """Names of the studies that have a report on this machine."""
    found = {path.parent.parent.name for path in (root or reports_dir()).glob("*/[0-9]*/run.json")}
    return sorted(name for name in found if is_study(name))


def find_run(study: str, run_id: str, root: Path | None = None) -> RunEntry | None:
    """The round that an Airflow run closed; None while it has not."""
    if not is_study(study):
        return None
    return _entry(root or reports_dir(), _run_file(study, run_id))


def read_report(study: str, server_round: int, name: str, root: Path | None = None) -> bytes | None:
    """One file of a report from disk; None if it is not there, or only behind a link: see `tasks.foreign.inside`.

    Raises:
        ValueError: not a study's name, not a round, or not a file that a report has.
    """
    folder = round_dir(study, server_round)
    if name not in CONTENT_TYPES:
        raise ValueError(f"a report has no file {name!r}")
    return read_inside(root or reports_dir(), f"{folder}/{name}")


def fetch_report(store: ReadableStore, study: str, server_round: int, name: str) -> bytes | None:
    """The same from the object store, for a machine that did not write the report."""
    round_dir(study, server_round)
    try:
        return store.get(layout.report(study, server_round, name), max_bytes=MAX_BYTES)
    except ObjectMissing:
        return None


def fetch_rounds(store: ReadableStore, study: str) -> list[RunEntry]:
    """The rounds of a study that have a report in the object store, oldest first."""
    if not is_study(study):
        return []
    keys = _named(store, "report", study, "run.json")
    bodies = readable(store, islice(keys, MAX_LISTED), MAX_ENTRY_BYTES)
    return [entry for body in bodies if (entry := _parse(body)) is not None]


def read_audit(study: str, root: Path | None = None) -> bytes | None:
    """The page of a study's newest privacy audit on this machine; None before the first."""
    if not is_study(study):
        return None
    base = root or reports_dir()
    found = sorted(path.relative_to(base) for path in (base / study / "audits").glob("*/audit.html"))
    return next((body for path in reversed(found) if (body := read_inside(base, path)) is not None), None)


def fetch_audit(store: ReadableStore, study: str) -> bytes | None:
    """The same from the object store."""
    if not is_study(study):
        return None
    keys = list(_named(store, "audit", study, "audit.html"))
    return store.get(keys[-1], max_bytes=MAX_BYTES) if keys else None


def _named(store: ReadableStore, kind: str, study: str, name: str) -> Iterator[str]:
    """The keys of a study's objects of this kind that have this name, sorted."""
    for key in store.keys(layout.above(kind, study=study)):
        if (place := layout.parse(key, kind)) and place.name == name:
            yield key


def _run_file(study: str, run_id: str) -> str:
    return f"{study}/runs/{hashlib.sha256(run_id.encode()).hexdigest()}.json"


def _entry(root: Path, relative: str | Path) -> RunEntry | None:
    body = read_inside(root, relative, MAX_ENTRY_BYTES)
    return None if body is None else _parse(body)


def _parse(body: bytes) -> RunEntry | None:
    """None for an entry from another version of this code."""
    try:
        return RunEntry.model_validate_json(body)
    except ValidationError:
        return None
