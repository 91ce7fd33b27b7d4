"""A whole round, step by step as the DAG runs it, on a real object store: what lies there, and who may touch it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from botocore.exceptions import ClientError
from safetensors.numpy import load

from tasks.deploy import seaweedfs
from tasks.deploy.finish import finish_round
from tasks.errors import AccessDenied, ConfigError
from tasks.learning.metrics import metrics_of
from tasks.privacy.opened import interpret
from tasks.rounds.page.store import CONTENT_TYPES
from tasks.store import layout
from tasks.store.identity import is_signed_by
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard, Pointer
from tasks.store.records.report import RoundMetrics, SiteMetrics
from tasks.store.records.round import Selection
from tasks.store.weights import fetch_model, sha256
from tasks.study.channels import MASKS
from tasks.study.codec import Top
from tasks.study.privacy import NoPrivacy
from tests.rounds.hub.federation import DERM, NOCOMP, SITES, Federation, json_of

SHIPPED = (DERM, NOCOMP)


def with_time(fed: Federation, study: str) -> None:
    """Give the study's rounds an hour: here the sites go one after the other."""
    path = fed.project / "studies" / f"{study}.yaml"
    content = yaml.safe_load(path.read_text())
    content["rounds"]["deadline_seconds"] = 3600
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module", params=SHIPPED)
def study(request: pytest.FixtureRequest, fed: Federation) -> str:
    """A shipped study after two whole rounds with the reports of both."""
    name = str(request.param)
    with_time(fed, name)
    for number in (1, 2):
        plan = fed.open(name, f"night-{number}")
        assert (plan.server_round, plan.channel.name) == (number, "masks" if name == DERM else "plain")
        assert (fed.masked_round if plan.channel.name == "masks" else fed.run_sites)(name, number) == {}
        fed.aggregate(name, number)
        fed.validate_global(name, number, plan.sites)
        line = finish_round(name, number)
        assert line == f"round {number} of {name}: complete, 13 of 13 contributed"
    return name


def round_keys(study: str, r: int) -> set[str]:
    at_sites = (layout.update_tensors, layout.update_manifest, layout.data_validation, layout.site_metrics)
    keys = {place(study, r, site) for place in at_sites for site in SITES}
    keys |= {layout.ledger_entry(study, site, r) for site in SITES}
    of_round = (layout.plan, layout.selection, layout.selected, layout.model, layout.card)
    keys |= {place(study, r) for place in (*of_round, layout.round_metrics, layout.closed)}
    if study != DERM:
        return keys
    keys |= {place(study, r, site) for place in (layout.key_message, layout.unmask_answer) for site in SITES}
    return keys | {layout.roster(study, r), layout.survivors(study, r)}


def mean_of_updates(fed: Federation, study: str, r: int) -> dict[str, np.ndarray]:
    """Base + weighted mean, in float64, from nothing but the objects in the bucket."""
    store = fed.store()
    weighting = json_of(store.get(layout.plan(study, r)))["training"]["weighting"]
    base = load(store.get(layout.model(study, r - 1)))
    updates, weights = [], []
    for site in SITES:
        manifest = json_of(store.get(layout.update_manifest(study, r, site)))
        updates.append(load(store.get(layout.update_tensors(study, r, site))))
        weights.append({"plain": 1, "iterations": manifest["local_iterations"]}[weighting])
    return {
        name: value.astype(np.float64)
        + np.average([update[name].astype(np.float64) for update in updates], axis=0, weights=weights)
        for name, value in base.items()
    }


