"""What an import did, as a record and as text for people."""

from __future__ import annotations

from pydantic import Field

from tasks.exam.items import subject_table
from tasks.exam.records import Exam, Section, Subject
from tasks.records import Digest, Record


class ImportReport(Record):
    """Counts of an import and every item that a rule touched. Item ids only: no text of the exam."""

    exam: str
    exam_digest: Digest
    items: int
    subjects: dict[Section, dict[Subject, int]]
    pairs: int
    diagrams: int
    images: int
    two_answers: int
    no_solution: tuple[str, ...]
    pictured_choices: tuple[str, ...] = Field(description="IMAGES: the options are only in the picture")
    unusual_choices: dict[str, int] = Field(description="items with other than five options")
    lettered: tuple[str, ...] = Field(description="all options are quantities, so they are A, B, C ...")
    any_of: dict[str, tuple[tuple[str, ...], ...]] = Field(description="more than one accepted set")
    unread_notes: tuple[str, ...] = Field(description="items whose note no rule reads: a person should")
    corrections: tuple[str, ...]

    def table(self) -> str:
        """Items by subject and section, and one line for each list."""
        rows = [f"exam {self.exam}: {self.items} items, digest {self.exam_digest[:12]}", *self._subject_rows()]
        rows.append(
            f"{self.two_answers} with two answers, {self.diagrams} with a diagram ({self.images} pictures), "
            f"{self.pairs} linked pairs"
        )
        unusual = tuple(f"{item} ({count})" for item, count in self.unusual_choices.items())
        sets = tuple(
            f"{item} ({'/'.join('+'.join(one) for one in accepted)})" for item, accepted in self.any_of.items()
        )
        for name, values in (
            ("no solution", self.no_solution),
            ("choices only in the picture", self.pictured_choices),
            ("other than five choices", unusual),
            ("lettered choices", self.lettered),
            ("any-of rules", sets),
            ("notes that no rule reads", self.unread_notes),
            ("corrections", self.corrections),
        ):
            rows.append(f"{name}: {len(values)}" + (f" - {', '.join(values)}" if values else ""))
        return "\n".join(rows)

    def _subject_rows(self) -> list[str]:
        rows = [f"{'subject':<16}{'essential':>10}{'general':>10}{'all':>6}"]
        essential, general = self.subjects["essential"], self.subjects["general"]
        for subject in essential:
            counts = essential[subject], general[subject]
            rows.append(f"{subject:<16}{counts[0]:>10}{counts[1]:>10}{sum(counts):>6}")
        totals = sum(essential.values()), sum(general.values())
        return [*rows, f"{'all':<16}{totals[0]:>10}{totals[1]:>10}{sum(totals):>6}"]


def report_on(
    exam: Exam,
    *,
    any_of: tuple[str, ...] = (),
    unread_notes: tuple[str, ...] = (),
    corrections: tuple[str, ...] = (),
) -> ImportReport:
    """Count an exam. `any_of` names the items whose key or note has such a rule."""
    items = exam.items
    return ImportReport(
        exam=exam.id,
        exam_digest=exam.digest,
        items=len(items),
        subjects=subject_table(exam),
        pairs=len({item.case for item in items if item.case}),
        diagrams=sum(item.diagram for item in items),
        images=sum(len(item.images) for item in items),
        two_answers=sum(item.n_select == 2 for item in items),
        no_solution=tuple(item.id for item in items if item.no_solution),
        pictured_choices=tuple(item.id for item in items if not next(iter(item.text.values())).choices),
        unusual_choices={item.id: item.num_choices for item in items if item.num_choices != 5},
        lettered=tuple(item.id for item in items if item.labels[0] == "A"),
        any_of={item.id: item.answers for item in items if item.id in any_of},
        unread_notes=unread_notes,
        corrections=corrections,
    )
