"""A hub that lies, or whoever holds its key: what it cannot get a site to do, whatever it signs.

Each of these attacks succeeded before sites kept a record of the plans that they have followed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch

from tasks.errors import AccessDenied, ConfigError, PharmafedError, PrivacyError, Withheld
from tasks.privacy.ledger.ledger import NO_RELEASE, SiteLedger
from tasks.privacy.secure_sum import protocol
from tasks.rounds.channels.masks.site import Site as Masking
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.rounds.site import context, global_models, steps
from tasks.rounds.site.plans import PlanBook
from tasks.store import clock, layout, settings
from tasks.store.hub_signature import sign_as_hub
from tasks.store.identity import ensure_authority, ensure_hub_identity
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard, ModelRef
from tasks.store.records.round import Plan, Refusal
from tasks.store.weights import Weights, fetch_model, from_bytes, parameters, sha256, to_bytes
from tests.rounds.hub.federation import FEW, LOCAL_DP, Federation
from tests.rounds.hub.masked_rounds import MASKED, PREPARE, UNMASK, UPLOAD, Seen, folder, of, watching

SITE = "717"
STEPS = ("validate_data", "train", "privatize_and_upload")


def releases(fed: Federation, *studies: str) -> int:
    """Updates of the site in the store, under whatever names."""
    keys = [key for study in studies for key in of(fed, study)]
    return len([key for key in keys if f"/sites/{SITE}/" in key and key.endswith("update.safetensors")])


def entries(fed: Federation, study: str) -> list[LedgerEntry]:
    found = [key for key in of(fed, study) if f"/ledger/{SITE}/" in key]
    return [fed.store().get_record(key, LedgerEntry) for key in found]


def reason(fed: Federation, study: str, number: int) -> str:
    return fed.store().get_record(layout.refusal(study, number, SITE), Refusal).reason


def attempt(fed: Federation, study: str, number: int, names: tuple[str, ...] = STEPS) -> PharmafedError | None:
    """Run the site's steps as its tasks would, one after the other, whatever becomes of them; the last error."""
    error = None
    for name in names:
        try:
            fed.run_site(study, number, SITE, (name,))
        except PharmafedError as raised:
            error = raised
    return error


# 1. one budget, whatever a plan calls itself


def aliases(fed: Federation, study: str, plan: Plan, others: list[str]) -> list[tuple[int, Plan]]:
    """Six plans in a study of two rounds: each calls itself another study's or another number's."""
    named = [(name, number) for name in (study, *others) for number in (1, 2)]
    return [
        (at, plan.model_copy(update={"study": name, "server_round": number}))
        for at, (name, number) in enumerate(named, 1)
    ]


def test_a_budget_is_spent_once_whatever_its_plans_call_themselves(fed: Federation) -> None:
    study, *others = [fed.new_study(rounds={"total": 2}) for _ in range(3)]
    for at, forged in aliases(fed, study, fed.open(study), others):
        fed.put_plan(forged, at=at, study=study)
        attempt(fed, study, at)
    assert releases(fed, study, *others) == len(entries(fed, study)) == 2  # numbers 1 and 2 by their own names
    assert [entries(fed, other) for other in others] == [[], []]
    assert "calls itself another round or study" in reason(fed, study, 3)


