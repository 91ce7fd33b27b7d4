import json
import re
import stat

import pytest

from tasks.deploy import seaweedfs
from tasks.deploy.ports import Ports
from tasks.store import layout

STUDIES = {"derm": ["701", "702"], "cardio": ["702"]}


@pytest.fixture
def identities(tmp_path):
    seaweedfs.prepare(tmp_path, STUDIES)
    entries = json.loads(seaweedfs.identities_file(tmp_path).read_text())["identities"]
    return {entry["name"]: entry for entry in entries}


def may(identity, action, key):
    """Whether SeaweedFS would grant this, `*` matching anything, slashes included."""
    patterns = [a.removeprefix(f"{action}:") for a in identity["actions"] if a.startswith(f"{action}:")]
    return any(re.fullmatch(re.escape(p).replace(r"\*", ".*"), f"{layout.BUCKET}/{key}") for p in patterns)


def test_there_is_one_identity_per_site_and_the_hub(identities):
    assert list(identities) == ["hub", "dvc", "site-702", "site-701"]
    assert identities["hub"]["actions"] == ["Admin", "Read", "Write", "List", "Tagging"]


def test_a_site_may_write_its_own_update_only(identities):
    site = identities["site-701"]
    assert may(site, "Write", layout.update_tensors("derm", 3, "701"))
    assert may(site, "Read", layout.update_tensors("derm", 3, "701"))
    for key in (
        layout.update_tensors("derm", 3, "702"),
        layout.update_tensors("cardio", 3, "701"),
        layout.model("derm", 3),
        layout.plan("derm", 3),
        layout.latest("derm"),
        layout.enrolment("701"),
    ):
        assert not may(site, "Write", key), key


def test_a_site_reads_models_and_plans_of_its_studies_only(identities):
    assert may(identities["site-701"], "Read", layout.model("derm", 3))
    assert may(identities["site-701"], "Read", layout.plan("derm", 3))
    assert not may(identities["site-701"], "Read", layout.model("cardio", 3))
    assert not may(identities["site-701"], "Read", layout.update_tensors("derm", 3, "702"))
    assert may(identities["site-702"], "Read", layout.model("cardio", 3))


def test_a_site_joins_the_masks_with_keys_and_answers_of_its_own_only(identities):
    site = identities["site-701"]
    for own in (layout.key_message("derm", 3, "701"), layout.unmask_answer("derm", 3, "701")):
        assert may(site, "Write", own)
        assert may(site, "Read", own)
    for key in (
        layout.key_message("derm", 3, "702"),
        layout.unmask_answer("derm", 3, "702"),
        layout.key_message("cardio", 3, "701"),
        layout.unmask_answer("cardio", 3, "701"),
        layout.roster("derm", 3),
        layout.survivors("derm", 3),
        layout.sealing_key("701"),
        layout.sealing_key("702"),
    ):
        assert not may(site, "Write", key), key


def test_a_site_reads_others_public_keys_and_not_their_answers(identities):
    site = identities["site-701"]
    for key in (
        layout.key_message("derm", 3, "702"),
        layout.sealing_key("702"),
        layout.roster("derm", 3),
        layout.survivors("derm", 3),
    ):
        assert may(site, "Read", key), key
    for key in (
        layout.unmask_answer("derm", 3, "702"),
        layout.key_message("cardio", 3, "702"),
        layout.roster("cardio", 3),
        layout.ledger_entry("derm", "702", 1),
        layout.enrolment("702"),
    ):
        assert not may(site, "Read", key), key


def test_a_site_has_no_right_without_a_pattern(identities):
    granted = [a for name, entry in identities.items() if name.startswith("site-") for a in entry["actions"]]
    assert len(granted) > 10
    assert all(re.fullmatch(rf"(Read|Write):{layout.BUCKET}/.*\*.*", action) for action in granted)
    assert all(action.endswith(":pharmafed-dvc") for action in identities["dvc"]["actions"])
    assert all(len(e["actions"]) == len(set(e["actions"])) for e in identities.values())


def test_credentials_are_random_private_and_kept(tmp_path, identities):
    keys = [entry["credentials"][0]["secretKey"] for entry in identities.values()]
    assert len(set(keys)) == 4
    assert min(map(len, keys)) >= 40
    before = seaweedfs.identities_file(tmp_path).read_text()
    assert seaweedfs.write_identities(tmp_path, STUDIES) is False
    assert seaweedfs.identities_file(tmp_path).read_text() == before
    files = [p for p in tmp_path.rglob("*.json")]
    assert len(files) == 5
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


def test_a_new_site_changes_the_identities_and_no_old_key(tmp_path, identities):
    assert seaweedfs.write_identities(tmp_path, STUDIES | {"cardio": ["702", "703"]}) is True
    entries = json.loads(seaweedfs.identities_file(tmp_path).read_text())["identities"]
    after = {entry["name"]: entry["credentials"] for entry in entries}
    assert {name: after[name] for name in identities} == {n: e["credentials"] for n, e in identities.items()}
    assert "site-703" in after


def test_every_listener_is_on_loopback_and_named(tmp_path):
    command = seaweedfs.command(tmp_path, Ports())
    options = dict(arg.lstrip("-").split("=", 1) for arg in command if "=" in arg)
    assert options["ip"] == options["ip.bind"] == "127.0.0.1"
    listeners = {name: int(value) for name, value in options.items() if "port" in name.lower()}
    assert len(listeners) == 11
    used = [port for port in listeners.values() if port]
    assert sorted(used) == sorted(set(Ports().model_dump().values()) - {Ports().airflow})
    assert options["s3.port.iceberg"] == options["s3.port.lance"] == options["metricsPort"] == "0"
    assert options["master.telemetry"] == "false"


def test_the_inner_http_interfaces_and_the_second_way_to_identities_are_off(tmp_path):
    command = seaweedfs.command(tmp_path, Ports())
    assert {"-disableHttp=true", "-s3.iam=false"} <= set(command)


def test_no_variable_has_the_last_word_over_the_stores_settings():
    inherited = {"PATH": "/bin", "WEED_GRPC_CA": "", "WEED_JWT_SIGNING_KEY": "known"}
    assert seaweedfs.environment(inherited) == {"PATH": "/bin"}


def test_whoever_has_left_every_study_is_disabled_and_comes_back_with_the_same_key(tmp_path, identities):
    def entries(studies):
        seaweedfs.write_identities(tmp_path, studies)
        return {e["name"]: e for e in json.loads(seaweedfs.identities_file(tmp_path).read_text())["identities"]}

    after = entries({"cardio": ["702"]})
    assert after["site-701"] == identities["site-701"] | {"actions": [], "disabled": True}
    assert [name for name, entry in after.items() if "disabled" in entry] == ["site-701"]
    assert not may(after["site-702"], "Read", layout.model("derm", 3))
    assert entries(STUDIES) == identities
