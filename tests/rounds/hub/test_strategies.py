"""What a strategy keeps, at the hub and at the sites, through rounds that are resumed, lost or attacked."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load, load_file, save

from tasks.errors import ConfigError, PharmafedError, PrivacyError, RoundRefused, StoreError
from tasks.learning.threads import one_thread
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.hub.aggregate import aggregate
from tasks.rounds.hub.repair import find_repair
from tasks.rounds.site.round_files import RoundFiles
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.rounds import SimulatedSites, rounds_of, simulate
from tasks.store import layout
from tasks.store.hub_signature import check_hub_signature, sign_as_hub
from tasks.store.objects import to_json
from tasks.store.records.model import ModelCard, UsedStrategy
from tasks.store.records.report import SiteMetrics
from tasks.store.weights import sha256, to_bytes
from tests.rounds.hub.federation import Federation, hub_step, run_and_die

SITES = ("713", "715", "717", "718", "701")
OPEN: dict[str, Any] = {
    "privacy": {"mechanism": "none", "i_accept_no_privacy": True},
    "training": {"lr": 0.1, "batch_size": 8, "local_iterations": 3, "weighting": "plain", "average_iterates": "none"},
}
ADAM, SCAFFOLD = {"name": "fed_adam"}, {"name": "scaffold"}


def new_study(fed: Federation, strategy: dict[str, Any], sites: tuple[str, ...] = SITES[:3], **parts: Any) -> str:
    return fed.new_study(sites=sites, strategy=strategy, **(OPEN | parts))


def change(fed: Federation, study: str, strategy: dict[str, Any]) -> None:
    """In the study's file at the hub and every site, between two rounds."""
    path = fed.project / "studies" / f"{study}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"strategy": strategy}))
    fed._warm(study, SITES[:3])


def one_round(fed: Federation, study: str, number: int, sites: tuple[str, ...] | None = None) -> ModelCard:
    plan = fed.open(study, f"night {number}")
    assert fed.run_sites(study, number, sites or plan.sites) == {}
    if sites:
        fed.set_deadline(study, number, -1)
    fed.aggregate(study, number)
    fed.close(study, number)
    return card_of(fed, study, number)


def card_of(fed: Federation, study: str, number: int) -> ModelCard:
    return fed.store().get_record(layout.card(study, number), ModelCard)


def state(fed: Federation, study: str, number: int) -> dict[str, np.ndarray]:
    return load(fed.store().get(layout.strategy_state(study, number)))


def models(fed: Federation, study: str) -> dict[str, bytes]:
    return fed.objects(f"{layout.study_prefix(study)}/models/")


# resume


@pytest.mark.parametrize("after", ["model.safetensors", "strategy.safetensors", "card.json"])
def test_a_hub_that_is_killed_makes_the_same_model_and_state_again(fed: Federation, after: str) -> None:
    study = new_study(fed, ADAM)
    one_round(fed, study, 1)
    fed.open(study, "night 2")
    fed.run_sites(study, 2)
    run_and_die(fed, hub_step(aggregate, study, 2), ("after", after))
    before = models(fed, study)
    fed.aggregate(study, 2)
    fed.aggregate(study, 2)
    assert before.items() <= models(fed, study).items(), "what was there stays as it was"
    closed = fed.close(study, 2)
    card = card_of(fed, study, 2)
    assert closed.strategy == card.strategy
    assert card.strategy is not None
    assert card.strategy.since == 1
    assert card.strategy.state is not None
    assert card.strategy.state.sha256 == sha256(models(fed, study)[card.strategy.state.key])
    check_hub_signature(card, fed.hub(study).authority, "it")
    changed = card.model_copy(update={"strategy": card.strategy.model_copy(update={"since": 2})})
    with pytest.raises(PrivacyError, match="not signed by the hub"):
        check_hub_signature(changed, fed.hub(study).authority, "it")


def test_a_study_of_the_mean_keeps_nothing_and_its_card_says_nothing(fed: Federation) -> None:
    study = new_study(fed, {"name": "fed_avg"})
    assert one_round(fed, study, 1).strategy is None
    assert not fed.store().exists(layout.strategy_state(study, 1))


