"""A whole deployment with a DAG of its own: health, rights, loopback, recovery, and nothing left after `down`."""

import io
import json
import os
import signal
import stat
import threading
import time

import httpx
import psutil
import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from tasks.deploy import airflow, follow, local, overview, processes, sockets, store_security
from tasks.deploy.airflow_api import AirflowApi
from tasks.deploy.services import SERVICES, last_ports
from tasks.deploy.state import read_state
from tasks.errors import ConfigError, PharmafedError
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.settings import PROJECT
from tasks.study.file import load_study

pytestmark = pytest.mark.e2e

SITES = {"derm": ["701", "702"]}
WITH_A_VIEWER = {
    "PHARMAFED_AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
    "PHARMAFED_AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "dags" / "plugins"),
}
DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def hello():
    @task
    def add(**context):
        print("sum is 42")
        return context["params"].get("a", 0) + 41

    @task
    def sleep():
        import time
        time.sleep(600)

    add() >> sleep()

hello()

@dag(dag_id="federated_round.xanomeline_derm56", schedule=None, max_active_runs=1)
def a_round():
    # As a round looks from outside: something runs, and something closes it
    @task(retries=9, retry_delay=1)  # what its api-server costs a task is not what is tested here
    def open_round():
        import time
        time.sleep(600)

    @task(trigger_rule="all_done")
    def close_round():
        pass

    open_round() >> close_round()

