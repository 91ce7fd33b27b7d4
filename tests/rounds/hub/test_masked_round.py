"""Masked rounds on a real object store: the hub learns the sum to the last bit, and no single update."""

from __future__ import annotations

import base64
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load, load_file
from scipy.stats import chi2

from tasks.errors import AccessDenied, QuorumMissed, RoundRefused, StoreUnavailable
from tasks.privacy.mechanisms.no_privacy import FIXED_POINT_STEP
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.secure_sum.records import KeyMessage, Roster, RoundKeys, record_sha256
from tasks.rounds.channels.masks.site import Site as Masking
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.store import clock, layout
from tasks.store.records.model import ModelCard, Pointer
from tasks.store.records.round import Refusal, Selection
from tasks.store.weights import from_bytes
from tests.rounds.hub.federation import FEW, Federation
from tests.rounds.hub.masked_rounds import (
    FIVE,
    GAUSSIAN,
    MASKED,
    NO_PRIVACY,
    PRIVACY,
    SITE,
    UNMASK,
    UPLOAD,
    Seen,
    base_of,
    files_of,
    flat,
    folder,
    forge_answer,
    joined,
    model_from,
    model_of,
    of,
    put,
    roster_of,
    selected,
    trained,
    unmasked,
    uploaded,
    watching,
    wrong_share,
)


@pytest.fixture(autouse=True)
def seen() -> Iterator[Seen]:
    with watching() as found:
        yield found


# the sum


@pytest.mark.parametrize("lost", [(), (SITE,), ("713",)], ids=["nobody", "717", "713"])
def test_the_model_is_that_of_the_plain_sum_to_the_last_bit(fed: Federation, seen: Seen, lost: tuple[str, ...]) -> None:
    """Also when a site dies after the roster, before its upload: the survivors' sum is exact, and the round says so."""
    study = unmasked(fed, lost=lost)
    alive = [site for site in FEW if site not in lost]
    assert [chosen.site for chosen in fed.aggregate(study, 1).chosen] == alive
    total = seen.total(study, alive)
    assert seen.opened[study].dtype == np.int64
    assert np.array_equal(seen.opened[study], total)
    assert model_of(fed, study) == model_from(fed, study, total, [1.0] * len(alive))

    plan, base = fed.hub(study).plan(1), flat(base_of(fed, study))
    gradient = total[: base.size] / STEPS_PER_CLIP * len(FEW) / len(alive) / PRIVACY["public_num_examples"]
    by_hand = base - plan.training.lr * (gradient + plan.training.l2 * base)
    model = flat(from_bytes(model_of(fed, study)))
    assert np.allclose(model, by_hand, rtol=1e-6, atol=1e-9)
    assert np.abs(model).max() > 1e-3

    fed.validate_global(study, 1, alive)
    metrics = fed.close(study, 1)
    assert metrics.status == ("partial" if lost else "complete")
    assert {row.site for row in metrics.sites if row.contributed} == set(alive)
    assert {row.site: row.reason for row in metrics.sites if not row.contributed} == dict.fromkeys(
        lost, "no answer before the deadline"
    )
    assert (metrics.num_contributors, metrics.channel.name) == (len(alive), "masks")
    assert fed.store().get_record(layout.latest(study), Pointer).server_round == 1


def test_two_rounds_in_a_row(fed: Federation, seen: Seen) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    for number in (1, 2):
        seen.contributions.clear()
        fed.open(study, f"run-{number}")
        assert fed.masked_round(study, number) == {}
        fed.aggregate(study, number)
        assert fed.close(study, number).status == "complete"
        assert np.array_equal(seen.opened[study], seen.total(study, FEW))
    spends = [fed.manifest(study, 2, site).spend for site in FEW]
    assert {(spend.releases, spend.mechanism) for spend in spends} == {(2, "distributed_dp")}


