"""An exam on disk: `exam.json` and `images/` in one folder, and the checks that hold for any exam."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from tasks.errors import DataError
from tasks.exam.bank.records import SECTIONS, SUBJECTS, Exam, ExamItem, ExamSection, ItemText, Subject
from tasks.foreign.files import read_ordinary
from tasks.foreign.inside import write_inside
from tasks.store.objects import to_json

#: What every provider that takes pictures reads.
IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF", ".webp": "WEBP"}

_FORMATS = sorted(set(IMAGE_FORMATS.values()))
#: Of one picture: a page scanned at 600 dpi has 35 million pixels, and decodes to as many times three bytes.
MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS = 20 << 20, 40_000_000
#: An exam of ten thousand items with long texts.
MAX_EXAM_BYTES = 64 << 20


def exam_folder(data_dir: Path, exam: str) -> Path:
    """Where an exam lives in the project's data."""
    return data_dir / "exams" / exam


def load_exam(folder: Path) -> Exam:
    """Read an exam and check it, its pictures included.

    Raises:
        DataError: there is no exam in `folder`, or it is not one that `save_exam` wrote.
    """
    path = folder / "exam.json"
    try:
        exam = Exam.model_validate_json(read_ordinary(path, MAX_EXAM_BYTES, DataError))
    except FileNotFoundError:
        raise DataError(f"no exam at {path}: run `pharmafed exam prepare` or `pharmafed exam import`") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the file"
        raise DataError(f"{path} is not an exam, first at {where}: import or prepare it again") from None
    check_exam(exam)
    for item in exam.items:
        check_pictures(item, folder / "images")
    return exam


def save_exam(exam: Exam, folder: Path, *, images: Path | None = None) -> None:
    """Write an exam with the pictures that it names, copied from the folder `images`; `exam.json` comes last.

    Raises:
        DataError: the exam or one of its pictures is not sound, or there can be no such folder; nothing is written.
    """
    check_exam(exam)
    pictured = [item for item in exam.items if item.images or item.case_images]
    if pictured and images is None:
        raise DataError(f"exam {exam.id} has items with pictures: give the folder of images that it was made with")
    for item in pictured:
        check_pictures(item, images or folder)
    _make(folder / "images")
    names = {name for item in pictured for name in (*item.images, *item.case_images)}
    for name in sorted(names):
        write_inside(folder / "images", name, read_ordinary((images or folder) / name, MAX_PICTURE_BYTES, DataError))
    write_inside(folder, "exam.json", to_json(exam))
    for path in (folder / "images").iterdir():
        if path.name not in names:
            path.unlink()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{folder} cannot be made ({reason}): make room for a folder of that name") from None


def check_exam(exam: Exam) -> None:
    """Refuse an exam that contradicts itself.

    Raises:
        DataError: names the exam, the item and every problem found.
    """
    problems = [*_exam_problems(exam), *_case_problems(exam)]
    for item in exam.items:
        problems += [f"{item.id}: {problem}" for problem in _item_problems(item, exam)]
    if problems:
        raise DataError(f"exam {exam.id} is not sound: {'; '.join(problems)}. Correct its source and import it again")


def check_pictures(item: ExamItem, folder: Path) -> None:
    """Raises DataError where a picture of the item is missing, not an image, or not the one that was imported."""
    names, digests = (*item.images, *item.case_images), (*item.images_sha256, *item.case_images_sha256)
    for name, digest in zip(names, digests, strict=True):
        if picture_digest(folder / name, item.id) != digest:
            raise DataError(f"{folder / name} ({item.id}) has changed since the import: import the exam again")


def picture_digest(path: Path, item: str) -> str:
    """sha256 of a picture that decodes to its last pixel. Its size is read in its header, before it is decoded.

    Raises:
        DataError: it is missing, too large, not an image, or one of another kind than its name says.
    """
    try:
        content = read_ordinary(path, MAX_PICTURE_BYTES, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} ({item}) is missing: put the picture there") from None
    found = _decode(path, item, content)
    if IMAGE_FORMATS.get(path.suffix.lower()) != found:
        raise DataError(f"{path} ({item}) is {found} by its content: give it the right ending")
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Pillow warns of pictures that are larger than ours may be: not on the console, but in our words."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _decode(path: Path, item: str, content: bytes) -> str | None:
    """The format of a whole image."""
    too_large = f"{path} ({item}) has more than {MAX_PICTURE_PIXELS // 10**6} million pixels: make it smaller"
    try:
        with _bombs_are_errors(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise DataError(too_large)
            image.load()
            return image.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(too_large) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} ({item}) is not a whole image ({type(error).__name__}): fetch it again") from None


