"""What the hub collects from sites stays readable, however much they send; one malformed update is one site's loss."""

from __future__ import annotations

import json
import struct

import pytest

from tasks.deploy.finish import publish
from tasks.errors import PharmafedError
from tasks.foreign.bounds import HUB_REASON, MAX_TEXT, SITE_REASON
from tasks.privacy.ledger.chain import Link
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.rounds.site import steps
from tasks.store import layout
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard
from tasks.store.records.round import Refusal
from tasks.store.weights import sha256
from tests.rounds.hub.federation import FEW, Federation
from tests.rounds.hub.masked_rounds import MASKED, PREPARE, UNMASK, UPLOAD, put

SITES = ("708", "709", *FEW)
LOUD = ("717", "718")


@pytest.mark.parametrize("limit", ["most", "more"])
def test_large_refusals_stop_validation_nowhere(fed: Federation, limit: str) -> None:
    study = fed.new_study(sites=SITES, rounds={"min_sites": 3})
    fed.open(study)
    quiet = [site for site in SITES if site not in LOUD]
    assert fed.run_sites(study, 1, quiet) == {}
    for site in LOUD:
        reason = "\U0001f600" * MAX_TEXT if limit == "most" else "x" * (4 << 20)
        refusal = Refusal.model_construct(study=study, server_round=1, site=site, step="train_local", reason=reason)
        put(fed, layout.refusal(study, 1, site), refusal.model_dump_json().encode())
        put(fed, layout.data_validation(study, 1, site), b"[" * (1 << 20))
        put(fed, layout.site_metrics(study, 1, site), b'{"seconds": ' + b"9" * (1 << 20) + b"}")
    fed.aggregate(study, 1)
    card = fed.store().get(layout.card(study, 1))
    assert len(card) <= max_bytes(ModelCard)
    fed.validate_global(study, 1, quiet)
    metrics = fed.close(study, 1)
    publish(fed.hub(study), fed.hub(study).closed_rounds()[-1])
    assert metrics.num_contributors == len(quiet)
    assert {row.site for row in metrics.sites if not row.contributed} == set(LOUD)
    assert all(len(row.reason) <= HUB_REASON for row in metrics.sites)


def test_a_site_shortens_what_it_refuses_with(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fed.new_study()
    fed.open(study)

    def verbose(*_: object) -> None:
        raise PharmafedError("\x1b[31m" + "x" * 100_000)

    monkeypatch.setattr(steps, "checked_patients", verbose)
    with pytest.raises(PharmafedError):
        fed.run_site(study, 1, "717", ("validate_data",))
    refusal = fed.store().get_record(layout.refusal(study, 1, "717"), Refusal)
    assert len(refusal.reason) <= SITE_REASON
    assert refusal.reason.isprintable()


def bodies() -> dict[str, bytes]:
    """Uploads that end a library: in their header, an odd shape, type or place."""
    entries = {
        "shape": {"dtype": "U64", "shape": [0, 1 << 63], "data_offsets": [0, 0]},
        "type": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]},
        "place": {"dtype": "U64", "shape": [1], "data_offsets": [1 << 62, (1 << 62) + 8]},
        "list": [],
    }
    made = {}
    for name, entry in entries.items():
        header = json.dumps({"masked": entry}).encode()
        made[name] = struct.pack("<Q", len(header)) + header + bytes(2 if name == "type" else 0)
    return made


@pytest.mark.parametrize("name", bodies())
def test_one_malformed_update_is_one_sites_loss(fed: Federation, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The site signs and pays for what it sends: only reading it can find it out."""
    study = fed.new_study(sites=("709", *FEW), **MASKED | {"rounds": {"total": 20, "min_sites": 4}})
    fed.open(study)
    assert fed.run_sites(study, 1, names=PREPARE) == {}
    freeze_roster(fed.hub(study), 1)
    assert fed.run_sites(study, 1, [site for site in ("709", *FEW) if site != "717"], names=UPLOAD) == {}
    fed.run_site(study, 1, "717", UPLOAD)
    forged = bodies()[name]
    entry = fed.store().get_record(layout.ledger_entry(study, "717", 1), LedgerEntry)
    link = Link.seal(entry.model_copy(update={"release_sha256": sha256(forged)}), fed.home / "secrets/sites/717")
    put(fed, layout.ledger_entry(study, "717", 1), link.body)
    manifest = fed.manifest(study, 1, "717").model_copy(
        update={"sha256": sha256(forged), "num_bytes": len(forged), "ledger_sha256": link.sha256}
    )
    fed.put_tensors(study, 1, "717", forged)
    fed.put_manifest(study, 1, "717", to_json(fed.sign(manifest)))
    selection = select_updates(fed.hub(study), 1)
    assert set(selection.missing) == {"717"}
    assert selection.missing["717"].startswith("rejected: ")
    others = [chosen.site for chosen in selection.chosen]
    assert fed.run_sites(study, 1, others, names=UNMASK) == {}
    fed.aggregate(study, 1)
    assert fed.close(study, 1).status == "partial"