def test_a_site_lost_between_upload_and_unmasking_is_in_the_sum(fed: Federation, seen: Seen) -> None:
    study = selected(fed)
    assert roster_of(fed, study).threshold == 3
    assert fed.run_sites(study, 1, [site for site in FEW if site != SITE], names=UNMASK) == {}
    started = time.monotonic()
    assert len(fed.aggregate(study, 1).chosen) == 4
    assert time.monotonic() - started < 10
    assert np.array_equal(seen.opened[study], seen.total(study, FEW))
    assert fed.close(study, 1).status == "complete"


TOLERANT = {"privacy": PRIVACY | {"colluding_sites": 0}, "rounds": {"total": 20, "min_sites": 3}}


def test_two_lost_where_one_is_tolerated_leave_the_sum_shut(fed: Federation, seen: Seen) -> None:
    """Quorum and threshold would do with three: it is the noise of the two that is missing."""
    study = uploaded(fed, sites=FIVE, lost=("709", SITE), **TOLERANT)
    roster = roster_of(fed, study)
    assert (roster.threshold, roster.tolerated_dropouts, fed.hub(study).plan(1).min_sites) == (3, 1, 3)
    with pytest.raises(QuorumMissed, match=r"3 of 5 masked updates can be used\. With under 4 .* too little noise"):
        select_updates(fed.hub(study), 1)
    failed = fed.run_sites(study, 1, ("713", "715", "718"), names=UNMASK)
    assert {site: type(error) for site, error in failed.items()} == dict.fromkeys(("713", "715", "718"), RoundRefused)
    with pytest.raises(QuorumMissed, match="no updates were selected"):
        fed.aggregate(study, 1)
    metrics = fed.close(study, 1)
    assert metrics.status == "failed"
    assert {row.site: row.reason for row in metrics.sites if row.reason.startswith("no answer")} == dict.fromkeys(
        ("709", SITE), "no answer before the deadline"
    )
    shut_out(fed, study, seen)


def test_one_lost_is_survived_where_one_is_tolerated(fed: Federation, seen: Seen) -> None:
    study = unmasked(fed, sites=FIVE, lost=("709",), **TOLERANT)
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, FEW))
    assert fed.close(study, 1).status == "partial"


def shut_out(fed: Federation, study: str, seen: Seen) -> None:
    """No share has left any site, nothing was opened, and the model is what it was."""
    sites = fed.hub(study).study.sites
    shut = {layout.unmask_answer(study, 1, site) for site in sites} | {layout.survivors(study, 1)}
    assert shut.isdisjoint(of(fed, study))
    assert not [key for key in of(fed, study) if "/models/0001/" in key]
    assert study not in seen.opened
    assert fed.store().get_record(layout.latest(study), Pointer).server_round == 0


def test_fewer_answers_than_the_threshold_open_nothing(fed: Federation, seen: Seen) -> None:
    study = selected(fed)
    assert fed.run_sites(study, 1, ("713", "715"), names=UNMASK) == {}
    plan = fed.set_deadline(study, 1, 1.5)
    with pytest.raises(QuorumMissed, match="2 answers can be used and it takes 3"):
        fed.aggregate(study, 1)
    assert 0 <= (clock.now() - plan.deadline).total_seconds() < 10
    assert study not in seen.opened
    assert fed.close(study, 1).status == "failed"
    assert fed.store().get_record(layout.latest(study), Pointer).server_round == 0


