"""Every line of a manifest and every byte of an update is checked: one wrong thing costs that update, never the round.

Each case takes a round whose four sites have really uploaded, forges site 717's answer with the site's own keys, and
aggregates. The round is then brought back to what it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tasks.errors import BudgetExhausted, QuorumMissed, UpdateRejected
from tasks.privacy.sanitizer import plan_spend
from tasks.rounds.hub.answers import read_answers
from tasks.store import identity as enrolment
from tasks.store import layout, settings
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Manifest
from tasks.store.records.site import Enrolment
from tasks.store.weights import sha256
from tests.rounds.hub.federation import FEW, Federation, json_of

LIAR = "717"
HONEST = tuple(site for site in FEW if site != LIAR)
R = 2


@dataclass
class Forge:
    """The liar's answer in round 2, to be changed."""

    fed: Federation
    study: str

    @property
    def manifest(self) -> Manifest:
        return self.fed.manifest(self.study, R, LIAR)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return load(self.body)

    @property
    def body(self) -> bytes:
        return self.fed.store().get(layout.update_tensors(self.study, R, LIAR))

    def say(self, **changes: Any) -> None:
        """Change lines of the manifest and sign it again."""
        self.put(self.fed.sign(self.manifest.model_copy(update=changes)))

    def put(self, manifest: Manifest) -> None:
        self.write(to_json(manifest))

    def write(self, body: bytes) -> None:
        self.fed.put_manifest(self.study, R, LIAR, body)

    def send(self, body: bytes, **changes: Any) -> None:
        """Other tensors, with a ledger entry that pays for them and a manifest that fits both."""
        self.fed.put_tensors(self.study, R, LIAR, body)
        digest = sha256(body)
        paid = self.book(release_sha256=digest)
        self.say(**{"num_bytes": len(body), "sha256": digest, "ledger_sha256": paid, **changes})

    def send_tensors(self, tensors: dict[str, np.ndarray], **changes: Any) -> None:
        self.send(save(tensors), **changes)

    def spend(self, **changes: Any) -> None:
        """Another spend, in the manifest and in the ledger alike."""
        spent = self.manifest.spend.model_copy(update=changes)
        self.say(spend=spent, ledger_sha256=self.book(spend=spent))

    def book(self, *, signer: str | None = LIAR, at: int = R, **changes: Any) -> str:
        """Another ledger entry, signed by `signer`; gives the sha256 of its bytes."""
        entry = self.fed.store().get_record(layout.ledger_entry(self.study, LIAR, R), LedgerEntry)
        entry = entry.model_copy(update={"signature": "", **changes})
        if signer is not None:
            signature = enrolment.sign(settings.site_secrets(signer), to_json(entry))
            entry = entry.model_copy(update={"signature": signature})
        body = to_json(entry)
        self.fed.store().put(layout.ledger_entry(self.study, LIAR, at), body, content_type="application/json")
        return sha256(body)

    def pay(self, **changes: Any) -> None:
        """Another ledger entry, which the manifest names."""
        self.say(ledger_sha256=self.book(**changes))

    def enrol(self, **changes: Any) -> None:
        """Another enrolment."""
        known = self.fed.store().get_record(layout.enrolment(LIAR), Enrolment)
        body = to_json(known.model_copy(update=changes))
        self.fed.store().put(layout.enrolment(LIAR), body, content_type="application/json")

    def drop(self, key: str) -> None:
        self.fed.delete(key)


def with_value(value: float) -> Callable[[Forge], None]:
    def forge(f: Forge) -> None:
        tensors = {name: tensor.copy() for name, tensor in f.tensors.items()}
        tensors["linear.weight"][0, 3] = value
        f.send_tensors(tensors)

    return forge


def with_line(**changes: Any) -> Callable[[Forge], None]:
    return lambda f: f.say(**changes)


def with_raw_line(**changes: Any) -> Callable[[Forge], None]:
    """The manifest's JSON with lines that a record would not take."""
    return lambda f: f.write(json.dumps(json_of(to_json(f.manifest)) | changes).encode())


def other_shape(f: Forge) -> None:
    f.send_tensors({name: np.ascontiguousarray(t.T) if t.ndim == 2 else t for name, t in f.tensors.items()})


