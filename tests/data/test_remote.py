"""Pinned data goes to a real object store and comes back; the keys stay private."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import pytest

from tasks.data.pin import verify, write_pin
from tasks.data.remote import BUCKET, REMOTE, configure_remote
from tasks.errors import ConfigError
from tasks.store.settings import PROJECT
from tests.one_answer import one_answer

ACCESS, SECRET = "hub-access", "hub-secret-7f3a"


def free_ports(count: int) -> list[int]:
    """Ports whose gRPC twin (+10000) exists too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 55000 and port not in found:
            found.append(port)
    return found


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("weed")
    credentials = [{"accessKey": ACCESS, "secretKey": SECRET}]
    config = {"identities": [{"name": "hub", "credentials": credentials, "actions": ["Admin"]}]}
    (folder / "s3.json").write_text(json.dumps(config))
    master, volume, filer, s3 = free_ports(4)
    ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
    command = [str(Path(sys.executable).parent / "weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", *ports]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"-s3.config={folder / 's3.json'}", "-volume.max=20"], stdout=log, stderr=log
        )
    try:
        wait_for(f"http://127.0.0.1:{s3}", process)
        yield f"http://127.0.0.1:{s3}"
    finally:
        process.kill()  # on SIGTERM it waits half a minute for its peers
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(120):
        assert process.poll() is None, "weed has stopped"
        try:
            urllib.request.urlopen(url, timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
            continue
        return
    raise AssertionError("weed does not answer")


def dvc(project: Path, *args: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *args], cwd=project, check=True, capture_output=True)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that knows the remote's name; read only."""
    project = tmp_path_factory.mktemp("begun")
    site = project / "data/sites/701"
    site.mkdir(parents=True)
    (site / "adsl.csv").write_text("USUBJID\nx\n")
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    dvc(project, "init", "--quiet")
    dvc(project, "remote", "add", "-d", REMOTE, f"s3://{BUCKET}/")
    return project


@pytest.fixture
def project(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path, dirs_exist_ok=True))


def test_push_and_pull(project: Path, endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET)
    client.create_bucket(Bucket=BUCKET)
    write_pin(project / "data")
    configure_remote(project, endpoint, ACCESS, SECRET)
    dvc(project, "push", "--quiet")
    assert client.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2
    for folder in ("data/sites/701", ".dvc/cache"):
        for path in sorted((project / folder).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert [str(d) for d in verify(project / "data", project / "data.dvc")] == ["sites/701/adsl.csv missing"]
    dvc(project, "pull", "--quiet")
    assert verify(project / "data", project / "data.dvc") == []


def test_keys_are_private_and_kept_from_git(project: Path) -> None:
    path = configure_remote(project, "http://127.0.0.1:1", ACCESS, SECRET)
    configure_remote(project, "http://127.0.0.1:2", ACCESS, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "http://127.0.0.1:2" in path.read_text()
    assert "http://127.0.0.1:1" not in path.read_text()
    assert SECRET not in (project / ".dvc/config").read_text()
    ignored = subprocess.run(["git", "check-ignore", "-q", str(path)], cwd=project, check=False)
    assert ignored.returncode == 0


def test_a_folder_without_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dvc init"):
        configure_remote(tmp_path, "http://127.0.0.1:1", ACCESS, SECRET)


# before `pharmafed up`

AWS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "AWS_REGION": "eu-west-1"}
CLOUD = f"[core]\n    remote = {REMOTE}\n['remote \"{REMOTE}\"']\n    url = s3://{BUCKET}/\n"


@pytest.fixture
def outside() -> Iterator[tuple[str, list[bytes]]]:
    """Stands for everything beyond this machine: an address, and what was sent there. It refuses whatever comes."""
    with one_answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as found:
        yield found


def leads_outside(kind: str, address: str) -> dict[str, str]:
    if kind == "endpoints":
        return {"AWS_ENDPOINT_URL": address, "AWS_ENDPOINT_URL_S3": address}
    return {name: address for word in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (word, word.lower())}


def try_dvc(project: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("proxy")}
    command = [sys.executable, "-m", "dvc", *args]
    return subprocess.run(command, cwd=project, env=kept | AWS | variables, capture_output=True, timeout=120)


@pytest.mark.parametrize(("command", "kind"), [("push", "endpoints"), ("push", "proxies"), ("pull", "proxies")])
def test_nothing_leaves_before_somebody_says_where_to(
    project: Path, outside: tuple[str, list[bytes]], kind: str, command: str
) -> None:
    address, heard = outside
    shutil.copy(PROJECT / ".dvc/config", project / ".dvc/config")
    write_pin(project / "data")
    if command != "push":
        shutil.rmtree(project / ".dvc/cache")
        shutil.rmtree(project / "data")
    tried = try_dvc(project, command, **leads_outside(kind, address))
    assert tried.returncode != 0
    assert b"run-pharmafed-up-first" in tried.stderr
    assert heard == []


@pytest.mark.parametrize("kind", ["endpoints", "proxies"])
def test_the_same_keys_take_a_bucket_without_an_address_outside(
    project: Path, outside: tuple[str, list[bytes]], kind: str
) -> None:
    """The control: what the repository's configuration keeps from happening."""
    address, heard = outside
    (project / ".dvc/config").write_text(CLOUD)
    write_pin(project / "data")
    assert try_dvc(project, "push", **leads_outside(kind, address)).returncode != 0
    assert heard


def test_a_proxy_that_would_carry_the_data_away_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    with pytest.raises(ConfigError, match=r"through the proxy in HTTP_PROXY: set NO_PROXY=127\.0\.0\.1"):
        configure_remote(project, "http://127.0.0.1:1", ACCESS, SECRET)
    assert not (project / ".dvc/config.local").exists()
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert configure_remote(project, "http://127.0.0.1:1", ACCESS, SECRET).exists()


def test_a_clone_that_was_set_up_before_goes_on(project: Path, endpoint: str) -> None:
    """Address and keys in config.local win over the committed address that leads nowhere."""
    shutil.copy(PROJECT / ".dvc/config", project / ".dvc/config")
    write_pin(project / "data")
    configure_remote(project, endpoint, ACCESS, SECRET)
    client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET)
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    assert try_dvc(project, "push", "--quiet").returncode == 0
    assert client.list_objects_v2(Bucket=BUCKET)["KeyCount"] >= 2
