"""A running object store against everyone who is not the store; and the same requests against one that is open."""

import importlib.util
import ipaddress
import os
import socket
import stat
import tomllib
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tasks.deploy import seaweedfs, store_security
from tasks.deploy.store_security import certificate_file, ensure_closed, security_file
from tasks.store import layout
from tasks.store.identity import ensure_authority, ensure_site_identity
from tasks.store.settings import PROJECT
from tests.deploy.planted_store import PLAN, STUDIES, Listener, Store, as_before, harm, running
from tests.deploy.store_attacks import MEANS, Attacker, Request, ask, read_out, walk

OPEN_TO_ALL = {"http GET /healthz", "http GET /status"}
"""What the S3 port tells everyone: that it is there. Nothing more is said, not even which version runs."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with running(tmp_path_factory.mktemp("closed")) as store:
        yield store


@pytest.fixture
def attacker(request, tmp_path, store):
    """`nobody` shows no certificate, `stranger` one of their own in the store's name, `site` that of its enrolment."""
    folder = tmp_path / "attacker"
    if request.param == "nobody":
        return Attacker("nobody", folder)
    if request.param == "stranger":
        ensure_closed(tmp_path)
        return Attacker("stranger", folder, certificate_file(tmp_path), certificate_file(tmp_path))
    ensure_site_identity(tmp_path / "701", "701", ensure_authority(store.home / "secrets" / "ca"))
    return Attacker("site", folder, tmp_path / "701" / "certificate.pem", tmp_path / "701" / "signing_key.pem")


@pytest.mark.parametrize("attacker", ["nobody", "stranger", "site"], indirect=True)
def test_nobody_changes_or_reads_anything(store, attacker):
    answers = walk(store, attacker)
    assert len(answers) > 1000
    assert harm(store) == {}
    assert read_out(store, answers) == []
    accepted = {(answer.listener, answer.request) for answer in answers if answer.accepted}
    for_everyone = {(f"127.0.0.1:{store.ports.s3}", request) for request in OPEN_TO_ALL}
    ours = str(seaweedfs.folder(store.home))  # behind a closed folder; this test's user is the store's
    assert {entry for entry in accepted if not entry[0].startswith(ours)} <= for_everyone
    assert {request for _, request in accepted} <= OPEN_TO_ALL | {"http GET /favicon.ico"}
    if attacker.name == "nobody":
        assert for_everyone <= accepted


@pytest.mark.parametrize("means", MEANS)
def test_the_same_requests_destroy_an_open_store(tmp_path, means):
    """The control: a store with the tokens alone, as it was before, loses everything that was planted."""
    with running(tmp_path / "home", as_before) as open_store:
        answers = walk(open_store, Attacker("nobody", tmp_path / "attacker"), [means])
        assert harm(open_store).keys() >= open_store.objects.keys()
        assert bool(read_out(open_store, answers)) == (means == "weed")  # the tokens do protect the other two
        if means == "http":
            accepted = {answer.request.split("?")[0] for answer in answers if answer.accepted}
            assert accepted >= {"http GET /col/delete", "http POST /submit", "http GET /vol/grow"}


def test_whoever_holds_the_stores_own_certificate_gets_in(tmp_path):
    """The control for the attackers with certificates: the walker knows how to use one."""
    with running(tmp_path / "home") as store:
        owner = Attacker("owner", tmp_path / "attacker", *[certificate_file(store.home)] * 2)
        grpc = walk(store, owner, ["grpc"])
        assert {answer.request for answer in grpc if answer.accepted} >= {"grpcs /master_pb.Seaweed/CollectionDelete"}
    with running(tmp_path / "second") as store:
        owner = Attacker("owner", tmp_path / "second attacker", *[certificate_file(store.home)] * 2)
        assert read_out(store, walk(store, owner, ["weed"])) != []
        assert harm(store).keys() >= store.objects.keys()