def test_without_a_look_at_the_name_the_attack_succeeds(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a site that takes a plan's own word for what it is releases six times."""

    def credulous(body: bytes, *_: object) -> Plan:
        return Plan.model_validate_json(body)

    monkeypatch.setattr(context, "checked_plan", credulous)
    monkeypatch.setattr(PlanBook, "follow", lambda *_: None)
    monkeypatch.setattr(PlanBook, "see", lambda *_: None)
    monkeypatch.setattr(
        steps, "_ledger", lambda ctx: SiteLedger(ctx.store, said[0], ctx.site, ctx.work_dir, ctx.secrets_dir)
    )
    study, *others = [fed.new_study(rounds={"total": 2}) for _ in range(3)]
    said = [study]
    for at, forged in aliases(fed, study, fed.open(study), others):
        fed.put_plan(forged, at=at, study=study)
        said[0] = forged.study
        attempt(fed, study, at, ("train", "privatize_and_upload"))
    assert releases(fed, study, *others) > 2


def test_a_site_answers_each_number_once_and_goes_forward_only(fed: Federation) -> None:
    study = fed.new_study()
    first = fed.open(study)
    fed.run_site(study, 1, SITE)
    fed.put_plan(first.model_copy(update={"run_id": "another"}))
    with pytest.raises(PrivacyError, match="has followed another plan for round 1"):
        fed.run_site(study, 1, SITE, ("train",))
    fed.put_plan(first.model_copy(update={"server_round": 3}))
    fed.run_site(study, 3, SITE)
    fed.put_plan(first.model_copy(update={"server_round": 2}))
    with pytest.raises(PrivacyError, match="has gone on to round 3"):
        fed.run_site(study, 2, SITE, ("train",))
    assert [entry.server_round for entry in entries(fed, study)] == [1, 3]


def test_a_plan_that_the_hub_has_not_signed_is_not_followed(fed: Federation, tmp_path: Any) -> None:
    study = fed.new_study()
    plan = fed.open(study)
    key = layout.plan(study, 1)
    stranger = ensure_authority(tmp_path / "ca")
    ensure_hub_identity(tmp_path / "hub", stranger)
    shutil.copytree(settings.site_secrets("713"), tmp_path / "713")
    forgeries = {
        "is not signed by the hub": plan.model_copy(update={"run_id": "another"}),
        "not issued by the consortium": sign_as_hub(plan, tmp_path / "hub"),
        "the certificate is for": sign_as_hub(plan, tmp_path / "713"),  # a site's own key makes no plan
        "is not certified as the hub's": plan.model_copy(update={"certificate_pem": "", "signature": ""}),
    }
    for match, forged in forgeries.items():
        fed.store().put(key, to_json(forged), content_type="application/json")
        with pytest.raises(PrivacyError, match=match):
            fed.run_site(study, 1, SITE, ("train",))
    fed.store().put(key, to_json(plan), content_type="application/json")
    fed.run_site(study, 1, SITE)


# 2. no free oracle


def offered(fed: Federation, study: str, weights: Weights | bytes, number: int = 1) -> None:
    """A hub offers a model of its choice: stored, carded and signed as the study's first."""
    body = weights if isinstance(weights, bytes) else to_bytes(weights)
    ref = ModelRef(server_round=0, key=layout.model(study, 0), sha256=sha256(body))
    plan = fed.open(study)
    fed.store().put(ref.key, body, content_type="application/octet-stream")
    card = fed.store().get_record(layout.card(study, 0), ModelCard)
    fed.put_card(card.model_copy(update={"model": ref, "evaluated_model": ref}))
    fed.put_plan(plan.model_copy(update={"server_round": number, "base_model": ref, "evaluated_model": ref}))


def first_weights(fed: Federation, study: str) -> Weights:
    return parameters(fed.hub(study).initial_model())


def with_value(weights: Weights, value: float) -> Weights:
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    changed["linear.weight"][0, 3] = value
    return changed


QUESTIONS: dict[str, Callable[[Weights], Weights | bytes]] = {
    "infinity": lambda w: with_value(w, float("inf")),
    "minus-infinity": lambda w: with_value(w, float("-inf")),
    "nan": lambda w: with_value(w, float("nan")),
    "huge": lambda w: with_value(w, 2e6),
    "float64": lambda w: {name: tensor.double() for name, tensor in w.items()},
    "other-shape": lambda w: w | {"linear.weight": torch.zeros(1, 3)},
    "one-more": lambda w: w | {"more": torch.zeros(1)},
    "no-tensors": lambda w: b"nothing",
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_model_is_refused_before_a_patient_is_looked_at(
    fed: Federation, monkeypatch: pytest.MonkeyPatch, question: Callable[[Weights], Weights | bytes]
) -> None:
    study = fed.new_study()
    offered(fed, study, question(first_weights(fed, study)))
    looked: list[str] = []
    monkeypatch.setattr(steps, "valid_patients", lambda ctx: looked.append(ctx.site))
    assert isinstance(attempt(fed, study, 1, ("train",)), PrivacyError)
    assert looked == []
    assert entries(fed, study) == []


def test_the_largest_model_that_is_taken_is_trained_on_by_every_site(fed: Federation) -> None:
    """The control, and the other side: within the bound no patient's data make a site refuse."""
    study = fed.new_study(sites=("701", "703", SITE))
    for sign in (1.0, -1.0):
        weights = {n: torch.full_like(t, sign * global_models.MAX_WEIGHT) for n, t in first_weights(fed, study).items()}
        name = fed.new_study(sites=("701", "703", SITE))
        offered(fed, name, weights)
        assert fed.run_sites(name, 1) == {}


def test_what_goes_wrong_with_a_patient_is_paid_for_and_told_in_one_word(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study()
    fed.open(study)

    def breaks(*_: object, **__: object) -> None:
        raise ValueError("patient 01-717-1004 is 93 years old")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "local_update", breaks)
        for _ in range(3):
            with pytest.raises(Withheld) as raised:
                fed.run_site(study, 1, SITE, ("train",))
    assert reason(fed, study, 1) == "withheld"
    assert "93" not in str(raised.value)
    assert "ValueError" not in str(raised.value)
    assert "93 years" in (folder(fed, study) / "withheld.txt").read_text()
    (paid,) = entries(fed, study)
    assert (paid.server_round, paid.release_sha256, paid.spend.releases) == (1, NO_RELEASE, 1)
    fed.run_site(study, 1, SITE, ("train",))  # a patient less, say: what is paid for as nothing stays nothing
    with pytest.raises(PrivacyError, match="already recorded another release"):
        fed.run_site(study, 1, SITE, ("privatize_and_upload",))
    assert releases(fed, study) == 0
    assert len(entries(fed, study)) == 1


def test_the_models_are_those_of_one_chain_of_signed_cards(fed: Federation) -> None:
    study = fed.new_study()
    fed.whole_round(study, "one")
    fed.whole_round(study, "two")
    plan, store = fed.open(study, "three"), fed.store()
    card = store.get_record(layout.card(study, 2), ModelCard)
    first = store.get_record(layout.card(study, 0), ModelCard)
    lies = {
        "starts from models that no card names": plan.model_copy(update={"base_model": first.model}),
        "the hub has gone back": plan.model_copy(
            update={"base_model": first.model, "evaluated_model": first.evaluated_model}
        ),
    }
    for number, (match, lie) in enumerate(lies.items(), 3):
        fed.put_plan(lie.model_copy(update={"server_round": number}))
        with pytest.raises(PrivacyError, match=match):
            fed.run_site(study, number, SITE, ("train",))
    fed.put_card(card.model_copy(update={"previous_sha256": "0" * 64}))
    fed.put_plan(plan.model_copy(update={"server_round": 5}))
    with pytest.raises(PrivacyError, match=r"chain of cards .* is broken"):
        fed.run_site(study, 5, SITE, ("train",))
    store.put(layout.card(study, 2), to_json(card), content_type="application/json")
    fed.run_site(study, 5, SITE)
    assert [entry.server_round for entry in entries(fed, study)] == [1, 2, 5]


def test_an_evaluated_model_that_is_not_finite_reaches_no_patient(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study()
    fed.open(study)
    assert fed.run_sites(study, 1) == {}
    fed.aggregate(study, 1)
    card = fed.store().get_record(layout.card(study, 1), ModelCard)
    body = to_bytes(with_value(fetch_model(fed.store(), card.model), float("inf")))
    ref = ModelRef(server_round=1, key=layout.averaged_model(study, 1), sha256=sha256(body))
    fed.store().put(ref.key, body, content_type="application/octet-stream")
    fed.put_card(card.model_copy(update={"evaluated_model": ref}))
    monkeypatch.setattr(steps, "valid_patients", lambda ctx: pytest.fail("a patient was looked at"))
    with pytest.raises(PrivacyError, match="not finite"):
        fed.run_site(study, 1, SITE, ("validate_global",))


# 3. one vector under one round's masks


@pytest.fixture
def seen() -> Any:
    with watching() as found:
        yield found


def test_masks_serve_one_vector_when_the_manifest_is_refused(
    fed: Federation, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    fed.open(study)
    assert fed.run_sites(study, 1, names=PREPARE) == {}
    freeze_roster(fed.hub(study), 1)
    create = ObjectStore.create_record

    def refused(self: ObjectStore, key: str, record: Any) -> None:
        if key.endswith("manifest.json"):
            raise AccessDenied("as the hub likes")
        create(self, key, record)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "create_record", refused)
        with pytest.raises(AccessDenied):
            fed.run_site(study, 1, SITE, UPLOAD)
    first = fed.store().get(layout.update_tensors(study, 1, SITE))
    kept = (folder(fed, study) / "release.safetensors").read_bytes()
    (folder(fed, study) / "release.safetensors").unlink()
    fed.delete(layout.update_tensors(study, 1, SITE))
    attempt(fed, study, 1, ("train", *UPLOAD))
    assert releases(fed, study) == 0
    assert len(entries(fed, study)) == 1
    (folder(fed, study) / "release.safetensors").write_bytes(kept)
    fed.run_site(study, 1, SITE, UPLOAD)
    assert fed.store().get(layout.update_tensors(study, 1, SITE)) == first


def test_a_plan_that_calls_itself_another_number_gets_no_second_vector(fed: Federation, seen: Seen) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    plan = fed.open(study)
    other = plan.model_copy(update={"server_round": 2})
    fed.put_plan(other, at=1)
    fed.put_plan(other)
    assert isinstance(attempt(fed, study, 1, ("train",)), PrivacyError)
    assert fed.run_sites(study, 2, names=PREPARE) == {}
    freeze_roster(fed.hub(study), 2)
    attempt(fed, study, 1, UPLOAD)
    fed.run_site(study, 2, SITE, UPLOAD)
    assert releases(fed, study) == 1
    assert np.array_equal(
        from_bytes(fed.store().get(layout.update_tensors(study, 2, SITE)))["masked"].numpy().shape,
        seen.contributions[study][SITE].shape,
    )


def test_keys_do_not_serve_a_second_time_even_where_the_disk_has_them(fed: Federation) -> None:
    """What the protocol itself holds: used keys mask nothing, and are not used for something else."""
    study = fed.new_study(sites=FEW, **MASKED)
    fed.open(study)
    fed.run_sites(study, 1, names=PREPARE)
    freeze_roster(fed.hub(study), 1)
    fed.run_site(study, 1, SITE, UPLOAD)
    keys = context.SiteContext.load(study, SITE)
    masking = Masking(keys, keys.plan(1))
    assert masking._keys().mask_private_key == masking._keys().self_seed == bytes(32)
    with pytest.raises(PrivacyError, match="two vectors under one mask"):
        masking.use_up("0" * 64)
    with pytest.raises(PrivacyError, match="they serve once"):
        protocol.mask(np.zeros(3, dtype=np.int64), masking._keys(), masking.roster(), {})


def test_members_that_follow_different_plans_make_no_sum(fed: Federation, seen: Seen) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    plan = fed.open(study)
    for site in FEW:
        fed.put_plan(plan.model_copy(update={"run_id": f"for {site}"}))
        fed.run_site(study, 1, site, PREPARE)
    with pytest.raises(PharmafedError):
        freeze_roster(fed.hub(study), 1)
    assert seen.contributions[study] == {}


# 4. the study's sites and deadlines


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: {"sites": p.sites[:4]}, "sites"),
        (lambda p: {"sites": p.sites[:2], "left_out": dict.fromkeys(p.sites[2:], "x")}, "number of sites"),
        (lambda p: {"min_sites": 3}, "quorum"),
        (lambda p: {"deadline": p.deadline + timedelta(seconds=1)}, "deadline"),
        (lambda p: {"keys_deadline": p.keys_deadline + timedelta(seconds=1)}, "deadline"),
        (lambda p: {"upload_deadline": None}, "deadline"),
        (lambda p: {"strict": True}, "strictness"),
    ],
    ids=["fewer-sites", "left-out", "quorum", "deadline", "keys", "no-upload-phase", "strict"],
)
def test_a_plan_is_held_to_the_studys_sites_and_deadlines(
    fed: Federation, change: Callable[[Plan], dict[str, Any]], match: str
) -> None:
    study = fed.new_study(sites=("709", *FEW), **MASKED | {"rounds": {"total": 20, "min_sites": 4}})
    plan = fed.open(study)
    fed.put_plan(plan.model_copy(update=change(plan)))
    with pytest.raises(ConfigError, match=f"another {match}"):
        fed.run_site(study, 1, SITE, ("train",))


