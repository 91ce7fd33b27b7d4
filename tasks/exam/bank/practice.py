"""Build our own exam from exams/practice: one YAML file a subject, and two scripts that draw the diagrams.

`exam.yaml` holds title, licence and numbering rule. The rationale of an item stays in its YAML file: what is built is
what a model may see, and the key.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
from pydantic import Field, ValidationError

from tasks.errors import DataError
from tasks.exam.bank.items import exam_folder, picture_digest, save_exam, text_length
from tasks.exam.bank.numeric import labels_for
from tasks.exam.bank.records import SECTIONS, Exam, ExamItem, ExamSection, ItemText, Language, Subject
from tasks.foreign.yaml_file import read_yaml
from tasks.store import settings
from tasks.store.records.record import Record

#: Scripts with a function `draw_all(folder)`.
FIGURES = ("figures.py", "figures_clinical.py")
Parsed = TypeVar("Parsed", bound=Record)


class Sheet(Record):
    """`exam.yaml`."""

    id: str
    title: str
    licence: str
    source: str
    languages: tuple[Language, ...]
    subjects: tuple[Subject, ...]
    checked_by: str


class Wording(Record):
    """An item in one language."""

    stem: str
    choices: tuple[str, ...]


class PracticeItem(Record):
    """An item as its author writes it. The first item of a case tells the scenario; both are asked with it."""

    id: str
    subject: Subject
    section: ExamSection
    n_select: int
    answers: tuple[tuple[str, ...], ...]
    no_solution: bool = False
    contraindicated: tuple[str, ...] = ()
    figure: str | None = None
    case: str | None = None
    scenario: dict[Language, str] | None = None
    ja: Wording
    en: Wording
    rationale: str = Field(min_length=1)
    reference: str = Field(min_length=1)


def build_practice(data_dir: Path, *, source: Path | None = None) -> Exam:
    """Write the practice exam to `data_dir/exams/practice` and return it. The same source gives the same bytes.

    `source` is the project's exams/practice unless it is given. The pictures depend on matplotlib's version, so the
    exam's digest does too: runs are compared where both had the same pictures.

    Raises:
        DataError: an item is not as the format has it, names the file, the item and the field.
    """
    source = source or settings.project_dir() / "exams" / "practice"
    sheet = _parse(Sheet, _load(source / "exam.yaml"), f"{source / 'exam.yaml'}")
    entries = [entry for subject in sheet.subjects for entry in _entries(source, subject)]
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch)
        _draw(source, images)
        exam = Exam(
            id=sheet.id,
            title=sheet.title,
            languages=sheet.languages,
            items=tuple(_items(sheet, entries, images)),
            source=sheet.source,
            licence=sheet.licence,
        )
        save_exam(exam, exam_folder(data_dir, exam.id), images=images)
    return exam


def _items(sheet: Sheet, entries: Sequence[PracticeItem], images: Path) -> Iterator[ExamItem]:
    """Essential items first; a stable sort keeps the order of subjects and of each file."""
    scenarios = _scenarios(entries)
    for number, entry in enumerate(sorted(entries, key=lambda entry: SECTIONS.index(entry.section)), 1):
        wordings = {language: _wording(entry, language) for language in sheet.languages}
        scenario = scenarios.get(entry.case or "", {})
        text = {
            language: ItemText(stem=wording.stem, choices=wording.choices, scenario=scenario.get(language))
            for language, wording in wordings.items()
        }
        first = text[sheet.languages[0]]
        pictures = () if entry.figure is None else (entry.figure,)
        yield ExamItem(
            id=entry.id,
            exam=sheet.id,
            number=number,
            section=entry.section,
            subject=entry.subject,
            text=text,
            num_choices=len(first.choices),
            labels=labels_for(first.choices, len(first.choices)),
            n_select=entry.n_select,
            answers=entry.answers,
            no_solution=entry.no_solution,
            contraindicated=entry.contraindicated,
            diagram=bool(pictures),
            diagram_source="figure" if pictures else "none",
            images=pictures,
            images_sha256=tuple(picture_digest(images / name, entry.id) for name in pictures),
            case=entry.case,
            text_length=text_length(first),
            source=entry.reference,
        )


def _wording(entry: PracticeItem, language: Language) -> Wording:
    return entry.ja if language == "ja" else entry.en


def _scenarios(entries: Sequence[PracticeItem]) -> dict[str, dict[Language, str]]:
    """The scenario of every case, told once."""
    found: dict[str, dict[Language, str]] = {}
    for entry in entries:
        if entry.scenario is None:
            continue
        if entry.case is None or entry.case in found:
            raise DataError(
                f"{entry.id}: a scenario belongs to a case and is told once: give it to the first item only"
            )
        found[entry.case] = entry.scenario
    return found


def _entries(source: Path, subject: Subject) -> list[PracticeItem]:
    path = source / f"{subject}.yaml"
    values = _load(path)
    if not isinstance(values, list):
        raise DataError(f"{path} is not a list of items: begin each with `- id:`")
    entries = []
    for index, value in enumerate(values, 1):
        name = value.get("id", f"item {index}") if isinstance(value, dict) else f"item {index}"
        entry = _parse(PracticeItem, value, f"{path} ({name})")
        if entry.subject != subject:
            raise DataError(f"{path} ({name}) says subject {entry.subject}: move it to {entry.subject}.yaml")
        entries.append(entry)
    return entries


def _parse(record: type[Parsed], value: Any, where: str) -> Parsed:
    try:
        return record.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(f"{where}: {field}: {first['msg']}; see the other items for the format") from None


def _load(path: Path) -> Any:
    try:
        return read_yaml(path, error=DataError).content
    except FileNotFoundError:
        raise DataError(f"{path} is missing: restore it from the repository") from None


def _draw(source: Path, folder: Path) -> None:
    """Run the drawing scripts with matplotlib's own settings, whatever the user's are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name in FIGURES:
            spec = importlib.util.spec_from_file_location(
                f"pharmafed_practice_{name.removesuffix('.py')}", source / name
            )
            if spec is None or spec.loader is None or not (source / name).exists():
                raise DataError(f"{source / name} is missing: restore it from the repository")
            script = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(script)
            script.draw_all(folder)