def test_another_strategy_in_mid_study_begins_afresh_and_the_card_says_so(fed: Federation) -> None:
    study, said = new_study(fed, ADAM), []
    for number, strategy in enumerate([ADAM, ADAM, {"name": "fed_yogi"}, {"name": "fed_avg"}, ADAM], 1):
        change(fed, study, strategy)
        used = one_round(fed, study, number).strategy
        assert used is not None
        said.append((used.name, used.since, used.state is not None))
    assert said == [
        ("fed_adam", 1, True),
        ("fed_adam", 1, True),
        ("fed_yogi", 3, True),
        ("fed_avg", 4, False),
        ("fed_adam", 5, True),
    ]
    base, new = (load(models(fed, study)[layout.model(study, number)]) for number in (4, 5))
    mean = {n: np.mean([update(fed, study, 5, site)[n] for site in SITES[:3]], axis=0) for n in base}
    for name, tensor in new.items():  # the first step of a fresh Adam
        v = 0.99 * 1e-6 + 0.01 * mean[name] ** 2
        np.testing.assert_allclose(tensor, base[name] + 0.1 * 0.1 * mean[name] / (np.sqrt(v) + 1e-3), atol=1e-6)


def update(fed: Federation, study: str, number: int, site: str) -> dict[str, np.ndarray]:
    return load(fed.store().get(layout.update_tensors(study, number, site)))


# a state that is not as it must be


def _other(fed: Federation, study: str) -> tuple[bytes, str]:
    """Another state in its place: the card pins its digest."""
    old = state(fed, study, 1)
    return save({name: tensor + 1 for name, tensor in old.items()}), "is not the model that was promised"


def _nan(fed: Federation, study: str) -> tuple[bytes, str]:
    old = state(fed, study, 1)
    return repinned(fed, study, save({name: tensor * np.float32("nan") for name, tensor in old.items()})), "not finite"


def _of_another_model(fed: Federation, study: str) -> tuple[bytes, str]:
    body = save({name: np.zeros(3, dtype=np.float32) for name in state(fed, study, 1)})
    return repinned(fed, study, body), "of another model or another strategy"


def _of_another_strategy(fed: Federation, study: str) -> tuple[bytes, str]:
    body = save({f"momentum.{name}": tensor for name, tensor in state(fed, study, 1).items()})
    return repinned(fed, study, body), "of another model or another strategy"


def repinned(fed: Federation, study: str, body: bytes) -> bytes:
    """The card signed anew over these bytes, as by a hub that has gone wrong."""
    card, hub = card_of(fed, study, 1), fed.hub(study)
    assert card.strategy is not None
    assert card.strategy.state is not None
    ref = card.strategy.state.model_copy(update={"sha256": sha256(body)})
    card = card.model_copy(update={"strategy": card.strategy.model_copy(update={"state": ref})})
    fed.store().put(layout.card(study, 1), to_json(sign_as_hub(card, hub.secrets_dir)), content_type="application/json")
    return body


@pytest.mark.parametrize("damage", [_other, _nan, _of_another_model, _of_another_strategy])
def test_from_a_state_that_is_not_as_it_must_be_no_model_is_made(
    fed: Federation, damage: Callable[[Federation, str], tuple[bytes, str]]
) -> None:
    study = new_study(fed, ADAM)
    one_round(fed, study, 1)
    fed.open(study, "night 2")
    fed.run_sites(study, 2)
    body, says = damage(fed, study)
    fed.store().put(layout.strategy_state(study, 1), body, content_type="application/octet-stream")
    with pytest.raises(StoreError, match=says) as refused:
        fed.aggregate(study, 2)
    assert layout.strategy_state(study, 1) in str(refused.value)
    assert not fed.store().exists(layout.model(study, 2))


def test_a_lost_state_is_told_by_round_and_repair(fed: Federation) -> None:
    study = new_study(fed, ADAM)
    one_round(fed, study, 1)
    fed.open(study, "night 2")
    fed.run_sites(study, 2)
    fed.delete(layout.strategy_state(study, 1))
    with pytest.raises(StoreError, match=r"models/0001/strategy\.safetensors"):
        fed.aggregate(study, 2)
    with pytest.raises(StoreError, match=r"models/0001/strategy\.safetensors is missing: put it back from a copy"):
        find_repair(fed.hub(study))


