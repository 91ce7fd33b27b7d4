from __future__ import annotations

import base64
import json

import pytest
from pydantic import ValidationError

from tasks.privacy.secure_sum.records import KeyMessage, RoundKeys, SealingKey, SharePair
from tasks.store.objects import to_json
from tests.privacy.secure_sum.secure_sum_federation import PLAN, Federation

SECRETS = {"mask_private_key": b"m" * 32, "self_seed": b"s" * 32}


def test_records_survive_json_with_the_same_bytes(federation: Federation) -> None:
    message = federation.start(3, 2).messages["701"]
    body = to_json(message)
    assert KeyMessage.model_validate_json(body) == message
    assert to_json(KeyMessage.model_validate_json(body)) == body
    assert base64.b64decode(json.loads(body)["mask_public_key"]) == message.mask_public_key


def test_round_keys_are_stored_but_never_shown() -> None:
    keys = RoundKeys(study="cardio", server_round=1, site="701", plan_sha256=PLAN, **SECRETS)
    shown = repr(keys) + str(keys) + f"{keys}"
    assert "701" in shown
    for secret in SECRETS.values():
        assert secret.decode() not in shown
        assert base64.b64encode(secret).decode() not in shown
    assert RoundKeys.model_validate_json(to_json(keys)) == keys


def test_a_refused_key_is_not_shown_either() -> None:
    with pytest.raises(ValidationError) as refusal:
        RoundKeys(
            study="cardio",
            server_round=1,
            site="701",
            plan_sha256=PLAN,
            mask_private_key=b"hush" * 9,
            self_seed=b"s" * 32,
        )
    assert [error["loc"] for error in refusal.value.errors(include_input=False)] == [("mask_private_key",)]
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("text", ["AA=", "AAB=", "AA==\n", "A A==", "AA-_", "é"])
def test_bytes_have_one_spelling(text: str) -> None:
    body = {"sealed": "AAAA" * 38, "self_seed_share_sha256": "0" * 64, "mask_key_share_sha256": "0" * 64}
    assert SharePair.model_validate_json(json.dumps(body)).sealed == bytes(114)
    with pytest.raises(ValidationError, match="sealed"):
        SharePair.model_validate_json(json.dumps(body | {"sealed": "AAAA" * 37 + text}))


@pytest.mark.parametrize("text", ["A" * 42 + "B=", "A" * 42 + "==", "A" * 43, "A" * 43 + "=\n", "-" * 43 + "="])
def test_a_key_has_one_spelling(text: str) -> None:
    """32 bytes leave four bits unused in the last character: they must be zero."""
    body = {"site": "701", "certificate_pem": "", "public_key": text}
    with pytest.raises(ValidationError):
        SealingKey.model_validate_json(json.dumps(body))
    assert SealingKey.model_validate_json(json.dumps(body | {"public_key": "A" * 43 + "="})).public_key == bytes(32)
