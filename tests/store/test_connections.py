"""A process that meets two deployments asks each one's own store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.store import objects
from tasks.store.settings import Addresses, S3Credential


def deployed(home: Path, port: int) -> Path:
    where = Addresses(s3_endpoint=f"http://127.0.0.1:{port}", bucket="b", airflow_url="http://127.0.0.1:1")
    (home / "secrets" / "s3").mkdir(parents=True)
    (home / "deployment.json").write_text(where.model_dump_json())
    for identity in ("hub", "site-701"):
        key = S3Credential(access_key=f"{identity}-{port}", secret_key="secret")
        (home / "secrets" / "s3" / f"{identity}.json").write_text(key.model_dump_json())
    return home


def test_a_client_is_kept_for_each_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process that has met one deployment would ask its store in the name of the next."""
    homes = {port: deployed(tmp_path / str(port), port) for port in (5001, 5002)}
    found = {}
    for port, home in homes.items():
        monkeypatch.setenv("PHARMAFED_HOME", str(home))
        found[port] = objects.hub_store(), objects.site_store("701")
        assert objects.hub_store() is found[port][0], "it is kept"
    assert {port: {store.client.meta.endpoint_url for store in stores} for port, stores in found.items()} == {
        port: {f"http://127.0.0.1:{port}"} for port in homes
    }
    assert [store.identity for store in found[5002]] == ["hub", "site-701"]