def test_a_card_that_names_a_state_elsewhere_is_no_card(fed: Federation) -> None:
    study = new_study(fed, SCAFFOLD)
    card, hub = one_round(fed, study, 1), fed.hub(study)
    assert card.strategy is not None
    assert card.strategy.state is not None
    used: UsedStrategy = card.strategy
    ref = card.strategy.state.model_copy(update={"key": layout.model(study, 1)})
    card = card.model_copy(update={"strategy": used.model_copy(update={"state": ref})})
    fed.store().put(layout.card(study, 1), to_json(sign_as_hub(card, hub.secrets_dir)), content_type="application/json")
    with pytest.raises(StoreError, match="of another study, round or model"):
        find_repair(hub)


# who is looked at


def test_the_median_of_uploads_is_the_step_and_one_that_is_a_million_times_too_large_does_not_count(
    fed: Federation,
) -> None:
    study = new_study(fed, {"name": "median"}, SITES, rounds={"min_sites": 4, "max_update_norm": 1e9})
    fed.open(study, "night 1")
    fed.run_sites(study, 1, names=("validate_data", "train"))
    poison(fed, study, SITES[0], 1e6)
    fed.run_sites(study, 1, names=("privatize_and_upload",))
    poisoned = update(fed, study, 1, SITES[0])
    assert max(np.abs(tensor).max() for tensor in poisoned.values()) > 1e3
    chosen = {one.site for one in fed.aggregate(study, 1).chosen}
    assert chosen == set(SITES)
    base, new = (load(models(fed, study)[layout.model(study, number)]) for number in (0, 1))
    for name, tensor in new.items():
        honest = [update(fed, study, 1, site)[name] for site in SITES[1:]]
        every = [*honest, poisoned[name]]
        np.testing.assert_allclose(tensor, base[name] + np.median(every, axis=0), atol=1e-6)
        assert (np.abs(tensor - base[name]) <= np.max(np.abs(honest), axis=0) + 1e-6).all()


def poison(fed: Federation, study: str, site: str, factor: float) -> None:
    """A site that lies: another raw update, which it then uploads and signs as it does any."""
    path = fed.site(study, site).round_dir(1) / "raw.safetensors"
    path.write_bytes(save({name: tensor * np.float32(factor) for name, tensor in load_file(path).items()}))


def test_behind_masks_the_hub_steps_from_the_sum_as_the_simulation_does(fed: Federation) -> None:
    """To the last byte, model and state: without noise there is nothing to draw."""
    study = new_study(
        fed, {"name": "fed_yogi"}, SITES, channel="masks", rounds={"min_sites": 4}, evaluation={"score_bins": None}
    )
    for number in (1, 2):
        fed.open(study, f"night {number}")
        assert fed.masked_round(study, number) == {}
        fed.aggregate(study, number)
        fed.close(study, number)
    own = fed.hub(study).study
    with one_thread():
        patients = split_sites(read_sites(own, fed.project), own.evaluation)
        sites = SimulatedSites(own, patients, SeededNoise(bytes(32)))
        *_, last = rounds_of(sites, 2)
    assert to_bytes(last.weights) == models(fed, study)[layout.model(study, 2)]
    assert sites.state is not None
    assert to_bytes(sites.state) == models(fed, study)[layout.strategy_state(study, 2)]


@pytest.mark.parametrize(("strategy", "fewest"), [({"name": "krum", "byzantine": 1}, 5), ({"name": "median"}, 3)])
def test_a_quorum_below_what_the_strategy_needs_opens_no_round(
    fed: Federation, strategy: dict[str, Any], fewest: int
) -> None:
    study = new_study(fed, strategy, SITES, rounds={"min_sites": 5})
    with pytest.raises(RoundRefused, match=rf"needs {fewest} updates for its strategy .*, so a quorum of {fewest - 1}"):
        fed.open(study, min_sites=fewest - 1)
    assert fed.open(study, min_sites=fewest).min_sites == fewest