def other_shape_admitted(f: Forge) -> None:
    shapes = {s.name: s.shape[::-1] for s in f.manifest.tensors}
    other_shape(f)
    f.say(tensors=tuple(s.model_copy(update={"shape": shapes[s.name]}) for s in f.manifest.tensors))


def other_name(f: Forge) -> None:
    f.send_tensors({name.replace("weight", "w8"): tensor for name, tensor in f.tensors.items()})


def bad_digest(f: Forge) -> None:
    body = bytearray(f.body)
    body[-1] ^= 1
    f.fed.put_tensors(f.study, R, LIAR, bytes(body))


def other_signer(f: Forge) -> None:
    signed = f.fed.sign(f.manifest.model_copy(update={"site": HONEST[0]}))
    f.put(f.manifest.model_copy(update={"signature": signed.signature}))


def changed_after_signing(f: Forge) -> None:
    f.put(f.manifest.model_copy(update={"num_examples": f.manifest.num_examples + 1}))


def oversized(f: Forge) -> None:
    f.send(f.body + bytes(2 << 20))


def short_of_what_it_says(f: Forge) -> None:
    f.fed.put_tensors(f.study, R, LIAR, f.body[:-8])


def truncated(f: Forge) -> None:
    f.send(f.body[:-4])


def in_half_precision(f: Forge) -> None:
    f.send_tensors({name: tensor.astype(np.float16) for name, tensor in f.tensors.items()})


def with_garbage_ledger(f: Forge) -> None:
    f.fed.store().put(layout.ledger_entry(f.study, LIAR, R), b"{", content_type="application/json")


def paid_for_other_bytes(f: Forge) -> None:
    """Fresh noise on the same round: the second release, of which the ledger knows nothing."""
    body = save({name: tensor * np.float32(1.01) for name, tensor in f.tensors.items()})
    f.fed.put_tensors(f.study, R, LIAR, body)
    f.say(num_bytes=len(body), sha256=sha256(body))


def at_another_number(f: Forge) -> None:
    """The entry once more under the next number, which its spend has not."""
    f.say(ledger_sequence=R + 1, ledger_sha256=f.book(at=R + 1, sequence=R + 1))


def beyond_the_budget(f: Forge) -> None:
    """All lines agree on release 51 of 50."""
    spent = f.manifest.spend.model_copy(update={"releases": 51})
    f.say(spend=spent, ledger_sequence=51, ledger_sha256=f.book(at=51, sequence=51, spend=spent))


def replayed(f: Forge) -> None:
    """All three objects of round 1 under the names of round 2."""
    for place in (layout.update_tensors, layout.update_manifest):
        f.fed.store().put(place(f.study, R, LIAR), f.fed.store().get(place(f.study, 1, LIAR)), content_type="x/y")
    old = f.fed.store().get(layout.ledger_entry(f.study, LIAR, 1))
    f.fed.store().put(layout.ledger_entry(f.study, LIAR, R), old, content_type="x/y")


def replayed_and_signed(f: Forge) -> None:
    """Round 1's tensors, honestly labelled round 2, but trained from round 1's base."""
    old = f.fed.manifest(f.study, 1, LIAR)
    f.fed.put_tensors(f.study, R, LIAR, f.fed.store().get(layout.update_tensors(f.study, 1, LIAR)))
    f.put(f.fed.sign(old.model_copy(update={"server_round": R, "spend": f.manifest.spend})))


