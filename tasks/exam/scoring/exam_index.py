"""What scoring and comparing look up in an exam, made once per exam object however many runs are scored with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tasks.exam.bank.records import Exam, ExamItem, Subject
from tasks.exam.scoring.score_records import Dimension
from tasks.exam.scoring.slices import ItemGroup, slices_of, table_of
from tasks.store.records.record import Digest


@dataclass(frozen=True)
class ExamIndex:
    """An exam's digest, its items and their digests by id, and the groups that are counted."""

    digest: Digest
    items: dict[str, ExamItem]
    item_digests: dict[str, Digest]
    all: ItemGroup
    table: tuple[tuple[Subject | Literal["total"], ItemGroup, ItemGroup, ItemGroup], ...]
    slices: tuple[tuple[Dimension, str, ItemGroup], ...]


def index_of(exam: Exam) -> ExamIndex:
    """The index of this very object: records are frozen, and a corrected exam is another object."""
    return _index(_Identity(exam))


class _Identity:
    """Stands for one object in a cache, and keeps it alive, so that its id is not given to another."""

    def __init__(self, exam: Exam) -> None:
        self.exam = exam

    def __hash__(self) -> int:
        return id(self.exam)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.exam is other.exam


@lru_cache(maxsize=4)
def _index(identity: _Identity) -> ExamIndex:
    exam = identity.exam
    return ExamIndex(
        digest=exam.digest,
        items={item.id: item for item in exam.items},
        item_digests={item.id: item.digest for item in exam.items},
        all=ItemGroup.of(exam.items),
        table=tuple(table_of(exam)),
        slices=tuple(slices_of(exam)),
    )
