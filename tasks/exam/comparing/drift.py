"""Whether a model has drifted: a run against the run before it, and against an older one, where slow change shows.

A model that loses a few items every month never differs from the month before by more than chance. So a run is compared
with an anchor, too: the last run that raised an alarm, or else the oldest with equal settings. An alarm makes its run
the next anchor, and is not raised again for the same change. Each of the two comparisons is tested at half of ALPHA, so
that a run raises a false alarm with a probability of at most ALPHA; where both would be with the same run there is one,
at ALPHA. What that level means over months and arms: see `compare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.errors import DriftFound
from tasks.exam.bank.records import Exam
from tasks.exam.comparing.archive import ANCHOR, BASELINE, COMPARISON, find_earlier, load_comparison, load_scored
from tasks.exam.comparing.compare import compare
from tasks.exam.comparing.comparison_records import RunComparison
from tasks.exam.runs.run_files import load_run, write_files
from tasks.exam.scoring.score_records import ScoredRun
from tasks.store.objects import to_json

#: Of one run: how often it may raise an alarm when nothing has changed.
ALPHA = 0.05
_NAMES = {COMPARISON: "the run before", ANCHOR: "the anchor"}


def compare_with_earlier(
    exam: Exam, folder: Path, now: ScoredRun, baseline: ScoredRun | None = None, *, beside: Path | None = None
) -> tuple[RunComparison | None, RunComparison | None]:
    """Write the run's comparisons to its folder; returns those with the run before and, if it is another, the anchor.

    Earlier runs are looked for in `beside`, the folder above unless given.

    What an earlier evaluation of the run left there goes where there is nothing to compare with.

    Raises:
        DataError: a run beside it, or a comparison of one, is damaged.
    """
    earlier = find_earlier(folder, now.run, beside)
    previous, anchor = (earlier[-1], _anchor(earlier)) if earlier else (None, None)
    if anchor == previous:
        anchor = None
    alpha = ALPHA / 2 if anchor else ALPHA
    against = {COMPARISON: previous, ANCHOR: anchor}
    first, second = (
        _write(exam, load_scored(exam, path) if path else None, now, folder / name, alpha)
        for name, path in against.items()
    )
    _write(exam, baseline, now, folder / BASELINE, ALPHA)
    return first, second


def check_drift(folder: Path) -> str:
    """What the comparisons of the run in `folder` say, in words.

    Raises:
        DriftFound: the run differs from the one before or from the anchor by more than chance, for better or worse.
        DataError: there is no finished run, or it or a comparison is damaged.
    """
    run, _ = load_run(folder)
    found = [(_NAMES[name], one) for name in _NAMES if (one := load_comparison(folder / name)) is not None]
    if not found:
        return f"run {run.id} is the first of its kind: nothing to compare with"
    alarms = [f"{one.decision.direction} than in {_words(name, one)}" for name, one in found if _drifted(one)]
    if alarms:
        asked = run.settings
        raise DriftFound(
            f"{asked.model} on exam {asked.exam} in {asked.language} is {'; and '.join(alarms)}; see {folder}"
        )
    return "; ".join(f"{one.decision.verdict} against {_words(name, one)}" for name, one in found)


def _anchor(earlier: Sequence[Path]) -> Path:
    """The last run that raised an alarm, or the oldest."""
    alarms = [path for path in earlier if any(map(_drifted, _comparisons(path)))]
    return alarms[-1] if alarms else earlier[0]


def _comparisons(folder: Path) -> Iterator[RunComparison]:
    for name in _NAMES:
        if (found := load_comparison(folder / name)) is not None:
            yield found


def _drifted(found: RunComparison) -> bool:
    return found.decision.verdict == "drift"


def _words(name: str, found: RunComparison) -> str:
    test, decision = found.overall, found.decision
    bound = "no net change of so few flips is" if decision.threshold is None else f"a net {decision.threshold} would be"
    return (
        f"run {found.a.run}, {name}: {found.lost_words} and {test.gained} gained of {found.pairs}, p = {test.p:.2g}; "
        f"{bound} an alarm at level {decision.alpha:g}"
    )


def _write(exam: Exam, earlier: ScoredRun | None, now: ScoredRun, path: Path, alpha: float) -> RunComparison | None:
    if earlier is None:
        path.unlink(missing_ok=True)
        return None
    comparison = compare(exam, earlier, now, alpha=alpha)
    write_files(path.parent, {path.name: to_json(comparison)})
    return comparison
