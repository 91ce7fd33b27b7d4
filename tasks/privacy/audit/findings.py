"""What each attack found, as figures beside what the promise allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tasks.learning.arrays import Floats
from tasks.privacy.audit import canary as canaries
from tasks.privacy.audit import reconstruction as records
from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.membership import attack_membership
from tasks.privacy.audit.observer import Observers
from tasks.privacy.audit.promise import for_a_patient
from tasks.privacy.audit.reconstruction import CAP, Guesses, Target
from tasks.privacy.audit.setting import AuditSetting, layered_study
from tasks.privacy.audit.verdict import AuditOutcome, Example, Figure, Finding, Lower, outcome_of

Attacked = tuple[Finding, Lower | None]
CountOne = Callable[[], None]
#: A raw site of so many patients, like the study's smaller ones.
_RAW_MEMBERS = 8
_RAW_AUC = 0.8
#: Shares of records that exact algebra must give back. Of eight patients it gives back all or none (about one batch in
#: four has too many sets of patterns to try), so one batch in six is the proof.
_EXACT_SHARE = {1: 1.0, 2: 0.8, 4: 0.8, 8: 0.15}


def judged(finding: Finding, setting: AuditSetting) -> Finding:
    """The finding with its outcome and words, from its figures."""
    outcome = outcome_of(finding.figures, promised=setting.promise is not None)
    return finding.model_copy(update={"outcome": outcome, "words": _words(finding, outcome)})


def reconstruction(setting: AuditSetting, seed: int, tick: CountOne) -> Attacked:
    """Records of a batch, from the study's model and from one with a hidden layer."""
    inputs = setting.audience.inputs.double().numpy()
    figures: list[Figure] = []
    examples: list[Example] = []
    solved: list[Guesses] = []
    matched: list[Guesses] = []
    for name, adversary, observers in _models(setting):
        raw = Target(
            observers.raw,
            adversary,
            adversary.models(setting.audience.group, 1)[0],
            setting.audience.group,
            setting.sites[:1],
        )
        seen = replace(raw, observe=observers.released, sites=setting.sites)
        for batch in records.BATCHES:
            hidden = observers is setting.layered
            if batch == 1 or hidden:
                found = records.invert(raw, batch, setting.effort.raw_trials, seed)
                figures.append(_exact(name, batch, found.exact(inputs)))
                examples += (
                    [found.example(inputs, f"Algebra, batch {batch}, {name}", "raw")] if _shown(batch, hidden) else []
                )
                if batch == 1:
                    solved.append(records.invert(seen, 1, 4 * setting.effort.reconstruction_trials, seed))
            figures.append(_matched(name, batch, _match(raw, batch, setting, seed, raw=True), inputs, "raw"))
            tick()
            found = _match(seen, batch, setting, seed, raw=False)
            matched.append(found)
            figures.append(_matched(name, batch, found, inputs, "released"))
            examples += (
                [found.example(inputs, f"Matching, batch {batch}, {name}", "released")] if _shown(batch, hidden) else []
            )
            tick()
    figures.append(_gain("algebra", setting, solved, inputs, decides=True))
    figures.append(_gain("gradient matching", setting, matched, inputs, decides=False))
    return judged(_finding("reconstruction", figures, examples=tuple(examples)), setting), None


def _gain(how: str, setting: AuditSetting, released: Sequence[Guesses], inputs: Floats, *, decides: bool) -> Figure:
    """What guesses on releases gain on true records over decoys, beside what the promise allows."""
    value, error = records.advantage(released, inputs)
    bound = None
    if setting.promise is not None:
        bound = CAP * for_a_patient(setting.promise, setting.spend).replacement_distance()
    return Figure(
        name=f"Gain on true records over decoys by {how}, one round",
        unit="advantage",
        on="released",
        value=value,
        standard_error=error,
        bound=bound,
        decides=decides and bound is not None,
    )


def _models(setting: AuditSetting) -> list[tuple[str, Adversary, Observers]]:
    found = [("the study's model", setting.adversary, setting.observers)]
    if setting.layered is not None:
        found.append(("hidden layer", Adversary(layered_study(setting.adversary.study)), setting.layered))
    return found


def _shown(batch: int, hidden: bool) -> bool:
    return batch == (8 if hidden else 1)


def _match(target: Target, batch: int, setting: AuditSetting, seed: int, *, raw: bool) -> Guesses:
    effort, spend = setting.effort, setting.spend
    sd = 0.0 if raw else (spend.noise_multiplier or 0.0) * (spend.clip_norm or 1.0)
    trials = effort.raw_trials if raw else effort.reconstruction_trials
    starts = effort.starts if raw else 2
    return records.match(
        target, batch, trials, seed, noise_sd=sd, starts=starts, iterations=effort.iterations // (1 if raw else 4)
    )


def _exact(name: str, batch: int, share: float) -> Figure:
    label = f"Share of records exact by algebra, batch {batch}, {name}"
    return Figure(name=label, unit="share", on="raw", value=share, needed=_EXACT_SHARE[batch])


