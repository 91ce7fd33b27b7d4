"""What the containers are given: all of it is made by docker/prepare.py, and the store starts with nothing less."""

import importlib.util
import os
import shutil

import pytest
import yaml

from tasks.deploy.store_security import certificate_file, require_closed, security_file
from tasks.errors import ConfigError
from tasks.store.settings import PROJECT


def load(name):
    spec = importlib.util.spec_from_file_location(f"docker_{name}", PROJECT / "docker" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    home = tmp_path_factory.mktemp("deployment")
    load("prepare").make_secrets(home)
    return home


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text())


def source(deployment, compose, name):
    return deployment / compose["secrets"][name]["file"].removeprefix("./deployment/")


def test_every_secret_that_compose_names_is_made(deployment, compose):
    assert len(compose["secrets"]) > 10
    assert [name for name in compose["secrets"] if not source(deployment, compose, name).is_file()] == []


@pytest.fixture
def container(deployment, compose, tmp_path, monkeypatch):
    """The store's own files where its container has them, below `tmp_path`; and what would be executed in its place."""
    for mount in compose["services"]["seaweedfs"]["secrets"]:
        target = tmp_path / mount["target"].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source(deployment, compose, mount["source"]), target)
    home = tmp_path / "var/lib/pharmafed"
    (home / "seaweedfs").mkdir()
    monkeypatch.setenv("PHARMAFED_HOME", str(home))
    monkeypatch.setenv("WEED_GRPC_CA", "")
    monkeypatch.chdir(tmp_path)
    store, executed = load("store"), []
    monkeypatch.setattr(store, "SECURITY", tmp_path / store.SECURITY.relative_to("/"))
    monkeypatch.setattr(os, "execve", lambda *arguments: executed.append(arguments))
    before = os.umask(0o022)
    yield home, store, executed
    os.umask(before)


def test_the_store_finds_its_certificate_and_starts(container):
    home, store, executed = container
    require_closed(store.SECURITY, certificate_file(home))
    store.main()
    [(binary, argv, environ)] = executed
    assert argv[0] == binary
    assert argv[-1] == "-s3.ip.bind=0.0.0.0"
    assert {"-disableHttp=true", "-ip.bind=127.0.0.1"} <= set(argv)
    assert "WEED_GRPC_CA" not in environ
    assert (home / "seaweedfs" / "../secrets/store.pem").resolve() == certificate_file(home).resolve()
    assert os.umask(0o077) == 0o077


def test_with_the_settings_of_an_earlier_version_it_does_not_start(container):
    _, store, executed = container
    store.SECURITY.write_text(store.SECURITY.read_text().partition("[grpc]")[0])
    with pytest.raises(ConfigError, match=r"would leave the object store open.*`setup`"):
        store.main()
    assert executed == []


def test_without_its_certificate_it_does_not_start(container):
    home, store, executed = container
    certificate_file(home).unlink()
    with pytest.raises(ConfigError, match="no valid certificate"):
        store.main()
    assert executed == []


def test_setup_over_an_earlier_deployment_keeps_its_keys(deployment):
    kept = (
        "secrets/s3/hub.json",
        "secrets/fernet_key",
        "secrets/database_url",
        "secrets/ca/key.pem",
        "secrets/store.pem",
    )
    before = [(deployment / name).read_bytes() for name in kept]
    whole = security_file(deployment).read_text()
    security_file(deployment).write_text(whole.partition("[grpc]")[0])
    load("prepare").make_secrets(deployment)
    assert [(deployment / name).read_bytes() for name in kept] == before
    assert security_file(deployment).read_text() == whole