def test_the_bucket_holds_what_the_layout_says_and_nothing_else(fed: Federation, study: str) -> None:
    keys = set(fed.store().keys(layout.study_prefix(study) + "/"))
    reports = {key for key in keys if "/reports/" in key}
    first = {layout.model(study, 0), layout.card(study, 0), layout.latest(study)}
    runs = {layout.run(study, fed.hub(study).plan(r).run_id) for r in (1, 2)}
    wanted = round_keys(study, 1) | round_keys(study, 2) | first | runs
    assert keys - reports == wanted
    assert len(wanted) == 2 * (7 * 13 + 10 if study == DERM else 5 * 13 + 8) + 3
    for r in (1, 2):
        names = {key.rsplit("/", 1)[1] for key in reports if key.startswith(layout.report(study, r, ""))}
        assert {"report.html", "metrics.json", "run.json", "auc.png"} <= names <= set(CONTENT_TYPES)
    at_home = {path.name for path in (fed.home / "reports" / study / "0002").iterdir()}
    assert at_home == names


def opened_by_hand(fed: Federation, study: str, r: int) -> dict[str, np.ndarray]:
    """The uploads in the bucket added modulo 2^64, as if that took their masks off, and read as a step."""
    masked = [load(fed.store().get(layout.update_tensors(study, r, site))) for site in SITES]
    assert all({name: (t.dtype, t.shape) for name, t in own.items()} == {"masked": ("u8", (33,))} for own in masked)
    total = np.sum([own["masked"] for own in masked], axis=0, dtype=np.uint64).view(np.int64)
    hub = fed.hub(study)
    base = fetch_model(hub.store, hub.plan(r).base_model)
    step = interpret(total, hub.plan(r), base, [1.0] * len(SITES)).delta
    return {name: (base[name] + step[name]).numpy() for name in base}


@pytest.mark.parametrize("r", [1, 2])
def test_the_model_is_the_mean_of_the_updates(fed: Federation, study: str, r: int) -> None:
    """Behind masks the bucket's updates alone are not enough: a sum of them is noise of the size of the integers."""
    body = fed.store().get(layout.model(study, r))
    model = load(body)
    if study == DERM:
        apart = [np.abs(value - model[name]).max() for name, value in opened_by_hand(fed, study, r).items()]
        assert max(apart) > 1e3
        assert max(np.abs(value).max() for value in model.values()) < 10
    else:
        expected = mean_of_updates(fed, study, r)
        assert model.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(model[name], value, rtol=1e-5, atol=2e-6)
    before = load(fed.store().get(layout.model(study, r - 1)))
    assert any(not np.array_equal(model[name], before[name]) for name in model)
    card = fed.store().get_record(layout.card(study, r), ModelCard)
    assert card.model.sha256 == sha256(body)
    assert set(card.contributors) == set(SITES)
    assert card.missing == {}


