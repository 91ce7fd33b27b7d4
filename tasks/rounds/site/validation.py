"""A site's data, checked: pinned bytes, then expectations, then the arrays that training uses.

Data that has not changed since its last check is not read again: the result and the arrays are kept at the site under
the data's version, the suites, the waivers, the study and the day (a waiver may have expired since).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from tasks.data.checks.parameters import input_references, site_parameters
from tasks.data.checks.runner import RowsSeen, ValidationResult, known_expectations, validate_site
from tasks.data.checks.suites import all_columns
from tasks.data.checks.waivers import load_waivers
from tasks.data.pin import folder_version, verify_site
from tasks.data.reading.features import build_inputs
from tasks.data.reading.patients import Patients, cache_file, load_patients, prepare_patients, save_patients
from tasks.data.reading.tables import read_tables
from tasks.errors import DataError
from tasks.foreign.files import listed
from tasks.rounds.site.context import SiteContext
from tasks.store.files import write_private
from tasks.store.objects import to_json
from tasks.study.file import load_study, readable_studies
from tasks.study.sections import Study


def data_version(ctx: SiteContext) -> str:
    """The DVC digest of the site's folder, after a check against its pin where the study pins its data.

    Raises:
        DataPinMismatch: the bytes on disk are not the pinned ones.
    """
    if ctx.pin_file is None:
        return folder_version(ctx.data_dir)
    return verify_site(ctx.data_dir, ctx.pin_file, ctx.site)


def valid_patients(ctx: SiteContext) -> Patients:
    """The site's patients as arrays, if its data are valid as they lie on disk now.

    Raises:
        ValidationFailed: naming the failed expectations. DataPinMismatch, DataError: see `checked_patients`.
    """
    result, patients = checked_patients(ctx)
    result.require()
    if patients is None:
        raise DataError(f"site {ctx.site} has no arrays: remove {ctx.work_dir / 'validated'} and run again")
    return patients


def checked_patients(ctx: SiteContext) -> tuple[ValidationResult, Patients | None]:
    """The validation of the site's data as it lies on disk now, and, if they are valid, its patients as arrays.

    Raises:
        DataPinMismatch: the bytes on disk are not the pinned ones. DataError: a table cannot be read.
    """
    version = data_version(ctx)
    result_file = ctx.work_dir / "validated" / f"{_check_key(ctx, version)}.json"
    arrays_file = cache_file(ctx.work_dir, version, ctx.study)
    patients = load_patients(arrays_file)
    if patients is not None:
        with suppress(FileNotFoundError, ValueError):  # what is damaged is checked again
            return ValidationResult.model_validate_json(result_file.read_bytes()), patients
    result, patients = _check(ctx)
    if patients is not None:
        save_patients(arrays_file, patients)
        write_private(result_file, to_json(result))
    return result, patients


def shown(result: ValidationResult, *, promises: bool) -> ValidationResult:
    """What of a result may leave the site.

    Which expectations hold for few patients' rows, only where nothing is promised, as `learning.evaluation.suppress`
    does it with cells; never whether there are any such rows.
    """
    tells = not promises
    told: list[RowsSeen | None] = ["few" if tells and check.success and check.rows else None for check in result.checks]
    checks = zip(result.checks, told, strict=True)
    return result.model_copy(
        update={"checks": tuple(check.model_copy(update={"rows": rows}) for check, rows in checks)}
    )


def check_site(ctx: SiteContext) -> ValidationResult:
    """The validation of the site's data, apart from any round and with nothing kept.

    Raises:
        ConfigError: a suite, the waivers or the study is wrong, whatever the data are.
        DataPinMismatch: the bytes on disk are not the pinned ones. DataError: a table cannot be read.
    """
    data_version(ctx)
    return _check(ctx)[0]


def _check(ctx: SiteContext) -> tuple[ValidationResult, Patients | None]:
    study = ctx.study
    load_study(ctx.project / "studies" / f"{study.study}.yaml", columns=all_columns(ctx.suites_dir))
    tables = read_tables(ctx.data_dir, study.data.tables, ctx.suites_dir, study.data.reading)
    studies, unread = readable_studies(ctx.project / "studies")
    known = _known_expectations(ctx, studies.values())
    waivers = load_waivers(ctx.suites_dir / "waivers.yaml", known, any_input=bool(unread))
    parameters = site_parameters(study, ctx.site)
    inputs = cache(partial(build_inputs, tables, study))
    result = validate_site(tables, inputs, parameters, waivers, ctx.suites_dir)
    if not result.success:
        return result, None
    return result, prepare_patients(tables, inputs(), study, ctx.site)


def _known_expectations(ctx: SiteContext, studies: Iterable[Study]) -> frozenset[str]:
    """Those of every study that uses these suites: a waiver may be for another study's input."""
    of_these = {tuple(input_references(study)) for study in studies if study.data.suites == ctx.study.data.suites}
    return frozenset().union(*(known_expectations(ctx.suites_dir, inputs) for inputs in of_these))


def _check_key(ctx: SiteContext, version: str) -> str:
    day = datetime.now(UTC).date().isoformat()
    parts = [version, ctx.study.digest, _suites_digest(ctx.suites_dir), day]
    return f"{ctx.study.study}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}"


def _suites_digest(folder: Path) -> str:
    files = [path for path in listed(folder) if path.suffix in (".json", ".yaml")]
    return _files_digest(tuple((p, p.stat().st_mtime_ns) for p in files))


@cache
def _files_digest(files: tuple[tuple[Path, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _ in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