Case = tuple[Callable[[Forge], None], str]
CASES: dict[str, Case] = {
    "NaN": (with_value(math.nan), "holds NaN or infinity"),
    "infinity": (with_value(math.inf), "holds NaN or infinity"),
    "finite, but its square is not": (with_value(3e38), "the largest norm allowed is 1000"),
    "a norm beyond the study's": (with_value(1001.0), "has norm 1e+03; the largest norm allowed is 1000"),
    "wrong shape": (other_shape, "names, shapes or types of its tensors are not those of the model"),
    "wrong shape, and it says so": (other_shape_admitted, "wrong tensors in its manifest"),
    "wrong name": (other_name, "names, shapes or types of its tensors are not those of the model"),
    "half precision": (in_half_precision, "are not the 23 float32 values of the model"),
    "wrong study": (with_line(study="other"), "wrong study in its manifest"),
    "wrong round": (with_line(server_round=R + 1), "wrong round in its manifest"),
    "wrong base model": (with_line(base_model_sha256="0" * 64), "wrong base model in its manifest"),
    "wrong plan": (with_line(plan_sha256="0" * 64), "wrong plan in its manifest"),
    "wrong token": (with_line(site_token="guess"), "wrong site token in its manifest"),
    "wrong code version": (with_line(code_version="0.0.0"), "wrong code version in its manifest"),
    "more local iterations than planned": (with_line(local_iterations=2), "2 local iterations, the plan asks for 1"),
    "an absurd number of examples": (with_line(num_examples=10**8), "counts beyond 10000000"),
    "timings that are no numbers": (with_raw_line(seconds={"train_local": math.nan}), "is not a valid Manifest"),
    "another site's name": (
        lambda f: f.put(f.manifest.model_copy(update={"site": HONEST[0]})),
        "wrong site in its manifest",
    ),
    "another site's signature": (other_signer, "the signature is not the enrolled site's"),
    "changed after signing": (changed_after_signing, "the signature is not the enrolled site's"),
    "no signature": (
        lambda f: f.put(f.manifest.model_copy(update={"signature": ""})),
        "the signature is not the enrolled site's",
    ),
    "a signature that is no base64": (
        lambda f: f.put(f.manifest.model_copy(update={"signature": "§"})),
        "is not a valid Manifest",
    ),
    "not enrolled": (lambda f: f.drop(layout.enrolment(LIAR)), "the site is not enrolled, or its enrolment was"),
    "revoked": (lambda f: f.enrol(active=False), "the site is not enrolled, or its enrolment was revoked"),
    "bad digest": (bad_digest, "the tensors' sha256 is not the one in its manifest"),
    "a manifest without tensors": (
        lambda f: f.drop(layout.update_tensors(f.study, R, LIAR)),
        "a manifest without tensors",
    ),
    "truncated tensors": (truncated, "its tensors overlap or leave gaps"),
    "fewer bytes than its manifest says": (short_of_what_it_says, "bytes uploaded, its manifest says"),
    "oversized tensors": (oversized, "bytes uploaded, its manifest says"),
    "a manifest that is no JSON": (lambda f: f.write(b"\x80 not json"), "is not a valid Manifest"),
    "an empty manifest": (lambda f: f.write(b""), "is not a valid Manifest"),
    "a manifest with a key too many": (with_raw_line(comment="hello"), "is not a valid Manifest"),
    "a manifest with a key too few": (
        lambda f: f.write(json.dumps({k: v for k, v in json_of(to_json(f.manifest)).items() if k != "spend"}).encode()),
        "is not a valid Manifest",
    ),
    "a huge manifest": (with_raw_line(comment="x" * (2 << 20)), "manifest"),
    "spend not in the ledger": (
        lambda f: f.drop(layout.ledger_entry(f.study, LIAR, R)),
        "its privacy spend is not in the ledger",
    ),
    "a ledger entry that is none": (with_garbage_ledger, "its ledger entry cannot be read"),
    "a ledger entry of another round": (lambda f: f.pay(server_round=R + 1), "disagree on the privacy spend"),
    "a ledger entry of another site": (lambda f: f.pay(site=HONEST[0]), "disagree on the privacy spend"),
    "a ledger entry of another number": (at_another_number, "its ledger entry is not numbered by its releases"),
    "a ledger entry numbered otherwise inside": (
        lambda f: f.pay(sequence=R + 1),
        "its ledger entry is not numbered by its releases",
    ),
    "a ledger entry that its manifest does not name": (
        lambda f: f.book(previous="0" * 64),
        "its ledger entry is not the one that its manifest names",
    ),
    "a ledger entry for other bytes": (
        lambda f: f.pay(release_sha256="0" * 64),
        "its ledger entry pays for another update",
    ),
    "a ledger entry for another plan": (
        lambda f: f.pay(plan_sha256="0" * 64),
        "its ledger entry is for another plan",
    ),
    "other bytes than its ledger entry pays for": (paid_for_other_bytes, "its ledger entry pays for another update"),
    "a ledger entry that nobody has signed": (
        lambda f: f.pay(signer=None),
        "the signature of its ledger entry is not the enrolled site's",
    ),
    "a ledger entry with another site's signature": (
        lambda f: f.pay(signer=HONEST[0]),
        "the signature of its ledger entry is not the enrolled site's",
    ),
    "masks in a round that has none": (
        with_line(roster_sha256="0" * 64),
        "its masks are not those of this round's roster",
    ),
    "a spend that the ledger does not know": (
        lambda f: f.say(spend=f.manifest.spend.model_copy(update={"releases": 1})),
        "its manifest and its ledger entry disagree on the privacy spend",
    ),
    "a spend cheaper than the plan's": (
        lambda f: f.spend(noise_multiplier=100.0, epsilon=0.01, mu=0.01),
        "its privacy spend is not what the plan costs",
    ),
    "a spend that is none": (
        lambda f: f.spend(mechanism="none", unit="nothing"),
        "its privacy spend is not what the plan costs",
    ),
    "releases that the ledger has no number for": (
        lambda f: f.spend(releases=51),
        "its ledger entry is not numbered by its releases",
    ),
    "releases beyond the budget": (beyond_the_budget, "its privacy spend: release 51 is refused"),
    "a replay of the last round": (replayed, "wrong round in its manifest"),
    "a replay with this round's label": (replayed_and_signed, "wrong base model in its manifest"),
}


