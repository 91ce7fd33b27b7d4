"""No key leaves in what a provider said: whole, by its ends beside a mask, or in an address."""

from __future__ import annotations

import pytest

from tasks.exam.asking.redaction import holds_a_key, redact, server_words

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
        ("no route to http://user:pa@ss@host/v1", "no route to http://<user>@host/v1"),
        ("no route to 'http://user:pa/ss@host'", "no route to 'http://<user>@host'"),
        ("GET https://h/v1?a=1&api_key=zyx987&b=2", "GET https://h/v1?a=1&api_key=<masked>&b=2"),
        ("GET https://h/v1?key=zyx987: 400", "GET https://h/v1?key=<masked> 400"),
        ("GET https://h/v1?access_token=zyx987#x", "GET https://h/v1?access_token=<masked>#x"),
        ("see https://h/v1?page=2&keys=3", "see https://h/v1?page=2&keys=3"),
        ("only one person is on it, at home@example.org...", "only one person is on it, at home@example.org..."),
    ],
)
def test_what_is_said_without_its_keys(said, kept):
    assert redact(said) == kept
    assert holds_a_key(said) == (KEY in said or "abc123" in said)


class _Refused(Exception):
    def __init__(self, body: object) -> None:
        super().__init__("Request: " + "x" * 900)
        self.body = body


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "max_tokens is too large", "code": 7}}, "max_tokens is too large"),
        ({"message": "no such field"}, "no such field"),
        ({"error": "overloaded"}, "overloaded"),
        ({"error": {"message": None}}, None),
        ({"detail": [1]}, None),
        ("text", None),
        (None, None),
    ],
)
def test_the_servers_own_reason_is_found(body, said):
    error = _Refused(body)
    assert server_words(error) == said
    outer = RuntimeError("the call failed")
    outer.__cause__ = error
    assert server_words(outer) == said
