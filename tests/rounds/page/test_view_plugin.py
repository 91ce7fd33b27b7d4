"""The pages in Airflow's web UI: who may read them, and what they refuse."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tasks.errors import ObjectMissing, StoreError, StoreUnavailable
from tasks.exam.page import store as exams
from tasks.rounds.page import build, store
from tasks.store.objects import to_json
from tasks.store.settings import PROJECT
from tasks.study.sections import Study
from tests.rounds.page.report_samples import Rounds

PLUGINS = PROJECT / "dags" / "plugins"
REPORT = "/pharmafed/reports/xanomeline_derm56/0003/report.html"
RUN = "/pharmafed/runs/federated_round.xanomeline_derm56/scheduled__2026-03-03T01:00:00%2B00:00"


EXAM = "/pharmafed/exams/practice/openai--x"
EXAM_REPORT = f"{EXAM}/ja/r1/report.html"
EXAM_RUN = "/pharmafed/runs/llm_exam/manual__one"


def save_exam_report(home: Path, model: str, run: str, dag_run: str) -> None:
    """A report as `tasks.exam.page.files` leaves it."""
    entry = exams.ExamEntry(
        exam="practice",
        title="Our exam",
        model=model,
        language="ja",
        run=run,
        dag_run=dag_run,
        finished_at=datetime(2026, 3, int(run[1:]), tzinfo=UTC),
        correct=40,
        entered=60,
        items=66,
        passed=None,
        verdict="drift" if run == "r2" else None,
    )
    folder = (home / "exams" / entry.report).parent
    folder.mkdir(parents=True)
    (folder / "entry.json").write_bytes(to_json(entry))
    (folder / "report.html").write_text(f"report of {model} {run}")
    (folder / "exam_subjects.png").write_bytes(b"png")
    (folder / "responses.jsonl").write_text("secret")
    (home / "exams" / entry.history).write_text(f"history of {model}")


class NoStore:
    def put(self, key: str, body: bytes, *, content_type: str) -> None:
        """Reports are read from disk here."""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The plugin, imported as Airflow does: from a plugins folder that is on the path."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    sys.path.insert(0, str(PLUGINS))
    yield importlib.import_module("report_view")
    sys.path.remove(str(PLUGINS))


@pytest.fixture(scope="module")
def pages(plugin: ModuleType) -> ModuleType:
    return importlib.import_module("report_pages")


@pytest.fixture(scope="module")
def home(study: Study, rounds: Rounds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    store.publish_report(NoStore(), study.study, 3, build.build_report(study, rounds(), None), made / "reports")
    for model, run, dag_run in (("openai/x", "r1", "manual__one"), ("openai/x", "r2", "both"), ("a/y", "r2", "both")):
        save_exam_report(made, model, run, dag_run)
    (made / "secrets").mkdir()
    (made / "secrets" / "ui.json").write_text("secret")
    return made


@pytest.fixture
def server(plugin: ModuleType, pages: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plugin mounted as the api-server mounts it, with Airflow's own auth manager; no database."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.core_api import security
    from airflow.models.dag import DagModel
    from fastapi import FastAPI

    monkeypatch.setenv("PHARMAFED_HOME", str(home))
    monkeypatch.setattr(security, "get_auth_manager", SimpleAuthManager)
    monkeypatch.setattr(DagModel, "get_team_name", staticmethod(lambda dag_id: None))
    app = FastAPI()
    app.mount(plugin.PREFIX, plugin.pages)
    yield app
    pages.app.dependency_overrides.clear()


def log_in(pages: ModuleType, role: str | None = "VIEWER") -> None:
    """The only thing that is overridden: who the user is, not what the user may do."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    pages.app.dependency_overrides[pages.get_user] = lambda: SimpleAuthManagerUser(username="eve", role=role)


def get(server: Any, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=server)
        async with httpx.AsyncClient(transport=transport, base_url="http://hub", **options) as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "path",
    [
        "/pharmafed/",
        REPORT,
        RUN,
        REPORT.replace("report.html", "auc.png"),
        "/pharmafed/exams/",
        EXAM_REPORT,
        f"{EXAM}/history.html",
        EXAM_RUN,
    ],
)
def test_nobody_reads_without_logging_in(server: Any, path: str) -> None:
    answer = get(server, path)
    assert answer.status_code == 401
    assert "log in to Airflow" in answer.text
    assert "xanomeline" not in answer.text
    assert "openai" not in answer.text


