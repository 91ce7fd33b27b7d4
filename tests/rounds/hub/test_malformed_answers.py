"""Answers that are signed, paid for and wrong in form: each is one site's loss, where it was everybody's before.

Each attack has its control: with the check taken out, the same bytes end the round for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tasks.data.checks.runner import CheckResult, ValidationResult
from tasks.deploy.finish import publish
from tasks.errors import PrivacyError, UpdateRejected
from tasks.foreign.bounds import MAX_EXPECTATIONS, MAX_NAME, MAX_NAMED, MAX_NOTE, MAX_STEPS, MAX_TEXT
from tasks.privacy.ledger.chain import Link
from tasks.privacy.secure_sum import checks, ckks
from tasks.privacy.secure_sum.records import KeyMessage
from tasks.rounds.channels.ckks import Hub, read_decrypted
from tasks.rounds.channels.masks import hub as hub_masked
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.store import layout, settings
from tasks.store.files import write_private
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard
from tasks.store.records.report import RoundMetrics, SiteMetrics
from tasks.store.records.round import Refusal
from tasks.store.weights import fetch_model, sha256, to_bytes
from tests.rounds.hub.federation import FEW, NOCOMP, SITES, Federation
from tests.rounds.hub.masked_rounds import PREPARE, UPLOAD, put, signing, trained

LIAR = "717"
OTHERS = {site for site in FEW if site != LIAR}
Change = Callable[[KeyMessage], bytes]


# key messages that only the other sites would stumble over


def _resigned(message: KeyMessage, **changes: object) -> bytes:
    made = message.model_copy(update={"signature": "", **changes})
    return to_json(checks.signed(made, signing(settings.site_secrets(LIAR))))


def with_spaces(message: KeyMessage) -> bytes:
    return to_json(message) + b" "


def with_a_key_twice(message: KeyMessage) -> bytes:
    return to_json(message).replace(b'{\n  "study"', b'{\n  "study": "other",\n  "study"', 1)


def with_another_threshold(message: KeyMessage) -> bytes:
    return _resigned(message, threshold=message.threshold + 1)


def without_a_holder(message: KeyMessage) -> bytes:
    return _resigned(message, shares={site: pair for site, pair in message.shares.items() if site != "713"})


def with_a_weak_key(message: KeyMessage) -> bytes:
    return _resigned(message, mask_public_key=bytes(32))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_spaces, "is not spelled as its record is"),
        (with_a_key_twice, "is not spelled as its record is"),
        (with_another_threshold, "has 4 of 4 shares, not 3 of the 4 planned sites'"),
        (without_a_holder, "has 3 of 3 shares, not 3 of the 4 planned sites'"),
        (with_a_weak_key, "a mask key is weak"),
    ],
)
def test_a_key_message_that_stops_the_others_keeps_its_own_site_out(
    fed: Federation, monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    study = trained(fed)
    key = layout.key_message(study, 1, LIAR)
    put(fed, key, change(fed.store().get_record(key, KeyMessage)))
    before = fed.objects(layout.study_prefix(study) + "/")
    with monkeypatch.context() as patch:  # the control
        patch.setattr(hub_masked, "check_shares", lambda *_: None)
        patch.setattr(hub_masked, "read_key_message", lambda body, _: KeyMessage.model_validate_json(body))
        assert _all_are_stopped(fed, study)
    fed.restore(study, before)
    roster = freeze_roster(fed.hub(study), 1)
    assert set(roster.members) == OTHERS
    assert reason in roster.missing[LIAR]


def _all_are_stopped(fed: Federation, study: str) -> bool:
    """Whether the hub cannot freeze the roster, or none of the other sites uploads behind its masks."""
    try:
        roster = freeze_roster(fed.hub(study), 1)
    except PrivacyError:
        return True
    failed = fed.run_sites(study, 1, sorted(OTHERS), UPLOAD)
    return LIAR in roster.members and set(failed) == OTHERS


# ciphertexts and decrypted sums


@pytest.fixture(scope="module")
def key(fed: Federation) -> bytes:
    made = ckks.make_key()
    for site in FEW:
        write_private(settings.site_secrets(site) / "ckks.key", made)
    return made


def _encrypted_round(fed: Federation) -> str:
    parts = {"privacy": {"mechanism": "none", "i_accept_no_privacy": True}, "evaluation": {"score_bins": None}}
    study = fed.new_study(sites=FEW, channel="ckks", rounds={"min_sites": 3}, **parts)
    fed.open(study)
    assert fed.run_sites(study, 1, FEW, (*PREPARE, *UPLOAD)) == {}
    return study


def _send(fed: Federation, study: str, body: bytes, num_values: int) -> None:
    """As the liar: other tensors, paid for and signed."""
    entry = fed.store().get_record(layout.ledger_entry(study, LIAR, 1), LedgerEntry)
    link = Link.seal(entry.model_copy(update={"release_sha256": sha256(body)}), settings.site_secrets(LIAR))
    put(fed, layout.ledger_entry(study, LIAR, 1), link.body)
    manifest = fed.manifest(study, 1, LIAR)
    spec = manifest.tensors[0].model_copy(update={"shape": (num_values,)})
    changes = {"sha256": sha256(body), "num_bytes": len(body), "ledger_sha256": link.sha256, "tensors": (spec,)}
    fed.put_tensors(study, 1, LIAR, body)
    fed.put_manifest(study, 1, LIAR, to_json(fed.sign(manifest.model_copy(update=changes))))


def test_a_ciphertext_that_does_not_add_is_one_sites_loss(
    fed: Federation, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _encrypted_round(fed)
    tenseal = pytest.importorskip("tenseal")
    size = sum(tensor.numel() for tensor in fetch_model(fed.store(), fed.hub(study).plan(1).base_model).values())
    vector = tenseal.ckks_vector(ckks._secret(key), [0.0] * size, scale=2.0**30)
    forged = np.frombuffer(ckks._framed(vector.serialize()), dtype=np.uint8).copy()
    _send(fed, study, to_bytes({"encrypted": torch.from_numpy(forged)}), len(forged))
    before = fed.objects(layout.study_prefix(study) + "/")
    with monkeypatch.context() as patch:  # the control: what the hub selects, it cannot add
        patch.setattr(ckks, "_is_fresh", lambda _: True)
        with pytest.raises((PrivacyError, ValueError)):
            select_updates(fed.hub(study), 1)
    fed.restore(study, before)
    selection = select_updates(fed.hub(study), 1)
    assert {chosen.site for chosen in selection.chosen} == OTHERS
    assert selection.missing[LIAR].startswith("rejected: an encrypted vector cannot be read")
    assert fed.run_sites(study, 1, sorted(OTHERS), ("unmask",)) == {}
    fed.aggregate(study, 1)


def test_a_decrypted_sum_of_an_odd_type_counts_as_not_given(fed: Federation, key: bytes) -> None:
    study = _encrypted_round(fed)
    selection = select_updates(fed.hub(study), 1)
    assert fed.run_sites(study, 1, FEW, ("unmask",)) == {}
    hub, plan = fed.hub(study), fed.hub(study).plan(1)
    put(fed, layout.decrypted_sum(study, 1, LIAR), to_bytes({"sum": torch.zeros(23, dtype=torch.bfloat16)}))
    base = fetch_model(fed.store(), plan.base_model)
    assert set(Hub(hub, plan).total(selection, base).delta) == set(base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64, torch.uint8])
def test_only_a_vector_of_float64_is_a_decrypted_sum(dtype: torch.dtype) -> None:
    with pytest.raises(UpdateRejected, match=r"not one vector sum of torch\.float64"):
        read_decrypted(to_bytes({"sum": torch.zeros(3, dtype=dtype)}), 3, LIAR)
    assert read_decrypted(to_bytes({"sum": torch.zeros(3, dtype=torch.float64)}), 3, LIAR).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8])
def test_only_a_vector_of_uint64_is_masked(dtype: torch.dtype) -> None:
    with pytest.raises(UpdateRejected, match=r"not one vector masked of torch\.uint64"):
        hub_masked.read_masked(to_bytes({"masked": torch.zeros(3, dtype=dtype)}), 3, LIAR)


# the most of everything


def test_the_hubs_records_hold_the_most_that_thirteen_sites_may_send(fed: Federation) -> None:
    """Six refuse at length; seven contribute with the slowest steps, most failures and most extreme metrics."""
    loud, quiet = SITES[:6], SITES[6:]
    study = fed.new_study(sites=SITES, rounds={"min_sites": 3})
    fed.open(study)
    assert fed.run_sites(study, 1, quiet) == {}
    for site in loud:
        reason = "\U0001f600" * MAX_TEXT
        put(
            fed,
            layout.refusal(study, 1, site),
            Refusal(study=study, server_round=1, site=site, step="train_local", reason=reason),
        )
    wide = "\U0001f600" * (MAX_NAME - 4)
    for site in quiet:
        seconds = {f"{wide}{number:04d}": 1e6 for number in range(MAX_STEPS - 2)}
        manifest = fed.manifest(study, 1, site)
        steps = {"train_local": 1e6, "privatize_and_upload": 1e6, **seconds}
        fed.put_manifest(study, 1, site, to_json(fed.sign(manifest.model_copy(update={"seconds": steps}))))
    for site in SITES:
        failed = [
            CheckResult(id=f"{wide}{n:04d}", success=False, note="\U0001f600" * MAX_NOTE) for n in range(MAX_NAMED)
        ]
        waived = [
            CheckResult(id=f"{wide}{n:04d}", success=False, waived_by=wide) for n in range(MAX_NAMED, MAX_EXPECTATIONS)
        ]
        put(
            fed,
            layout.data_validation(study, 1, site),
            ValidationResult(site=site, success=False, checks=(*failed, *waived)),
        )
    fed.aggregate(study, 1)
    assert len(fed.store().get(layout.card(study, 1))) <= max_bytes(ModelCard)
    card = fed.store().get_record(layout.card(study, 1), ModelCard)
    for site in SITES:
        metrics = SiteMetrics(
            study=study,
            server_round=1,
            site=site,
            model_sha256=card.evaluated_model.sha256,
            min_cell=1 << 53,
            num_examples=1 << 53,
            figures={"log_loss": 1e6, "auc": 5e-324},
            suppressed=(wide,) * 17,
            seconds=1e6,
        )
        put(fed, layout.site_metrics(study, 1, site), metrics)
    closed = fed.close(study, 1)
    publish(fed.hub(study), fed.hub(study).closed_rounds()[-1])
    assert fed.store().get_record(layout.round_metrics(study, 1), RoundMetrics) == closed
    assert closed.num_contributors == len(quiet)
    assert closed.step_seconds["train_local"] == len(quiet) * 1e6
    assert all(len(row.failed_expectations) == len(row.waived_expectations) == MAX_NAMED for row in closed.sites)
    assert {step for row in closed.sites for step in row.seconds} <= {
        "train_local",
        "privatize_and_upload",
        "validate_global",
    }


@pytest.mark.parametrize("seconds", [1.7e308, -1.0, 1e7])
def test_seconds_that_would_not_add_up_are_one_sites_loss(fed: Federation, seconds: float) -> None:
    """Two sites with 1.7e308 s each sum to infinity, which no record holds: the round could not be closed."""
    study = fed.new_study(sites=FEW)
    fed.open(study)
    assert fed.run_sites(study, 1) == {}
    line = json.loads(to_json(fed.manifest(study, 1, LIAR))) | {"seconds": {"train_local": seconds}}
    fed.put_manifest(study, 1, LIAR, json.dumps(line).encode())
    selection = fed.aggregate(study, 1)
    assert {chosen.site for chosen in selection.chosen} == OTHERS
    assert "is not a valid Manifest" in selection.missing[LIAR]
    assert fed.close(study, 1).status == "partial"


@pytest.mark.parametrize("lie", [{"auc": 1.5}, {"log_loss": -0.1}, {"rmse": 3.0}, {"\U0001f600": 0.5}])
def test_a_figure_that_no_model_can_have_is_one_sites_loss(fed: Federation, lie: dict[str, float]) -> None:
    """Or one that the study's task has not: the means over sites are of the others' figures."""
    study = fed.new_study(base=NOCOMP, sites=FEW)
    fed.open(study)
    assert fed.run_sites(study, 1) == {}
    fed.aggregate(study, 1)
    card = fed.store().get_record(layout.card(study, 1), ModelCard)
    for number, site in enumerate(FEW):
        metrics = SiteMetrics(
            study=study,
            server_round=1,
            site=site,
            model_sha256=card.evaluated_model.sha256,
            min_cell=5,
            num_examples=10 + number,
            figures={"auc": 0.5} | lie if site == LIAR else {"auc": 0.75, "log_loss": 0.5},
        )
        put(fed, layout.site_metrics(study, 1, site), metrics)
    closed = fed.close(study, 1)
    assert closed.figures == {"auc": 0.75, "log_loss": 0.5}
    assert {row.site for row in closed.sites if row.metrics is None} == {LIAR}
