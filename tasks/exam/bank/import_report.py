"""What an import did, as a record and as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from tasks.exam.bank.items import subject_table
from tasks.exam.bank.records import Exam, ExamSection, Subject
from tasks.store.records.record import Digest, Record


class ImportReport(Record):
    """Counts of an import and every item that a rule touched. Item ids only: no text of the exam."""

    exam: str
    exam_digest: Digest
    items: int
    subjects: dict[ExamSection, dict[Subject, int]]
    cases: dict[str, int] = Field(description="how many items share a patient, of each case")
    diagrams: int
    images: int
    case_images: int = Field(description="items that are sent a picture of an earlier item of their case")
    without_picture: tuple[str, ...] = Field(
        description="items that are asked, and told that a picture of theirs or of their case is missing"
    )
    two_answers: int
    no_solution: tuple[str, ...]
    pictured_choices: tuple[str, ...] = Field(description="IMAGES: the options are only in the picture")
    unusual_choices: dict[str, int] = Field(description="items with other than five options")
    lettered: tuple[str, ...] = Field(description="all options are quantities, so they are A, B, C ...")
    any_of: dict[str, tuple[tuple[str, ...], ...]] = Field(description="more than one accepted set")
    by_note: tuple[str, ...] = Field(description="no solution by the note, whatever the key says")
    unread_notes: tuple[str, ...] = Field(description="items whose note no rule reads: a person should")
    linked_by_text: tuple[str, ...] = Field(description="with the item before them, by their words or a correction")
    linked_by_subject: tuple[str, ...] = Field(
        description="first items of a second pair that only the subjects of both pairs join: a person should look"
    )
    unlinked: tuple[str, ...] = Field(
        description="items that refer back to what they are not told: a person should look"
    )
    unpictured: tuple[str, ...] = Field(description="items that speak of a picture and are `text_only`")
    readings: tuple[str, ...] = Field(description="what was read by a rule and not word by word")
    corrections: dict[str, tuple[str, ...]] = Field(description="item -> fields that a person corrected")
    rules: str = Field(description="by which a sitting passes")

    def table(self) -> str:
        """Items by subject and section, and one line for each list."""
        rows = [f"exam {self.exam}: {self.items} items, digest {self.exam_digest[:12]}", *self._subject_rows()]
        sizes = Counter(self.cases.values())
        shared = ", ".join(f"{count} of {size} items" for size, count in sorted(sizes.items())) or "none"
        rows.append(
            f"{self.two_answers} with two answers, {self.diagrams} with a diagram ({self.images} pictures), "
            f"{len(self.cases)} cases ({shared}), {self.case_images} items with a picture of their case"
        )
        rows.append(f"pass rules: {self.rules}")
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
            ("no solution by the note, against the key", self.by_note),
            ("notes that no rule reads", self.unread_notes),
            ("linked by text or correction", self.linked_by_text),
            ("linked by the subjects of two pairs alone", self.linked_by_subject),
            ("refer back to what they are not told", self.unlinked),
            ("speak of a picture and are text_only", self.unpictured),
            ("asked without a picture, and told so", self.without_picture),
            ("read by rule", self.readings),
            ("corrections", tuple(f"{item} ({', '.join(fields)})" for item, fields in self.corrections.items())),
        ):
            rows.append(f"{name}: {len(values)}" + (f" - {', '.join(_ranges(values))}" if values else ""))
        return "\n".join(rows)

    def _subject_rows(self) -> list[str]:
        rows = [f"{'subject':<16}{'essential':>10}{'general':>10}{'all':>6}"]
        essential, general = self.subjects["essential"], self.subjects["general"]
        for subject in essential:
            counts = essential[subject], general[subject]
            rows.append(f"{subject:<16}{counts[0]:>10}{counts[1]:>10}{sum(counts):>6}")
        totals = sum(essential.values()), sum(general.values())
        return [*rows, f"{'all':<16}{totals[0]:>10}{totals[1]:>10}{sum(totals):>6}"]


def _rules(exam: Exam) -> str:
    if exam.pass_rules is None:
        return "those of the 107th, as the same shares"
    told = {name: value for name, value in exam.pass_rules if value is not None}
    if not told:
        return f"unknown, so there is no verdict: write exams/national/{exam.id}.yaml"
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _ranges(ids: Sequence[str]) -> tuple[str, ...]:
    """Three neighbours and more as one: 107101-103."""
    runs: list[list[str]] = []
    for item in ids:
        if runs and item.isdecimal() and int(item) == int(runs[-1][-1]) + 1:
            runs[-1].append(item)
        else:
            runs.append([item])
    return tuple(one for run in runs for one in (run if len(run) < 3 else [f"{run[0]}-{run[-1][3:]}"]))


def report_on(
    exam: Exam,
    *,
    any_of: tuple[str, ...] = (),
    by_note: tuple[str, ...] = (),
    unread_notes: tuple[str, ...] = (),
    readings: tuple[str, ...] = (),
    linked_by_text: tuple[str, ...] = (),
    linked_by_subject: tuple[str, ...] = (),
    unlinked: tuple[str, ...] = (),
    unpictured: tuple[str, ...] = (),
) -> ImportReport:
    """Count an exam. `any_of` names the items whose key or note has such a rule."""
    items = exam.items
    return ImportReport(
        exam=exam.id,
        exam_digest=exam.digest,
        items=len(items),
        subjects=subject_table(exam),
        cases=dict(Counter(item.case for item in items if item.case)),
        diagrams=sum(item.diagram for item in items),
        images=sum(len(item.images) for item in items),
        case_images=sum(bool(item.case_images) for item in items),
        without_picture=tuple(item.id for item in items if item.lacks_a_picture(sent=True) and not item.no_solution),
        two_answers=sum(item.n_select == 2 for item in items),
        no_solution=tuple(item.id for item in items if item.no_solution),
        pictured_choices=tuple(item.id for item in items if not next(iter(item.text.values())).choices),
        unusual_choices={item.id: item.num_choices for item in items if item.num_choices != 5},
        lettered=tuple(item.id for item in items if item.labels[0] == "A"),
        any_of={item.id: item.answers for item in items if item.id in any_of},
        by_note=by_note,
        unread_notes=unread_notes,
        linked_by_text=linked_by_text,
        linked_by_subject=linked_by_subject,
        unlinked=unlinked,
        unpictured=unpictured,
        readings=readings,
        corrections={one.item: tuple(one.changes) for one in exam.corrections},
        rules=_rules(exam),
    )
