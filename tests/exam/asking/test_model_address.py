"""Scheme, host and port of a model, as the environment names them; what is no address is refused without its value."""

from __future__ import annotations

import pytest

from tasks.errors import ConfigError
from tasks.exam.asking.model_address import OF_THE_PROVIDER, model_address


@pytest.mark.parametrize(
    ("name", "value", "model", "address"),
    [
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1", "openai/gpt-4o", "http://127.0.0.1:9"),
        ("OPENAI_BASE_URL", "https://bob:s3cr3t@HOST.example/v1?key=k", "openai/gpt-4o", "https://host.example"),
        ("MY_LAB_BASE_URL", "http://[::1]:8000/v1", "openai-api/my-lab/echo", "http://[::1]:8000"),
        ("INSPECT_EVAL_MODEL_BASE_URL", "https://gate.example", "anthropic/claude", "https://gate.example"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1", "anthropic/claude", OF_THE_PROVIDER),
        ("OPENAI_BASE_URL", "", "openai/gpt-4o", OF_THE_PROVIDER),
    ],
)
def test_the_address_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, model: str, address: str
) -> None:
    monkeypatch.setenv(name, value)
    assert model_address(model) == address


@pytest.mark.parametrize(
    "value",
    [
        "http://bob:s3/cr3t@127.0.0.1:9/v1",
        "http://bob:cr3t@h:99999/v1",
        "bob:cr3t@h/v1",
        "ftp://cr3t",
        "http://[cr3t/v1",
        "http:///cr3t",
    ],
)
def test_what_is_no_address_is_refused_without_its_value(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", value)
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL is not an address") as refused:
        model_address("openai/gpt-4o")
    assert "cr3t" not in str(refused.value)
    assert "bob" not in str(refused.value)
