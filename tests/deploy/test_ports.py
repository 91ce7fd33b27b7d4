import os
import socket

import pytest

from tasks.deploy.ports import Ports, choose_ports, holder, is_free, variable
from tasks.errors import ConfigError


@pytest.fixture
def held_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_defaults_do_not_clash_with_each_other():
    ports = choose_ports(environ={})
    assert ports == Ports()
    assert len(set(ports.model_dump().values())) == len(Ports.model_fields) == 9


def test_a_variable_overrides_a_default_and_an_automatic_port():
    environ = {"PHARMAFED_PORT_S3": "29999"}
    assert choose_ports(environ=environ).s3 == 29999
    assert choose_ports(auto=True, environ=environ).s3 == 29999


def test_automatic_ports_are_free_and_distinct():
    ports = list(choose_ports(auto=True, environ={}).model_dump().values())
    assert len(set(ports)) == 9
    assert all(is_free(port) for port in ports)


@pytest.mark.parametrize("value", ["http", "0", "65536", "8080.5"])
def test_a_wrong_port_is_named_with_its_variable(value):
    with pytest.raises(ConfigError, match=f"PHARMAFED_PORT_FILER='{value}'"):
        choose_ports(environ={"PHARMAFED_PORT_FILER": value})


def test_one_port_for_two_listeners_is_refused():
    with pytest.raises(ConfigError, match="PHARMAFED_PORT_AIRFLOW and PHARMAFED_PORT_S3 are both 8080"):
        choose_ports(environ={variable("s3"): "8080"})


def test_the_holder_of_a_port_is_named(held_port):
    assert not is_free(held_port)
    assert f"(pid {os.getpid()})" in holder(held_port)


def test_a_listener_on_every_interface_also_holds_the_port():
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])