a_round()
"""


@pytest.fixture(scope="module")
def running(start, tmp_path_factory):
    home, dags = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    (dags / "hello.py").write_text(DAG)
    deployment = start(home, SITES, dags_folder=dags, environ=WITH_A_VIEWER)
    yield deployment
    deployment.api.close()
    local.down(home)


def test_everything_works(running):
    found = overview.status(running.home)
    assert (found.supervised, found.well) == (True, True)
    written = {name: service.pid for name, service in read_state(running.home).services.items()}
    assert {service.name: service.pid for service in found.services} == written
    assert set(written) == set(SERVICES)
    assert {service.process for service in found.services} == {"running"}


def test_every_listening_socket_is_on_loopback(running):
    members = processes.family(running.home)
    listening = [c for p in members for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    assert {c.laddr.port for c in listening} == set(read_state(running.home).ports.model_dump().values())


def test_no_file_with_a_secret_is_readable_by_others(running):
    files = [p for p in (running.home / "secrets").rglob("*") if p.is_file()]
    assert len(files) == 9  # 4 identities, the store's list and certificate, Airflow's keys, user, password file
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
    database = running.home / "airflow" / "airflow.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


def test_no_log_holds_a_secret(running):
    secrets = [running.api._login["password"], *(running.credential(i).secret_key for i in ("hub", "site-701"))]
    logs = list((running.home / "logs").glob("*.log"))
    assert len(logs) >= 6
    assert [(s, log.name) for s in secrets for log in logs if s in log.read_text(errors="replace")] == []


def test_a_site_writes_its_own_update_and_nothing_else(running):
    site = running.s3("site-701")
    own = layout.update_tensors("derm", 1, "701")
    site.put_object(Bucket=layout.BUCKET, Key=own, Body=b"update")
    assert site.get_object(Bucket=layout.BUCKET, Key=own)["Body"].read() == b"update"
    running.s3("hub").put_object(Bucket=layout.BUCKET, Key=layout.model("derm", 0), Body=b"model")
    assert site.get_object(Bucket=layout.BUCKET, Key=layout.model("derm", 0))["Body"].read() == b"model"
    for key in (layout.model("derm", 0), layout.plan("derm", 1), layout.update_tensors("derm", 1, "702")):
        with pytest.raises(ClientError, match="AccessDenied"):
            site.put_object(Bucket=layout.BUCKET, Key=key, Body=b"forged")


def test_a_site_neither_reads_nor_lists_another(running):
    key = layout.update_tensors("derm", 1, "702")
    running.s3("site-702").put_object(Bucket=layout.BUCKET, Key=key, Body=b"private")
    with pytest.raises(ClientError, match="AccessDenied"):
        running.s3("site-701").get_object(Bucket=layout.BUCKET, Key=key)
    with pytest.raises(ClientError, match="AccessDenied"):
        running.s3("site-701").list_objects_v2(Bucket=layout.BUCKET, Prefix="studies/")
    with pytest.raises(ClientError, match="AccessDenied"):
        running.s3("site-701").delete_object(Bucket=layout.BUCKET, Key=key)


def test_the_inner_interface_of_the_store_refuses_strangers(running):
    """Without a certificate no part of it says anything over TLS, and all that is said in plain is to use TLS."""
    ports = read_state(running.home).ports
    for port in (ports.master, ports.volume, ports.filer):
        answer = httpx.get(f"http://127.0.0.1:{port}/cluster/status", trust_env=False)
        assert (answer.status_code, answer.text.strip()) == (400, "Client sent an HTTP request to an HTTPS server.")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://127.0.0.1:{port}/cluster/status", trust_env=False, verify=False)


@pytest.mark.parametrize("path", ["/api/v2/dags", "/api/v2/connections", "/execution/variables/x", "/ui/config"])
def test_airflow_refuses_strangers(running, path):
    answer = httpx.get(running.addresses.airflow_url + path, trust_env=False, timeout=30)
    assert answer.status_code in (401, 403)


@pytest.fixture(scope="module")
def viewer(running):
    """A session of the user who may look: requests with its token, and with its cookie, as a browser has it."""
    password = json.loads((running.home / "secrets" / "ui_passwords.json").read_text())["viewer"]
    with httpx.Client(base_url=running.addresses.airflow_url, trust_env=False, timeout=30) as client:
        running.api.wait_for_dag("hello")
        answer = client.post("/auth/token", json={"username": "viewer", "password": password})
        token = answer.raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        client.cookies.set("_token", token)
        yield client


RUN = {"logical_date": None, "conf": {}}
CHANGES = [
    ("POST", "/api/v2/dags/hello/dagRuns", RUN),
    ("PATCH", "/api/v2/dags/hello", {"is_paused": True}),
    ("DELETE", "/api/v2/dags/hello", None),
    ("POST", "/api/v2/dags/hello/dagRuns/kept/clear", {"dry_run": False}),
    ("PATCH", "/api/v2/dags/hello/dagRuns/kept", {"state": "failed"}),
    ("DELETE", "/api/v2/dags/hello/dagRuns/kept", None),
    ("POST", "/api/v2/dags/hello/clearTaskInstances", {"dry_run": False, "dag_run_id": "kept"}),
    ("PATCH", "/api/v2/dags/hello/dagRuns/kept/taskInstances/add", {"new_state": "failed"}),
    ("POST", "/api/v2/dags/hello/dagRuns/kept/taskInstances/add/xcomEntries", {"key": "a", "value": 1}),
    ("POST", "/api/v2/variables", {"key": "a", "value": "b"}),
    ("POST", "/api/v2/connections", {"connection_id": "a", "conn_type": "http"}),
    ("POST", "/api/v2/pools", {"name": "a", "slots": 1}),
    ("PATCH", "/api/v2/pools/default_pool", {"slots": 1}),
    ("POST", "/api/v2/backfills", {"dag_id": "hello", "from_date": "2026-01-01", "to_date": "2026-01-02"}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_viewer_changes_nothing(running, viewer, method, path, body):
    answer = viewer.request(method, path, json=body)
    assert answer.status_code == 403, answer.text


def test_a_viewer_reads_the_reports_and_a_stranger_does_not(running, viewer):
    page = viewer.get("/pharmafed/")
    assert (page.status_code, "<h1>Reports</h1>" in page.text) == (200, True)
    assert viewer.get("/api/v2/dags/hello").json()["is_paused"] is False
    refused = httpx.get(f"{running.addresses.airflow_url}/pharmafed/", trust_env=False)
    assert (refused.status_code, "Please log in" in refused.text) == (401, True)


def test_up_again_says_so_and_lets_a_new_site_in(running):
    began = time.monotonic()
    more = {"derm": ["701", "702", "703"]}
    again = local.up(running.home, PROJECT, more, auto_ports=True, console=Console(quiet=True))
    assert again.was_running
    assert again.addresses == running.addresses
    assert time.monotonic() - began < 30
    key, deadline = layout.update_tensors("derm", 1, "703"), time.monotonic() + 20
    while True:  # the store reads its list again within a second or so
        try:
            running.s3("site-703").put_object(Bucket=layout.BUCKET, Key=key, Body=b"x")
            break
        except ClientError:
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_up_shuts_out_a_site_that_has_left_and_lets_it_in_again(running):
    key, site = layout.update_tensors("derm", 2, "703"), running.s3("site-703")
    local.up(running.home, PROJECT, SITES, auto_ports=True, console=Console(quiet=True))
    _until(lambda: _refused(site, key), 20)
    local.up(running.home, PROJECT, {"derm": ["701", "702", "703"]}, auto_ports=True, console=Console(quiet=True))
    _until(lambda: not _refused(site, key), 20)


def test_up_renews_the_stores_certificate_and_starts_the_store_again(running):
    before = read_state(running.home).services["seaweedfs"]
    store_security.certificate_file(running.home).unlink()
    local.up(running.home, PROJECT, SITES, auto_ports=True, console=Console(quiet=True))
    after = read_state(running.home).services["seaweedfs"]
    assert (after.restarts, after.pid != before.pid) == (before.restarts + 1, True)
    assert store_security.certificate_file(running.home).exists()
    assert running.store("site-701").get(layout.update_tensors("derm", 1, "701")) == b"update"


def test_a_run_through_the_client_and_a_killed_scheduler(running):
    api = running.api
    assert api.wait_for_dag("hello", timeout=90)["is_paused"] is False
    assert api.import_errors() == []
    run = api.trigger("hello", run_id="r1")["dag_run_id"]
    tasks = _until(lambda: (t := _states(api, run)).get("sleep") == "running" and t, 90)
    assert tasks["add"] == "success"
    assert [(x["key"], x["value"]) for x in api.xcoms("hello", run)] == [("return_value", 41)]
    assert "sum is 42" in api.log("hello", run, "add")

    before = read_state(running.home).services["scheduler"]
    os.kill(before.pid, signal.SIGKILL)
    after = _until(lambda: (s := read_state(running.home).services["scheduler"]).restarts == 1 and s, 30)
    assert after.pid != before.pid
    _until(lambda: overview.status(running.home).well, 90)
    api.set_task_state("hello", run, "sleep", "failed")
    assert api.wait_for_run("hello", run, timeout=60)["state"] == "failed"
    assert [r["dag_run_id"] for r in api.dag_runs("hello")] == ["r1"]


class Follower(threading.Thread):
    """`pharmafed round` in a thread: what it says, and the error that it ends with."""

    def __init__(self, running):
        super().__init__(daemon=True)
        study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
        self.hub = HubContext(study, running.store("hub"))
        self.api = AirflowApi(running.addresses.airflow_url, **airflow.ui_login(running.home))
        self.screen, self.error = io.StringIO(), None

    def run(self):
        console = Console(file=self.screen, width=500)
        with self.api:
            try:
                follow.run_rounds(self.api, self.hub, 1, min_sites=None, note="", console=console)
            except PharmafedError as error:
                self.error = error

    @property
    def said(self):
        return self.screen.getvalue()


ROUND = "federated_round.xanomeline_derm56"


def _newest_run(api, state="running"):
    return next((run["dag_run_id"] for run in api.dag_runs(ROUND) if run["state"] == state), None)


def test_a_paused_dag_is_told_at_once_and_nothing_is_queued(running):
    running.api.wait_for_dag(ROUND, timeout=90)
    running.api._call("PATCH", f"dags/{ROUND}", json={"is_paused": True})
    began, before = time.monotonic(), len(running.api.dag_runs(ROUND))
    follower = Follower(running)
    follower.run()
    assert f"nothing was queued. The DAG {ROUND} is paused" in str(follower.error)
    assert (time.monotonic() - began < 10, len(running.api.dag_runs(ROUND))) == (True, before)
    running.api.unpause(ROUND)


def test_a_round_is_followed_through_a_new_api_server_until_somebody_ends_it(running):
    follower = Follower(running)
    follower.start()
    _until(lambda: _newest_run(running.api), 60)
    os.kill(read_state(running.home).services["api-server"].pid, signal.SIGKILL)
    _until(lambda: "the api-server does not answer" in follower.said, 30)
    _until(lambda: "everything runs again" in follower.said, 120)
    assert follower.is_alive()
    run = _newest_run(running.api)
    running.api._call("PATCH", f"dags/{ROUND}/dagRuns/{run}", json={"state": "failed"})
    follower.join(60)
    told = f"run {run} was marked failed by hand before it closed a round. It had opened no round"
    assert told in str(follower.error)


def test_a_queued_run_that_is_deleted_is_told(running):
    """Behind a run of somebody else's."""
    first = running.api.trigger(ROUND)["dag_run_id"]
    _until(lambda: _newest_run(running.api) == first, 60)
    follower = Follower(running)
    follower.start()
    _until(lambda: f"queued: {first} of this study runs first" in follower.said, 30)
    queued = _newest_run(running.api, "queued")
    running.api._call("DELETE", f"dags/{ROUND}/dagRuns/{queued}")
    follower.join(60)
    assert f"run {queued} was deleted while it was followed. It had opened no round" in str(follower.error)
    running.api._call("PATCH", f"dags/{ROUND}/dagRuns/{first}", json={"state": "failed"})


def test_down_leaves_data_and_no_process(running):
    """Last in this module: it ends the deployment, then starts it once more."""
    assert local.down(running.home) > 5
    assert processes.family(running.home) == []
    assert sockets.left_over(last_ports(running.home)) == {}
    assert not (running.home / "deployment.json").exists()
    console = Console(quiet=True)
    with pytest.raises(ConfigError, match=r"seaweedfs.*not ready after 0 s"):
        local.up(running.home, PROJECT, SITES, auto_ports=True, console=console, timeout=0)
    assert processes.family(running.home) == []
    again = local.up(running.home, PROJECT, SITES, auto_ports=True, console=console, timeout=300)
    store = running.__class__(running.home, again.addresses, SITES, running.api).store("site-701")
    assert store.get(layout.update_tensors("derm", 1, "701")) == b"update"
    os.kill(read_state(running.home).supervisor_pid, signal.SIGKILL)
    assert local.down(running.home) > 5
    assert processes.family(running.home) == []


def _refused(s3, key):
    try:
        s3.put_object(Bucket=layout.BUCKET, Key=key, Body=b"x")
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def _states(api, run):
    return {task["task_id"]: task["state"] for task in api.task_instances("hello", run)}


def _until(condition, timeout):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {timeout} s")