@dataclass
class Uploaded:
    """Round 2 of a study, all updates in; and every object as it was then."""

    fed: Federation
    study: str
    objects: dict[str, bytes]
    enrolments: dict[str, bytes]
    honest_model: dict[str, np.ndarray]
    pointer: bytes

    def back(self) -> None:
        self.fed.restore(self.study, self.objects)
        for key, body in self.enrolments.items():
            self.fed.store().put(key, body, content_type="application/json")


@pytest.fixture(scope="module")
def round_two(fed: Federation) -> Uploaded:
    study = fed.new_study(rounds={"deadline_seconds": 3600})
    fed.whole_round(study, "first")
    fed.open(study, "second")
    assert fed.run_sites(study, R) == {}
    store = fed.store()
    objects = fed.objects(layout.study_prefix(study) + "/")
    base = load(store.get(layout.model(study, 1)))
    updates = [load(store.get(layout.update_tensors(study, R, site))) for site in HONEST]
    honest = {name: value + np.mean([u[name] for u in updates], axis=0) for name, value in base.items()}
    enrolments = fed.objects("federation/enrolments/")
    return Uploaded(fed, study, objects, enrolments, honest, store.get(layout.latest(study)))


@pytest.fixture
def uploaded(round_two: Uploaded) -> Iterator[Uploaded]:
    yield round_two
    round_two.back()


@pytest.mark.parametrize(("forge", "reason"), CASES.values(), ids=CASES.keys())
def test_one_wrong_update_is_left_out_and_named(
    uploaded: Uploaded, forge: Callable[[Forge], None], reason: str
) -> None:
    fed, study = uploaded.fed, uploaded.study
    forge(Forge(fed, study))
    selection = fed.aggregate(study, R)
    assert [chosen.site for chosen in selection.chosen] == sorted(HONEST)
    assert selection.missing.keys() == {LIAR}
    assert selection.missing[LIAR].startswith("rejected: ")
    assert reason in selection.missing[LIAR]
    model = load(fed.store().get(layout.model(study, R)))
    for name, value in uploaded.honest_model.items():
        np.testing.assert_allclose(model[name], value, rtol=1e-5, atol=2e-6)
    metrics = fed.close(study, R)
    assert (metrics.status, metrics.num_contributors) == ("partial", 3)
    assert metrics.message == f"3 of 4 contributed. Missing: {LIAR}: {selection.missing[LIAR]}"
    stored = fed.store().get_record(layout.round_metrics(study, R), RoundMetrics)
    assert stored == metrics
    assert json_of(fed.store().get(layout.latest(study)))["server_round"] == R
    assert fed.hub(study).closed_rounds()[-1] == metrics


def test_the_honest_round_takes_all_four(uploaded: Uploaded) -> None:
    """The table above could reject everything; unforged, and signed again by the same means, nothing is rejected."""
    Forge(uploaded.fed, uploaded.study).say()
    Forge(uploaded.fed, uploaded.study).send_tensors(Forge(uploaded.fed, uploaded.study).tensors)
    selection = uploaded.fed.aggregate(uploaded.study, R)
    assert [chosen.site for chosen in selection.chosen] == sorted(FEW)
    assert selection.missing == {}
    assert len(CASES) == 54


