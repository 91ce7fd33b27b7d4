"""Rounds under homomorphic encryption on a real object store: the hub adds ciphertexts, the sites decrypt the sum."""

from __future__ import annotations

import pytest
import torch

from tasks.errors import ConfigError, PharmafedError, PrivacyError, QuorumMissed
from tasks.privacy.secure_sum import ckks
from tasks.rounds.hub.phases import select_updates
from tasks.store import layout, settings
from tasks.store.files import write_private
from tasks.store.objects import to_json
from tasks.store.records.round import EncryptedSum
from tasks.store.weights import Weights, from_bytes
from tests.rounds.hub.federation import FEW, Federation

OPEN = {"privacy": {"mechanism": "none", "i_accept_no_privacy": True}, "evaluation": {"score_bins": None}}
BEFORE = ("validate_data", "train", "privatize_and_upload")


@pytest.fixture(scope="module", autouse=True)
def key(fed: Federation) -> bytes:
    made = ckks.make_key()
    for site in FEW:
        write_private(settings.site_secrets(site) / "ckks.key", made)
    return made


def encrypted_study(fed: Federation, **parts: object) -> str:
    return fed.new_study(sites=FEW, **({"channel": "ckks", "rounds": {"min_sites": 3}} | OPEN | parts))


def upload(fed: Federation, study: str) -> dict[str, PharmafedError]:
    fed.open(study)
    failed = fed.run_sites(study, 1, FEW, BEFORE)
    select_updates(fed.hub(study), 1)
    return failed


def model(fed: Federation, study: str) -> Weights:
    return from_bytes(fed.store().get(layout.model(study, 1)))


def test_an_encrypted_round_makes_the_model_of_a_plain_one(fed: Federation) -> None:
    hidden, plain = encrypted_study(fed), fed.new_study(sites=FEW, **{**OPEN, "channel": "plain"})
    assert upload(fed, hidden) == {}
    assert fed.run_sites(hidden, 1, FEW, ("unmask",)) == {}
    fed.aggregate(hidden, 1)
    fed.validate_global(hidden, 1, FEW)
    assert fed.close(hidden, 1).status == "complete"
    fed.open(plain)
    fed.run_sites(plain, 1, FEW)
    fed.aggregate(plain, 1)
    expected, found = model(fed, plain), model(fed, hidden)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=1e-6)
    assert max(float(w.abs().max()) for w in expected.values()) > 0.01


def test_the_hub_holds_no_update_that_it_can_read(fed: Federation) -> None:
    study = encrypted_study(fed)
    upload(fed, study)
    for site in FEW:
        tensors = from_bytes(fed.store().get(layout.update_tensors(study, 1, site)))
        assert {name: t.dtype for name, t in tensors.items()} == {"encrypted": torch.uint8}
    assert not list((fed.home / "secrets").glob("*/*ckks*")), "no key beside the hub's own secrets"


def test_a_lost_site_is_survived(fed: Federation) -> None:
    study = encrypted_study(fed)
    fed.open(study)
    fed.run_sites(study, 1, FEW[:3], BEFORE)
    fed.set_deadline(study, 1, 0, "upload_deadline")
    select_updates(fed.hub(study), 1)
    assert fed.run_sites(study, 1, FEW[:3], ("unmask",)) == {}
    fed.aggregate(study, 1)
    assert fed.close(study, 1).status == "partial"


def test_who_uploaded_to_a_round_without_a_model_is_not_called_rejected(fed: Federation) -> None:
    """What is checked is what the channel takes: a ciphertext has other tensors than the model."""
    study = encrypted_study(fed)
    fed.open(study)
    assert fed.run_sites(study, 1, FEW[:2], BEFORE) == {}
    fed.set_deadline(study, 1, 0, "upload_deadline")
    with pytest.raises(QuorumMissed):
        select_updates(fed.hub(study), 1)
    rows = {row.site: row.reason for row in fed.close(study, 1).sites}
    assert {rows[site] for site in FEW[:2]} == {"a valid update, but the round made no model"}
    assert {rows[site] for site in FEW[2:]} == {"no answer before the deadline"}


def test_a_site_decrypts_no_sum_without_its_own_update(fed: Federation) -> None:
    study = encrypted_study(fed)
    upload(fed, study)
    frozen = fed.store().get_record(layout.encrypted_sum(study, 1), EncryptedSum)
    others = {site: digest for site, digest in frozen.updates.items() if site != FEW[0]}
    changed = to_json(frozen.model_copy(update={"updates": others}))
    fed.store().put(layout.encrypted_sum(study, 1), changed, content_type="application/json")
    with pytest.raises(PrivacyError, match="does not hold the update"):
        fed.run_site(study, 1, FEW[0], ("unmask",))


def test_one_site_cannot_say_what_the_sum_was(fed: Federation, key: bytes) -> None:
    study = encrypted_study(fed)
    upload(fed, study)
    fed.run_sites(study, 1, FEW[:2], ("unmask",))
    lie = fed.store().get(layout.decrypted_sum(study, 1, FEW[0])).replace(b"\x00\x00", b"\x01\x07")
    fed.store().put(layout.decrypted_sum(study, 1, FEW[0]), lie, content_type="application/octet-stream")
    fed.set_deadline(study, 1, 1)
    with pytest.raises(QuorumMissed, match="1 of 4 sites decrypted the sum, 3 are needed"):
        fed.aggregate(study, 1)


def test_a_site_without_the_key_stays_out_and_says_how_to_get_it(fed: Federation, key: bytes) -> None:
    study = encrypted_study(fed)
    fed.open(study)
    path = settings.site_secrets(FEW[0]) / "ckks.key"
    path.unlink()
    try:
        with pytest.raises(ConfigError, match="pharmafed privacy ckks-key"):
            fed.run_site(study, 1, FEW[0], BEFORE)
    finally:
        write_private(path, key)
    assert not fed.store().exists(layout.update_tensors(study, 1, FEW[0]))
