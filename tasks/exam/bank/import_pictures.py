"""Which items of an import have a picture, and where it lies."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from tasks.errors import DataError
from tasks.exam.bank.faults import Faults, first_few
from tasks.exam.bank.items import IMAGE_FORMATS, picture_digest
from tasks.exam.bank.national import NUM_ITEMS
from tasks.foreign.files import MAX_TEXT_BYTES, listed, read_ordinary

#: Names and digests of an item's pictures.
Pictures = tuple[tuple[str, str], ...]
_ENTRY = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def read_diagrams(path: Path, exam: str) -> frozenset[int]:
    """The numbers of the items that a list counts as having a diagram: 3, 107003 or 3-5, by blanks, commas or lines.

    What follows a `#` is a remark.

    Raises:
        DataError: with every entry that is none of these or no item of the exam, or the list is empty.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the list of items with a diagram; nothing has been imported")
    try:
        text = read_ordinary(path, MAX_TEXT_BYTES, DataError).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: name the list of items with a diagram") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8: write one item number a line") from None
    faults = Faults()
    found: set[int] = set()
    for number, line in enumerate(text.splitlines(), 1):
        for entry in line.partition("#")[0].replace(",", " ").split():
            items = _items(entry, exam)
            if not items:
                faults.add(path, "not the number or range of an item of the exam", "Write 3 or 3-5", f"line {number}")
            found.update(items)
    if not found and not faults:
        faults.add(path, "names no item", "Write one item number a line, or import without a list")
    faults.refuse()
    return frozenset(found)


def _items(entry: str, exam: str) -> range:
    """Empty where the entry is not of the exam."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return range(0)
    ends = [match[1], match[2] or match[1]]
    if any((len(end) == 6 and not end.startswith(exam)) or len(end) in (4, 5) for end in ends):
        return range(0)
    first, last = (int(end[-3:]) for end in ends)
    return range(first, last + 1) if 1 <= first <= last <= NUM_ITEMS else range(0)


def find_pictures(
    folder: Path, ids: Collection[str], needed: Collection[str], faults: Faults
) -> Mapping[str, Pictures]:
    """Each item's pictures: `107003.png`, or `107003-1.png`, `107003-2.png` ... in name order.

    Raises:
        DataError: `folder` is no folder. What is wrong in it is noted in `faults`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of images: name one, or import without pictures")
    names: dict[str, list[str]] = defaultdict(list)
    for path in listed(folder):
        if key := _owner(path, ids, needed, faults):
            names[key].append(path.name)
    if missing := [f"{key}.png" for key in sorted(needed) if key not in names]:
        problem = f"lacks the pictures of {len(missing)} of {len(needed)} items: {first_few(missing)}"
        faults.add(folder, problem, "Add them")
    return {key: tuple(_digests(folder, key, files, faults)) for key, files in names.items()}


def _digests(folder: Path, key: str, names: Collection[str], faults: Faults) -> list[tuple[str, str]]:
    found = []
    for name in names:
        try:
            found.append((name, picture_digest(folder / name, key)))
        except DataError as error:
            faults.add_error(error)
    return found


def _owner(path: Path, ids: Collection[str], needed: Collection[str], faults: Faults) -> str | None:
    """The id of the item that a picture belongs to; None where it belongs to none."""
    key = path.stem[:6]
    if path.suffix.lower() not in IMAGE_FORMATS or path.stem[6:7] not in ("", "-", "_"):
        faults.add(path, "is not named as a picture", "<problem_id>.png, or <problem_id>-1.png; rename or remove it")
    elif key not in ids:
        faults.add(path, "belongs to no item of the exam", "Rename or remove it")
    elif key not in needed:
        problem = f"belongs to an item without a diagram ({key}, text_only)"
        faults.add(path, problem, "Remove it, or correct the flag")
    else:
        return key
    return None
