"""The audit's records, and when it fails.

An attack fails the audit when its figure is above the mechanism's bound by more than two standard errors, and again so
in a second run on fresh noise. A mechanism that sits exactly on its bound trips one run with probability 0.023 and both
with 0.0005: that, times the number of deciding figures, is the stated false-alarm rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from tasks.store.records.ledger import Spend
from tasks.store.records.record import Record

AuditOutcome = Literal["holds", "broken", "proves nothing", "nothing promised"]
AttackName = Literal["reconstruction", "membership", "canary"]
#: One attack's figure is above its bound by more than this many standard errors, twice.
STANDARD_ERRORS = 2.0
_ONE_LOOK = math.erfc(STANDARD_ERRORS / math.sqrt(2)) / 2
FALSE_ALARM = _ONE_LOOK**2
#: Without these nothing is proven: the worst case, and the attack on real records.
_NEEDED: tuple[AttackName, ...] = ("canary", "membership")


class Figure(Record):
    """One number that an attack reached.

    `needed`: what a raw figure must reach to prove that the attack works. `bound`: what a released figure may reach.
    `again`: the same figure in a second run, made only when the first beat the bound.
    """

    name: str
    unit: Literal["AUC", "mu", "advantage", "share", "error"]
    on: Literal["raw", "released"]
    value: float
    standard_error: float = 0.0
    needed: float | None = None
    bound: float | None = None
    decides: bool = False
    again: float | None = None
    again_standard_error: float = 0.0

    @property
    def beats(self) -> bool:
        """Whether the first run is above the bound."""
        return self.bound is not None and self.value - self.bound > STANDARD_ERRORS * self.standard_error

    @property
    def broken(self) -> bool:
        """Whether both runs are above the bound."""
        if self.bound is None or self.again is None or not self.decides:
            return False
        return self.beats and self.again - self.bound > STANDARD_ERRORS * self.again_standard_error

    @property
    def works(self) -> bool:
        """Whether a raw figure proves that the attack works."""
        return self.needed is not None and self.value >= self.needed


class RocCurve(Record):
    """A ROC curve."""

    name: str
    on: Literal["raw", "released"]
    rounds: int
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class Example(Record):
    """A record beside what an attack made of it, in scaled units; synthetic or public patients only."""

    name: str
    on: Literal["raw", "released"]
    truth: tuple[float, ...]
    guess: tuple[float, ...]
    error: float


class Histogram(Record):
    """Scores of the canary in and out: `edges` has one entry more than the counts."""

    edges: tuple[float, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]


class Finding(Record):
    """One attack: what it reached, and what that says."""

    attack: AttackName
    outcome: AuditOutcome
    words: str
    figures: tuple[Figure, ...]
    curves: tuple[RocCurve, ...] = ()
    examples: tuple[Example, ...] = ()
    histogram: Histogram | None = None


class Lower(Record):
    """The canary's lower bounds, at 95% confidence (Clopper-Pearson), over `trials` trials."""

    epsilon: float
    mu: float
    trials: int


class Audit(Record):
    """One audit of one study."""

    study: str
    study_digest: str
    title: str
    mechanism: str
    audited_at: datetime
    seconds: float = Field(ge=0)
    seed: int
    total_rounds: int
    audited_rounds: int
    spend: Spend
    patients: str
    real_patients: bool
    inputs: tuple[str, ...]
    outcome: AuditOutcome
    words: str
    false_alarm: float
    findings: tuple[Finding, ...]
    claimed_epsilon: float | None
    lower: Lower | None

    @property
    def passed(self) -> bool:
        """False when the promise is broken, and when the attacks proved nothing."""
        return self.outcome in ("holds", "nothing promised")


def outcome_of(figures: Sequence[Figure], *, promised: bool) -> AuditOutcome:
    """One attack's outcome. Beating the bound counts even where the attack did not work on the raw update."""
    if not promised:
        return "nothing promised"
    if any(figure.broken for figure in figures):
        return "broken"
    proofs = [figure for figure in figures if figure.needed is not None]
    return "holds" if proofs and all(figure.works for figure in proofs) else "proves nothing"


def overall(findings: Sequence[Finding]) -> AuditOutcome:
    """The audit's outcome: broken if one attack broke the promise."""
    outcomes = {finding.attack: finding.outcome for finding in findings}
    if "broken" in outcomes.values():
        return "broken"
    if "nothing promised" in outcomes.values():
        return "nothing promised"
    return "holds" if all(outcomes.get(name) == "holds" for name in _NEEDED) else "proves nothing"


def false_alarm(findings: Sequence[Finding]) -> float:
    """Chance that a right mechanism fails the audit, at most: as if each deciding figure sat on its bound."""
    return FALSE_ALARM * sum(figure.decides for finding in findings for figure in finding.figures)


def confirmed(first: Sequence[Figure], second: Sequence[Figure]) -> tuple[Figure, ...]:
    """The figures of the first run, each with its value in the second."""
    again = {(figure.name, figure.on): figure for figure in second}
    return tuple(
        figure.model_copy(
            update={
                "again": again[figure.name, figure.on].value,
                "again_standard_error": again[figure.name, figure.on].standard_error,
            }
        )
        for figure in first
    )