def test_a_forged_token_is_refused(server: Any) -> None:
    answer = get(server, REPORT, cookies={"_token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."})
    assert answer.status_code in (401, 403)
    assert "Dermatologic" not in answer.text


def test_a_user_without_a_role_is_refused(server: Any, pages: ModuleType) -> None:
    log_in(pages, role=None)
    refused = (REPORT, RUN, "/pharmafed/exams/", EXAM_REPORT, f"{EXAM}/history.html", EXAM_RUN)
    assert [get(server, path).status_code for path in refused] == [403] * 6
    overview = get(server, "/pharmafed/")
    assert overview.status_code == 200
    assert "xanomeline" not in overview.text
    assert "exams/" not in overview.text


def test_a_viewer_reads_the_report(server: Any, pages: ModuleType, home: Path) -> None:
    log_in(pages)
    answer = get(server, REPORT)
    assert answer.status_code == 200
    assert answer.content == (home / "reports/xanomeline_derm56/0003/report.html").read_bytes()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    picture = get(server, REPORT.replace("report.html", "auc.png"))
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")


def test_the_menu_lists_studies_and_rounds(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    overview = get(server, "/pharmafed/")
    assert 'href="reports/xanomeline_derm56/0003/report.html"' in overview.text
    index = get(server, "/pharmafed/reports/xanomeline_derm56/index.html")
    assert 'href="0003/report.html"' in index.text


def test_a_run_leads_to_its_report(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    answer = get(server, RUN)
    assert answer.status_code == 302
    assert get(server, RUN, follow_redirects=True).url.path == REPORT


def test_a_run_without_a_report_says_when_it_comes(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    answer = get(server, "/pharmafed/runs/federated_round.xanomeline_derm56/manual__now")
    assert answer.status_code == 200
    assert "The report appears when the round closes" in answer.text
    assert 'http-equiv="refresh"' in answer.text


def test_a_viewer_reads_the_exams_report_and_history(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    answer = get(server, EXAM_REPORT)
    assert (answer.status_code, answer.text) == (200, "report of openai/x r1")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == pages.HEADERS["Content-Security-Policy"]
    assert get(server, f"{EXAM}/history.html").text == "history of openai/x"
    picture = get(server, f"{EXAM}/ja/r1/exam_subjects.png")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")


def test_the_menu_leads_to_exams_models_and_runs(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    assert 'href="exams/"' in get(server, "/pharmafed/").text
    overview = get(server, "/pharmafed/exams/").text
    links = re.findall(r'href="([^"]*)"', overview)
    assert links == [
        "practice/a--y/history.html",
        "practice/a--y/ja/r2/report.html",
        "practice/openai--x/history.html",
        "practice/openai--x/ja/r2/report.html",
        "practice/openai--x/ja/r1/report.html",
    ]
    assert [get(server, f"/pharmafed/exams/{link}").status_code for link in links] == [200] * 5
    assert overview.count('<span class="tag bad">drift</span>') == 2


def test_an_exams_run_leads_to_its_report_or_to_all_of_them(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    one = get(server, EXAM_RUN, follow_redirects=True)
    assert (one.url.path, one.text) == (EXAM_REPORT, "report of openai/x r1")
    both = get(server, "/pharmafed/runs/llm_exam/both")
    assert re.findall(r'href="(../../exams/[^"]*report.html)"', both.text) == [
        "../../exams/practice/a--y/ja/r2/report.html",
        "../../exams/practice/openai--x/ja/r2/report.html",
    ]
    none = get(server, "/pharmafed/runs/llm_exam/scheduled__2026")
    assert "A report appears when a model has been asked everything" in none.text
    assert 'http-equiv="refresh"' in none.text


def test_exam_pages_fall_back_to_the_object_store(
    server: Any, pages: ModuleType, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remote:
        def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
            try:
                return (home / key).read_bytes()
            except FileNotFoundError:
                raise ObjectMissing(key) from None

        def keys(self, prefix: str) -> list[str]:
            return sorted(str(path.relative_to(home)) for path in (home / prefix).rglob("*.*"))

    log_in(pages)
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path))
    assert get(server, EXAM_REPORT).status_code == 404
    monkeypatch.setattr(pages, "_hub_store", Remote)
    assert get(server, EXAM_RUN, follow_redirects=True).text == "report of openai/x r1"
    assert get(server, EXAM_REPORT.replace("r1", "r9")).status_code == 404


def test_another_dag_says_so(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    answer = get(server, "/pharmafed/runs/site_data_validation/manual__now")
    assert "This DAG makes no report" in answer.text
    assert "refresh" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "reports/xanomeline_derm56/0003/..%2f..%2f..%2fsecrets%2fui.json",
        "reports/..%2f..%2fsecrets/3/report.html",
        "reports/%2e%2e/3/run.json",
        "reports/xanomeline_derm56/0003/%2e%2e",
        "reports/xanomeline_derm56/-1/report.html",
        "reports/xanomeline_derm56/3%2f..%2f3/report.html",
        "reports/xanomeline_derm56/0003/report.html%00",
        "reports/xanomeline_derm56/9/report.html",
        "runs/federated_round...%2f..%2fsecrets/ui",
        "..%2fsecrets%2fui.json",
        "exams/..%2f..%2fsecrets/openai--x/ja/r1/report.html",
        "exams/practice/%2e%2e/ja/r1/report.html",
        "exams/practice/openai--x/ja/..%2f..%2f..%2f..%2f..%2fsecrets/report.html",
        "exams/practice/openai--x/ja/r1/..%2f..%2f..%2f..%2f..%2fsecrets%2fui.json",
        "exams/practice/openai--x/ja/r1/%2e%2e",
        "exams/practice/openai--x/ja/r1/responses.jsonl",
        "exams/practice/openai--x/ja/r1/report.html%00",
        "exams/practice/openai--x/ja/r9/report.html",
        "exams/practice/..%2f..%2fsecrets/ui.json",
        "exams/practice/openai--x/lock",
        "exams/secrets/ui.json/history.html",
    ],
)
def test_nothing_outside_a_report_is_served(server: Any, pages: ModuleType, path: str) -> None:
    log_in(pages)
    answer = get(server, f"/pharmafed/{path}")
    assert answer.status_code == 404 or "No report yet" in answer.text
    assert "secret" not in answer.text


def test_falls_back_to_the_object_store(
    server: Any, pages: ModuleType, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "reports/xanomeline_derm56/0003"

    class Remote:
        def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
            return (folder / key.rsplit("/", 1)[1]).read_bytes()

        def keys(self, prefix: str) -> list[str]:
            return [f"{prefix}0003/run.json"]

    log_in(pages)
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path))
    assert get(server, REPORT).status_code == 404
    monkeypatch.setattr(pages, "_hub_store", Remote)
    assert get(server, RUN, follow_redirects=True).content == (folder / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (StoreUnavailable, 503, "The object store does not answer"),
        (StoreError, 502, "This page cannot be read from the object store"),
    ],
)
def test_what_cannot_be_read_is_not_told_as_a_store_that_is_away(
    server: Any,
    pages: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[StoreError],
    status: int,
    words: str,
) -> None:
    class Remote:
        def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
            raise error(f"{key} has 70 bytes, more than 3: put it back")

        def keys(self, prefix: str) -> Iterator[str]:
            yield f"{prefix}2026/audit.html"

    monkeypatch.setattr(pages, "_hub_store", Remote)
    log_in(pages)
    for path in (REPORT.replace("0003", "0009"), "/pharmafed/audits/xanomeline_derm56"):
        answer = get(server, path)
        assert answer.status_code == status, path
        assert words in answer.text
        assert "70 bytes" not in answer.text
    assert ("put it back" in caplog.text) == (status == 502)


def test_the_ui_gets_a_tab_and_a_menu_entry(plugin: ModuleType) -> None:
    views = {view["destination"]: view for view in plugin.ReportPlugin.external_views}
    assert views["dag_run"]["href"] == "/pharmafed/runs/{DAG_ID}/{RUN_ID}"
    assert views["nav"]["href"] == "/pharmafed/"
    assert len({view["url_route"] for view in views.values()}) == 2


def test_a_task_process_loads_next_to_nothing(tmp_path: Path) -> None:
    """Airflow imports every plugin in every task: here, after what a task has imported anyway."""
    code = (
        "import sys, airflow.sdk.execution_time.task_runner; before = set(sys.modules); import report_view; "
        "print(len(set(sys.modules) - before), sorted({'fastapi', 'torch', 'boto3', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    number, heavy = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert int(number) < 20
    assert heavy == "[]"


def test_the_pages_need_no_heavy_library() -> None:
    code = "import sys, report_pages; print(sorted({'torch', 'boto3', 'matplotlib', 'inspect_ai'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


#: One part of a path, as an attacker writes it.
TRAVERSALS = (
    "%2e%2e",
    "%2E%2e",
    ".%2e",
    "%252e%252e",
    "..%2f..%2f..%2fsecrets%2fui.json",
    "..%252f..%252f..%252fsecrets%252fui.json",
    "..%25252fsecrets",
    "%2fetc%2fpasswd",
    "%252fetc%252fpasswd",
    "..%5c..%5c..%5csecrets%5cui.json",
    "..%255csecrets",
    "C:%5cWindows%5cwin.ini",
    "secrets%00",
    "ui.json%00.html",
    "%00",
    "..%c0%afsecrets",
    "%c0%ae%c0%ae",
    "%e2%80%a5",
    "%ef%bc%8e%ef%bc%8e%ef%bc%8fsecrets",
    "%e2%88%95secrets",
    "....%2f%2fsecrets",
    "..;%2fsecrets",
    "~root",
    "file:%2f%2f%2fetc%2fpasswd",
    "a" * 5_000,
    "%2e%2e%2f" * 400,
    "%0d%0aSet-Cookie:x",
    "planted",
)
#: Every route with parameters, and what stands in its place where it works.
ROUTES = (
    ("reports/{}/index.html", "xanomeline_derm56"),
    ("reports/{}/3/report.html", "xanomeline_derm56"),
    ("reports/xanomeline_derm56/{}/report.html", "3"),
    ("reports/xanomeline_derm56/3/{}", "report.html"),
    ("audits/{}", "xanomeline_derm56"),
    ("exams/{}/openai--x/history.html", "practice"),
    ("exams/practice/{}/history.html", "openai--x"),
    ("exams/practice/openai--x/{}", "history.html"),
    ("exams/{}/openai--x/ja/r1/report.html", "practice"),
    ("exams/practice/{}/ja/r1/report.html", "openai--x"),
    ("exams/practice/openai--x/{}/r1/report.html", "ja"),
    ("exams/practice/openai--x/ja/{}/report.html", "r1"),
    ("exams/practice/openai--x/ja/r1/{}", "report.html"),
    ("runs/federated_round.{}/manual__1", "xanomeline_derm56"),
)


@pytest.fixture
def planted(home: Path) -> Iterator[None]:
    """Links to the secrets, named as parts of a path that is allowed."""
    links = [home / "reports/planted", home / "exams/planted", home / "exams/practice/planted"]
    links += [home / f"exams/practice/openai--x/{place}planted" for place in ("", "ja/")]
    for link in links:
        link.symlink_to(home / "secrets")
    secret = home / "secrets"
    for name in ("report.html", "history.html", "index.html", "run.json", "entry.json", "3/report.html", "3/run.json"):
        (secret / name).parent.mkdir(exist_ok=True)
        (secret / name).write_text("secret")
    yield
    for link in links:
        link.unlink()


@pytest.mark.parametrize(("route", "good"), ROUTES)
@pytest.mark.usefixtures("planted")
def test_no_part_of_an_address_leads_to_another_file(server: Any, pages: ModuleType, route: str, good: str) -> None:
    log_in(pages)
    control = get(server, f"/pharmafed/{route.format(good)}")
    assert control.status_code == 200
    answers = {part: get(server, f"/pharmafed/{route.format(part)}") for part in TRAVERSALS}
    assert len(answers) >= 20
    for part, answer in answers.items():
        assert "secret" not in answer.text.replace(part, ""), part
        assert "root:" not in answer.text, part
        assert "set-cookie" not in answer.headers
        empty = part == "planted" and "yet" in answer.text  # what a study without a report may be named
        assert answer.status_code in (404, 422) or empty, (part, answer.status_code)


@pytest.mark.usefixtures("planted")
def test_a_planted_link_would_lead_a_plain_reader_to_the_secrets(home: Path) -> None:
    """The control for the links among the addresses above, and for a report's own file."""
    assert (home / "reports/planted/3/report.html").read_text() == "secret"
    assert (home / "exams/practice/openai--x/ja/planted/report.html").read_text() == "secret"


def test_a_linked_report_is_not_served(server: Any, pages: ModuleType, home: Path) -> None:
    log_in(pages)
    for path, address in (
        (home / "reports/xanomeline_derm56/0003/auc.png", REPORT.replace("report.html", "auc.png")),
        (home / "exams/practice/openai--x/ja/r1/report.html", EXAM_REPORT),
        (home / "exams/practice/openai--x/ja/r1/exam_subjects.png", f"{EXAM}/ja/r1/exam_subjects.png"),
        (home / "exams/practice/openai--x/history.html", f"{EXAM}/history.html"),
    ):
        assert get(server, address).status_code == 200
        away = path.rename(path.with_suffix(".away"))
        path.symlink_to(home / "secrets/ui.json")
        assert get(server, address).status_code == 404
        path.unlink()
        away.rename(path)


METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def test_the_pages_can_be_read_and_nothing_else(server: Any, pages: ModuleType) -> None:
    """Whoever is logged in, admin included, changes nothing here; reading is the control."""
    routes = [route for route in pages.app.routes if hasattr(route, "methods")]
    assert len(routes) == 8
    assert {method for route in routes for method in route.methods} == {"GET"}
    log_in(pages, role="ADMIN")
    paths = ["/pharmafed/", RUN, *(f"/pharmafed/{route.format(good)}" for route, good in ROUTES)]
    assert all(get(server, path).status_code in (200, 302) for path in paths)
    assert {send(server, method, path) for method in METHODS for path in paths} == {405}


def send(server: Any, method: str, path: str) -> int:
    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=server), base_url="http://hub") as client:
            return (await client.request(method, path)).status_code

    return asyncio.run(ask())


def test_a_viewer_may_read_runs_and_trigger_none(server: Any) -> None:
    """What Airflow's own auth manager says of the right that the pages ask for, and of those that a viewer lacks."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    manager = SimpleAuthManager()
    viewer, admin = (SimpleAuthManagerUser(username="eve", role=role) for role in ("VIEWER", "ADMIN"))
    assert manager.is_authorized_dag(method="GET", user=viewer, access_entity=DagAccessEntity.RUN)
    for method, entity in (
        ("POST", DagAccessEntity.RUN),
        ("PUT", DagAccessEntity.RUN),
        ("DELETE", DagAccessEntity.RUN),
        ("PUT", DagAccessEntity.TASK_INSTANCE),
        ("PUT", None),
        ("DELETE", None),
    ):
        assert not manager.is_authorized_dag(method=method, user=viewer, access_entity=entity), (method, entity)
        assert manager.is_authorized_dag(method=method, user=admin, access_entity=entity), "the control"
    assert not manager.is_authorized_variable(method="GET", user=viewer)
    assert not manager.is_authorized_connection(method="GET", user=viewer)


def test_each_page_asks_for_the_right_to_read_runs(
    server: Any, pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []
    real = pages.requires_access_dag

    def noting(method: str, entity: Any, dag_id: str) -> Any:
        asked.append((method, entity.name, dag_id))
        return real(method, entity, dag_id)

    monkeypatch.setattr(pages, "requires_access_dag", noting)
    log_in(pages)
    for route, good in ROUTES:
        asked.clear()
        get(server, f"/pharmafed/{route.format(good)}")
        dag = "llm_exam" if route.startswith("exams/") else "federated_round.xanomeline_derm56"
        assert asked == [("GET", "RUN", dag)], route
