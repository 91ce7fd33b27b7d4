"""Import a national examination in the YakugakuQA layout: `data.jsonl` with the items, `metadata.jsonl` with subjects.

The public repository (github.com/EQUES-Inc/pharma-LLM-eval, folder data/2022 for exam 107) calls the same two files
`107.jsonl` and `metadata_107.jsonl`; either pair is read. The files are joined by `problem_id` and never by position:
metadata comes repeated four times in some years and out of order in others. The explanations (`comment`) and `points`
("1"; an item has 2) are never read. One fault refuses the whole import, and all faults are told at once; a file of
corrections mends what the published files have wrong (`corrections`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tasks.exam.bank.answer_keys import (
    AnswerKey,
    KeyProblem,
    accepted_sets,
    note_takes_out,
    read_key,
    read_n_select,
    read_note,
    says_no_solution,
)
from tasks.exam.bank.cases import Linked, link
from tasks.exam.bank.correction_effects import Lines, check_changes
from tasks.exam.bank.corrections import read_corrections
from tasks.exam.bank.faults import Faults, first_few
from tasks.exam.bank.import_pictures import Pictures, find_pictures, read_diagrams
from tasks.exam.bank.import_report import ImportReport, report_on
from tasks.exam.bank.items import check_exam, text_length
from tasks.exam.bank.jsonl import JsonLine
from tasks.exam.bank.national import NUM_ITEMS, SUBJECTS, YearFacts, facts_path, imbalances, section_of, year_facts
from tasks.exam.bank.numeric import labels_for
from tasks.exam.bank.published import MAX_CHOICES, ByKey, Metadata, Problem, find_files, read_both, read_uncorrected
from tasks.exam.bank.records import Correction, Exam, ExamItem, ItemText

#: What every item of the examination has, but for a handful of four; assumed where the options are in the picture.
USUAL_CHOICES = 5
LICENCE = "CC BY-SA 4.0 by the dataset card of YakugakuQA; its repository has no licence file"


@dataclass
class _Notebook:
    """What the import has to tell, and what it has to refuse."""

    faults: Faults = field(default_factory=Faults)
    any_of: list[str] = field(default_factory=list)
    by_note: list[str] = field(default_factory=list)
    unread_notes: list[str] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Sources:
    """What comes with the two files."""

    exam: str
    corrections: Mapping[str, Correction]
    diagrams: frozenset[int] | None
    facts: YearFacts
    metadata: Path


def import_exam(
    folder: Path,
    exam: str,
    *,
    images: Path | None = None,
    corrections: Path | None = None,
    diagrams: Path | None = None,
) -> tuple[Exam, ImportReport]:
    """Read exam `exam` ("107") from `folder`, with its pictures where a folder of `<problem_id>*.png` is given.

    `diagram` is "not `text_only`" and `diagram_source` says so, unless `diagrams` lists the items that count. Exam 107
    has 217 items with `text_only`, and the paper counts 285 without a diagram.

    Raises:
        DataError: with every fault by file, line, id, problem and remedy; there is no partial import.
    """
    paths = find_files(folder, exam)
    sources = _Sources(
        exam=exam,
        corrections=read_corrections(corrections, exam) if corrections else {},
        diagrams=read_diagrams(diagrams, exam) if diagrams else None,
        facts=year_facts(exam),
        metadata=paths[1],
    )
    notebook = _Notebook()
    found = read_both(paths, exam, sources.corrections, corrections, notebook.faults)
    problems, about = found.problems, _with_notes(found.about, sources, notebook)
    notebook.readings += found.dropped
    _check_subjects(about, sources, notebook.faults)
    pictures = {} if images is None else _pictures(images, problems, sources, notebook.faults)
    items = [
        _item(sources, *problems[key], *about[key], pictures.get(key, ()), notebook)
        for key in sorted(problems.keys() & about.keys())
    ]
    _check_facts(sources, problems, notebook.faults)
    if corrections:
        before = read_uncorrected(paths, exam, sources.corrections, corrections, notebook.faults)
        check_changes(
            sources.corrections, before, problems, about, partial(_item_alone, sources), corrections, notebook.faults
        )
    notebook.faults.refuse()
    linked = link([item for item in items if item], _follows(sources))
    for number in linked.idle:
        problem = f"`follows` of item {exam}{number:03} says what the import does without it"
        notebook.faults.add(corrections or "", problem, "Leave it out")
    notebook.faults.refuse()
    result = _exam(sources, linked)
    check_exam(result)
    return result, _report(result, linked, notebook)


def _with_notes(about: ByKey[Metadata], sources: _Sources, notebook: _Notebook) -> ByKey[Metadata]:
    """A published note says nothing of an answer that a person corrected."""
    result = dict(about)
    for item, one in sources.corrections.items():
        if item in about and one.answer is not None and one.note is None and about[item][1].note.strip():
            result[item] = about[item][0], about[item][1].model_copy(update={"note": ""})
            notebook.readings.append(f"{item}: its note is left aside, as its answer is corrected")
    return result


def _exam(sources: _Sources, linked: Linked) -> Exam:
    exam = sources.exam
    return Exam(
        id=exam,
        title=f"Japanese National License Examination for Pharmacists {int(exam)} ({int(exam) + 1915})",
        languages=("ja",),
        items=linked.items,
        source="YakugakuQA layout, github.com/EQUES-Inc/pharma-LLM-eval",
        licence=LICENCE,
        human_mean=sources.facts.human_mean,
        pass_rules=sources.facts.pass_rules,
        corrections=tuple(sources.corrections.values()),
    )


def _report(exam: Exam, linked: Linked, notebook: _Notebook) -> ImportReport:
    return report_on(
        exam,
        any_of=tuple(notebook.any_of),
        by_note=tuple(notebook.by_note),
        unread_notes=tuple(notebook.unread_notes),
        readings=tuple(notebook.readings),
        linked_by_text=linked.by_text,
        linked_by_subject=linked.by_subject,
        unlinked=linked.unlinked,
        unpictured=linked.unpictured,
    )


def _check_subjects(about: ByKey[Metadata], sources: _Sources, faults: Faults) -> None:
    """The subjects are known, and as many as the examination's, unless a correction says so of every doubtful item."""
    for line, value in about.values():
        if value.category not in SUBJECTS:
            problem = f"the subject {value.category!r} is unknown"
            line.fault(faults, problem, f"It is one of {', '.join(SUBJECTS)}")
    subjects = {
        int(key[3:]): SUBJECTS[value.category] for key, (_, value) in about.items() if value.category in SUBJECTS
    }
    if len(subjects) < NUM_ITEMS:
        return
    said = {int(item[3:]) for item, one in sources.corrections.items() if one.category}
    for found in imbalances(subjects):
        if not said.issuperset(found.suspects):
            names = first_few(f"{sources.exam}{number:03}" for number in found.suspects)
            problem = f"{found.words}; it may be {names}"
            remedy = "Look them up in the published paper and give the `category` of each, the present one too"
            faults.add(sources.metadata, problem, f"{remedy}, in a file of --corrections")