def text_length(text: ItemText) -> int:
    """Characters of stem and choices, without the scenario."""
    return len(text.stem) + sum(len(choice) for choice in text.choices)


def subject_table(exam: Exam) -> dict[ExamSection, dict[Subject, int]]:
    """Items by section and subject, zeros included, in the paper's order."""
    counts = Counter((item.section, item.subject) for item in exam.items)
    return {section: {subject: counts[section, subject] for subject in SUBJECTS} for section in SECTIONS}


def _exam_problems(exam: Exam) -> Iterator[str]:
    if not exam.items:
        yield "it has no items"
    numbers = [item.number for item in exam.items]
    if numbers != sorted(numbers):
        yield "its items are not ordered by number"
    for name, values in (("number", numbers), ("id", [item.id for item in exam.items])):
        for value, count in Counter(values).items():
            if count > 1:
                yield f"{count} items have the {name} {value}"


def _case_problems(exam: Exam) -> Iterator[str]:
    cases: dict[str, list[ExamItem]] = defaultdict(list)
    for item in exam.items:
        if item.case is not None:
            cases[item.case].append(item)
        elif item.case_pictured or item.case_images:
            yield f"{item.id} has pictures of a case and is of none"
    for case, items in cases.items():
        if len(items) < 2:
            yield f"case {case} has {len(items)} items instead of 2 or more"
        for place, item in enumerate(items):
            if place and any(text.scenario is None for text in item.text.values()):
                yield f"{item.id} is linked and has no scenario"
            earlier = {pair for one in items[:place] for pair in zip(one.images, one.images_sha256, strict=False)}
            if not earlier.issuperset(zip(item.case_images, item.case_images_sha256, strict=False)):
                yield f"{item.id} has a picture that no earlier item of its case has"


def _item_problems(item: ExamItem, exam: Exam) -> Iterator[str]:
    if item.exam != exam.id:
        yield f"it is of exam {item.exam}"
    if tuple(item.text) != exam.languages:
        yield f"its languages are not {', '.join(exam.languages)}"
    for language, text in item.text.items():
        if not text.stem.strip() or not all(choice.strip() for choice in text.choices):
            yield f"an empty stem or choice ({language})"
        if len(text.choices) not in ({0, item.num_choices} if item.diagram else {item.num_choices}):
            yield f"{len(text.choices)} choices instead of {item.num_choices} ({language})"
    yield from _answer_problems(item)
    if item.diagram and item.diagram_source == "none":
        yield "it has a diagram from no source"
    if item.images and not (item.diagram or item.pictured):
        yield "it has pictures and no diagram"
    if item.case_images and not item.case_pictured:
        yield "it has pictures of its case and is said to have none"
    if len(item.images) != len(item.images_sha256) or len(item.case_images) != len(item.case_images_sha256):
        yield "its pictures and their digests are not as many"


def _option(number: str) -> tuple[int, str]:
    """Orders options as numbers: 2 comes before 10."""
    return (int(number), number) if number.isdecimal() else (0, number)


def _answer_problems(item: ExamItem) -> Iterator[str]:
    options = {str(number + 1) for number in range(item.num_choices)}
    if len(set(item.labels)) != len(item.labels) or len(item.labels) != item.num_choices:
        yield "its labels do not name its options"
    if item.no_solution != (not item.answers):
        yield "it must have either answers or no solution"
    for answer in item.answers:
        if not options.issuperset(answer):
            yield f"an answer outside its {item.num_choices} options"
        if len(set(answer)) != item.n_select or list(answer) != sorted(answer, key=_option):
            yield f"an accepted set that is not {item.n_select} sorted options"
        if set(answer) & set(item.contraindicated):
            yield "an accepted set with a contraindicated option"
    if not options.issuperset(item.contraindicated):
        yield f"a contraindicated option outside its {item.num_choices} options"
