"""When a sitting passes: the three criteria of the 107th examination, in whole numbers, read as `scoring` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tasks.exam.records import SUBJECTS, Exam, ExamItem, Verdict
from tasks.exam.score_records import Criterion, CriterionLine

POINTS_PER_ITEM = 2
#: 434 of 690 points: 217 right items of 345 pass, although that is 62.899% and the paper writes 62.9%.
PASS_POINTS = (434, 690)
ESSENTIAL_PERCENT = 70
ESSENTIAL_SUBJECT_PERCENT = 30
MAX_CONTRAINDICATED = 2
_GROUPED = ("physics", "chemistry", "biology")


def criteria(
    exam: Exam, verdicts: Mapping[str, Verdict], answers: Mapping[str, tuple[str, ...] | None]
) -> tuple[Criterion, ...]:
    """All three, over all items of the exam: what was not entered earns nothing."""
    right = {item for item, found in verdicts.items() if found in ("correct", "unasked")}
    return _points(exam, right), _essential(exam, right), _contraindicated(exam, answers)


def verdict(judged: Iterable[Criterion]) -> bool | None:
    """Whether a complete sitting passes. Contraindicated choices count only where the exam lists them."""
    found = {criterion.name: criterion.passed for criterion in judged}
    if found["points"] is None or found["essential"] is None:
        return None
    return found["points"] and found["essential"] and found["contraindicated"] is not False


def still_open(criterion: Criterion, missing: int) -> Criterion:
    """The criterion while `missing` items have no response: what is not met so far may be met with them."""
    if criterion.passed is not False or criterion.name == "contraindicated":
        return criterion
    return criterion.model_copy(update={"passed": None, "note": f"not evaluable: {missing} items have no response"})


def _points(exam: Exam, right: set[str]) -> Criterion:
    possible = POINTS_PER_ITEM * len(exam.items)
    bound = _ceil(PASS_POINTS[0] * possible, PASS_POINTS[1])
    line = _at_least("points", POINTS_PER_ITEM * len(right), possible, bound)
    return Criterion(name="points", lines=(line,), passed=line.passed)


def _essential(exam: Exam, right: set[str]) -> Criterion:
    essential = [item for item in exam.items if item.section == "essential"]
    if not essential:
        return Criterion(name="essential", lines=(), passed=None, note="not evaluable: the exam has no essential items")
    lines = [_share("all subjects", essential, right, ESSENTIAL_PERCENT)]
    for subjects in (_GROUPED, *((subject,) for subject in SUBJECTS if subject not in _GROUPED)):
        members = [item for item in essential if item.subject in subjects]
        if members:
            lines.append(_share(" + ".join(subjects), members, right, ESSENTIAL_SUBJECT_PERCENT))
    return Criterion(name="essential", lines=tuple(lines), passed=all(line.passed for line in lines))


def _contraindicated(exam: Exam, answers: Mapping[str, tuple[str, ...] | None]) -> Criterion:
    listed = sum(len(item.contraindicated) for item in exam.items)
    if not listed:
        note = "not evaluable: the exam lists no contraindicated options"
        return Criterion(name="contraindicated", lines=(), passed=None, note=note)
    chosen = sum(len(set(item.contraindicated) & set(answers.get(item.id) or ())) for item in exam.items)
    passed = chosen <= MAX_CONTRAINDICATED
    line = CriterionLine(
        name="contraindicated options chosen",
        value=chosen,
        of=listed,
        bound=MAX_CONTRAINDICATED,
        rule="at most",
        passed=passed,
    )
    return Criterion(name="contraindicated", lines=(line,), passed=passed)


def _share(name: str, items: Sequence[ExamItem], right: set[str], percent: int) -> CriterionLine:
    value = sum(item.id in right for item in items)
    return _at_least(name, value, len(items), _ceil(percent * len(items), 100))


def _at_least(name: str, value: int, of: int, bound: int) -> CriterionLine:
    return CriterionLine(name=name, value=value, of=of, bound=bound, rule="at least", passed=value >= bound)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
