"""Import a national examination in the YakugakuQA layout: `data.jsonl` with the items, `metadata.jsonl` with subjects.

The public repository (github.com/EQUES-Inc/pharma-LLM-eval, folder data/2022 for exam 107) calls the same two files
`107.jsonl` and `metadata_107.jsonl`; either pair is read. The files are joined by `problem_id` and never by position:
metadata comes repeated four times in some years and out of order in others. The explanations (`comment`) and `points`
("1"; an item has 2) are never read. One bad line refuses the whole import.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tasks.errors import DataError
from tasks.exam.answer_keys import KeyProblem, accepted_sets, read_key, read_n_select, read_note
from tasks.exam.import_report import ImportReport, report_on
from tasks.exam.items import IMAGE_FORMATS, check_exam, picture_digest, text_length
from tasks.exam.jsonl import Line, read_lines
from tasks.exam.numeric import labels_for
from tasks.exam.records import Exam, ExamItem, ItemText, Section, Subject
from tasks.foreign_files import listed

NUM_ITEMS = 345
#: Items 1-90 are the essential section.
NUM_ESSENTIAL = 90
#: 196 and 197, 198 and 199 ... 324 and 325 share a patient, whom only the first of the two describes.
LINKED = range(196, 326, 2)
#: What every item of the examination has, but for a handful of four; assumed where the options are in the picture.
USUAL_CHOICES = 5
MAX_CHOICES = 10
SUBJECTS: dict[str, Subject] = {
    "Physics": "physics",
    "Chemistry": "chemistry",
    "Biology": "biology",
    "Hygiene": "hygiene",
    "Pharmacology": "pharmacology",
    "Pharmacy": "pharmaceutics",
    "Pathology": "pathophysiology",
    "Law": "regulations",
    "Practice": "practice",
}
#: Mean of the human candidates, as far as the paper gives it.
HUMAN_MEAN = {"107": 0.682}
LICENCE = "CC BY-SA 4.0 by the dataset card of YakugakuQA; its repository has no licence file"
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Problem(BaseModel):
    """A line of the items' file. What is not named here, the explanation above all, is not read."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    problem_id: str = Field(pattern=r"^[0-9]{6}$")
    problem_text: _Text
    choices: Literal["IMAGES"] | Annotated[list[_Text], Field(min_length=2, max_length=MAX_CHOICES)]
    text_only: bool
    answer: list[str]


