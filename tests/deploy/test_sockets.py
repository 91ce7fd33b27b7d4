import os
import socket

import pytest

from tasks.deploy import preflight, sockets
from tasks.deploy.ports import Ports, choose_ports


@pytest.fixture
def ports(tmp_path, monkeypatch):
    """Ports whose sockets would lie in a folder of the test's own."""
    chosen = choose_ports(auto=True, environ={})
    monkeypatch.setattr(sockets, "FOLDER", tmp_path)
    return chosen


def abandon(path):
    """What a killed `weed` leaves."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()


def test_each_grpc_port_has_a_socket_of_its_part(ports):
    for part in ("master", "volume", "filer", "s3"):
        abandon(sockets.socket_file(part, getattr(ports, f"{part}_grpc")))
    abandon(sockets.socket_file("filer", ports.master_grpc))  # of another deployment
    assert list(sockets.left_over(ports.model_dump())) == ["s3_grpc", "filer_grpc", "master_grpc", "volume_grpc"]


def test_what_nothing_listens_behind_is_removed(ports):
    path = sockets.socket_file("filer", ports.filer_grpc)
    abandon(path)
    [problem] = preflight.socket_problems(ports)
    sockets.remove_abandoned(ports.model_dump())
    assert not path.exists()
    assert list(preflight.socket_problems(ports)) == []
    assert str(path) in problem.what


def test_what_something_listens_behind_stays_and_is_named_with_its_owner(ports):
    path = sockets.socket_file("filer", ports.filer_grpc)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        sockets.remove_abandoned(ports.model_dump())
        [problem] = preflight.socket_problems(ports)
    user = sockets.user_of(path)
    assert problem.what == f"{path} of user {user} is in the way of port {ports.filer_grpc} (filer_grpc)"
    assert "PHARMAFED_PORT_FILER_GRPC" in problem.remedy


def test_what_may_not_be_removed_is_named(ports, monkeypatch):
    """As in /tmp, where only its owner may remove a file."""
    path = sockets.socket_file("s3", ports.s3_grpc)
    abandon(path)

    def refuse(self, missing_ok=False):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "unlink", refuse)
        sockets.remove_abandoned(ports.model_dump())
    assert [str(path) in problem.what for problem in preflight.socket_problems(ports)] == [True]


def test_a_socket_that_does_not_let_us_in_counts_as_in_use(ports, monkeypatch):
    path = sockets.socket_file("s3", ports.s3_grpc)
    abandon(path)

    class Closed(socket.socket):
        def connect(self, address):
            raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(sockets.socket, "socket", Closed)
        sockets.remove_abandoned(ports.model_dump())
    assert path.exists()


def test_automatic_ports_avoid_what_is_left_over(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets, "FOLDER", tmp_path)
    monkeypatch.setattr("tasks.deploy.ports._AUTO_RANGE", range(20_000, 20_040))
    for port in range(20_000, 20_020):
        sockets.socket_file("master", port).touch()
    chosen = choose_ports(auto=True, environ={}).model_dump().values()
    assert len(set(chosen)) == len(Ports.model_fields)
    assert min(chosen) >= 20_020


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_another_users_socket_is_found_before_the_store_waits_for_it():
    """In the real /tmp, as user nobody who finds a socket of root's; root itself may remove it."""
    ports = choose_ports(auto=True, environ={})
    path = sockets.socket_file("master", ports.master_grpc)
    abandon(path)
    try:
        found = as_nobody(lambda: _clear_and_look(ports))
        assert f"{path} of user root is in the way" in found
        assert path.exists()
        assert _clear_and_look(ports) == ""
    finally:
        path.unlink(missing_ok=True)


def _clear_and_look(ports):
    sockets.remove_abandoned(ports.model_dump())
    return "\n".join(map(str, preflight.socket_problems(ports)))


def as_nobody(work):
    """What `work` returns in a process of another user's: nobody may read this Python, so it is a fork of this one."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            os.write(writable, work().encode())
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, "rb") as said:
        content = said.read().decode()
    os.waitpid(pid, 0)
    return content