def test_below_the_quorum_the_round_fails_and_says_why(uploaded: Uploaded) -> None:
    fed, study = uploaded.fed, uploaded.study
    with_value(math.nan)(Forge(fed, study))
    key = layout.update_manifest(study, R, "713")
    fed.store().put(key, b"{}", content_type="application/json")
    with pytest.raises(QuorumMissed, match=r"2 of 4 contributed, 3 are needed\. Missing: 713: rejected: .*717: rej"):
        fed.aggregate(study, R)
    metrics = fed.close(study, R)
    assert metrics.status == "failed"
    reasons = {row.site: row.reason for row in metrics.sites}
    assert "holds NaN or infinity" in reasons[LIAR]
    assert "is not a valid Manifest" in reasons["713"]
    assert LIAR in metrics.message
    assert "holds NaN or infinity" in metrics.message
    assert fed.store().get(layout.latest(study)) == uploaded.pointer
    assert not fed.store().exists(layout.model(study, R))
    assert fed.store().get_record(layout.round_metrics(study, R), RoundMetrics) == metrics


def test_a_site_cannot_answer_for_another(uploaded: Uploaded) -> None:
    """Keys below a site's own prefix that end like another's answer."""
    fed, study = uploaded.fed, uploaded.study
    for site in HONEST:
        for place in (layout.update_manifest, layout.update_tensors):
            fed.delete(place(study, R, site))
    mine = fed.store(f"site-{LIAR}")
    prefix = layout.update_manifest(study, R, LIAR).removesuffix("/manifest.json")
    for site in HONEST:
        for name in ("manifest.json", "refusal.json"):
            mine.put(f"{prefix}/{site}/{name}", b"{}", content_type="application/json")
    answers = read_answers(fed.hub(study), fed.hub(study).plan(R))
    assert answers.given == {LIAR}
    assert answers.refusals == set()
    assert answers.silent == sorted(HONEST)


def test_an_update_exchanged_after_the_selection_does_not_get_in(uploaded: Uploaded) -> None:
    """A site may write under its own prefix again: a rerun takes the selected bytes or none."""
    fed, study = uploaded.fed, uploaded.study
    fed.aggregate(study, R)
    for key in (layout.model(study, R), layout.card(study, R)):
        fed.delete(key)
    forge = Forge(fed, study)
    forge.send_tensors({name: tensor * 2 for name, tensor in forge.tensors.items()})
    with pytest.raises(UpdateRejected, match=r"717 rejected: .*selected"):
        fed.aggregate(study, R)
    assert not fed.store().exists(layout.model(study, R))


@pytest.mark.parametrize(
    "change",
    [{"seconds": math.nan}, {"server_round": 1}, {"site": "713"}, {"model_sha256": "0" * 64}],
    ids=lambda change: next(iter(change)),
)
def test_metrics_that_are_not_of_this_model_are_not_reported(uploaded: Uploaded, change: dict[str, Any]) -> None:
    fed, study = uploaded.fed, uploaded.study
    fed.aggregate(study, R)
    fed.validate_global(study, R, FEW)
    key = layout.site_metrics(study, R, LIAR)
    body = json.dumps(json_of(fed.store().get(key)) | change).encode()
    fed.store().put(key, body, content_type="application/json")
    metrics = fed.close(study, R)
    assert {row.site for row in metrics.sites if row.metrics is None} == {LIAR}
    assert fed.hub(study).closed_rounds()[-1] == metrics


def test_a_sites_garbage_in_its_ledger_stops_no_one_else(uploaded: Uploaded) -> None:
    fed, study = uploaded.fed, uploaded.study
    fed.aggregate(study, R)
    fed.close(study, R)
    mine = fed.store(f"site-{LIAR}")
    mine.put(layout.ledger_entry(study, LIAR, 9), b"garbage", content_type="application/json")
    plan = fed.open(study, "third")
    assert plan.sites == HONEST
    assert plan.left_out.keys() == {LIAR}
    assert "ledger" in plan.left_out[LIAR]


def test_budget_errors_of_the_plan_are_not_swallowed(fed: Federation) -> None:
    """What the table calls "releases beyond the budget" is the mechanism's own refusal."""
    study = fed.new_study()
    plan = fed.open(study)
    with pytest.raises(BudgetExhausted, match="release 51 is refused"):
        plan_spend(plan, 51)
