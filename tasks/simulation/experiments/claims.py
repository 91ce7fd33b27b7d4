"""What the paper says, what would show it, and the words for what is found.

The words follow from the stored differences by the rules of `paired` alone: every verdict has its template, and none of
them hopes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.simulation.experiments import plan
from tasks.simulation.experiments.paired import (
    MARGIN,
    ClaimOutcome,
    Direction,
    IntervalVerdict,
    claim_outcome,
    interval_verdict,
)
from tasks.simulation.experiments.plan import Pair
from tasks.simulation.experiments.records import Measured, PairedComparison


@dataclass(frozen=True)
class Claim:
    """One section of the page.

    `pairs`: the comparisons that decide, of which the claim says that the arm is `direction`. `beside`: shown, and not
    judged by. `figures`: by name.
    """

    title: str
    says: str
    experiment: str
    direction: Direction
    pairs: tuple[Pair, ...]
    beside: tuple[Pair, ...] = ()
    figures: tuple[str, ...] = ()


def _epsilon_pairs(mechanisms: Sequence[str]) -> tuple[Pair, ...]:
    return tuple((plan.epsilon_name(name, epsilon), "none") for name in mechanisms for epsilon in plan.EPSILONS)


def _fraction_pairs() -> tuple[Pair, ...]:
    """All selections but the one that the claim is about."""
    return tuple(pair for pair in plan.fraction().pairs if pair[0] != "top 40%")


def _svt_pairs(fractions: Sequence[float]) -> tuple[Pair, ...]:
    """A fraction against all, at the same total epsilon over the same rounds."""
    return tuple(
        (plan.svt_name(fraction, epsilon, total), plan.svt_name(1, epsilon, total))
        for total in plan.BUDGET_ROUNDS
        for epsilon in plan.EQUAL_EPSILONS
        for fraction in fractions
    )


CLAIMS = (
    Claim(
        title="Federated training does as well as centralised training",
        says="A model that is trained federated reaches what training on the pooled patients reaches.",
        experiment="federation",
        direction="no worse",
        pairs=(("federated, LR", "pooled, LR"), ("federated, MLP", "pooled, MLP")),
    ),
    Claim(
        title="Federated training does better than each client alone",
        says="A client gains from taking part: its own patients alone do not make as good a model.",
        experiment="rounds",
        direction="higher",
        pairs=(("federated, LR", "local, LR"), ("federated, MLP", "local, MLP")),
        beside=(("federated, LR", "pooled, LR"), ("federated, MLP", "pooled, MLP")),
        figures=("findings-rounds", "findings-difference"),
    ),
    Claim(
        title="Sharing 40% is as good as sharing all",
        says="A client that shares the largest 40% of its update loses nothing.",
        experiment="fraction",
        direction="no worse",
        pairs=(("top 40%", "all"),),
        beside=_fraction_pairs(),
        figures=("findings-fraction",),
    ),
    Claim(
        title="Restarting the optimizer helps",
        says="Restarting the optimizer in each round is better than keeping its state at the client.",
        experiment="restart",
        direction="higher",
        pairs=(("restart", "keep"),),
        figures=("findings-choices",),
    ),
    Claim(
        title="Weighting by local iterations helps",
        says="An average that is weighted by local iterations is better than a plain one.",
        experiment="weighting",
        direction="higher",
        pairs=(("iterations", "plain"),),
        beside=(("samples", "plain"),),
    ),
    Claim(
        title="Unequal local work does no harm",
        says="Clients may do one epoch each, of unequally many iterations, instead of equally many iterations.",
        experiment="local_work",
        direction="no worse",
        pairs=(("one epoch", "2 iterations"), ("one epoch", "3 iterations")),
    ),
    Claim(
        title="Privacy costs accuracy",
        says="A model that is trained under a privacy mechanism is worse than one that is not.",
        experiment="privacy",
        direction="lower",
        pairs=_epsilon_pairs(tuple(plan.MECHANISMS)),
        figures=("findings-epsilon", "findings-membership"),
    ),
    Claim(
        title="At equal ε, fewer shared is better",
        says="When ε is given, the sparse vector technique does better the fewer components it sends.",
        experiment="fraction_at_epsilon",
        direction="higher",
        pairs=_svt_pairs((0.1,)),
        beside=_svt_pairs((0.2, 0.4, 0.7)),
        figures=("findings-svt-fraction",),
    ),
)

#: The verdict on a difference, as tables and their legend have it.
WORDS: dict[IntervalVerdict, str] = {
    "within": f"within ±{MARGIN:g}",
    "better": "better",
    "worse": "worse",
    "no evidence": "no evidence of a difference",
}
#: In place of any of them, where a difference means nothing.
NOT_LEARNT = "neither has learnt"
_REASONS: dict[IntervalVerdict, str] = {
    "within": "{what}: the whole interval lies within ±{margin:g}",
    "better": "{what}: better, {size}",
    "worse": "{what}: worse, {size}",
    "no evidence": "{what}: no difference is shown, and {open} by more than {margin:g} is not ruled out",
}


def outcome(claim: Claim, found: PairedComparison, measured: Measured) -> ClaimOutcome:
    """What one comparison means for the claim; nothing if neither side has learnt anything."""
    return "undecided" if measured.neither_has_learnt(found) else claim_outcome(found.difference, claim.direction)


def verdict_words(found: PairedComparison, measured: Measured) -> str:
    """The verdict on a difference, for a table."""
    return NOT_LEARNT if measured.neither_has_learnt(found) else WORDS[interval_verdict(found.difference)]


def reason(found: PairedComparison, measured: Measured) -> str:
    """What the interval says, in words."""
    what = f"{found.arm} minus {found.against}"
    if measured.neither_has_learnt(found):
        return f"{what}: {NOT_LEARNT}, neither AUC is above .5 with its whole interval"
    template = _REASONS[interval_verdict(found.difference)]
    return template.format(what=what, margin=MARGIN, size=_size(found), open=_open(found))


def _size(found: PairedComparison) -> str:
    """Whether a difference that is shown is also shown to be larger than the margin."""
    nearest = min(abs(found.difference.low), abs(found.difference.high))
    return f"by more than {MARGIN:g}" if nearest > MARGIN else f"perhaps by less than {MARGIN:g}"


def _open(found: PairedComparison) -> str:
    """Which differences beyond the margin the interval still holds."""
    ends = (("better", found.difference.high > MARGIN), ("worse", found.difference.low < -MARGIN))
    return " or ".join(word for word, is_open in ends if is_open)


def claim_word(claim: Claim, measured: Measured) -> str:
    """One word for all comparisons that decide, or how often which."""
    counts = Counter(outcome(claim, measured.comparison(*pair), measured) for pair in claim.pairs)
    if len(counts) == 1:
        return next(iter(counts))
    return "mixed: " + ", ".join(f"{word} {times} of {len(claim.pairs)}" for word, times in counts.most_common())
