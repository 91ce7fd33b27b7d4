"""docs/findings.md, written from the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tasks.simulation.experiments import plan
from tasks.simulation.experiments.claims import (
    CLAIMS,
    NOT_LEARNT,
    WORDS,
    Claim,
    claim_word,
    outcome,
    reason,
    verdict_words,
)
from tasks.simulation.experiments.drawing import Picture
from tasks.simulation.experiments.figures_privacy import DELTA, bound_words, membership_bound
from tasks.simulation.experiments.paired import CONFIDENCE, MARGIN, PairedMean, widening
from tasks.simulation.experiments.records import Arm, Cohort, Curve, Measured, Numbers, PairedComparison
from tasks.simulation.reference import YARDSTICK_ROUNDS

_HEAD = """# Findings

What the paper claims, and what we measured. This page is written by `pharmafed experiments findings` from the numbers
that the experiments leave; nobody edits it, so it has no wish in it.
"""
#: Beside a round that no plan announced.
_CHOSEN = "chosen on held-out data"


def page(numbers: Numbers, cohort: Cohort, pictures: Sequence[Picture], images: str = "images") -> str:
    """The whole page in Markdown.

    Args:
        numbers: every experiment of the plan, by name.
        cohort: who takes part.
        pictures: the figures; `images` is the folder of their files as seen from the page.

    Raises:
        ConfigError: a setting or comparison that the page speaks of is not in the numbers.
    """
    shown = {one.name: one for one in pictures}
    parts = [_HEAD, _method(numbers, cohort), _figure(shown["findings-patients"], images), _summary(numbers, cohort)]
    for claim in CLAIMS:
        parts += _section(claim, numbers[claim.experiment])
        parts += [_figure(shown[name], images) for name in claim.figures]
    return "\n".join(parts)


def _method(numbers: Numbers, cohort: Cohort) -> str:
    """How everything on the page was measured."""
    seeds = sorted({len(measured.seeds) for measured in numbers.values()})
    count = sum(len(_shown(claim, numbers[claim.experiment])) for claim in CLAIMS)
    factors = _or([f"{_wider(n, cohort)} (n = {n})" for n in seeds])
    return f"""## How it was measured

Study `{cohort.study}`: {cohort.num_train + cohort.num_held_out} patients, {len(cohort.sites)} clients, simulated with
the code that the nightly rounds run. Each setting was run with {_or(seeds)} seeds. A seed is a split into
{cohort.num_train} patients to train on and {cohort.num_held_out} held out, an order of batches, and the noise; settings
are compared seed by seed. Differences are of AUC, as mean with Student's {CONFIDENCE:.0%} interval. Unless a section
says otherwise there is no privacy mechanism, and clients train logistic regression as the project's yardstick does:
{_in_words(plan.YARDSTICK_TRAINING)}.

The verdict follows from the interval by rule:

| interval | verdict on a difference |
|---|---|
| neither setting's own AUC lies wholly above .5 | {NOT_LEARNT} |
| else the difference wholly within ±{MARGIN:g} | {WORDS["within"]} |
| else wholly above or below zero | {WORDS["better"]}, or {WORDS["worse"]} |
| else | {WORDS["no evidence"]}, nor of there being none |

| interval of the difference | a claim to do as well, to lose nothing, to do no harm |
|---|---|
| wholly at or above −{MARGIN:g} | supported: being better is doing as well |
| wholly below −{MARGIN:g} | contradicted |
| else wholly below zero | not supported |
| else | undecided |

A claim that one is better, or worse, is supported by that verdict, contradicted by the opposite one, not supported by
"{WORDS["within"]}", and otherwise undecided. Where neither has learnt, every claim is undecided.

- What is compared, and after which round it decides, stands in `tasks/simulation/experiments/plan.py`. The page
  shows {count} intervals. Were there no difference anywhere, about {count * (1 - CONFIDENCE):.0f} would leave out zero
  by chance.
- The yardstick's training and its {YARDSTICK_ROUNDS} rounds were chosen earlier on these same data: levels of AUC are
  a little flattered by it. One number of rounds does not fit all kinds of training. Mean held-out log-loss is lowest
  after round: {_best_rounds(numbers["federation"])}.