def test_a_plan_with_another_strategy_than_the_site_s_study_is_not_followed(fed: Federation) -> None:
    study = new_study(fed, {"name": "fed_prox", "mu": 0.1})
    plan, hub = fed.open(study), fed.hub(study)
    other = plan.model_copy(update={"strategy": plan.strategy.model_copy(update={"mu": 0.0001})})
    fed.store().put(
        layout.plan(study, 1), to_json(sign_as_hub(other, hub.secrets_dir)), content_type="application/json"
    )
    told = fed.run_sites(study, 1)
    assert set(told) == set(SITES[:3])
    assert all("planned with another strategy than" in str(error) for error in told.values())


# SCAFFOLD


def control(fed: Federation, study: str, site: str, number: int) -> dict[str, np.ndarray] | None:
    path = fed.site(study, site).round_dir(number) / "control.safetensors"
    return load_file(path) if path.exists() else None


def test_the_hub_s_control_variate_is_the_mean_of_the_sites_though_one_is_absent_for_a_round(fed: Federation) -> None:
    """And it is again after the absent one is back, with what it had kept two rounds before."""
    study, own = new_study(fed, SCAFFOLD, rounds={"min_sites": 2}), SITES[:3]
    last = dict.fromkeys(own, 0)
    for number, present in enumerate((own, own[:2], own[:2], own), 1):
        one_round(fed, study, number, present)
        last |= dict.fromkeys(present, number)
        kept = {site: control(fed, study, site, last[site]) for site in own}
        for name, mean in state(fed, study, number).items():
            each = [found[name.removeprefix("control.")] for found in kept.values() if found is not None]
            assert len(each) == 3
            np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=2e-5)
    assert control(fed, study, own[2], 1) is not None, "until its update of round 4 is in a card"
    one_round(fed, study, 5)
    assert control(fed, study, own[2], 1) is None


def test_what_was_trained_in_a_round_that_made_no_model_is_not_what_a_site_goes_on_from(fed: Federation) -> None:
    study = new_study(fed, SCAFFOLD, rounds={"min_sites": 3})
    one_round(fed, study, 1)
    fed.open(study, "night 2")
    fed.run_sites(study, 2, SITES[:2])
    fed.set_deadline(study, 2, -1)
    with pytest.raises(PharmafedError):
        fed.aggregate(study, 2)
    fed.close(study, 2)
    one_round(fed, study, 3)
    each = [control(fed, study, site, 3) for site in SITES[:3]]
    for name, mean in state(fed, study, 3).items():
        own = [found[name.removeprefix("control.")] for found in each if found is not None]
        np.testing.assert_allclose(mean, np.mean(own, axis=0), atol=2e-5)


def test_a_site_does_not_follow_a_state_that_no_card_pins(fed: Federation) -> None:
    study = new_study(fed, SCAFFOLD)
    one_round(fed, study, 1)
    fed.open(study, "night 2")
    told = {name: tensor + 1 for name, tensor in state(fed, study, 1).items()}
    fed.store().put(layout.strategy_state(study, 1), save(told), content_type="application/octet-stream")
    found = fed.run_sites(study, 2)
    assert set(found) == set(SITES[:3])
    assert all("the state of scaffold" in str(error) for error in found.values())
    assert RoundFiles(fed.site(study, SITES[0]).round_dir(2)).kept("control") is None


# models that stay at a site


def personal_round(fed: Federation, study: str, number: int) -> None:
    plan = fed.open(study, f"night {number}")
    assert fed.run_sites(study, number) == {}
    fed.aggregate(study, number)
    fed.validate_global(study, number, plan.sites)
    fed.close(study, number)