# what the hub waits for


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Does something a while from now, beside the hub."""
    timers: list[threading.Timer] = []

    def start(seconds: float, work: Callable[[], object]) -> None:
        timers.append(threading.Timer(seconds, work))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join(60)


def test_a_refusal_to_unmask_is_no_reason_to_stop_waiting_for_the_others(
    fed: Federation, seen: Seen, later: Callable[..., None]
) -> None:
    """All five must upload, but four answers open the sum."""
    study = selected(fed, sites=FIVE, rounds={"total": 20, "min_sites": 5})
    assert roster_of(fed, study).threshold == 4
    refusal = Refusal(study=study, server_round=1, site="709", step="unmask", reason="ConfigError: no sealing.key")
    put(fed, layout.refusal(study, 1, "709"), refusal)
    assert fed.run_sites(study, 1, ("713", "715", SITE), names=UNMASK) == {}
    later(1.0, lambda: fed.run_site(study, 1, "718", UNMASK))
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, FIVE))


def test_a_refusal_before_the_upload_is_no_answer_about_unmasking(
    fed: Federation, seen: Seen, later: Callable[..., None]
) -> None:
    """A site that refused a first try, and then uploaded, may still help to open the sum."""
    study = selected(fed, lost=("713",))
    refusal = Refusal(
        study=study, server_round=1, site=SITE, step="privatize_and_upload", reason="SiteStepFailed: OSError"
    )
    put(fed, layout.refusal(study, 1, SITE), refusal)
    assert fed.run_sites(study, 1, ("715", "718"), names=UNMASK) == {}
    later(1.0, lambda: fed.run_site(study, 1, SITE, UNMASK))
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, ("715", SITE, "718")))


def test_a_wrong_answer_is_no_reason_to_stop_waiting(fed: Federation, seen: Seen, later: Callable[..., None]) -> None:
    """Three answers are enough, but one of the first three is wrong, and a fourth is on its way."""
    study = selected(fed)
    assert fed.run_sites(study, 1, ("713", "715", SITE), names=UNMASK) == {}
    forge_answer(fed, study, SITE, wrong_share)
    later(1.0, lambda: fed.run_site(study, 1, "718", UNMASK))
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, FEW))


# what the hub holds before the sum is opened


FALSE_ALARM = 1e-6
#: 22 inputs make 12,289 parameters and 10 counts: 98 kB a site.
LARGE = {"model": {"path": "tasks.models:MLP", "options": {"hidden": 512}}}


def is_random(values: np.ndarray, tests: int) -> bool:
    """Pearson's chi-square of the bytes of (values,) 64-bit integers: all of them, and each of the eight by place.

    False alarms: at most FALSE_ALARM for all `tests` calls together (Bonferroni), as the masks are not seeded.
    """
    places = values.view(np.uint8).reshape(-1, 8)
    limit = chi2.isf(FALSE_ALARM / tests / 9, 255)
    statistics = []
    for sample in (places.ravel(), *places.T):
        counts, expected = np.bincount(sample, minlength=256), sample.size / 256
        assert expected > 5, "too few bytes for the chi-square distribution"
        statistics.append(float(((counts - expected) ** 2).sum() / expected))
    return max(statistics) < limit


def test_what_the_hub_holds_of_each_site_is_random(fed: Federation, seen: Seen) -> None:
    """Each upload, the difference of any two and the sum of all: pair masks are on each, self masks on the sum."""
    study = uploaded(fed, **LARGE)
    uploads = {site: masked_of(fed, study, site) for site in FEW}
    samples = list(uploads.values())
    samples += [uploads[a] - uploads[b] for a in FEW for b in FEW if a < b]
    samples += [np.sum(list(uploads.values()), axis=0, dtype=np.uint64)]
    assert [is_random(sample, 11) for sample in samples] == [True] * 11
    for site in FEW:
        noised = seen.contributions[study][site]
        assert noised.size == 12_299
        assert not is_random(noised, 11)
        assert not is_random(uploads[site] - uploads[site] + noised.view(np.uint64), 11)
    half_masked = uploads["713"].copy()
    half_masked[::2] = seen.contributions[study]["713"].view(np.uint64)[::2]
    assert not is_random(half_masked, 11)


def masked_of(fed: Federation, study: str, site: str) -> np.ndarray:
    values: np.ndarray = load(fed.store().get(layout.update_tensors(study, 1, site)))["masked"]
    assert values.dtype == np.uint64
    return values


def traces(values: np.ndarray, body: bytes) -> int:
    """How many of the integers lie in `body` in clear: in 64 bits of either order or as a float of either size.

    Integers of under 2^16 are passed over. In random bytes of some 10^5 a false find has a chance of 10^-10.
    """
    found = 0
    for first, second in pairwise(values):
        if min(abs(int(first)), abs(int(second))) < 1 << 16:
            continue
        scaled = (first / STEPS_PER_CLIP, second / STEPS_PER_CLIP)
        forms = [struct.pack(f"{order}q", first) for order in "<>"]
        forms += [struct.pack("<d", float(first)), struct.pack("<d", scaled[0])]
        forms += [struct.pack("<ff", float(first), float(second)), struct.pack("<ff", *scaled)]
        found += any(form in body for form in forms)
    return found


def test_no_contribution_lies_in_clear_in_the_store(fed: Federation, seen: Seen) -> None:
    study = trained(fed)
    raw = {site: load_file(folder(fed, study, site) / "raw.safetensors")["raw.sum"] for site in FEW}
    freeze_roster(fed.hub(study), 1)
    assert fed.run_sites(study, 1, names=UPLOAD) == {}
    select_updates(fed.hub(study), 1)
    assert fed.run_sites(study, 1, names=UNMASK) == {}
    fed.aggregate(study, 1)
    fed.close(study, 1)
    objects = of(fed, study)
    of_site = (layout.update_tensors, layout.update_manifest, layout.data_validation)
    of_site += (layout.key_message, layout.unmask_answer)
    of_hub = (layout.plan, layout.roster, layout.selection, layout.selected, layout.survivors)
    of_hub += (layout.round_metrics, layout.closed)
    held = {place(study, 1, site) for place in of_site for site in FEW} | {place(study, 1) for place in of_hub}
    others = {layout.ledger_entry(study, site, 1) for site in FEW} | {layout.latest(study)}
    others |= {layout.run(study, fed.hub(study).plan(1).run_id)}
    others |= {place(study, number) for place in (layout.model, layout.card) for number in (0, 1)}
    assert objects.keys() == held | others
    for site in FEW:
        noised = seen.contributions[study][site]
        for values in (raw[site], noised):
            assert {key: traces(values, body) for key, body in objects.items() if traces(values, body)} == {}
            large = int((np.minimum(abs(values[:-1]), abs(values[1:])) >= 1 << 16).sum())
            assert large >= 10
            scaled = values / STEPS_PER_CLIP
            for clear in (values, values.astype(">i8"), values.astype("<f8"), scaled, scaled.astype("<f4")):
                assert traces(values, clear.tobytes()) == large


def test_the_secrets_are_gone_after_the_upload(fed: Federation) -> None:
    study = joined(fed)
    own = folder(fed, study)
    before = RoundKeys.model_validate_json((own / "round_keys.json").read_bytes())
    raw = load_file(own / "raw.safetensors")["raw.sum"].tobytes()
    assert before.mask_private_key != bytes(32) != before.self_seed
    fed.run_site(study, 1, SITE, UPLOAD)
    after = RoundKeys.model_validate_json((own / "round_keys.json").read_bytes())
    assert (after.mask_private_key, after.self_seed) == (bytes(32), bytes(32))
    assert after.roster_sha256 == record_sha256(roster_of(fed, study))
    secrets = (before.mask_private_key, before.self_seed)
    kept = files_of(fed, study)
    assert len(kept) >= 4
    for needle in (*secrets, *map(base64.b64encode, secrets), raw):
        assert [path for path, body in kept.items() if needle in body and f"/{SITE}/" in str(path)] == []
    assert not (own / "raw.safetensors").exists()
    assert {path.name for path in own.iterdir()} - {"lock"} == {
        "key_message.json",
        "meta.safetensors",
        "release.safetensors",
        "round_keys.json",
    }
    assert {path.stat().st_mode & 0o777 for path in own.glob("*.*")} == {0o600}


# again, and who may do what


def test_every_step_run_twice_changes_nothing(fed: Federation, seen: Seen) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    fed.open(study, "run")
    lost, alive = "713", ("715", SITE, "718")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("open", lambda: fed.open(study, "run")),
        ("validate_data", lambda: fed.run_sites(study, 1, names=("validate_data",))),
        ("train", lambda: fed.run_sites(study, 1, names=("train",))),
        ("freeze_roster", lambda: freeze_roster(fed.hub(study), 1)),
        ("privatize_and_upload", lambda: fed.run_sites(study, 1, alive, names=UPLOAD)),
        ("select_updates", lambda: select_updates(fed.hub(study), 1)),
        ("unmask", lambda: fed.run_sites(study, 1, alive, names=UNMASK)),
        ("aggregate", lambda: fed.aggregate(study, 1)),
        ("validate_global", lambda: fed.validate_global(study, 1, alive)),
        ("close", lambda: fed.close(study, 1)),
    ]
    made: dict[str, int] = {}
    for name, step in steps:
        if name == "select_updates":
            fed.set_deadline(study, 1, 0, "upload_deadline")
        before = of(fed, study)
        first = step()
        once, own = of(fed, study), files_of(fed, study)
        assert step() == first
        assert of(fed, study) == once, name
        assert files_of(fed, study) == own, name
        made[name] = len(once.keys() - before.keys())
    assert made == {
        "open": 0,
        "validate_data": 4,
        "train": 4,
        "freeze_roster": 1,
        "privatize_and_upload": 9,
        "select_updates": 3,
        "unmask": 3,
        "aggregate": 2,
        "validate_global": 3,
        "close": 2,
    }
    assert not [key for key in of(fed, study) if key.endswith("refusal.json")]
    assert lost in fed.store().get_record(layout.selection(study, 1), Selection).missing


def test_a_store_that_is_away_while_a_site_masks_costs_it_nothing(
    fed: Federation, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' key messages are read twice, to join and to mask; neither read fails because of a patient."""
    study = joined(fed)
    read, reads = Masking._messages, []

    def breaks_off(self: Masking, roster: Roster) -> dict[str, KeyMessage]:
        reads.append(len(reads))
        if reads[-1] == 1:
            raise StoreUnavailable("the store is away")
        return read(self, roster)

    with monkeypatch.context() as patch:
        patch.setattr(Masking, "_messages", breaks_off)
        with pytest.raises(StoreUnavailable):
            fed.run_site(study, 1, SITE, UPLOAD)
    assert len(reads) == 2
    assert not fed.store().exists(layout.refusal(study, 1, SITE))
    assert not fed.store().exists(layout.ledger_entry(study, SITE, 1))
    assert fed.run_sites(study, 1, names=UPLOAD) == {}
    select_updates(fed.hub(study), 1)
    assert fed.run_sites(study, 1, names=UNMASK) == {}
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, FEW))