class _Metadata(BaseModel):
    """A line of the metadata's file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    problem_id: str = Field(pattern=r"^[0-9]{6}$")
    category: str
    note: str = ""


Read = TypeVar("Read", _Problem, _Metadata)


@dataclass
class _Notebook:
    """What the import has to tell."""

    any_of: list[str] = field(default_factory=list)
    unread_notes: list[str] = field(default_factory=list)
    corrections: list[str] = field(default_factory=list)


def import_exam(folder: Path, exam: str, *, images: Path | None = None) -> tuple[Exam, ImportReport]:
    """Read exam `exam` ("107") from `folder`, with its pictures where a folder of `<problem_id>*.png` is given.

    `diagram` is "not `text_only`" and `diagram_source` says so. It is not the paper's "without diagrams": exam 107 has
    217 items with `text_only` and the paper counts 285 without a diagram.

    Raises:
        DataError: with file, line, id, problem and remedy; there is no partial import.
    """
    notebook = _Notebook()
    data, metadata = _find_files(folder, exam)
    problems = _by_id(read_lines(data), _Problem, exam, notebook)
    about = _by_id(read_lines(metadata), _Metadata, exam, notebook)
    _check_ids(problems, about, data, metadata, exam)
    pictures = {} if images is None else _pictures(images, {key: problem for key, (_, problem) in problems.items()})
    items = [_item(exam, *problems[key], *about[key], pictures.get(key, ()), notebook) for key in sorted(problems)]
    result = Exam(
        id=exam,
        title=f"Japanese National License Examination for Pharmacists {int(exam)} ({int(exam) + 1915})",
        languages=("ja",),
        items=tuple(_link(items)),
        source="YakugakuQA layout, github.com/EQUES-Inc/pharma-LLM-eval",
        licence=LICENCE,
        human_mean=HUMAN_MEAN.get(exam),
    )
    check_exam(result)
    told = (tuple(notebook.any_of), tuple(notebook.unread_notes), tuple(notebook.corrections))
    return result, report_on(result, any_of=told[0], unread_notes=told[1], corrections=told[2])


def _find_files(folder: Path, exam: str) -> tuple[Path, Path]:
    """The items' and the metadata's file, under either pair of names."""
    if not (exam.isascii() and exam.isdecimal() and len(exam) == 3):
        raise DataError(f"exam {exam!r} is not the number of an examination: give three digits, as 107 or 097")
    pairs = (("data.jsonl", "metadata.jsonl"), (f"{exam}.jsonl", f"metadata_{exam}.jsonl"))
    found = [(folder / data, folder / about) for data, about in pairs if (folder / data).exists()]
    if len(found) != 1:
        names = " or ".join(f"{data} and {about}" for data, about in pairs)
        raise DataError(f"{folder} needs {names}, and has {len(found)} of the two: name the folder of one examination")
    return found[0]


def _by_id(lines: Sequence[Line], record: type[Read], exam: str, notebook: _Notebook) -> dict[str, tuple[Line, Read]]:
    """One record for each id. A line that repeats another one is dropped, one that contradicts it is refused."""
    found: dict[str, tuple[Line, Read]] = {}
    repeated = 0
    for line in lines:
        value = _read(line, record, exam)
        first = found.setdefault(value.problem_id, (line, value))
        if first[1] != value:
            raise line.refuse(f"it contradicts line {first[0].number} of the same id", "Keep the right one of the two")
        repeated += first[0] is not line
    if repeated:
        notebook.corrections.append(f"{lines[0].path.name}: {repeated} repeated lines dropped")
    return found


def _read(line: Line, record: type[Read], exam: str) -> Read:
    try:
        value = record.model_validate(line.value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = first["loc"][0] if first["loc"] else "line"
        raise line.refuse(f"`{where}` is not as the layout has it ({first['msg']})", "Correct the line") from None
    if not value.problem_id.startswith(exam) or not 1 <= int(value.problem_id[3:]) <= NUM_ITEMS:
        remedy = "Import each examination from its own folder"
        raise line.refuse(f"the id is not one of {exam}001 to {exam}{NUM_ITEMS}", remedy)
    return value


def _check_ids(
    problems: Mapping[str, object], about: Mapping[str, object], data: Path, metadata: Path, exam: str
) -> None:
    """Every one of the 345 items is there, in both files."""
    expected = [f"{exam}{number:03}" for number in range(1, NUM_ITEMS + 1)]
    for path, found in ((data, problems), (metadata, about)):
        missing = [key for key in expected if key not in found]
        if missing:
            some = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
            remedy = "Fetch the whole file; nothing has been imported"
            raise DataError(f"{path} lacks {len(missing)} of {NUM_ITEMS} ids: {some}. {remedy}")


def _item(
    exam: str,
    line: Line,
    problem: _Problem,
    about_line: Line,
    about: _Metadata,
    images: tuple[tuple[str, str], ...],
    notebook: _Notebook,
) -> ExamItem:
    if about.category not in SUBJECTS:
        raise about_line.refuse(f"the subject {about.category!r} is unknown", f"It is one of {', '.join(SUBJECTS)}")
    try:
        n_select, num_choices, answers = _answers(problem, about.note, notebook)
    except KeyProblem as error:
        raise line.refuse(str(error), "Compare with the ministry's key and correct the line") from None
    choices = () if problem.choices == "IMAGES" else tuple(problem.choices)
    if not choices and problem.text_only:
        notebook.corrections.append(f"{problem.problem_id}: IMAGES for choices, so it has a diagram")
    text = ItemText(stem=problem.problem_text, choices=choices)
    number = int(problem.problem_id[3:])
    section: Section = "essential" if number <= NUM_ESSENTIAL else "general"
    return ExamItem(
        id=problem.problem_id,
        exam=exam,
        number=number,
        section=section,
        subject=SUBJECTS[about.category],
        text={"ja": text},
        num_choices=num_choices,
        labels=labels_for(choices, num_choices),
        n_select=n_select,
        answers=answers,
        no_solution=not answers,
        diagram=not problem.text_only or not choices,
        diagram_source="text_only",
        images=tuple(name for name, _ in images),
        images_sha256=tuple(digest for _, digest in images),
        text_length=text_length(text),
        source=f"examination {int(exam)}, item {number}",
    )


def _answers(problem: _Problem, note: str, notebook: _Notebook) -> tuple[int, int, tuple[tuple[str, ...], ...]]:
    """How many options are asked for, how many there are, and the accepted sets.

    Where the options are only in the picture there are five, or as many as the highest number in the key.
    """
    key = read_key(problem.answer)
    rule = key.any_of or read_note(note)
    if problem.choices == "IMAGES":
        num_choices = min(max([USUAL_CHOICES, *(int(option) for option in key.options)]), MAX_CHOICES)
    else:
        num_choices = len(problem.choices)
    n_select = read_n_select(problem.problem_text)
    if n_select is None:
        n_select = rule.count if rule else max(len(key.options), 1)
        if n_select > USUAL_CHOICES:
            raise KeyProblem(f"the stem does not say how many options and the key has {n_select}")
        notebook.corrections.append(f"{problem.problem_id}: the stem does not say how many, the key has {n_select}")
    answers = accepted_sets(key, rule, n_select, num_choices)
    if rule:
        notebook.any_of.append(problem.problem_id)
    elif note.strip() and not key.no_solution:
        notebook.unread_notes.append(problem.problem_id)
    if key.words:
        notebook.corrections.append(f"{problem.problem_id}: words in the key read by rule")
    return n_select, num_choices, answers


def _link(items: Sequence[ExamItem]) -> list[ExamItem]:
    """Give both items of a pair their case, and the second one the first one's stem as its scenario."""
    linked = list(items)
    for number in LINKED:
        first, second = items[number - 1], items[number]
        case = f"{first.id}-{second.id[3:]}"
        told = second.text["ja"].model_copy(update={"scenario": first.text["ja"].stem})
        linked[number - 1] = first.model_copy(update={"case": case})
        linked[number] = second.model_copy(update={"case": case, "text": {"ja": told}})
    return linked