def test_a_plan_from_the_future_is_not_followed(fed: Federation) -> None:
    study = fed.new_study()
    plan, later = fed.open(study), timedelta(hours=1)
    fed.put_plan(plan.model_copy(update={"opened_at": plan.opened_at + later, "deadline": plan.deadline + later}))
    with pytest.raises(PrivacyError, match="opened in the future"):
        fed.run_site(study, 1, SITE, ("train",))
    clock.now, present = lambda: plan.opened_at + later, clock.now
    fed.run_site(study, 1, SITE)
    clock.now = present


# 5. figures that a site can check


@pytest.mark.parametrize(("public_num_examples", "refused"), [(33, True), (34, False)])
def test_a_site_holds_the_public_number_of_patients_to_its_own(
    fed: Federation, public_num_examples: int, refused: bool
) -> None:
    study = fed.new_study(sites=("701", "713", "715"), privacy=LOCAL_DP | {"public_num_examples": public_num_examples})
    fed.open(study)
    error = fed.run_sites(study, 1, ("701",), names=("train",)).get("701")
    assert isinstance(error, ConfigError) is refused
    assert not refused or "trains on 34 patients, and privacy.public_num_examples says" in str(error)


# 7. a ledger that was set back


def set_back(fed: Federation, study: str, to: int, *, also: tuple[str, ...] = ()) -> None:
    """Both copies of the ledger lose what comes after entry `to`, and the site's folder the parts `also`."""
    site = fed.home / "sites" / SITE
    for entry in entries(fed, study)[to:]:
        (site / "ledger" / study / f"{entry.sequence:06d}.json").unlink()
        fed.delete(layout.ledger_entry(study, SITE, entry.sequence))
    for part in also:
        shutil.rmtree(site / part / study, ignore_errors=True)


