"""The privacy part of a round's page: who is protected from whom, what was spent, what that means in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.privacy import accounting
from tasks.privacy.mechanisms import mechanism_for
from tasks.report import words
from tasks.store.records.ledger import Spend
from tasks.store.records.report import RoundMetrics
from tasks.study.sections import Study

_PROTECTED = {"patient": "one patient", "site": "one site's whole update", "nothing": "nobody"}


@dataclass(frozen=True)
class PrivacyView:
    """What the privacy officer asks first. `share` is the part of the budget that is spent, in percent."""

    plain: str
    unit: str
    delta: str
    facts: tuple[tuple[str, str], ...]
    spent: str
    left: str
    budget: str
    share: float | None


def privacy(study: Study, now: RoundMetrics) -> PrivacyView:
    """Mechanism, unit, spend and its meaning."""
    known = now.epsilon is not None and now.epsilon_budget
    unit = _PROTECTED[now.promise.unit] if now.promise else _PROTECTED["nothing"]
    return PrivacyView(
        plain=_in_plain_words(now),
        unit=unit,
        delta=words.small(now.delta),
        facts=_facts(study, now, unit),
        spent=words.spend(now.epsilon),
        left=words.left(now.epsilon, now.epsilon_budget),
        budget=words.spend(now.epsilon_budget),
        share=min(100.0, 100 * (now.epsilon or 0) / (now.epsilon_budget or 1)) if known else None,
    )


def warning(now: RoundMetrics) -> str | None:
    """What a study without privacy must say at the top of its page."""
    if now.promises:
        return None
    if now.channel.hides:
        return "The hub reads only the sum, but nothing bounds what the sum tells. Only for public data."
    return "Anyone who reads an update may reconstruct patient records from it. Only for public data."


def _in_plain_words(now: RoundMetrics) -> str:
    if not now.promises:
        return "Nothing protects a patient: whoever sees an update may learn who took part, and rebuild records."
    promise = now.promise
    if promise is None or promise.epsilon is None or promise.delta is None:
        return "No guarantee is on record for this round."
    right = f"{100 * _guess_accuracy(promise, promise.epsilon, promise.delta):.0f}\u00a0%"
    reads = "every opened sum" if now.channel.hides else "every update"
    who = "patient" if promise.unit == "patient" else "site"
    return (
        f"Someone who reads {reads} so far and guesses whether a given {who} took part is right at most {right} "
        "of the time; a coin toss is right 50\u00a0%."
    )


def _guess_accuracy(promise: Spend, epsilon: float, delta: float) -> float:
    if promise.mu is not None:
        return accounting.guess_accuracy(epsilon, delta)
    return accounting.guess_accuracy_of_pair(epsilon, delta)


def _facts(study: Study, now: RoundMetrics, unit: str) -> tuple[tuple[str, str], ...]:
    small = f"cells under {study.evaluation.min_cell} patients"
    promise = now.promise
    if not now.promises or promise is None:
        why = now.mechanism if now.promises else _mechanism(study, now)
        return (("Mechanism", why), ("Protects", "nobody"), ("ε, δ", "none are accounted for"), ("Suppressed", small))
    spent = (
        f"{words.spend(now.epsilon)} of {words.spend(now.epsilon_budget)}: all rounds so far, the site with the most"
    )
    covered = "the sum of all updates, and every model made from it"
    facts = [
        ("Mechanism", _mechanism(study, now)),
        ("Protects", unit),
        ("Neighbours", promise.neighbours),
        ("Holds if", promise.trust or words.NONE),
        ("Noise multiplier", words.number(promise.noise_multiplier) if promise.noise_multiplier else words.NONE),
        ("ε spent", spent),
        ("ε left", words.left(now.epsilon, now.epsilon_budget)),
        ("δ", words.small(now.delta)),
        ("Covered", covered if now.channel.hides else "every update, and every model made from them"),
        ("Not covered", f"counts of patients, timings and data checks; {small} are suppressed"),
    ]
    if now.private_auc is not None:
        facts.append(
            (
                "AUC under noise",
                "from counts of held-out patients by risk; they are never trained on, so the same ε pays",
            )
        )
    return tuple(facts)


def _mechanism(study: Study, now: RoundMetrics) -> str:
    """What a site did, in words; the study as it is now may be another one than the round's."""
    if study.privacy.mechanism != now.mechanism:
        return now.mechanism
    return mechanism_for(study.privacy, now.total_rounds).words()
