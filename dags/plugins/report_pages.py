"""The pages behind the "Report" tab and the "Reports" menu, below `/pharmafed` in the api-server.

Pages are read from the deployment's `reports/` folder; a server that does not have them reads the object store.
Only a user who is logged in and may read the runs of `federated_round.<study>` sees that study's reports, and only one
who may read the runs of `llm_exam` sees those of language models.
The pages run no script and load nothing: their Content-Security-Policy forbids both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from tasks.errors import ConfigError, StoreError, StoreUnavailable
from tasks.exam.page import store as exams
from tasks.foreign.files import listed
from tasks.report import pages
from tasks.rounds.page import index, store
from tasks.store import settings

if TYPE_CHECKING:
    from tasks.store.objects import ObjectStore

log = logging.getLogger(__name__)

DAG_PREFIX = "federated_round."
AUDIT_DAG = "privacy_audit"
EXAM_DAG = "llm_exam"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}

app = FastAPI(title="pharmafed reports", docs_url=None, redoc_url=None, openapi_url=None)
User = Annotated[BaseUser, Depends(get_user)]


_REFUSALS = {
    401: ("Please log in to Airflow first", "Then open this page again."),
    403: ("Your account may not read this report", "Ask the hub's operator for access to its DAG."),
    404: ("There is no such report", "Reports lists all that there are."),
    502: ("This page cannot be read from the object store", "The api-server's log names the object and the remedy."),
    503: ("The object store does not answer", "Try again in a minute."),
}


@app.exception_handler(StarletteHTTPException)
def refuse(request: Request, error: StarletteHTTPException) -> Response:
    """Any refusal as a page for people."""
    title, text = _REFUSALS.get(error.status_code, (HTTPStatus(error.status_code).phrase, ""))
    return _html(pages.notice_page(title, text), error.status_code)


@app.exception_handler(RequestValidationError)
def refuse_address(request: Request, error: RequestValidationError) -> Response:
    """A round that is no number is a round that does not exist."""
    return refuse(request, StarletteHTTPException(404))


@app.get("/")
def overview(request: Request, user: User) -> Response:
    """All studies that the user may read, with their rounds."""
    names = sorted({*store.list_studies(), *_studies_in_project()})
    rounds = {name: _rounds(name) for name in names if _may_read(request, user, DAG_PREFIX + name)}
    return _html(index.overview_page(rounds, exams=_may_read(request, user, EXAM_DAG)))


@app.get("/reports/{study}/index.html")
def study_index(request: Request, user: User, study: str) -> Response:
    """The rounds of one study."""
    _require(request, user, DAG_PREFIX + study)
    _require_study(study)
    return _html(index.rounds_index_page(study, _rounds(study)))


@app.get("/reports/{study}/{server_round}/{name}")
def report_file(request: Request, user: User, study: str, server_round: int, name: str) -> Response:
    """One file of a report."""
    _require(request, user, DAG_PREFIX + study)
    try:
        body = store.read_report(study, server_round, name) or _fetch(study, server_round, name)
    except ValueError:
        raise HTTPException(404) from None
    if body is None:
        raise HTTPException(404)
    return Response(body, media_type=store.CONTENT_TYPES[name], headers=HEADERS)


@app.get("/audits/{study}")
def newest_audit(request: Request, user: User, study: str) -> Response:
    """The newest privacy audit of a study."""
    _require(request, user, DAG_PREFIX + study)
    _require_study(study)
    remote = _hub_store()
    try:
        body = store.read_audit(study) or (store.fetch_audit(remote, study) if remote else None)
    except StoreError as error:
        raise _unread(error) from None
    if body is None:
        return _html(pages.notice_page("No audit yet", "The DAG privacy_audit runs weekly; trigger it to have one."))
    return _html(body)


@app.get("/exams/")
def exam_overview(request: Request, user: User) -> Response:
    """All exams and models, with their runs."""
    _require(request, user, EXAM_DAG)
    return _html(exams.exam_index_page(_exam_runs(), heading="Language models", base=""))


@app.get("/exams/{exam}/{model}/{name}")
def exam_history(request: Request, user: User, exam: str, model: str, name: str) -> Response:
    """One file of a model's history; `model` is its folder."""
    _require(request, user, EXAM_DAG)
    try:
        key = exams.checked_history_key(exam, model, name)
    except ValueError:
        raise HTTPException(404) from None
    return _exam_file(key, exams.HISTORY_TYPES[name])


