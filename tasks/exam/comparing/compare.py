"""Two runs of one exam, item by item: what changed, how much chance alone would change, and whether that is drift.

Runs are paired on the items that both entered; of each item the majority's verdict counts, and an unreadable reply is
not right. The paired test is McNemar's, exact. The paper's chi-square stands beside it, labelled unpaired: it treats
the two runs as if they were of different items, which they are not.

Drift is called between runs of one model with equal settings when exact p < alpha and the net change is at least 2% of
the paired items: a smaller change is not worth an alarm even where it is not chance. On 345 items with alpha 0.05, 20
items lost are drift, 5 are not (p = 0.0625), and it takes at least 7. When only chance flips items, each way is as
likely, and the alarm is false with a probability of at most alpha; `false_alarm` is that probability for the number of
items that did flip. Where settings differ the same test is of a difference, and what differs is named.

Alpha is the level of one comparison. A scheduled run is compared twice, each time at half of 5% (see `drift`), so that
5% holds for a run. It does not hold over runs: twelve months of one model and language in which nothing changes raise
at least one false alarm with a probability of up to 46%, and every further arm has its own. A single alarm is a reason
to look at the flipped items, not yet a finding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from tasks.errors import DataError
from tasks.exam.bank.records import Exam
from tasks.exam.comparing.comparison_records import (
    ChangedSetting,
    ComparisonKind,
    ComparisonOutcome,
    Decision,
    Detected,
    Flip,
    PairedSlice,
    PairedTest,
    RunComparison,
    Side,
    UnpairedTest,
)
from tasks.exam.scoring.exam_index import index_of
from tasks.exam.scoring.score_records import ItemScore, ScoredRun
from tasks.exam.scoring.statistics import (
    TYPICAL_DISCORDANCE,
    ChiSquare,
    chi_square,
    exact_mcnemar,
    holm,
    minimum_detectable,
    net_at_least,
    significant_net,
    wilson,
)

#: Of the paired items: a net change below it raises no alarm.
MIN_NET_PERCENT = 2
#: What an arm may be about, the most telling first.
_ARMS = ("language", "prompt", "images", "temperature", "max_tokens", "epochs", "limit")
_Pairs = Sequence[tuple[ItemScore, ItemScore]]
#: Whether an item is right in a, and in b.
_Outcomes = tuple[bool, bool]


def compare(exam: Exam, a: ScoredRun, b: ScoredRun, *, alpha: float = 0.05) -> RunComparison:
    """Compare run `b` with the earlier run, or other model or arm, `a`.

    Raises:
        DataError: the runs are not both of this exam, or have no item in common.
        ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    _check_exam(exam, a, b)
    pairs = _paired(a, b)
    differences = _differences(a, b)
    kind, compared = _kind({setting.name for setting in differences})
    outcomes = {first.item: (right(first), right(second)) for first, second in pairs}
    overall = _paired_test(outcomes.values())
    return RunComparison(
        exam=exam.id,
        exam_digest=a.run.settings.exam_digest,
        kind=kind,
        compared=compared,
        differences=differences,
        confounders=tuple(setting.name for setting in differences if setting.name not in compared),
        notes=_notes(a, b, len(pairs)),
        a=_side(a, [first for first, _ in pairs]),
        b=_side(b, [second for _, second in pairs]),
        pairs=len(pairs),
        overall=overall,
        unpaired=_unpaired(overall, len(pairs)),
        slices=_slices(exam, outcomes),
        lost=_flips(pairs, lost=True),
        gained=_flips(pairs, lost=False),
        changed_answers=sum(first.answer != second.answer for first, second in pairs),
        detectable=_detectable(len(pairs), TYPICAL_DISCORDANCE, alpha),
        detectable_here=_detectable(len(pairs), (overall.lost + overall.gained) / len(pairs), alpha),
        decision=_decision(overall, len(pairs), alpha, rerun=kind == "rerun"),
    )


def right(item: ItemScore) -> bool:
    """Whether the item counts as correct; without a solution it does."""
    return item.verdict in ("correct", "unasked")


def _check_exam(exam: Exam, a: ScoredRun, b: ScoredRun) -> None:
    digest = index_of(exam).digest
    for one in (a, b):
        if one.run.settings.exam_digest != digest:
            raise DataError(
                f"run {one.run.id} asked exam {one.run.settings.exam} with digest {one.run.settings.exam_digest}, but "
                f"exam {exam.id} has {digest}: only runs of the same exam can be compared"
            )
        if (one.scores.run, one.scores.responses_sha256) != (one.run.id, one.run.responses_sha256):
            raise DataError(f"the scores of run {one.scores.run} are not of run {one.run.id} as it is: score it again")


def _paired(a: ScoredRun, b: ScoredRun) -> list[tuple[ItemScore, ItemScore]]:
    second = {item.item: item for item in b.scores.items}
    pairs = [(item, second[item.item]) for item in a.scores.items if item.item in second]
    if not any(first.verdict != "unasked" for first, _ in pairs):
        raise DataError(f"runs {a.run.id} and {b.run.id} answered no item in common: there is nothing to compare")
    return pairs


def _differences(a: ScoredRun, b: ScoredRun) -> tuple[ChangedSetting, ...]:
    """Settings that are not equal. A prompt is its text: the same name with another digest is another prompt."""
    one, two = a.run.settings, b.run.settings
    found = [
        ChangedSetting(name=name, a=str(getattr(one, name)), b=str(getattr(two, name)))
        for name in ("model", *_ARMS)
        if getattr(one, name) != getattr(two, name)
    ]
    if one.prompt_digest != two.prompt_digest and one.prompt == two.prompt:
        edited = (f"{one.prompt} with digest {digest}" for digest in (one.prompt_digest, two.prompt_digest))
        found.append(ChangedSetting(name="prompt", a=next(edited), b=next(edited)))
    return tuple(found)