- Seeds split the same patients anew. The intervals say what another split would give; for new patients from the same
  trial they would be {factors} as wide (Nadeau and Bengio 2003,
  [doi:10.1023/A:1024068626366](https://doi.org/10.1023/A:1024068626366)).
"""


def _in_words(section: Mapping[str, Any]) -> str:
    """A study's section: `lr 0.02, batch size 8`."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in section.items())


def _or(values: Sequence[object]) -> str:
    return " or ".join(str(value) for value in values)


def _wider(n: int, cohort: Cohort) -> str:
    return f"{widening(n, cohort.num_train, cohort.num_held_out):.1f} times"


def _summary(numbers: Numbers, cohort: Cohort) -> str:
    """All claims in one table."""
    rows = [("claim", "measured", "for new patients", "verdict"), ("---",) * 4]
    for claim in CLAIMS:
        measured = numbers[claim.experiment]
        found = [measured.comparison(*pair) for pair in claim.pairs]
        wider = f"the interval would be {_wider(found[0].difference.n, cohort)} as wide"
        rows.append((claim.title, _headline(found), wider, f"**{claim_word(claim, measured)}**"))
    return "## In one table\n\n" + _table(rows)


def _headline(found: Sequence[PairedComparison]) -> str:
    """The differences that decide; of many, their range."""
    if len(found) <= 2:
        return "; ".join(f"{one.arm} minus {one.against}: {_interval(one.difference)}" for one in found)
    means = [one.difference.mean for one in found]
    return f"{len(found)} differences from {_signed(min(means))} to {_signed(max(means))}"


def _section(claim: Claim, measured: Measured) -> list[str]:
    found = [measured.comparison(*pair) for pair in claim.pairs]
    text = [f"## {claim.title}\n", f"The claim: {claim.says}\n", f"**Verdict: {claim_word(claim, measured)}.**\n"]
    if len(found) <= 2:
        text += [f"- {reason(one, measured)}. Claim {outcome(claim, one, measured)}." for one in found] + [""]
    text.append(_TABLES[claim.experiment](measured))
    text.append(_compared(_shown(claim, measured), measured))
    return text


def _shown(claim: Claim, measured: Measured) -> list[PairedComparison]:
    """Every comparison that the claim's section shows, those at the judged rounds first."""
    pairs = [*claim.pairs, *claim.beside]
    return [one for one in measured.comparisons if (one.arm, one.against) in pairs]


def _compared(found: Sequence[PairedComparison], measured: Measured) -> str:
    head = ("AUC of", "minus that of", "after round", "difference", f"{CONFIDENCE:.0%} interval", "n", "verdict")
    rows: list[tuple[str, ...]] = [head, ("---",) * len(head)]
    return _table([*rows, *(_row(one, measured) for one in found)])


def _row(one: PairedComparison, measured: Measured) -> tuple[str, ...]:
    after = f"{one.arm_round}" if one.arm_round == one.against_round else f"{one.arm_round}, {one.against_round}"
    if measured.is_at_own_best(one):
        after += f" ({_CHOSEN})"
    found = one.difference
    ends = f"{_signed(found.low)} to {_signed(found.high)}"
    return (one.arm, one.against, after, _signed(found.mean), ends, str(found.n), verdict_words(one, measured))


def _arms(measured: Measured) -> str:
    """The settings by themselves."""
    rows: list[tuple[str, ...]] = [("setting", "after round", "AUC", "log-loss"), ("---",) * 4]
    rows += [(arm.setting.name, str(arm.judged_at), _level(arm.auc), _level(arm.log_loss)) for arm in measured.arms]
    return _table(rows)


def _at_own_best(measured: Measured) -> str:
    """The settings where the claim is judged, and each where it is at its best."""
    head = ("setting", f"lowest log-loss after round, {_CHOSEN}", "AUC", "log-loss")
    rows: list[tuple[str, ...]] = [head, ("---",) * len(head)]
    for arm in measured.arms:
        figures = (_at_best(arm, curve) for curve in (arm.auc_curve, arm.log_loss_curve))
        rows.append((arm.setting.name, _best_round(arm), *figures))
    return (
        f"Judged after round {measured.arms[0].judged_at}, as the plan has it. Pooled training takes more steps in a "
        "round, so one round need not fit both sides; below, each is also shown after the round at which its own mean "
        "held-out log-loss is lowest. That round is chosen on the held-out patients: it flatters a little, and "
        "nothing is judged by it.\n\n" + _arms(measured) + "\n" + _table(rows)
    )


def _at_best(arm: Arm, curve: Curve) -> str:
    place = curve.rounds.index(arm.best_round)
    return f"{curve.mean[place]:.3f} ({curve.low[place]:.3f} to {curve.high[place]:.3f})"


def _over_rounds(measured: Measured) -> str:
    """Where each setting is at its best: what is judged is fixed, and this shows how it lies."""
    return (
        f"Judged after round {measured.arms[0].judged_at}, where the project's baselines stop. Held-out log-loss is "
        f"lowest after round: {_best_rounds(measured)}. Local only: each client trains a model on its own patients "
        "alone, which is scored on everybody's held-out patients; the figure is the mean over clients, weighted by "
        "how many held-out patients each has.\n\n" + _arms(measured)
    )


def _best_rounds(measured: Measured) -> str:
    return "; ".join(f"{arm.setting.name} {_best_round(arm)}" for arm in measured.arms)


def _best_round(arm: Arm) -> str:
    """The round, and whether more rounds might have been better still."""
    last = arm.log_loss_curve.rounds[-1]
    return f"{arm.best_round}" + (" (the last that was run)" if arm.best_round == last else "")


def _shared_bytes(measured: Measured) -> str:
    """What selection saves, from the bytes that were uploaded."""
    everything = measured.arm("all").bytes_per_round
    saved = [f"{name}: {_share(measured.arm(name), everything)}" for name in ("top 10%", "top 40%", "top 70%")]
    return f"Uploaded, as a share of what sharing all takes: {', '.join(saved)}.\n\n" + _arms(measured)


def _share(arm: Arm, everything: float) -> str:
    return f"{arm.bytes_per_round / everything:.0%}"


def _by_epsilon(measured: Measured) -> str:
    """Mechanism by epsilon, and what epsilon promises."""
    none, yardstick = measured.arm("none"), measured.arm("yardstick")
    private = [measured.arm(plan.epsilon_name(name, e)) for name in plan.MECHANISMS for e in plan.EPSILONS]
    worse = sum(arm.log_loss_minus(none).low > 0 for arm in private)
    ranking = _mechanism_rows(measured, "AUC", lambda arm: _level(arm.auc))
    bounds = (bound_words(membership_bound(e)) for e in plan.EPSILONS)
    ranking.append(("a membership test, at most", *bounds))
    sureness = _mechanism_rows(measured, "log-loss", lambda arm: _beside(arm, none))
    lowest = _mechanism_rows(measured, f"lowest log-loss, {_CHOSEN}", _lowest_log_loss)
    return (
        f"Mean and standard error over {len(measured.seeds)} seeds after {none.judged_at} rounds, total ε at "
        f"δ = {DELTA:g}. The same training without privacy: {_level(none.auc)}; the yardstick (Adam, "
        f"{yardstick.judged_at} epochs): {_level(yardstick.auc)}. The bound on membership tests is that of the "
        "Gaussian mechanisms, computed.\n\n" + _mechanism_settings() + "\n" + _table(ranking) + "\n"
        "AUC tells how well patients are ranked, and the verdict is on that alone. Log-loss tells whether the "
        "probabilities can be believed as well: 0.693 is what one half for everybody has. Without privacy: "
        f"{_level(none.log_loss)}. In brackets: the difference from that, paired by seed, with its {CONFIDENCE:.0%} "
        f"interval; above zero is worse, as {worse} of {len(private)} are wholly.\n\n" + _table(sureness) + "\n"
        "Where log-loss rises again, training went on for too long. Its lowest mean, and after which round; without "
        f"privacy: {_lowest_log_loss(none)}.\n\n" + _table(lowest)
    )


def _beside(arm: Arm, none: Arm) -> str:
    """A setting's log-loss, and how much of it is the mechanism's doing."""
    more = arm.log_loss_minus(none)
    return f"{arm.log_loss.mean:.3f} ({more.mean:+.3f}, {more.low:+.3f} to {more.high:+.3f})".replace("-", "−")


def _lowest_log_loss(arm: Arm) -> str:
    return f"{min(arm.log_loss_curve.mean):.3f}, round {_best_round(arm)}"


def _mechanism_rows(measured: Measured, what: str, figure: Callable[[Arm], str]) -> list[tuple[str, ...]]:
    """A table's head, and one figure of every mechanism at every epsilon."""
    head = (what, *(f"ε = {e:g}" for e in plan.EPSILONS))
    rows: list[tuple[str, ...]] = [head, ("---",) * len(head)]
    for name in plan.MECHANISMS:
        arms = (measured.arm(plan.epsilon_name(name, e)) for e in plan.EPSILONS)
        rows.append((f"`{name}`", *(figure(arm) for arm in arms)))
    return rows


def _mechanism_settings() -> str:
    """What the mechanisms are set to, beside epsilon."""
    each = plan.MECHANISMS.items()
    return "".join(f"- `{name}`, channel {how}: {_in_words(section)}\n" for name, (section, how) in each)


def _what_learns(measured: Measured) -> str:
    """A comparison says little where neither side has learnt anything."""
    known = [arm.setting.name for arm in measured.arms if arm.has_learnt(arm.judged_at)]
    learnt = "; ".join(known) if known else "none"
    fixed = {key: value for key, value in plan.MECHANISMS["svt"][0].items() if key != "fraction"}
    return (
        f"Mechanism `svt` with {_in_words(fixed)}, on the study's own training. Settings whose AUC is above .5 with "
        f"its whole interval: {len(known)} of {len(measured.arms)} ({learnt}). "
        "Between settings that have learnt nothing a difference means nothing, and decides nothing.\n\n"
        + _arms(measured)
    )


_TABLES: dict[str, Callable[[Measured], str]] = {
    "federation": _at_own_best,
    "rounds": _over_rounds,
    "fraction": _shared_bytes,
    "restart": _arms,
    "weighting": _arms,
    "local_work": _arms,
    "privacy": _by_epsilon,
    "fraction_at_epsilon": _what_learns,
}


def _figure(shown: Picture, images: str) -> str:
    """The figure in the reader's colours."""
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{images}/{shown.name}-dark.svg">\n'
        f'  <img alt="{escape(shown.alt)}" src="{images}/{shown.name}.svg">\n'
        f"</picture>\n\n*{shown.caption}*\n"
    )


def _table(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _level(found: PairedMean) -> str:
    return f"{found.mean:.3f} ± {found.standard_error:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _interval(found: PairedMean) -> str:
    return f"{_signed(found.mean)} ({_signed(found.low)} to {_signed(found.high)}, n = {found.n})"
