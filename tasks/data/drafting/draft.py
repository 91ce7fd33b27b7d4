"""From a folder of tables to the files of a study, in memory: nothing is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tasks.data.checks.suites import load_suite
from tasks.data.drafting.columns import Profile, profile_tables
from tasks.data.drafting.content import Wishes, as_study, study_content
from tasks.data.drafting.folder import SiteFolders, read_folder, valid_name
from tasks.data.drafting.inputs import LeftOut, find_candidates
from tasks.data.drafting.label import LabelRule, find_outcome, label_questions
from tasks.data.drafting.questions import require_answers
from tasks.data.drafting.render import render_study
from tasks.data.drafting.settle import settle
from tasks.data.drafting.subjects import Subjects, find_subjects
from tasks.data.drafting.suites import render_suite
from tasks.data.drafting.told import Answered, Told, ToldOptions, sort_options, unmatched
from tasks.data.reading.cells import trim
from tasks.errors import ConfigError
from tasks.study.names import Identifier
from tasks.study.reading import ColumnRules, Reading
from tasks.study.sections import Study


@dataclass(frozen=True)
class DraftOptions:
    """What `pharmafed study init` may be told; None is inferred. `epsilon` is the total over `rounds`."""

    label: str | None = None
    subject: str | None = None
    name: str | None = None
    title: str | None = None
    epsilon: float = 3.0
    rounds: int = 20
    answers: ToldOptions = field(default_factory=ToldOptions)


@dataclass(frozen=True)
class Draft:
    """A study to be written: texts and CSV files by their path in the project, and what was inferred."""

    study: Study
    texts: Mapping[str, str]
    copies: Mapping[str, Path]
    subjects: Subjects
    outcome: LabelRule
    left_out: tuple[LeftOut, ...]
    num_drafted: int
    num_with_gaps: int = 0
    notes: tuple[str, ...] = ()


def draft_study(path: Path, options: DraftOptions, suites_dir: Path) -> Draft:
    """Draft the study file and a suite per table from `<path>/<site>/<table>.csv`.

    Args:
        path: the folder.
        options: what is not to be inferred.
        suites_dir: the project's suites; the one for model inputs says which inputs pass.

    Raises:
        ConfigError: an option is wrong or missing, a name cannot be used, or the project has no suite `inputs`.
        DataError: a file cannot be used; see `read_folder`, `find_subjects` and `find_outcome`.
    """
    meta = load_suite(suites_dir, "inputs").meta
    folder = read_folder(path)
    subjects = find_subjects(folder, options.subject)
    told = sort_options(options.answers, folder.tables)
    profiles = profile_tables(folder, subjects, told)
    asked = [question for profile in profiles.values() for question in profile.questions]
    require_answers([*asked, *label_questions(profiles, subjects.column, options.label, told.keep)])
    reading = _reading(told, profiles)
    outcome = find_outcome(profiles, subjects.column, options.label, told.keep)
    wishes, tables = _wishes(folder, outcome, options), list(profiles)
    candidates = find_candidates(profiles, subjects, outcome)
    probe = as_study(study_content(wishes, tables, subjects, outcome, tuple(candidates.inputs), reading))
    settled = settle(candidates, probe, profiles, meta)
    content = study_content(wishes, tables, subjects, outcome, settled.inputs, reading)
    text = render_study(content, settled)
    suites = {f"{name}.json": render_suite(profile, subjects) for name, profile in profiles.items()}
    suites["inputs.json"] = (suites_dir / "inputs.json").read_text(encoding="utf-8")
    study = as_study(yaml.safe_load(text))
    return Draft(
        study=study,
        texts={f"studies/{wishes.name}.yaml": text, **{f"{study.data.suites}/{n}": t for n, t in suites.items()}},
        copies={f"{study.data.root}/{s}/{t}.csv": folder.file(s, t) for s in folder.sites for t in tables},
        subjects=subjects,
        outcome=outcome,
        left_out=settled.left_out,
        num_drafted=len(settled.drafted),
        num_with_gaps=len(settled.gaps),
        notes=tuple(_notes(told, profiles, folder)),
    )


def _reading(told: Told, profiles: Mapping[str, Profile]) -> Reading:
    """What the study file says of cells: what was told, by the columns that it turned out to be about."""
    columns = {f"{name}.{column}": rules for name, p in profiles.items() for column, rules in p.rules.items()}
    return Reading(**told.every.model_dump(), columns=columns)


def _notes(told: Told, profiles: Mapping[str, Profile], folder: SiteFolders) -> list[str]:
    return unmatched(
        told,
        (
            Answered(
                place=f"{p.name}.{c.name}",
                own=p.rules.get(c.name, ColumnRules()),
                cells=trim(folder.tables[p.name].rows[c.name]),
                is_text=c.type == "string",
            )
            for p in profiles.values()
            for c in p.columns.values()
        ),
    )


def _wishes(folder: SiteFolders, outcome: LabelRule, options: DraftOptions) -> Wishes:
    name = study_name(folder.root, options)
    if not valid_name(Identifier, name):
        raise ConfigError(f"a study is named with small letters, digits and _, not {name!r}: give another --name")
    title = options.title or f"{outcome.column.replace('_', ' ').capitalize()} in the study {name}"
    return Wishes(name, title, options.epsilon, options.rounds)


def study_name(root: Path, options: DraftOptions) -> str:
    """The name that is wished for, or the folder's."""
    return options.name or re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_")