def _check_facts(sources: _Sources, problems: Mapping[str, object], faults: Faults) -> None:
    for item in sources.facts.contraindicated.keys() - problems.keys():
        faults.add(facts_path(sources.exam), f"`contraindicated` has {item}, which is no item", "Correct its number")


def _follows(sources: _Sources) -> dict[int, bool]:
    return {int(item[3:]): one.follows for item, one in sources.corrections.items() if one.follows is not None}


def _has_diagram(problem: Problem, sources: _Sources) -> bool:
    return problem.flagged if sources.diagrams is None else problem.number in sources.diagrams


def _pictures(images: Path, problems: ByKey[Problem], sources: _Sources, faults: Faults) -> Mapping[str, Pictures]:
    needed = [key for key, (_, one) in problems.items() if one.flagged or _has_diagram(one, sources)]
    return find_pictures(images, problems.keys(), needed, faults)


def _item(
    sources: _Sources,
    line: JsonLine,
    problem: Problem,
    about_line: JsonLine,
    about: Metadata,
    images: Pictures,
    notebook: _Notebook,
) -> ExamItem | None:
    """None where the item is at fault."""
    try:
        n_select, num_choices, answers = _answers(problem, about.note, notebook)
    except KeyProblem as error:
        remedy = "Compare with the ministry's key, and correct the line or give the right fields with --corrections"
        line.fault(notebook.faults, str(error), remedy)
        return None
    choices = () if problem.choices == "IMAGES" else tuple(problem.choices)
    diagram = _has_diagram(problem, sources)
    if not choices and not diagram:
        line.fault(notebook.faults, "its options are only in the picture, and the list of diagrams lacks it", "Add it")
        return None
    if about.category not in SUBJECTS:
        return None
    if not choices and problem.text_only:
        notebook.readings.append(f"{problem.problem_id}: IMAGES for choices, so it has a diagram")
    text = ItemText(stem=problem.problem_text, choices=choices)
    return ExamItem(
        id=problem.problem_id,
        exam=sources.exam,
        number=problem.number,
        section=section_of(problem.number),
        subject=SUBJECTS[about.category],
        text={"ja": text},
        num_choices=num_choices,
        labels=labels_for(choices, num_choices),
        n_select=n_select,
        answers=answers,
        no_solution=not answers,
        contraindicated=sources.facts.contraindicated.get(problem.problem_id, ()),
        diagram=diagram,
        diagram_source="text_only" if sources.diagrams is None else "list",
        pictured=problem.flagged and not diagram,
        images=tuple(name for name, _ in images),
        images_sha256=tuple(digest for _, digest in images),
        text_length=text_length(text),
        source=f"examination {int(sources.exam)}, item {problem.number}",
    )