def _matched(name: str, batch: int, found: Guesses, inputs: Floats, on: str) -> Figure:
    errors = found.errors(inputs)
    spread = float(errors.std(ddof=1) / np.sqrt(len(errors)))
    label = f"Error of gradient matching, batch {batch}, {name}"
    return Figure.model_validate(
        {"name": label, "unit": "error", "on": on, "value": float(errors.mean()), "standard_error": spread}
    )


def membership(setting: AuditSetting, seed: int, tick: CountOne) -> Attacked:
    """Whether a patient is seen to take part: one raw round of a small site, then all rounds of what is released."""
    group, observers, rounds = setting.audience.group, setting.observers, setting.rounds
    figures, curves = [], []
    for when, t in (("first model", 0), ("model half-way", rounds // 2)):
        raw = attack_membership(
            observers.raw,
            setting.adversary,
            group,
            setting.models[t : t + 1],
            setting.sites[:1],
            members=_RAW_MEMBERS,
            draws=setting.effort.raw_draws,
            seed=seed,
        )
        value, error = raw.reference.auc(1)
        needed = _RAW_AUC if t == 0 else None
        label = f"Reference patients known, one raw update of {_RAW_MEMBERS} patients, {when}"
        figures.append(Figure(name=label, unit="AUC", on="raw", value=value, standard_error=error, needed=needed))
        if t == 0:
            curves.append(raw.reference.curve("raw update, reference patients known", "raw", 1))
    members = min(max(2 * len(setting.sites), 16), len(setting.audience) // 4)
    seen = attack_membership(
        observers.released,
        setting.adversary,
        group,
        setting.models,
        setting.sites,
        members=members,
        draws=setting.transcripts,
        seed=seed,
        tick=tick,
    )
    promise = for_a_patient(setting.promise, setting.spend) if setting.promise else None
    for name, scores, length, decides in (
        ("Reference patients known", seen.reference, rounds, False),
        ("All others known", seen.informed, 1, False),
        ("All others known", seen.informed, rounds, True),
    ):
        value, error = scores.auc(length)
        figures.append(
            Figure(
                name=f"{name}, {_rounds(length)}",
                unit="AUC",
                on="released",
                value=value,
                standard_error=error,
                bound=promise.over(length).auc() if promise else None,
                decides=decides and promise is not None,
            )
        )
    curves.append(seen.reference.curve("released, reference patients known", "released", rounds))
    curves.append(seen.informed.curve("released, all others known", "released", rounds))
    return judged(_finding("membership", figures, curves=tuple(curves)), setting), None


def canary(setting: AuditSetting, seed: int, tick: CountOne) -> Attacked:
    """Whether the worst-case canary is seen, and the least epsilon that this means."""
    whole = setting.spend.unit == "site"
    fillers = (setting.audience.inputs[: len(setting.sites)], setting.audience.labels[: len(setting.sites)])
    planted = canaries.plant(setting.adversary, setting.observers, setting.models, setting.sites, whole_sites=whole)
    one = setting.models[:1], (fillers[0][:1], fillers[1][:1]), setting.sites[:1]
    proof = canaries.attack_canaries(
        setting.observers.raw, setting.adversary, planted.at_one_site(setting.sites[0]), *one, transcripts=8, seed=seed
    )
    value, error = proof.auc()
    figures = [Figure(name="One raw update", unit="AUC", on="raw", value=value, standard_error=error, needed=0.99)]
    trials = canaries.attack_canaries(
        setting.observers.released,
        setting.adversary,
        planted,
        setting.models,
        fillers,
        setting.sites,
        transcripts=setting.transcripts,
        seed=seed,
        tick=tick,
    )
    promise = setting.promise.over(setting.rounds) if setting.promise else None
    for unit, (value, error) in (("mu", trials.mu()), ("AUC", trials.auc())):
        bound = None if promise is None else (promise.mu if unit == "mu" else promise.auc())
        decides = bound is not None and (unit == "mu" or (promise is not None and promise.mu is None))
        figures.append(
            Figure.model_validate(
                {
                    "name": f"Released, {_rounds(setting.rounds)}",
                    "unit": unit,
                    "on": "released",
                    "value": value,
                    "standard_error": error,
                    "bound": bound,
                    "decides": decides,
                }
            )
        )
    found = _finding("canary", figures).model_copy(update={"histogram": trials.histogram()})
    return judged(found, setting), trials.lower(setting.spend.delta or 1e-5)


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _finding(attack: str, figures: Sequence[Figure], **more: object) -> Finding:
    return Finding.model_validate(
        {"attack": attack, "outcome": "proves nothing", "words": "", "figures": tuple(figures), **more}
    )


def _words(finding: Finding, outcome: AuditOutcome) -> str:
    """The outcome in one or two sentences."""
    beaten = [f for f in finding.figures if f.broken]
    if beaten:
        worst = beaten[0]
        return (
            f"{worst.name}: {worst.unit} {worst.value:.3f}, and {worst.again:.3f} in a second run; "
            f"the bound is {worst.bound:.3f}. The release does not keep its promise."
        )
    if outcome == "proves nothing":
        weak = [f.name for f in finding.figures if f.needed is not None and not f.works]
        return f"The attack does not work on the raw update ({'; '.join(weak)}), so its failure says nothing."
    if outcome == "nothing promised":
        return "Nothing is promised, so there is no bound to compare with."
    return "Works on the raw update; on what is released it does not beat the bound."
