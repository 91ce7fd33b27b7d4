"""The pages in Airflow's web UI: who may read them, and what they refuse."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from report_samples import Rounds

from tasks.report import build, store
from tasks.study import Study

PLUGINS = Path(__file__).resolve().parents[2] / "dags" / "plugins"
REPORT = "/pharmafed/reports/xanomeline_derm56/0003/report.html"
RUN = "/pharmafed/runs/federated_round.xanomeline_derm56/scheduled__2026-03-03T01:00:00%2B00:00"


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


@pytest.mark.parametrize("path", ["/pharmafed/", REPORT, RUN, REPORT.replace("report.html", "auc.png")])
def test_nobody_reads_without_logging_in(server: Any, path: str) -> None:
    answer = get(server, path)
    assert answer.status_code == 401
    assert "log in to Airflow" in answer.text
    assert "xanomeline" not in answer.text


def test_a_forged_token_is_refused(server: Any) -> None:
    answer = get(server, REPORT, cookies={"_token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."})
    assert answer.status_code in (401, 403)
    assert "Dermatologic" not in answer.text


def test_a_user_without_a_role_is_refused(server: Any, pages: ModuleType) -> None:
    log_in(pages, role=None)
    assert [get(server, path).status_code for path in (REPORT, RUN)] == [403, 403]
    overview = get(server, "/pharmafed/")
    assert overview.status_code == 200
    assert "xanomeline" not in overview.text


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


def test_another_dag_says_so(server: Any, pages: ModuleType) -> None:
    log_in(pages)
    answer = get(server, "/pharmafed/runs/llm_exam/manual__now")
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
        def get(self, key: str) -> bytes:
            return (folder / key.rsplit("/", 1)[1]).read_bytes()

        def keys(self, prefix: str) -> list[str]:
            return [f"{prefix}0003/run.json"]

    log_in(pages)
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path))
    assert get(server, REPORT).status_code == 404
    monkeypatch.setattr(pages, "_hub_store", Remote)
    assert get(server, RUN, follow_redirects=True).content == (folder / "report.html").read_bytes()


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
    code = "import sys, report_pages; print(sorted({'torch', 'boto3', 'matplotlib'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
