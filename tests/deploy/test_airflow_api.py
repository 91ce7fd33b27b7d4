import json

import httpx
import pytest

from tasks.deploy.airflow_api import AirflowApi, AirflowApiError


def served(handler):
    """A client whose requests go to `handler`, and the list of what was asked."""
    asked = []

    def handle(request):
        asked.append((request.method, request.url.raw_path.decode(), request.headers.get("Authorization")))
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": f"token-{len(asked)}"})
        return handler(request)

    api = AirflowApi("http://airflow", "admin", "secret")
    api._client = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(handle))
    return api, asked


def test_an_unreachable_server_is_named_with_the_remedy():
    with AirflowApi("http://127.0.0.1:9", "admin", "secret") as api, pytest.raises(AirflowApiError) as caught:
        api.dag("federated_round")
    assert "http://127.0.0.1:9" in str(caught.value)
    assert "pharmafed up" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.status == 0


def test_a_refusal_carries_airflows_words_and_status():
    api, _ = served(lambda request: httpx.Response(409, json={"detail": "exists already"}))
    with pytest.raises(AirflowApiError, match=r"POST /api/v2/dags/d/dagRuns \(409\): exists already") as caught:
        api.trigger("d", {"study": "derm"}, "r1")
    assert caught.value.status == 409


def test_an_expired_token_is_renewed_once():
    api, asked = served(
        lambda r: httpx.Response(200 if r.headers["Authorization"] == "Bearer token-3" else 401, json={})
    )
    assert api.dag("d") == {}
    assert [path for _, path, _ in asked] == ["/auth/token", "/api/v2/dags/d", "/auth/token", "/api/v2/dags/d"]


def test_a_wrong_password_is_not_tried_again():
    api = AirflowApi("http://airflow", "admin", "wrong")
    answers = []
    refuse = lambda request: answers.append(1) or httpx.Response(401, json={"detail": "Invalid credentials"})  # noqa: E731
    api._client = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(refuse))
    with pytest.raises(AirflowApiError, match="Invalid credentials"):
        api.dag("d")
    assert len(answers) == 1


def test_all_pages_are_read():
    def handler(request):
        offset = int(request.url.params["offset"])
        found = [{"task_id": f"t{i}"} for i in range(offset, min(offset + 100, 250))]
        return httpx.Response(200, json={"task_instances": found, "total_entries": 250})

    api, asked = served(handler)
    assert [t["task_id"] for t in api.task_instances("d", "r")] == [f"t{i}" for i in range(250)]
    assert len(asked) == 4


def test_a_trigger_sends_the_conf_and_the_run_id():
    api, _ = served(lambda request: httpx.Response(200, json=json.loads(request.content)))
    assert api.trigger("d", {"study": "derm"}, "r1") == {
        "logical_date": None,
        "conf": {"study": "derm"},
        "dag_run_id": "r1",
    }
    assert "dag_run_id" not in api.trigger("d")


def test_a_dag_that_does_not_load_is_explained():
    def handler(request):
        if request.url.path.endswith("importErrors"):
            error = {"filename": "broken.py", "stack_trace": "Traceback\n  ...\nNameError: x"}
            return httpx.Response(200, json={"import_errors": [error], "total_entries": 1})
        return httpx.Response(404, json={"detail": "not found"})

    api, _ = served(handler)
    with pytest.raises(AirflowApiError, match=r"no DAG d after 0 s; broken files: broken\.py: NameError: x"):
        api.wait_for_dag("d", timeout=0)


def test_a_run_is_waited_for_through_a_restart_of_the_api_server(monkeypatch):
    monkeypatch.setattr("tasks.deploy.airflow_api.time.sleep", lambda seconds: None)
    answers = iter(["running", httpx.ConnectError("refused"), 503, "running", "success"])

    def handler(request):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer if isinstance(answer, int) else 200, json={"state": answer})

    api, _ = served(handler)
    assert api.wait_for_run("d", "r")["state"] == "success"


def test_a_run_that_is_gone_or_goes_on_too_long_is_not_waited_for():
    api, _ = served(lambda request: httpx.Response(404, json={"detail": "not found"}))
    with pytest.raises(AirflowApiError, match="404"):
        api.wait_for_run("d", "r")
    api, _ = served(lambda request: httpx.Response(200, json={"state": "queued"}))
    with pytest.raises(AirflowApiError, match="is still queued after 0 s"):
        api.wait_for_run("d", "r", timeout=0.01)


def test_an_answer_that_is_not_airflows_is_told_as_that():
    api, _ = served(lambda request: httpx.Response(200, text="<h1>It works!</h1>"))
    with pytest.raises(AirflowApiError, match="what answers at airflow is not Airflow"):
        api.dag("d")
