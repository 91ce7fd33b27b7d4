"""No key leaves in what a provider said: whole, by its ends beside a mask, or in an address."""

from __future__ import annotations

import pytest

from tasks.exam.redaction import holds_a_key, redact

KEY = "sk-proj-abcdefghijklmnop"


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setenv("SHORT_TOKEN", "abc123")
    monkeypatch.setenv("TINY_KEY", "on")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"wrong key {KEY}.", "wrong key <SOME_API_KEY>."),
        ("wrong key sk-proj-************mnop.", "wrong key <SOME_API_KEY>"),
        ("wrong key sk-pr…mnop", "wrong key <SOME_API_KEY>"),
        ("wrong key ...mnop, or none", "wrong key <SOME_API_KEY>, or none"),
        ("another's key AIza****wxyz", "another's key <masked>"),
        ("token abc123 is old", "token <SHORT_TOKEN> is old"),
        ("no route to http://user:secret@proxy.example:80/v1", "no route to http://<user>@proxy.example:80/v1"),
        ("only one person is on it, at home@example.org...", "only one person is on it, at home@example.org..."),
    ],
)
def test_what_is_said_without_its_keys(said, kept):
    assert redact(said) == kept
    assert holds_a_key(said) == (KEY in said or "abc123" in said)