def test_what_a_sites_credential_may_do_in_a_masked_round(fed: Federation) -> None:
    study = unmasked(fed)
    own, other, store = SITE, "715", fed.store(f"site-{SITE}")
    readable = [layout.plan(study, 1), layout.roster(study, 1), layout.survivors(study, 1)]
    readable += [layout.key_message(study, 1, other), layout.sealing_key(other), layout.unmask_answer(study, 1, own)]
    for key in readable:
        assert store.get(key) == fed.store().get(key)
    secret = [layout.unmask_answer(study, 1, other), layout.update_tensors(study, 1, other)]
    secret += [
        layout.update_manifest(study, 1, other),
        layout.ledger_entry(study, other, 1),
        layout.selection(study, 1),
    ]
    for key in secret:
        with pytest.raises(AccessDenied):
            store.get(key)
    foreign = [layout.key_message(study, 1, other), layout.unmask_answer(study, 1, other)]
    foreign += [layout.key_message(study, 2, other), layout.unmask_answer(study, 2, other)]
    foreign += [layout.roster(study, 1), layout.survivors(study, 1), layout.plan(study, 1), layout.selection(study, 1)]
    foreign += [layout.roster(study, 2), layout.survivors(study, 2), layout.sealing_key(other)]
    foreign += [layout.sealing_key(own), layout.ledger_entry(study, other, 2), layout.update_tensors(study, 2, other)]
    before = of(fed, study)
    for key in foreign:
        with pytest.raises(AccessDenied):
            store.put(key, b"forged", content_type="application/json")
    with pytest.raises(AccessDenied):
        list(store.keys(layout.round_prefix(study, 1)))
    assert of(fed, study) == before
    assert (len(readable), len(secret), len(foreign)) == (6, 5, 14)