def test_every_listener_is_known_and_closed_to_other_users(store):
    listeners = store.listeners()
    tcp = {(listener.address, listener.port) for listener in listeners if listener.port is not None}
    wanted = store.ports.model_dump()
    del wanted["airflow"]
    assert tcp == {("127.0.0.1", port) for port in wanted.values()}
    sockets = [Path(listener.address) for listener in listeners if listener.port is None]
    assert len(sockets) == 6
    for path in sockets:
        behind_closed_folder = stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
        assert behind_closed_folder or stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_s3_works_and_a_killed_store_comes_back_with_everything(store):
    s3, key = store.s3(), "studies/derm/reports/multipart"
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=layout.BUCKET, Key=PLAN, Body=b"x", IfNoneMatch="*")
    upload = s3.create_multipart_upload(Bucket=layout.BUCKET, Key=key)["UploadId"]
    where = {"Bucket": layout.BUCKET, "Key": key, "UploadId": upload}
    bodies = {1: os.urandom(6_000_000), 2: os.urandom(1_000)}
    parts = [
        {"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=b)["ETag"]} for n, b in bodies.items()
    ]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    store.stop()
    store.start()
    assert s3.get_object(Bucket=layout.BUCKET, Key=key)["Body"].read() == bodies[1] + bodies[2]
    s3.delete_object(Bucket=layout.BUCKET, Key=key)
    assert harm(store) == {}


def test_a_deployment_from_before_is_closed_at_its_next_start_and_keeps_keys_and_data(tmp_path):
    with running(tmp_path, as_before) as store:
        tokens = tomllib.loads(security_file(tmp_path).read_text())
        master = Listener("127.0.0.1", store.ports.master)
        assert ask(master, None, Request("GET", "/cluster/status")).accepted
        store.stop()
        seaweedfs.prepare(tmp_path, STUDIES)
        assert tomllib.loads(security_file(tmp_path).read_text())["jwt"] == tokens["jwt"]
        store.argv = seaweedfs.command(tmp_path, store.ports)
        store.start()
        assert harm(store) == {}
        assert not ask(master, None, Request("GET", "/cluster/status")).accepted


def test_a_store_without_its_certificate_does_not_open_its_doors(tmp_path):
    with running(tmp_path) as store:
        store.stop()
        certificate_file(tmp_path).unlink()
        with pytest.raises(AssertionError, match=r"store\.pem: no such file"):
            store.start()


def test_a_renewed_certificate_takes_effect_with_a_restart(tmp_path):
    with running(tmp_path) as store:
        before = certificate_file(tmp_path).read_bytes()
        certificate_file(tmp_path).unlink()
        assert ensure_closed(tmp_path) is True
        assert certificate_file(tmp_path).read_bytes() != before
        store.stop()
        store.start()
        assert harm(store) == {}


# in a container


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """A store as docker/store.py starts it: `security.toml` elsewhere, S3 on every address."""
    spec = importlib.util.spec_from_file_location("store", PROJECT / "docker" / "store.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    etc = tmp_path_factory.mktemp("etc")

    def as_in_a_container(store: Store) -> None:
        security_file(store.home).rename(etc / "security.toml")
        store_security.require_closed(etc / "security.toml", certificate_file(store.home))
        store.argv = module.command(store.home, store.ports, etc / "security.toml")

    home = tmp_path_factory.mktemp("container")
    with running(home, as_in_a_container) as store:
        (etc / "security.toml").rename(security_file(home))  # for the owner's own look-ups; the store has read it
        yield store


def test_from_outside_a_container_only_s3_answers(container, tmp_path):
    found = psutil.Process(container.process.pid).net_connections("tcp")
    outside = {c.laddr.port for c in found if c.status == psutil.CONN_LISTEN and not _is_loopback(c.laddr.ip)}
    assert outside == {container.ports.s3, container.ports.s3_grpc}
    address = "127.0.0.2"  # not the one that the inner ports are bound to: like the container's address in its network
    reachable = [Listener(address, port) for port in container.ports.model_dump().values() if _connects(address, port)]
    assert {listener.port for listener in reachable} == outside
    answers = walk(container, Attacker("another container", tmp_path / "attacker"), ("grpc", "http"), reachable)
    assert len(answers) > 200
    assert harm(container) == {}
    assert read_out(container, answers) == []
    accepted = {(answer.listener, answer.request) for answer in answers if answer.accepted}
    assert accepted == {(f"{address}:{container.ports.s3}", request) for request in OPEN_TO_ALL}


def _is_loopback(address):
    return ipaddress.ip_address(address).is_loopback


def _connects(address, port):
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