@pytest.mark.parametrize("also", [(), ("rounds", "followed", "witness")], ids=["ledger", "whole-folder"])
@pytest.mark.parametrize("to", [0, 1])
def test_signed_cards_show_a_ledger_that_was_set_back(fed: Federation, to: int, also: tuple[str, ...]) -> None:
    study = fed.new_study(rounds={"total": 3})
    for run in ("one", "two"):
        fed.whole_round(study, run)
    set_back(fed, study, to, also=also)
    fed.open(study, "three")
    with pytest.raises(PrivacyError, match="releases nothing: a model's card"):
        fed.run_site(study, 3, SITE, ("train",))
    assert len(entries(fed, study)) == to


def masked_round(fed: Federation, study: str, number: int) -> dict[str, PharmafedError]:
    fed.open(study, f"run {number}")
    failed = fed.masked_round(study, number)
    fed.aggregate(study, number)
    fed.close(study, number)
    return failed


def forget_pins(fed: Federation, study: str, upto: int) -> None:
    """The hub lies about the past: all its cards again, with no pin of this site, in a chain that holds."""
    previous = None
    for number in range(upto + 1):
        card = fed.store().get_record(layout.card(study, number), ModelCard)
        pins = {site: pin for site, pin in card.ledgers.items() if site != SITE}
        fed.put_card(card.model_copy(update={"ledgers": pins, "previous_sha256": previous}))
        previous = sha256(fed.store().get(layout.card(study, number)))