def _pictures(folder: Path, problems: Mapping[str, _Problem]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Names and digests of each item's pictures: `107003.png`, or `107003-1.png`, `107003-2.png` ... in name order."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of images: name one, or import without pictures")
    names: dict[str, list[str]] = defaultdict(list)
    for path in listed(folder):
        names[_owner(path, problems)].append(path.name)
    needed = [key for key, problem in sorted(problems.items()) if not problem.text_only or problem.choices == "IMAGES"]
    missing = [key for key in needed if key not in names]
    if missing:
        some = ", ".join(f"{key}.png" for key in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"{folder} lacks the pictures of {len(missing)} of {len(needed)} items: {some}. Add them")
    return {key: tuple((name, picture_digest(folder / name, key)) for name in files) for key, files in names.items()}


def _owner(path: Path, problems: Mapping[str, _Problem]) -> str:
    """The id of the item that a picture belongs to."""
    key = path.stem[:6]
    if path.suffix.lower() not in IMAGE_FORMATS or path.stem[6:7] not in ("", "-", "_"):
        raise DataError(
            f"{path} is not named as a picture: <problem_id>.png, or <problem_id>-1.png; rename or remove it"
        )
    if key not in problems:
        raise DataError(f"{path} belongs to no item of the exam: rename or remove it")
    if problems[key].text_only and problems[key].choices != "IMAGES":
        raise DataError(
            f"{path} belongs to an item without a diagram ({key}, text_only): remove it, or correct the flag"
        )
    return key