@pytest.mark.parametrize("strategy", [{"name": "ditto", "mu": 0.5}, {"name": "fine_tune", "times": 2}])
def test_a_site_s_own_model_is_the_simulation_s_and_nothing_of_it_leaves(
    fed: Federation, strategy: dict[str, Any]
) -> None:
    study, plain = new_study(fed, strategy), new_study(fed, {"name": "fed_avg"})
    for number in (1, 2):
        personal_round(fed, study, number)
        personal_round(fed, plain, number)
    own = fed.hub(study).study
    with one_thread():
        patients = split_sites(read_sites(own, fed.project), own.evaluation)
        *_, last = simulate(own, patients, 2, noise=SeededNoise(bytes(32)))
    for site in SITES[:3]:
        folder = fed.site(study, site).work_dir / "personal" / study
        assert [path.name for path in sorted(folder.iterdir())] == ["000001.safetensors", "000002.safetensors"]
        body = (folder / "000002.safetensors").read_bytes()
        assert body == to_bytes(last.personal[site])
        assert body != models(fed, study)[layout.model(study, 2)]
        told = SiteMetrics.model_validate_json((fed.site(study, site).round_dir(2) / "personal.json").read_bytes())
        assert told.model_sha256 == sha256(body)
        assert stat.S_IMODE((folder / "000002.safetensors").stat().st_mode) == 0o600
    mine, theirs = (fed.objects(layout.study_prefix(name) + "/") for name in (study, plain))
    assert {key.replace(study, plain) for key in mine} == set(theirs)
    for number in (1, 2):
        assert mine[layout.model(study, number)] == theirs[layout.model(plain, number)]
        for site in SITES[:3]:
            one, other = (
                fed.store().get_record(layout.site_metrics(n, number, site), SiteMetrics) for n in (study, plain)
            )
            assert (one.figures, one.suppressed) == (other.figures, other.suppressed)


@pytest.mark.parametrize("damage", [b"", b"junk", save({"w": np.zeros(3, dtype=np.float32)})])
def test_a_personal_model_that_is_damaged_or_of_another_model_is_begun_anew(fed: Federation, damage: bytes) -> None:
    study = new_study(fed, {"name": "ditto", "mu": 0.5}, SITES[:2])
    personal_round(fed, study, 1)
    folder = fed.site(study, SITES[0]).work_dir / "personal" / study
    (folder / "000001.safetensors").write_bytes(damage)
    personal_round(fed, study, 2)
    assert load_file(folder / "000002.safetensors").keys() == load(models(fed, study)[layout.model(study, 2)]).keys()
    again = (folder / "000002.safetensors").read_bytes()
    fed.validate_global(study, 2, SITES[:1])
    assert (folder / "000002.safetensors").read_bytes() == again, "a rerun makes the same"


def test_layers_of_its_own_stay_at_a_site_and_are_what_it_validates_with(fed: Federation) -> None:
    """The same bytes as the simulation's; an absent site goes on from its layers of the last round that had it."""
    study = new_study(fed, {"name": "fed_bn", "layers": ["linear.bias"]}, rounds={"min_sites": 2})
    for number in (1, 2):
        personal_round(fed, study, number)
    own = fed.hub(study).study
    with one_thread():
        patients = split_sites(read_sites(own, fed.project), own.evaluation)
        *_, last = simulate(own, patients, 2, noise=SeededNoise(bytes(32)))
    first, new = (load(models(fed, study)[layout.model(study, number)]) for number in (0, 2))
    assert to_bytes(last.weights) == models(fed, study)[layout.model(study, 2)]
    assert np.array_equal(new["linear.bias"], first["linear.bias"])
    for site in SITES[:3]:
        assert list(update(fed, study, 2, site)) == ["linear.weight"]
        kept = control(fed, study, site, 2)
        assert kept is not None
        assert np.array_equal(kept["linear.bias"], last.personal[site]["linear.bias"].numpy())
        assert not np.array_equal(kept["linear.bias"], first["linear.bias"])
    one_round(fed, study, 3, SITES[:2])
    one_round(fed, study, 4)
    assert control(fed, study, SITES[2], 4) is not None


def test_layers_that_the_model_has_not_open_no_round(fed: Federation) -> None:
    study = new_study(fed, {"name": "fed_bn", "layers": ["norm"]})
    with pytest.raises(
        ConfigError, match=r"strategy\.layers: the model has no parameters in norm; it has: linear\.bias"
    ):
        fed.open(study)