@app.get("/exams/{exam}/{model}/{language}/{run}/{name}")
def exam_report(request: Request, user: User, exam: str, model: str, language: str, run: str, name: str) -> Response:
    """One file of a run's report."""
    _require(request, user, EXAM_DAG)
    try:
        key = exams.report_key(exam, model, language, run, name)
    except ValueError:
        raise HTTPException(404) from None
    return _exam_file(key, exams.REPORT_TYPES[name])


@app.get("/runs/{dag_id}/{run_id}")
def report_of_run(request: Request, user: User, dag_id: str, run_id: str) -> Response:
    """The report of the round that a DAG run closed: what the "Report" tab shows."""
    _require(request, user, dag_id)
    study = dag_id.removeprefix(DAG_PREFIX)
    if dag_id == AUDIT_DAG:
        return RedirectResponse("../../", status_code=302, headers=HEADERS)
    if dag_id == EXAM_DAG:
        return _reports_of_exam_run(run_id)
    if study == dag_id:
        return _html(pages.notice_page("This DAG makes no report", f"Rounds of {DAG_PREFIX}<study> have one each."))
    _require_study(study)
    entry = store.find_run(study, run_id) or next((e for e in _rounds(study) if e.run_id == run_id), None)
    if entry is None:
        return _not_yet("The report appears when the round closes.")
    report = f"../../reports/{store.round_dir(study, entry.server_round)}/report.html"
    return RedirectResponse(report, status_code=302, headers=HEADERS)


def _reports_of_exam_run(run_id: str) -> Response:
    """The one report of a run with one model and language, or the list of them."""
    found = exams.find_entries(_exam_runs(), run_id)
    if not found:
        return _not_yet("A report appears when a model has been asked everything.")
    if len(found) == 1:
        return RedirectResponse(f"../../exams/{found[0].report}", status_code=302, headers=HEADERS)
    return _html(exams.exam_index_page(found, heading="Reports of this run", base="../../exams/"))


def _not_yet(when: str) -> Response:
    return _html(pages.notice_page("No report yet", f"{when} This page looks again by itself.", refresh_seconds=10))


def _require(request: Request, user: BaseUser, dag_id: str) -> None:
    """Raise 403 unless the user may read the runs of the DAG."""
    requires_access_dag("GET", DagAccessEntity.RUN, dag_id)(request, user)


def _require_study(name: str) -> None:
    """Raise 404 for what no study can be named: it is not looked up anywhere."""
    if not store.is_study(name):
        raise HTTPException(404)


def _may_read(request: Request, user: BaseUser, dag_id: str) -> bool:
    try:
        _require(request, user, dag_id)
    except HTTPException:
        return False
    return True


def _studies_in_project() -> list[str]:
    return [path.stem for path in listed(settings.project_dir() / "studies", "*.yaml")]


def _rounds(study: str) -> Sequence[index.RunEntry]:
    """From disk, or, where this machine has none, from the object store."""
    local = store.list_rounds(study)
    remote = None if local else _hub_store()
    try:
        return store.fetch_rounds(remote, study) if remote else local
    except StoreError:
        return local


def _fetch(study: str, server_round: int, name: str) -> bytes | None:
    remote = _hub_store()
    try:
        return store.fetch_report(remote, study, server_round, name) if remote else None
    except StoreError as error:
        raise _unread(error) from None


def _unread(error: StoreError) -> HTTPException:
    """A store that is away comes back by itself; of anything else the operator is told what it is."""
    if isinstance(error, StoreUnavailable):
        return HTTPException(503)
    log.error("%s", error)
    return HTTPException(502)


def _exam_runs() -> Sequence[exams.ExamEntry]:
    """From disk, or, where this machine has none, from the object store."""
    local = exams.list_entries()
    remote = None if local else _hub_store()
    try:
        return exams.fetch_entries(remote) if remote else local
    except StoreError:
        return local


def _exam_file(key: str, content_type: str) -> Response:
    body = exams.read(key)
    remote = _hub_store() if body is None else None
    try:
        body = exams.fetch(remote, key) if remote else body
    except StoreError as error:
        raise _unread(error) from None
    if body is None:
        raise HTTPException(404)
    return Response(body, media_type=content_type, headers=HEADERS)


def _hub_store() -> ObjectStore | None:
    """The object store, if this server has a deployment. boto3 is imported only when it is needed."""
    from tasks.store.objects import hub_store

    try:
        return hub_store()
    except ConfigError:
        return None


def _html(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="text/html; charset=utf-8", headers=HEADERS)
