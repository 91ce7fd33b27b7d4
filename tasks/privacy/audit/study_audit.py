"""The audit of a study as it is configured: its own sanitiser, its own ledger terms, its report where reports lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.data.reading.patients import Patients
from tasks.errors import AuditFailed, ConfigError
from tasks.privacy.audit.observe import observers
from tasks.privacy.audit.observer import AttackProgress
from tasks.privacy.audit.patients import audit_patients
from tasks.privacy.audit.report import build_audit_report
from tasks.privacy.audit.run import run_audit
from tasks.privacy.audit.setting import layered_study
from tasks.privacy.audit.verdict import Audit
from tasks.privacy.sanitizer import plan_spend
from tasks.store import layout, settings
from tasks.store.files import write_private
from tasks.store.objects import ObjectStore
from tasks.store.plans import plan_round
from tasks.study.sections import Study

_TYPES = {".html": "text/html; charset=utf-8", ".png": "image/png", ".json": "application/json"}


def audit_study(
    study: Study, public: Mapping[str, Patients] | None, *, seed: int = 0, progress: AttackProgress | None = None
) -> Audit:
    """Attack what the study would upload, against what its sites would write into the ledger for it.

    Args:
        public: each site's patients, where the study's data are public and on this machine; None for made-up ones.

    Raises:
        ConfigError: the label is of another task than the attacks are made for.
    """
    if study.label.task != "binary":
        raise ConfigError(
            f"label.task {study.label.task} cannot be audited: the attacks are on patients with a label of yes or no"
        )
    seen, layered = observers(study), observers(layered_study(study))
    spend = plan_spend(plan_round(study, tuple(study.sites), {}, {}, 1), 1)
    return run_audit(
        study,
        seen.raw,
        seen.released,
        spend,
        study.rounds.total,
        seed=seed,
        progress=progress,
        layered=layered,
        patients=audit_patients(study, public, seed=seed),
    )


def publish_audit(audit: Audit, store: ObjectStore | None) -> Path:
    """Write the report to this machine, and to the store where there is one; gives the local page."""
    started = audit.audited_at.strftime("%Y%m%dT%H%M%SZ")
    folder = settings.home() / "reports" / audit.study / "audits" / started
    for name, body in build_audit_report(audit).items():
        write_private(folder / name, body)
        if store is not None:
            store.put(layout.audit(audit.study, started, name), body, content_type=_TYPES[Path(name).suffix])
    return folder / "audit.html"


def require_promise(audit: Audit) -> None:
    """Raises AuditFailed: the promise is broken, or the attacks proved nothing."""
    if not audit.passed:
        raise AuditFailed(f"audit of {audit.study}: {audit.words} {_failures(audit)}".strip())


def _failures(audit: Audit) -> str:
    failed = [finding for finding in audit.findings if finding.outcome not in ("holds", "nothing promised")]
    return " ".join(f"{finding.attack}: {finding.words}" for finding in failed)