def test_other_sites_show_a_ledger_that_was_set_back_when_the_hub_denies_it(fed: Federation) -> None:
    study = fed.new_study(sites=("709", *FEW), **MASKED | {"rounds": {"total": 20, "min_sites": 4}})
    assert masked_round(fed, study, 1) == masked_round(fed, study, 2) == {}
    set_back(fed, study, 0, also=("rounds", "followed", "witness"))
    forget_pins(fed, study, 2)
    for site in ("709", *FEW):  # the others are made to forget the cards: what they keep of each other is enough
        shutil.rmtree(fed.home / "sites" / site / "followed" / study, ignore_errors=True)
    fed.open(study, "run 3")
    fed.run_sites(study, 3, names=PREPARE)
    freeze_roster(fed.hub(study), 3)
    with pytest.raises(PrivacyError, match="has this site's signature on 1 entries"):
        fed.run_site(study, 3, SITE, UPLOAD)
    assert releases(fed, study) == 2
    assert entries(fed, study) == []
    assert fed.run_sites(study, 3, ("709", "713", "715", "718"), names=UPLOAD) == {}


def test_a_round_whose_end_was_lost_with_the_disk_is_paid_for(fed: Federation) -> None:
    study = fed.new_study(sites=("709", *FEW), **MASKED | {"rounds": {"total": 20, "min_sites": 4}})
    assert masked_round(fed, study, 1) == {}
    fed.open(study, "run 2")
    fed.run_sites(study, 2, names=PREPARE)
    freeze_roster(fed.hub(study), 2)
    others = ["709", "713", "715", "718"]
    assert fed.run_sites(study, 2, others, names=UPLOAD) == {}
    for part in ("rounds", "followed", "witness", "ledger"):
        shutil.rmtree(fed.home / "sites" / SITE / part / study)
    fed.set_deadline(study, 2, 0, "upload_deadline")
    select_updates(fed.hub(study), 2)
    assert fed.run_sites(study, 2, others, names=UNMASK) == {}
    fed.aggregate(study, 2)
    fed.close(study, 2)
    assert masked_round(fed, study, 3) == {}
    found = entries(fed, study)
    assert [(e.server_round, e.release_sha256 == NO_RELEASE) for e in found] == [(1, False), (2, True), (3, False)]