def _item_alone(sources: _Sources, *lines: *Lines) -> ExamItem | None:
    """The item of these lines as it would be without pictures; its faults are told elsewhere."""
    return _item(sources, *lines, (), _Notebook())


def _answers(problem: Problem, note: str, notebook: _Notebook) -> tuple[int, int, tuple[tuple[str, ...], ...]]:
    """How many options are asked for, how many there are, and the accepted sets.

    Where the options are only in the picture there are five, or as many as the highest number in the key.
    """
    key = _key(problem, note, notebook)
    rule = None if key.no_solution else key.any_of or read_note(note)
    if problem.choices == "IMAGES":
        num_choices = min(max([USUAL_CHOICES, *(int(option) for option in key.options)]), MAX_CHOICES)
    else:
        num_choices = len(problem.choices)
    n_select = read_n_select(problem.problem_text)
    if n_select is None:
        n_select = rule.count if rule else max(len(key.options), 1)
        if n_select > USUAL_CHOICES:
            raise KeyProblem(f"the stem does not say how many options and the key has {n_select}")
        notebook.readings.append(f"{problem.problem_id}: the stem does not say how many, the key has {n_select}")
    answers = accepted_sets(key, rule, n_select, num_choices)
    if rule:
        notebook.any_of.append(problem.problem_id)
    elif note.strip() and not key.no_solution:
        notebook.unread_notes.append(problem.problem_id)
    if key.words:
        notebook.readings.append(f"{problem.problem_id}: words in the key read by rule")
    return n_select, num_choices, answers


def _key(problem: Problem, note: str, notebook: _Notebook) -> AnswerKey:
    """The key with its note: one that takes the item out decides, whatever the answer field says."""
    if not note_takes_out(note):
        key = read_key(problem.answer)
        if key.no_solution and read_note(note):
            raise KeyProblem("the key has no solution, and the note says what is right")
        return key
    if not says_no_solution(problem.answer):
        notebook.by_note.append(problem.problem_id)
    return AnswerKey((), no_solution=True)