# other mechanisms behind masks


@pytest.mark.parametrize("weighting", ["plain", "samples"])
def test_without_noise_the_masked_model_is_the_plain_average(fed: Federation, seen: Seen, weighting: str) -> None:
    training = {"local_iterations": 5, "batch_size": 16, "weighting": weighting}
    parts = {"privacy": NO_PRIVACY, "training": training, "evaluation": {"score_bins": None}}
    study = trained(fed, **parts)
    raw, counts = {}, {}
    for site in FEW:
        saved = load_file(folder(fed, study, site) / "raw.safetensors")
        raw[site] = np.concatenate([saved[name].astype(np.float64).ravel() for name in sorted(saved)])
        counts[site] = int(load_file(folder(fed, study, site) / "meta.safetensors")["meta"][0])
    freeze_roster(fed.hub(study), 1)
    assert fed.run_sites(study, 1, names=UPLOAD) == {}
    select_updates(fed.hub(study), 1)
    assert fed.run_sites(study, 1, names=UNMASK) == {}
    selection = fed.aggregate(study, 1)
    weights = [float(counts[site]) if weighting == "samples" else 1.0 for site in FEW]
    assert [chosen.weight for chosen in selection.chosen] == weights
    assert weighting == "plain" or len(set(weights)) > 1
    assert np.array_equal(seen.opened[study], seen.total(study, FEW))
    expected = flat(base_of(fed, study)) + np.average([raw[site] for site in FEW], axis=0, weights=weights)
    model = flat(from_bytes(model_of(fed, study)))
    assert np.abs(expected).max() > 0.01
    # half a step a site, the mean of which is at most half a step; then twice float32's rounding
    assert np.abs(model - expected).max() <= FIXED_POINT_STEP / 2 * 4 / sum(weights) + 2**-23 * np.abs(expected).max()
    card = fed.store().get_record(layout.card(study, 1), ModelCard)
    assert card.spend is not None
    assert (card.spend.mechanism, card.spend.epsilon, card.noised) == ("none", None, None)
    fed.validate_global(study, 1, FEW)
    assert fed.close(study, 1).status == "complete"