def test_weights_are_the_studys(fed: Federation, study: str) -> None:
    selection = fed.store().get_record(layout.selection(study, 1), Selection)
    weights = {chosen.site: chosen.weight for chosen in selection.chosen}
    assert list(weights) == sorted(SITES)
    if study == DERM:
        assert set(weights.values()) == {1.0}
    else:
        assert weights == {c.site: float(-(-c.num_examples // 8)) for c in selection.chosen}
        assert weights["701"] > weights["717"]


def test_the_second_round_starts_where_the_first_ended(fed: Federation, study: str) -> None:
    hub = fed.hub(study)
    first, second = hub.plan(1), hub.plan(2)
    card = fed.store().get_record(layout.card(study, 1), ModelCard)
    assert first.base_model.key == layout.model(study, 0)
    assert second.base_model == card.model
    assert second.run_id == "night-2"
    pointer = fed.store().get_record(layout.latest(study), Pointer)
    assert (pointer.server_round, pointer.model.key) == (2, layout.model(study, 2))


def test_the_ledger_has_each_sites_spend_of_each_round(fed: Federation, study: str) -> None:
    for r in (1, 2):
        for site in SITES:
            entry = fed.store().get_record(layout.ledger_entry(study, site, r), LedgerEntry)
            assert (entry.study, entry.site, entry.server_round, entry.spend.releases) == (study, site, r, r)
            assert entry.spend == fed.manifest(study, r, site).spend
            assert entry.spend.unit == ("patient" if study == DERM else "nothing")
            own = fed.home / "sites" / site / "ledger" / study / f"{r:06d}.json"
            assert LedgerEntry.model_validate_json(own.read_bytes()) == entry
            assert entry.release_sha256 == sha256(fed.store().get(layout.update_tensors(study, r, site)))
            unsigned = to_json(entry.model_copy(update={"signature": ""}))
            assert is_signed_by(fed.hub(study).enrolments()[site], entry.signature, unsigned)
    if study == DERM:
        first, second = (
            fed.store().get_record(layout.ledger_entry(study, "701", r), LedgerEntry).spend for r in (1, 2)
        )
        assert 0 < first.epsilon < second.epsilon < second.epsilon_budget == 3  # type: ignore[operator]


def test_each_ledger_is_a_chain_that_the_selection_pins(fed: Federation, study: str) -> None:
    for site in SITES:
        previous = "0" * 64
        for r in (1, 2):
            body = fed.store().get(layout.ledger_entry(study, site, r))
            entry = LedgerEntry.model_validate_json(body)
            assert (entry.sequence, entry.previous) == (r, previous)
            previous = sha256(body)
            selection = fed.store().get_record(layout.selection(study, r), Selection)
            chosen = next(chosen for chosen in selection.chosen if chosen.site == site)
            manifest = fed.manifest(study, r, site)
            for pins in (chosen, manifest):
                assert (pins.ledger_sequence, pins.ledger_sha256) == (r, previous)
            roster = sha256(fed.store().get(layout.roster(study, r))) if study == DERM else None
            assert manifest.roster_sha256 == roster


def test_a_site_keeps_its_release_and_no_raw_update(fed: Federation, study: str) -> None:
    for site in SITES:
        folder = fed.home / "sites" / site / "rounds" / study / "0002"
        assert not (folder / "raw.safetensors").exists()
        uploaded = fed.store().get(layout.update_tensors(study, 2, site))
        assert (folder / "release.safetensors").read_bytes() == uploaded
        manifest = fed.manifest(study, 2, site)
        counts = load((folder / "meta.safetensors").read_bytes())["meta"]
        assert counts[:2].tolist() == [manifest.num_examples, manifest.local_iterations]


def test_the_record_of_the_round_says_who_did_what(fed: Federation, study: str) -> None:
    metrics = fed.store().get_record(layout.round_metrics(study, 2), RoundMetrics)
    assert (metrics.status, metrics.message) == ("complete", "13 of 13 contributed")
    assert metrics.num_contributors == 13
    assert [row.site for row in metrics.sites] == list(SITES)
    assert sum(row.num_examples or 0 for row in metrics.sites) == 211
    assert {row.site: row.waived_expectations for row in metrics.sites if row.waived_expectations}.keys() == {"703"}
    assert metrics.num_bytes == sum(len(fed.store().get(layout.update_tensors(study, 2, s))) for s in SITES)
    assert metrics.codec == "dense"
    if study == DERM:  # behind masks a value has eight bytes, and held-out patients are counted
        assert metrics.share_of_dense > 1
    else:
        assert (metrics.dense_bytes, metrics.share_of_dense) == (metrics.num_bytes, 1)
    assert metrics.model_sha256 == sha256(fed.store().get(layout.model(study, 2)))
    assert 0.4 < metrics.pooled["auc"] < 1
    assert all(row.metrics and row.metrics.model_sha256 for row in metrics.sites)
    assert metrics.channel.name == ("masks" if study == DERM else "plain")
    assert metrics.promise == fed.manifest(study, 2, "701").spend
    card = fed.store().get_record(layout.card(study, 2), ModelCard)
    assert metrics.noised == card.noised
    if study == DERM:
        assert metrics.figures == {}
        assert metrics.promise.trust.startswith("masks: ")
    else:
        assert metrics.noised is None
        assert metrics.promise.unit == "nothing"
    if metrics.noised is not None:  # noise may have left no patient of one label
        assert metrics.noised.model_sha256 == fed.hub(study).plan(2).evaluated_model.sha256


def test_small_cells_are_suppressed_in_the_bucket_and_kept_at_the_site(fed: Federation, study: str) -> None:
    hidden = shown = 0
    for site in SITES:
        out = fed.store().get_record(layout.site_metrics(study, 2, site), SiteMetrics)
        at_site = fed.home / "sites" / site / "rounds" / study / "0002" / "metrics.json"
        full = SiteMetrics.model_validate_json(at_site.read_bytes())
        assert full.num_examples
        assert full.suppressed == ()
        if full.num_examples < 5:
            assert (out.num_examples, out.figures) == (None, {})
            assert out.suppressed == ("num_examples", *(metric.name for metric in metrics_of("binary")))
            hidden += 1
        else:
            assert out.num_examples == full.num_examples
            assert out.figures == ({} if study == DERM else {n: round(full.figures[n], 3) for n in out.figures})
            assert study == DERM or {"log_loss", "brier", "accuracy"} <= set(out.figures)
            shown += 1
    assert hidden >= 6
    assert hidden + shown == 13
    metrics = fed.store().get_record(layout.round_metrics(study, 2), RoundMetrics)
    reported = [row.metrics for row in metrics.sites if row.metrics and "auc" in row.metrics.figures]
    counts = [float(m.num_examples or 0) for m in reported]
    if reported:
        expected = np.average([m.figures["auc"] for m in reported], weights=counts)
        assert metrics.figures["auc"] == pytest.approx(expected, abs=1e-4)
    else:
        assert "auc" not in metrics.figures


def forbidden_reads(study: str, other: str) -> list[str]:
    of_other = (layout.update_tensors, layout.update_manifest, layout.data_validation, layout.site_metrics)
    keys = [place(study, 1, other) for place in of_other] + [layout.ledger_entry(study, other, 1)]
    keys.append(layout.unmask_answer(study, 1, other))
    return [*keys, layout.selection(study, 1), layout.round_metrics(study, 1), layout.enrolment(other)]


def forbidden_writes(study: str, site: str, other: str) -> list[str]:
    of_other = (layout.update_tensors, layout.update_manifest, layout.refusal, layout.site_metrics)
    keys = [place(study, 2, other) for place in of_other] + [layout.ledger_entry(study, other, 2)]
    keys += [place(study, 2, other) for place in (layout.key_message, layout.unmask_answer)]
    keys += [layout.sealing_key(site), layout.sealing_key(other)]
    hubs = [place(study, 2) for place in (layout.plan, layout.selection, layout.model, layout.card)]
    hubs += [layout.roster(study, 2), layout.survivors(study, 2)]
    new = [layout.model(study, 3), layout.plan(study, 3), layout.round_metrics(study, 2), layout.latest(study)]
    return [*keys, *hubs, *new, layout.enrolment(site), layout.enrolment(other), layout.report(study, 2, "run.json")]


def public(study: str, other: str) -> list[str]:
    """What the masks need of another site."""
    if study != DERM:
        return [layout.sealing_key(other)]
    masks = [layout.key_message(study, 1, other), layout.roster(study, 1), layout.survivors(study, 1)]
    return [layout.sealing_key(other), *masks]


def test_a_sites_key_opens_only_its_own_doors(fed: Federation, study: str) -> None:
    before = fed.objects(layout.study_prefix(study) + "/")
    denied = 0
    for site, other in zip(SITES, SITES[1:] + SITES[:1], strict=True):
        store = fed.store(f"site-{site}")
        own = [layout.unmask_answer(study, 1, site)] if study == DERM else []
        for key in (layout.update_tensors(study, 1, site), *own, *public(study, other)):
            assert store.get(key)
        for key in forbidden_reads(study, other):
            with pytest.raises(AccessDenied):
                store.get(key)
            denied += 1
        for key in forbidden_writes(study, site, other):
            with pytest.raises(AccessDenied):
                store.put(key, b"{}", content_type="application/json")
            with pytest.raises(ClientError, match="AccessDenied"):
                store.client.delete_object(Bucket=layout.BUCKET, Key=key)
            denied += 2
        etag = fed.store().get_with_etag(layout.latest(study))[1]
        with pytest.raises(AccessDenied):
            store.replace(layout.latest(study), b"{}", etag=etag)
        with pytest.raises(AccessDenied):
            list(store.keys(layout.study_prefix(study) + "/"))
    assert denied == 13 * (9 + 2 * 22)
    assert fed.objects(layout.study_prefix(study) + "/") == before


def test_a_strangers_key_opens_nothing(fed: Federation, study: str) -> None:
    stranger = seaweedfs.credential(fed.home, "hub").model_copy(update={"secret_key": "wrong" * 8})
    store = fed.store().connect(fed.ports.s3_endpoint, layout.BUCKET, stranger, "stranger")
    for call in (store.get, store.size):
        with pytest.raises(AccessDenied):
            call(layout.latest(study))


def test_the_averaged_model_of_the_second_half_is_the_mean_of_its_iterates(fed: Federation) -> None:
    study = fed.new_study(sites=("715", "717", "718"), rounds={"total": 4})
    for number in (1, 2, 3, 4):
        fed.whole_round(study, f"run-{number}")
    iterates: list[dict[str, Any]] = [load(fed.store().get(layout.model(study, r))) for r in (3, 4)]
    averaged = load(fed.store().get(layout.averaged_model(study, 4)))
    for name, value in averaged.items():
        np.testing.assert_allclose(value, np.mean([model[name] for model in iterates], axis=0), rtol=1e-5, atol=1e-6)
    pointer = fed.store().get_record(layout.latest(study), Pointer)
    assert (pointer.model.key, pointer.evaluated_model.key) == (
        layout.model(study, 4),
        layout.averaged_model(study, 4),
    )
    assert not fed.store().exists(layout.averaged_model(study, 3))
    validated = fed.store().get_record(layout.site_metrics(study, 4, "717"), SiteMetrics)
    assert validated.model_sha256 == pointer.evaluated_model.sha256


@pytest.mark.parametrize("change", ["privacy", "channel", "codec", "sites", "training", "evaluation", "total_rounds"])
def test_a_site_does_not_follow_a_plan_that_changes_its_terms(fed: Federation, change: str) -> None:
    """The hub writes the plan: with the study's right digest it must still not get a raw or cheaper update."""
    study = fed.new_study(sites=("717",))
    plan = fed.open(study)
    changes = {
        "privacy": {"privacy": NoPrivacy(mechanism="none", i_accept_no_privacy=True)},
        "channel": {"channel": MASKS},
        "codec": {"codec": Top(name="top", fraction=0.1)},
        "sites": {"sites": (*plan.sites, "999")},
        "evaluation": {"evaluation": plan.evaluation.model_copy(update={"split_seed": 1})},
        "training": {"training": plan.training.model_copy(update={"lr": 1.0})},
        "total_rounds": {"total_rounds": 2},
    }
    fed.put_plan(plan.model_copy(update=changes[change]))
    with pytest.raises(ConfigError, match=f"planned with another {change} than"):
        fed.run_site(study, 1, "717", ("train",))
    assert not fed.store().exists(layout.update_tensors(study, 1, "717"))
    assert not (fed.home / "sites" / "717" / "rounds" / study / "0001" / "raw.safetensors").exists()
    fed.put_plan(plan)
    fed.run_site(study, 1, "717", ("train",))
    assert (fed.home / "sites" / "717" / "rounds" / study / "0001" / "raw.safetensors").exists()
