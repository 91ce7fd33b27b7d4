"""When a sitting passes: three criteria in whole numbers, read as `score` says.

An imported examination brings the rules of its year (`Exam.pass_rules`), and what they leave open is not judged. An
exam of our own has none, and is judged as the paper judges the 107th, by the same share of its own points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from tasks.exam.bank.records import SUBJECTS, Exam, ExamItem, PassRules, ResponseVerdict
from tasks.exam.scoring.score_records import Criterion, CriterionLine

POINTS_PER_ITEM = 2
#: 434 of 690 points: 217 right items of 345 pass, although that is 62.899% and the paper writes 62.9%.
_SHARE = (434, 690)
_PAPER = PassRules(essential_percent=70, essential_subject_percent=30, max_contraindicated=2)
_GROUPED = ("physics", "chemistry", "biology")


def criteria(
    exam: Exam, verdicts: Mapping[str, ResponseVerdict], answers: Mapping[str, tuple[str, ...] | None]
) -> tuple[Criterion, ...]:
    """All three, over all items of the exam: what was not entered earns nothing."""
    right = {item for item, found in verdicts.items() if found in ("correct", "unasked")}
    return _points(exam, right), _essential(exam, right), _contraindicated(exam, answers)


def sitting_passes(judged: Iterable[Criterion]) -> bool | None:
    """Whether a complete sitting passes. Contraindicated choices count only where the exam lists them."""
    found = {criterion.name: criterion.passed for criterion in judged}
    if found["points"] is None or found["essential"] is None:
        return None
    return found["points"] and found["essential"] and found["contraindicated"] is not False


def _rules(exam: Exam) -> PassRules:
    return _PAPER if exam.pass_rules is None else exam.pass_rules


def _open(name: Literal["points", "essential", "contraindicated"], why: str) -> Criterion:
    return Criterion(name=name, lines=(), passed=None, note=f"not evaluable: {why}")


def still_open(criterion: Criterion, missing: int) -> Criterion:
    """The criterion while `missing` items have no response: a lower bound may be met with them, an upper one broken."""
    lines = tuple(
        line.model_copy(update={"passed": None}) if line.passed == (line.rule == "at most") else line
        for line in criterion.lines
    )
    if lines == criterion.lines:
        return criterion
    note = f"not evaluable: {missing} items have no response"
    return criterion.model_copy(update={"lines": lines, "passed": None, "note": note})


def _points(exam: Exam, right: set[str]) -> Criterion:
    possible = POINTS_PER_ITEM * len(exam.items)
    bound = _ceil(_SHARE[0] * possible, _SHARE[1]) if exam.pass_rules is None else exam.pass_rules.points
    if bound is None:
        return _open("points", f"exams/national/{exam.id}.yaml gave no points that pass")
    line = _at_least("points", POINTS_PER_ITEM * len(right), possible, bound)
    return Criterion(name="points", lines=(line,), passed=line.passed)


def _essential(exam: Exam, right: set[str]) -> Criterion:
    essential = [item for item in exam.items if item.section == "essential"]
    rules = _rules(exam)
    if not essential:
        return _open("essential", "the exam has no essential items")
    if rules.essential_percent is None and rules.essential_subject_percent is None:
        return _open("essential", f"exams/national/{exam.id}.yaml gave no share of the essential items")
    lines = (
        [] if rules.essential_percent is None else [_share("all subjects", essential, right, rules.essential_percent)]
    )
    for subjects in (_GROUPED, *((subject,) for subject in SUBJECTS if subject not in _GROUPED)):
        members = [item for item in essential if item.subject in subjects]
        if members and rules.essential_subject_percent is not None:
            lines.append(_share(" + ".join(subjects), members, right, rules.essential_subject_percent))
    return Criterion(name="essential", lines=tuple(lines), passed=all(line.passed for line in lines))


def _contraindicated(exam: Exam, answers: Mapping[str, tuple[str, ...] | None]) -> Criterion:
    listed = sum(len(item.contraindicated) for item in exam.items)
    bound = _rules(exam).max_contraindicated
    if not listed or bound is None:
        return _open("contraindicated", "the exam lists no contraindicated options")
    chosen = sum(len(set(item.contraindicated) & set(answers.get(item.id) or ())) for item in exam.items)
    line = CriterionLine(
        name="contraindicated options chosen",
        value=chosen,
        of=listed,
        bound=bound,
        rule="at most",
        passed=chosen <= bound,
    )
    return Criterion(name="contraindicated", lines=(line,), passed=line.passed)


def _share(name: str, items: Sequence[ExamItem], right: set[str], percent: int) -> CriterionLine:
    value = sum(item.id in right for item in items)
    return _at_least(name, value, len(items), _ceil(percent * len(items), 100))


def _at_least(name: str, value: int, of: int, bound: int) -> CriterionLine:
    return CriterionLine(name=name, value=value, of=of, bound=bound, rule="at least", passed=value >= bound)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