@pytest.mark.parametrize("lost", [(), (SITE,)], ids=["nobody", "717"])
def test_a_masked_gaussian_update(fed: Federation, seen: Seen, lost: tuple[str, ...]) -> None:
    training = {"local_iterations": 5, "batch_size": 16, "weighting": "plain"}
    parts = {"privacy": GAUSSIAN, "training": training, "evaluation": {"score_bins": None}}
    study = unmasked(fed, lost=lost, **parts)
    alive = [site for site in FEW if site not in lost]
    fed.aggregate(study, 1)
    total = seen.total(study, alive)
    assert np.array_equal(seen.opened[study], total)
    assert model_of(fed, study) == model_from(fed, study, total, [1.0] * len(alive))
    by_hand = flat(base_of(fed, study)) + total / len(alive) * (0.5 / STEPS_PER_CLIP)
    assert np.allclose(flat(from_bytes(model_of(fed, study))), by_hand, rtol=1e-6, atol=1e-9)
    spend = fed.manifest(study, 1, "715").spend
    assert (spend.mechanism, spend.unit, spend.releases) == ("gaussian_update", "site", 1)
    assert "mask" in spend.trust
    fed.validate_global(study, 1, alive)
    assert fed.close(study, 1).status == ("partial" if lost else "complete")
