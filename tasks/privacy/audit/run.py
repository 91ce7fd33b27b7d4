"""run_audit: the three attacks, on the raw update and on what is released."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from tasks.privacy.audit import findings
from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.effort import Effort
from tasks.privacy.audit.observer import AttackProgress, Observer, Observers
from tasks.privacy.audit.patients import Audience
from tasks.privacy.audit.promise import promise_of
from tasks.privacy.audit.setting import AuditSetting
from tasks.privacy.audit.verdict import Audit, AuditOutcome, confirmed, false_alarm, overall
from tasks.store.records.ledger import Spend
from tasks.study.sections import Study

_WORDS: dict[AuditOutcome, str] = {
    "holds": "The promise holds: every attack works on the raw update, and none beats the bound on what is released.",
    "broken": "The promise is broken: what is released gives away more than the ledger says.",
    "proves nothing": "This audit proves nothing: an attack that it needs does not work on the raw update either.",
    "nothing promised": "This study promises no privacy. Below is what the attacks get.",
}


def run_audit(
    study: Study,
    raw: Observer,
    released: Observer,
    spend: Spend,
    total_rounds: int,
    *,
    seed: int,
    progress: AttackProgress | None = None,
    layered: Observers | None = None,
    patients: Audience,
    effort: Effort | None = None,
) -> Audit:
    """Attack what a study releases, and say whether its promise holds.

    Args:
        raw: sees one site's update before the sanitiser; released: sees what leaves (see `Observer`).
        spend: what the ledger says of one release: `mu` or `pure_epsilon`, `unit` and `delta` are read.
        total_rounds: how many rounds the budget pays for.
        seed: of splits, coins and starts; the noise is the observers' own.
        progress: called with what is done and the share of the work that is behind.
        layered: observers of `layered_study(study)`, to run reconstruction on a model with a hidden layer too.
        patients: on whom, see `audit_patients`.
        effort: how much; None for about two minutes on one core.
    """
    start, effort = time.monotonic(), effort or Effort()
    adversary = Adversary(study)
    rounds = min(total_rounds, effort.max_rounds)
    setting = AuditSetting(
        adversary=adversary,
        observers=Observers(raw, released),
        layered=layered,
        audience=patients,
        models=tuple(adversary.models(patients.group, rounds)),
        spend=spend,
        promise=promise_of(spend),
        effort=effort,
    )
    found = _attack_all(setting, seed, progress or (lambda what, share: None))
    outcome, canary = overall([finding for finding, _ in found]), found[-1][1]
    promise = setting.promise.over(rounds) if setting.promise else None
    return Audit(
        study=study.study,
        study_digest=study.digest,
        title=study.title,
        mechanism=study.privacy.mechanism,
        audited_at=datetime.now(UTC),
        seconds=round(time.monotonic() - start, 2),
        seed=seed,
        total_rounds=total_rounds,
        audited_rounds=rounds,
        spend=spend,
        patients=patients.words,
        real_patients=patients.real,
        inputs=tuple(spec.name for spec in study.inputs),
        outcome=outcome,
        words=_WORDS[outcome],
        false_alarm=false_alarm([finding for finding, _ in found]),
        findings=tuple(finding for finding, _ in found),
        claimed_epsilon=promise.epsilon(spend.delta or 1e-5) if promise else None,
        lower=canary,
    )


@dataclass
class _Ticks:
    """Turns the attacks' steps into a share of the whole."""

    tell: AttackProgress
    what: str = ""
    done: float = 0.0
    step: float = 0.0

    def __call__(self) -> None:
        self.done = min(self.done + self.step, 1.0)
        self.tell(self.what, self.done)


def _attack_all(setting: AuditSetting, seed: int, progress: AttackProgress) -> list[findings.Attacked]:
    ticks, found = _Ticks(progress), []
    for attack, what, share in (
        (findings.reconstruction, "Reconstruction of records", 0.5),
        (findings.membership, "Membership of patients", 0.25),
        (findings.canary, "Canaries", 0.25),
    ):
        ticks.what, before = what, ticks.done
        ticks.step = share / setting.steps(what)
        progress(what, before)
        found.append(_twice(attack, setting, seed, ticks))
        ticks.done = before + share
    progress("Done", 1.0)
    return found


def _twice(
    attack: Callable[[AuditSetting, int, Callable[[], None]], findings.Attacked],
    setting: AuditSetting,
    seed: int,
    tick: Callable[[], None],
) -> findings.Attacked:
    """An attack that beats its bound runs again, on fresh noise and fresh splits: chance seldom strikes twice."""
    first, lower = attack(setting, seed, tick)
    if any(figure.beats and figure.decides for figure in first.figures):
        again, _ = attack(setting, seed + np.iinfo(np.int32).max, lambda: None)
        figures = confirmed(first.figures, again.figures)
        first = findings.judged(first.model_copy(update={"figures": figures}), setting)
    return first, lower
