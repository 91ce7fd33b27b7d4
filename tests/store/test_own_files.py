"""The deployment's own files, damaged: one sentence with file and remedy, and nothing of what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.cli import app
from tasks.deploy.secret_files import read_or_create
from tasks.errors import ConfigError
from tasks.store import settings

SECRET = "s3cr3t-7f3a"
DAMAGES = {
    "truncated": f'{{"access_key": "a", "secret_key": "{SECRET}',
    "empty": "",
    "a list": f'["{SECRET}"]',
    "other keys": f'{{"access_key": "a", "secret": "{SECRET}"}}',
    "numbers": f'{{"access_key": 1, "secret_key": {{"{SECRET}": 2}}}}',
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path))
    return tmp_path


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "addresses": ("deployment.json", lambda _: settings.addresses(), "run `pharmafed down`, then `pharmafed up`"),
    "the hub's key": ("secrets/s3/hub.json", lambda _: settings.hub_credential(), "put it back from a copy"),
    "a site's key": ("secrets/s3/site-701.json", lambda _: settings.site_credential("701"), "put it back from a copy"),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_its_remedy(home: Path, file: str, damage: str) -> None:
    name, read, remedy = FILES[file]
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(DAMAGES[damage])
    with pytest.raises(ConfigError, match="is damaged") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert remedy in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "validation error" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "empty", "a list", "numbers"])
def test_a_damaged_secret_is_not_made_anew_by_itself(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ui.json"
    path.write_text(DAMAGES[damage])
    with pytest.raises(ConfigError, match=r"ui\.json is damaged: put it back .* or remove it") as caught:
        read_or_create(path, lambda: {"username": "admin"})
    assert SECRET not in str(caught.value)
    assert path.read_text() == DAMAGES[damage]


def test_the_command_says_it_in_one_panel(home: Path) -> None:
    (home / "deployment.json").write_text('{"s3_endpoint": ')
    told = CliRunner().invoke(app, ["round", "xanomeline_derm56"], env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert "deployment.json is damaged" in told.stderr.replace("\n", "")
    assert "validation error" not in told.stderr
