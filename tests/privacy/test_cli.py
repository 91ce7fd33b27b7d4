"""`pharmafed privacy` against a real object store, and `verify` with no store at all."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from tasks.deploy.commands.privacy import app
from tasks.errors import ConfigError
from tasks.privacy.ledger.chain import Link
from tasks.store import layout, settings
from tasks.store.objects import ObjectStore
from tests.privacy.ledger.ledger_samples import (
    OTHER,
    SITE,
    clear,
    enrol,
    make_chain,
    make_identities,
    put_chain,
    remove,
    select,
    study_content,
)


@dataclass(frozen=True)
class Deployed:
    """A home and project that point to the object store; site 701 has four entries, 702 three."""

    study: str
    hub: ObjectStore
    links: list[Link]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def _home(object_store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[Link], list[Link]]:
    study, home = next(object_store.names), tmp_path_factory.mktemp("home")
    (home / "studies").mkdir()
    (home / "studies" / f"{study}.yaml").write_text(yaml.safe_dump(study_content(study)))
    addresses = settings.Addresses(
        s3_endpoint=object_store.endpoint, bucket=layout.BUCKET, airflow_url="http://127.0.0.1:1"
    )
    (home / "deployment.json").write_text(addresses.model_dump_json())
    shutil.copytree(object_store.home / "secrets", home / "secrets")
    identities = make_identities(home / "identities")
    links = make_chain(identities, 4, study=study)
    return home, study, links, make_chain(identities, 3, study=study, site=OTHER)


@pytest.fixture
def deployed(object_store, _home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    home, study, links, theirs = _home
    monkeypatch.setenv("PHARMAFED_HOME", str(home))
    monkeypatch.setenv("PHARMAFED_PROJECT", str(home))
    hub = object_store.store("hub")
    enrol(hub, home / "identities")
    put_chain(hub, study, SITE, links)
    put_chain(hub, study, OTHER, theirs)
    select(hub, study, 3, {SITE: (3, links[2].sha256), OTHER: (3, theirs[2].sha256)})
    yield Deployed(study, hub, links)
    clear(hub, study)


def test_spend_shows_each_site_the_promise_and_the_end(deployed: Deployed) -> None:
    result = deployed.run("spend", deployed.study)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines() if "of 20" in line]
    assert rows == [
        ["701", "4", "of", "20", "patient", "1.23", "of", "3", "1e-05", "16", "ok", "2026-03-04", "02:05"],
        ["702", "3", "of", "20", "patient", "1.05", "of", "3", "1e-05", "17", "ok", "2026-03-03", "02:05"],
    ]
    assert "protects one patient: neighbours are training sets that differ in one patient." in result.stdout
    assert "16 more rounds; nightly, the last on " in result.stdout


def test_spend_for_machines(deployed: Deployed) -> None:
    result = deployed.run("spend", deployed.study, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["study"], found["mechanism"]) == (deployed.study, "local_dp")
    assert [(row["site"], row["releases"], row["problems"]) for row in found["sites"]] == [
        (SITE, 4, []),
        (OTHER, 3, []),
    ]
    assert found["sites"][0]["epsilon"] == pytest.approx(deployed.links[-1].entry.spend.epsilon)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_spend_fails_when_a_ledger_is_broken(deployed: Deployed, options: list[str]) -> None:
    remove(deployed.hub, deployed.study, 3, 4)
    result = deployed.run("spend", deployed.study, *options)
    problem = "entry 3 is missing, but the hub accepted an update that it paid for"
    assert result.exit_code == 1
    assert result.stderr == f"site 701: {problem}\n"
    assert problem in result.stdout
    if options:
        assert json.loads(result.stdout)["sites"][0]["problems"] == [problem]
    else:
        assert "BROKEN" in result.stdout


def test_an_unknown_study_is_refused(deployed: Deployed) -> None:
    result = deployed.run("spend", "nothing")
    assert isinstance(result.exception, ConfigError)


def test_what_is_exported_verifies_without_store_network_and_deployment(
    deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "evidence"
    exported = deployed.run("export", deployed.study, "--to", str(folder))
    assert exported.exit_code == 0
    assert exported.stdout == f"7 entries of 2 sites are in {folder}. Verify: pharmafed privacy verify {folder}\n"
    for name in ("PHARMAFED_HOME", "PHARMAFED_PROJECT"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    monkeypatch.setattr(socket.socket, "connect", _no_network)
    result = deployed.run("verify", str(folder))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines() if "valid" in line]
    assert rows == [
        ["701", "4", "1.23", "valid", "1", "2026-03-01", "2026-03-04", "ok"],
        ["702", "3", "1.05", "valid", "1", "2026-03-01", "2026-03-03", "ok"],
    ]


def _no_network(*_: object) -> None:
    raise AssertionError("verification needs no network")


def test_verify_lists_the_problems_and_fails(deployed: Deployed, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    deployed.run("export", deployed.study, "--to", str(folder))
    (folder / "ledger" / SITE / "000002.json").unlink()
    (folder / "ledger" / OTHER / "000003.json").write_bytes(b"")
    result = deployed.run("verify", str(folder))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "site 701: entry 2 is missing",
        "site 702: entry 3 cannot be read",
        "site 702: entry 3 is missing, but the hub accepted an update that it paid for",
    ]
    reports = json.loads(deployed.run("verify", str(folder), "--json").stdout)
    assert [(report["site"], len(report["problems"])) for report in reports] == [(SITE, 1), (OTHER, 2)]


def test_many_problems_are_cut_to_ten(deployed: Deployed, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    deployed.run("export", deployed.study, "--to", str(folder))
    for number in range(13):
        (folder / "ledger" / SITE / f"note{number}").write_bytes(b"")
    lines = deployed.run("verify", str(folder)).stderr.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "site 701: and 3 more problems"


def test_verify_refuses_a_folder_that_is_no_export(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "pharmafed privacy export" in str(result.exception)
