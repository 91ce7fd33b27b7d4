"""The audit's report: one page that is complete in itself, its plots, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from tasks.privacy.audit import plots
from tasks.privacy.audit.verdict import STANDARD_ERRORS, Audit, AuditOutcome, Figure, Finding
from tasks.report import pages, words

_TONES: dict[AuditOutcome, str] = {
    "holds": "good",
    "broken": "bad",
    "proves nothing": "warn",
    "nothing promised": "warn",
}
_UNITS = {"mu": "μ", "share": "", "error": "", "advantage": ""}
_TITLES = {
    "reconstruction": "Reconstruction: are a patient's values seen?",
    "membership": "Membership: is it seen that a patient takes part?",
    "canary": "Canary: is the worst case within the promise?",
}
_KNOWN = {
    "reconstruction": (
        "The adversary knows the model, the code and what every other patient contributes. He solves for the records "
        "of a batch: by algebra (input = weight gradient / bias gradient; behind a ReLU layer, by the patterns of "
        "active units), and by searching for the batch that would give what he sees. Error: distance of the nearest "
        "guess, in lengths of the record; guessing all zeros has error 1. Logistic regression shows one equation a "
        "parameter, too few for two or more records even when nothing is protected: that batches can be inverted is "
        "proven on a hidden layer. Gain: how much nearer the guesses are to true records than to those of patients "
        "who were not there."
    ),
    "membership": (
        "Members, outsiders and reference patients are three disjoint sets, drawn anew for each trial. The adversary "
        "holds the candidate's record and either the reference patients only, or the records of all others as well, "
        "and adds up a likelihood ratio over all rounds."
    ),
    "canary": (
        "Artificial patients (whole sites, where a site is what is protected) at the edge of the public ranges are put "
        "in or left out by a coin. The adversary knows everything but the coin, and has measured the noise. Nobody can "
        "leave more trace than a canary, so this is where too little noise shows."
    ),
}


@dataclass(frozen=True)
class _Row:
    name: str
    on: str
    value: str
    limit: str
    said: str
    tone: str


def build_audit_report(audit: Audit) -> dict[str, bytes]:
    """`audit.html` (complete in itself), the PNG plots, and `audit.json` (the record); the same audit, the same bytes.

    Draw in one thread: see `tasks.report.canvas.look`.
    """
    charts = plots.draw(audit)
    svg = {chart.name: Markup(chart.svg) for chart in charts}  # drawn here; matplotlib escapes its texts
    page = pages.render(
        "audit.html",
        audit=audit,
        tone=_TONES[audit.outcome],
        sections=[(_TITLES[f.attack], _KNOWN[f.attack], f, _TONES[f.outcome], _rows(f)) for f in audit.findings],
        facts=_facts(audit),
        charts={chart.name: chart for chart in charts},
        svg=svg,
        of_attack={
            "reconstruction": [chart.name for chart in charts if chart.name.startswith("audit_record")],
            "membership": ["audit_roc", "audit_auc"],
            "canary": ["audit_canary", "audit_epsilon"],
        },
    )
    return {
        "audit.html": page,
        **{f"{chart.name}.png": chart.png for chart in charts},
        "audit.json": audit.model_dump_json(indent=2).encode() + b"\n",
    }


def _facts(audit: Audit) -> list[tuple[str, str]]:
    lower, spend = audit.lower, audit.spend
    facts = [
        ("Mechanism", f"{audit.mechanism}; protects {_unit(spend.unit)}"),
        ("Rounds", f"{audit.audited_rounds} of {audit.total_rounds} attacked together"),
        ("On whom", audit.patients),
        ("Took", f"{words.duration(audit.seconds)}, seed {audit.seed}"),
    ]
    if audit.claimed_epsilon is not None:
        facts.append(("Claimed", f"ε {words.spend(audit.claimed_epsilon)} at δ {words.small(spend.delta)}"))
    if lower is not None:
        facts.append(
            (
                "Proven",
                f"ε at least {lower.epsilon:.2f}, μ at least {lower.mu:.2f} (95 %, {lower.trials} canary trials)",
            )
        )
    if audit.false_alarm:
        facts.append(
            (
                "Rule",
                f"fails when a deciding figure is above its bound by more than {STANDARD_ERRORS:g} standard errors, in "
                f"two independent runs; a right mechanism fails with probability {audit.false_alarm:.4f} at most",
            )
        )
    return facts


def _unit(unit: str) -> str:
    return {"patient": "each patient", "site": "each site's update", "nothing": "nobody"}[unit]


def _rows(finding: Finding) -> list[_Row]:
    return [_row(figure) for figure in finding.figures]


def _row(figure: Figure) -> _Row:
    value = f"{_UNITS.get(figure.unit, figure.unit)} {figure.value:.3f}"
    value += f" ± {figure.standard_error:.3f}" if figure.standard_error else ""
    value += f"; again {figure.again:.3f} ± {figure.again_standard_error:.3f}" if figure.again is not None else ""
    limit = f"at least {figure.needed:.2f}" if figure.needed is not None else ""
    limit = f"at most {figure.bound:.3f}" if figure.bound is not None else limit
    said, tone = _said(figure)
    return _Row(figure.name, figure.on, value, limit, said, tone)


def _said(figure: Figure) -> tuple[str, str]:
    if figure.needed is not None:
        return ("attack works", "good") if figure.works else ("attack does not work", "warn")
    if figure.bound is None:
        return "", ""
    if figure.broken:
        return "promise broken", "bad"
    if figure.beats and figure.again is not None and figure.decides:
        return "within, second run", "good"
    return ("above", "warn") if figure.beats else ("within", "good")