def test_a_site_that_missed_a_round_pays_nothing_for_it(fed: Federation) -> None:
    """The control: the others have its word, and so has it."""
    study = fed.new_study(sites=("709", *FEW), **MASKED | {"rounds": {"total": 20, "min_sites": 4}})
    fed.open(study, "run 1")
    fed.run_sites(study, 1, names=PREPARE)
    freeze_roster(fed.hub(study), 1)
    others = ["709", "713", "715", "718"]
    assert fed.run_sites(study, 1, others, names=UPLOAD) == {}
    now = clock.now
    fed.set_deadline(study, 1, 0, "upload_deadline")
    select_updates(fed.hub(study), 1)
    clock.now = now
    assert fed.run_sites(study, 1, others, names=UNMASK) == {}
    fed.aggregate(study, 1)
    fed.close(study, 1)
    assert masked_round(fed, study, 2) == {}
    assert [entry.server_round for entry in entries(fed, study)] == [2]


def test_a_word_that_others_make_up_blocks_nobody(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    assert masked_round(fed, study, 1) == {}
    words = fed.home / "sites" / "713" / "witness" / study / "words.json"
    content = words.read_text()
    assert '"ledger_entries": 0' in content
    words.write_text(content.replace('"ledger_entries": 0', '"ledger_entries": 900'))
    assert masked_round(fed, study, 2) == {}
    assert [entry.server_round for entry in entries(fed, study)] == [1, 2]