def _kind(differing: Collection[str]) -> tuple[ComparisonKind, tuple[str, ...]]:
    """What the comparison is about. A language cannot change without its prompt: the two are one arm."""
    if "model" in differing:
        return "models", ("model",)
    if "language" in differing:
        return "arms", ("language", "prompt") if "prompt" in differing else ("language",)
    arms = [name for name in _ARMS if name in differing]
    return ("arms", (arms[0],)) if arms else ("rerun", ())


def _notes(a: ScoredRun, b: ScoredRun, pairs: int) -> tuple[str, ...]:
    """What no test knows but a reader must."""
    notes = []
    if set(a.scores.answered_by) != set(b.scores.answered_by):
        notes.append(f"answered by {_names(a.scores.answered_by)}, then by {_names(b.scores.answered_by)}")
    for name in ("engine", "code_version"):
        first, second = getattr(a.run, name), getattr(b.run, name)
        if first != second:
            notes.append(f"{name} {first}, then {second}")
    for one in (a, b):
        unpaired = one.scores.coverage.entered - pairs
        if unpaired:
            notes.append(f"{unpaired} items that only {one.run.id} entered are left out")
        if one.scores.coverage.missing:
            notes.append(f"{one.run.id} lacks responses to {len(one.scores.coverage.missing)} items")
    return tuple(notes)


def _names(models: Mapping[str, int]) -> str:
    return ", ".join(sorted(models)) or "nobody"


def _side(one: ScoredRun, items: Sequence[ItemScore]) -> Side:
    correct, epochs = sum(map(right, items)), one.scores.epochs
    return Side(
        run=one.run.id,
        model=one.run.settings.model,
        language=one.run.settings.language,
        prompt=one.run.settings.prompt,
        finished_at=one.run.finished_at,
        answered_by=tuple(sorted(one.scores.answered_by)),
        correct=correct,
        unparsed=sum(item.verdict == "unparsed" for item in items),
        cut_off=sum(item.verdict == "cut off" for item in items),
        accuracy=correct / len(items),
        interval=wilson(correct, len(items)),
        passed=one.scores.passed,
        epochs=one.run.settings.epochs,
        epoch_mean=epochs.mean,
        epoch_variance=epochs.variance,
        epoch_agreement=epochs.agreement,
    )


def _paired_test(outcomes: Iterable[_Outcomes]) -> PairedTest:
    ways = Counter(outcomes)
    lost, gained = ways[True, False], ways[False, True]
    return PairedTest(
        both_right=ways[True, True],
        both_wrong=ways[False, False],
        lost=lost,
        gained=gained,
        net=gained - lost,
        p=exact_mcnemar(lost, gained),
    )


def _unpaired(test: PairedTest, pairs: int) -> UnpairedTest:
    counts = (test.both_right + test.lost, pairs, test.both_right + test.gained, pairs)
    return UnpairedTest(yates=_test(chi_square(*counts, yates=True)), plain=_test(chi_square(*counts, yates=False)))


def _test(found: ChiSquare | None) -> tuple[float, float] | None:
    return None if found is None else (found.statistic, found.p)


def _slices(exam: Exam, outcomes: Mapping[str, _Outcomes]) -> tuple[PairedSlice, ...]:
    """Every slice with a pair in it; Holm over all of them, which overlap, as Holm allows."""
    found = []
    for dimension, value, group in index_of(exam).slices:
        members = [outcomes[item.id] for item in group.items if item.id in outcomes]
        if members:
            found.append((dimension, value, len(members), _paired_test(members)))
    adjusted = holm([test.p for *_, test in found])
    return tuple(
        PairedSlice(dimension=dimension, value=value, pairs=size, test=test, p_holm=p)
        for (dimension, value, size, test), p in zip(found, adjusted, strict=True)
    )


def _flips(pairs: _Pairs, *, lost: bool) -> tuple[Flip, ...]:
    flips = [
        Flip(
            item=first.item,
            number=first.number,
            before=first.verdict,
            after=second.verdict,
            answer_before=first.answer,
            answer_after=second.answer,
        )
        for first, second in pairs
        if right(first) == lost and right(second) != lost
    ]
    return tuple(sorted(flips, key=lambda flip: flip.number))


def _detectable(pairs: int, discordance: float, alpha: float) -> Detected | None:
    found = minimum_detectable(pairs, discordance=discordance, alpha=alpha)
    return None if found is None else Detected(discordance=discordance, items=found.items, share=found.share)


def _decision(test: PairedTest, pairs: int, alpha: float, *, rerun: bool) -> Decision:
    discordant = test.lost + test.gained
    smallest = math.ceil(pairs * MIN_NET_PERCENT / 100)
    significant = significant_net(discordant, alpha)
    threshold = None if significant is None else max(significant, smallest)
    changed = test.p < alpha and abs(test.net) >= smallest
    verdicts: tuple[ComparisonOutcome, ComparisonOutcome] = (
        ("no drift", "drift") if rerun else ("no difference", "difference")
    )
    return Decision(
        verdict=verdicts[changed],
        direction=None if not changed else "worse" if test.net < 0 else "better",
        alpha=alpha,
        min_net=smallest,
        threshold=threshold,
        false_alarm=0.0 if threshold is None else net_at_least(discordant, threshold),
    )
