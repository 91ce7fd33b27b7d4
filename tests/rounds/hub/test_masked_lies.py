"""A hub that lies and sites that forge: nothing is masked or told for them, and the others' sum stays exact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.errors import ConfigError, PharmafedError, PrivacyError, QuorumMissed, RoundRefused, StoreUnavailable
from tasks.privacy.ledger.chain import Link
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.sanitizer import specs_of
from tasks.privacy.secure_sum import checks, protocol
from tasks.privacy.secure_sum.records import KeyMessage, Roster, SealingKey, Survivors, UnmaskAnswer, record_sha256
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.store import identity as enrolment
from tasks.store import layout, settings
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, from_bytes, to_bytes
from tests.rounds.hub.federation import FEW, Federation
from tests.rounds.hub.masked_rounds import (
    MASKED,
    NO_PRIVACY,
    PREPARE,
    PRIVACY,
    SITE,
    UNMASK,
    UPLOAD,
    Seen,
    folder,
    forge_answer,
    joined,
    model_of,
    of,
    put,
    roster_of,
    selected,
    signing,
    survivors_of,
    trained,
    unmasked,
    uploaded,
    watching,
    wrong_share,
    wrote_nothing,
)


@pytest.fixture(autouse=True)
def seen() -> Iterator[Seen]:
    with watching() as found:
        yield found


# a hub that lies


def test_a_second_story_about_the_survivors_is_not_answered(fed: Federation, seen: Seen) -> None:
    study = selected(fed)
    fed.run_site(study, 1, SITE, UNMASK)
    first = fed.store().get(layout.unmask_answer(study, 1, SITE))
    kept = (folder(fed, study) / "unmask_answer.json").read_bytes()
    honest = survivors_of(fed, study)
    put(fed, layout.survivors(study, 1), honest.model_copy(update={"sites": ("713", "715", SITE)}))
    with pytest.raises(PrivacyError, match=f"site {SITE} has answered about other survivors of round 1"):
        fed.run_site(study, 1, SITE, UNMASK)
    fed.delete(layout.unmask_answer(study, 1, SITE))
    with pytest.raises(PrivacyError, match="two stories"):
        fed.run_site(study, 1, SITE, UNMASK)
    assert not fed.store().exists(layout.unmask_answer(study, 1, SITE))
    assert (folder(fed, study) / "unmask_answer.json").read_bytes() == kept == first
    fed.run_site(study, 1, "715", UNMASK)  # it has heard only the second story
    put(fed, layout.survivors(study, 1), honest)
    fed.run_site(study, 1, SITE, UNMASK)
    assert fed.store().get(layout.unmask_answer(study, 1, SITE)) == first
    with pytest.raises(PrivacyError, match="site 715 has answered about other survivors"):
        fed.run_site(study, 1, "715", UNMASK)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sites": ("713", SITE)}, "2 sites uploaded, 3 are needed"),
        ({"sites": ("713", "715", "718")}, f"site {SITE} is not among the survivors"),
        ({"sites": ("713", SITE, SITE)}, "a site stands twice"),
        ({"sites": ("704", "713", SITE)}, "704"),
        ({"roster_sha256": "0" * 64}, "of another roster"),
        ({"server_round": 2}, "of another round"),
    ],
    ids=["too-few", "without-it", "twice", "stranger", "roster", "round"],
)
def test_survivors_that_make_no_sense_are_not_answered(
    fed: Federation, lied_to: str, change: dict[str, Any], match: str
) -> None:
    honest = survivors_of(fed, lied_to)
    put(fed, layout.survivors(lied_to, 1), honest.model_copy(update=change))
    try:
        with pytest.raises(PrivacyError, match=match):
            fed.run_site(lied_to, 1, SITE, UNMASK)
        assert not fed.store().exists(layout.unmask_answer(lied_to, 1, SITE))
        assert not (folder(fed, lied_to) / "unmask_answer.json").exists()
    finally:
        put(fed, layout.survivors(lied_to, 1), honest)


@pytest.fixture(scope="module")
def lied_to(fed: Federation) -> str:
    """A study whose first round has its survivors, and no answers yet."""
    return selected(fed)


def smaller(roster: Roster) -> Roster:
    """A second roster that is sound by itself."""
    return roster.model_copy(update={"members": {s: d for s, d in roster.members.items() if s != "718"}})


def test_a_second_roster_is_refused_after_the_upload(fed: Federation) -> None:
    study = selected(fed)
    honest = roster_of(fed, study)
    put(fed, layout.roster(study, 1), smaller(honest))
    survivors = Survivors(
        study=study, server_round=1, roster_sha256=record_sha256(smaller(honest)), sites=("713", "715", SITE)
    )
    put(fed, layout.survivors(study, 1), survivors)
    with pytest.raises(PrivacyError, match=r"has not joined this roster|has joined another roster"):
        fed.run_site(study, 1, SITE, UNMASK)
    assert not fed.store().exists(layout.unmask_answer(study, 1, SITE))
    before = of(fed, study)
    with pytest.raises(PrivacyError, match="roster"):
        fed.run_site(study, 1, SITE, UPLOAD)
    assert {key: body for key, body in of(fed, study).items() if "/refusal.json" not in key} == {
        key: body for key, body in before.items() if "/refusal.json" not in key
    }


def test_a_second_roster_is_refused_between_masking_and_upload(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update lies masked at the site, the store fails, and at the retry the hub shows another roster."""
    study = joined(fed)

    def fails(*_: Any) -> Any:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(SiteLedger, "record", fails)
        with pytest.raises(StoreUnavailable):
            fed.run_site(study, 1, SITE, UPLOAD)
    assert (folder(fed, study) / "release.safetensors").exists()
    put(fed, layout.roster(study, 1), smaller(roster_of(fed, study)))
    with pytest.raises(PrivacyError, match="another roster"):
        fed.run_site(study, 1, SITE, UPLOAD)
    assert not [key for key in of(fed, study) if f"/ledger/{SITE}/" in key]
    assert not fed.store().exists(layout.update_tensors(study, 1, SITE))


def enrolled_stranger(fed: Federation, study: str) -> KeyMessage:
    """A key message of a real site that the study does not ask."""
    return message_of(fed, study, "704", settings.site_secrets("704"))


def unknown_stranger(fed: Federation, study: str) -> KeyMessage:
    """A key message of a site that the hub has made up, with an authority of its own."""
    secrets = fed.home / "made_up" / study
    enrolment.ensure_site_identity(secrets / "719", "719", enrolment.ensure_authority(secrets / "ca"))
    return message_of(fed, study, "719", secrets / "719")


def message_of(fed: Federation, study: str, site: str, secrets: Path) -> KeyMessage:
    certificate = (secrets / "certificate.pem").read_text()
    own = protocol.publish_sealing_key(site, (secrets / "sealing.key").read_bytes(), certificate, signing(secrets))
    records = {s: fed.store().get_record(layout.sealing_key(s), SealingKey) for s in FEW}
    keys = {s: record.public_key for s, record in records.items()} | {site: own.public_key}
    plan = hashlib.sha256(fed.store().get(layout.plan(study, 1))).hexdigest()
    return protocol.make_round_keys(study, 1, site, keys, 3, certificate, signing(secrets), plan_sha256=plan)[1]


@pytest.mark.parametrize("stranger", [enrolled_stranger, unknown_stranger])
def test_a_roster_with_a_stranger_is_refused_before_anything_is_masked(
    fed: Federation, seen: Seen, stranger: Callable[[Federation, str], KeyMessage]
) -> None:
    study = joined(fed)
    message = stranger(fed, study)
    put(fed, layout.key_message(study, 1, message.site), message)
    roster = roster_of(fed, study)
    members = roster.members | {message.site: record_sha256(message)}
    put(fed, layout.roster(study, 1), roster.model_copy(update={"members": members}))
    with pytest.raises(PrivacyError, match=rf"{message.site}|has no shares for sites \['{message.site}'\]"):
        fed.run_site(study, 1, SITE, UPLOAD)
    wrote_nothing(fed, study, SITE, seen)


@pytest.mark.parametrize("site", ["715", SITE])
def test_a_tampered_key_message_is_refused_before_anything_is_masked(fed: Federation, seen: Seen, site: str) -> None:
    """The hub puts a mask key of its own into a message, and makes the roster name it: the signature does not fit."""
    study = joined(fed)
    message = fed.store().get_record(layout.key_message(study, 1, site), KeyMessage)
    tampered = message.model_copy(update={"mask_public_key": enrolled_stranger(fed, study).mask_public_key})
    put(fed, layout.key_message(study, 1, site), tampered)
    with pytest.raises(PrivacyError, match=f"the key message of site {site} is not the one that the roster names"):
        fed.run_site(study, 1, SITE, UPLOAD)
    roster = roster_of(fed, study)
    members = roster.members | {site: record_sha256(tampered)}
    put(fed, layout.roster(study, 1), roster.model_copy(update={"members": members}))
    with pytest.raises(PrivacyError, match=f"the signature of site {site} on its key message is wrong"):
        fed.run_site(study, 1, SITE, UPLOAD)
    wrote_nothing(fed, study, SITE, seen)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"tolerated_dropouts": 2}, PrivacyError, "tolerates 2 drop-outs, the study 1"),
        ({"threshold": 2}, PrivacyError, "has threshold 3, the roster 2"),
        ({"study": "another"}, PrivacyError, "of another"),
        ({"server_round": 2}, PrivacyError, "not round 2"),
    ],
    ids=["tolerated", "threshold", "study", "round"],
)
def test_a_roster_with_other_terms_is_refused_before_anything_is_masked(
    fed: Federation, seen: Seen, change: dict[str, Any], error: type[PharmafedError], match: str
) -> None:
    study = joined(fed)
    put(fed, layout.roster(study, 1), roster_of(fed, study).model_copy(update=change))
    with pytest.raises(error, match=match):
        fed.run_site(study, 1, SITE, UPLOAD)
    wrote_nothing(fed, study, SITE, seen)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sites": (*FEW, "704")}, "another sites than"),
        ({"sites": (*FEW, SITE)}, "another sites than"),
        ({"channel": "plain"}, "another channel than"),
        ({"privacy": PRIVACY | {"tolerated_dropouts": 2}}, "another privacy than"),
        ({"privacy": PRIVACY | {"epsilon": 8}}, "another privacy than"),
        ({"privacy": NO_PRIVACY}, "another privacy, number of sums than"),
        ({"total_rounds": 2}, "another total_rounds than"),
    ],
    ids=["more-sites", "one-twice", "no-masks", "less-noise", "budget", "no-noise", "rounds"],
)
def test_a_plan_with_other_terms_is_refused_before_anything_is_masked(
    fed: Federation, seen: Seen, change: dict[str, Any], match: str
) -> None:
    study = joined(fed)
    plan = fed.hub(study).plan(1)
    fed.put_plan(Plan.model_validate(plan.model_dump() | change))
    for step in ("train", "privatize_and_upload", "unmask"):
        with pytest.raises(ConfigError, match=match):
            fed.run_site(study, 1, SITE, (step,))
    wrote_nothing(fed, study, SITE, seen)


# forged uploads


Forgery = Callable[[Federation, str], str]


def forge_upload(
    fed: Federation, study: str, tensors: Weights, *, paid: bool = True, specs: Weights | None = None, **changes: Any
) -> None:
    """Site 717 sends something else, all of it signed; `paid`: its ledger has that too."""
    body = to_bytes(tensors)
    entry = fed.store().get_record(layout.ledger_entry(study, SITE, 1), LedgerEntry)
    if paid:
        paying = entry.model_copy(update={"release_sha256": hashlib.sha256(body).hexdigest()})
        changes["ledger_sha256"] = (link := Link.seal(paying, settings.site_secrets(SITE))).sha256
        put(fed, layout.ledger_entry(study, SITE, 1), link.body)
    manifest = fed.manifest(study, 1, SITE).model_copy(
        update={
            "tensors": specs_of(specs or tensors),
            "num_bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            **changes,
        }
    )
    fed.put_tensors(study, 1, SITE, body)
    fed.put_manifest(study, 1, SITE, to_json(fed.sign(manifest)))


def sent(fed: Federation, study: str) -> torch.Tensor:
    return from_bytes(fed.store().get(layout.update_tensors(study, 1, SITE)))["masked"]


def shorter(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study)[:-1].clone()})
    return "wrong tensors in its manifest"


def secretly_shorter(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study)[:-1].clone()}, specs={"masked": sent(fed, study)})
    return "32 masked integers, the plan asks for 33"


def floats(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study).float()})
    return "wrong tensors in its manifest"


def secretly_signed(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study).view(torch.int64)}, specs={"masked": sent(fed, study)})
    return "its tensors are not one vector masked of torch.uint64"


def two_dimensional(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study).unsqueeze(0)}, specs={"masked": sent(fed, study)})
    return "its tensors are not one vector masked of torch.uint64"


def another_name(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"hidden": sent(fed, study)}, specs={"masked": sent(fed, study)})
    return "its tensors are not one vector masked of torch.uint64"


def unpaid(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": (sent(fed, study).view(torch.int64) + 1).view(torch.uint64)}, paid=False)
    return "its ledger entry pays for another update"


def of_another_roster(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study)}, roster_sha256="0" * 64)
    return "its masks are not those of this round's roster"


def of_no_roster(fed: Federation, study: str) -> str:
    forge_upload(fed, study, {"masked": sent(fed, study)}, roster_sha256=None)
    return "its masks are not those of this round's roster"


UPLOADS: tuple[Forgery, ...] = (
    shorter,
    secretly_shorter,
    floats,
    secretly_signed,
    two_dimensional,
    another_name,
    unpaid,
    of_another_roster,
    of_no_roster,
)


def test_forged_uploads_are_named_and_the_others_are_summed(fed: Federation, seen: Seen) -> None:
    study = uploaded(fed)
    before = of(fed, study)
    reasons = {}
    for forge in UPLOADS:
        fed.restore(study, before)
        expected = forge(fed, study)
        selection = select_updates(fed.hub(study), 1)
        assert [chosen.site for chosen in selection.chosen] == ["713", "715", "718"]
        reasons[forge.__name__] = selection.missing[SITE]
        assert selection.missing[SITE].startswith(f"rejected: {expected}")
    assert len(reasons) == 9
    assert fed.run_sites(study, 1, ("713", "715", "718"), names=UNMASK) == {}
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, ("713", "715", "718")))
    assert reasons["of_no_roster"] in fed.close(study, 1).message


def test_an_upload_that_is_exchanged_after_the_selection_is_not_summed(fed: Federation, seen: Seen) -> None:
    study = unmasked(fed)
    forge_upload(fed, study, {"masked": (sent(fed, study).view(torch.int64) + 1).view(torch.uint64)})
    with pytest.raises(PharmafedError, match="exchanged since"):
        fed.aggregate(study, 1)
    assert study not in seen.opened


# forged key messages


def key_message(fed: Federation, study: str, site: str = SITE) -> KeyMessage:
    return fed.store().get_record(layout.key_message(study, 1, site), KeyMessage)


def of_another_site(fed: Federation, study: str) -> str:
    put(fed, layout.key_message(study, 1, SITE), key_message(fed, study, "715"))
    return f"the key message of site {SITE} names site 715"


def signed_by_another(fed: Federation, study: str) -> str:
    forged = checks.signed(key_message(fed, study), signing(settings.site_secrets("715")))
    put(fed, layout.key_message(study, 1, SITE), forged)
    return f"the signature of site {SITE} on its key message is wrong"


def certified_for_another(fed: Federation, study: str) -> str:
    secrets = settings.site_secrets("715")
    changed = key_message(fed, study).model_copy(update={"certificate_pem": (secrets / "certificate.pem").read_text()})
    put(fed, layout.key_message(study, 1, SITE), checks.signed(changed, signing(secrets)))
    return f"key message refused: site {SITE}: the certificate is for ['715']"


def resigned(**changes: Any) -> Callable[[Federation, str], None]:
    def forge(fed: Federation, study: str) -> None:
        forged = checks.signed(key_message(fed, study).model_copy(update=changes), signing(settings.site_secrets(SITE)))
        put(fed, layout.key_message(study, 1, SITE), forged)

    return forge


def of_another_round(fed: Federation, study: str) -> str:
    resigned(server_round=2)(fed, study)
    return f"the key message of site {SITE} is for round 2 of {study}, not round 1"


def of_another_study(fed: Federation, study: str) -> str:
    resigned(study="another")(fed, study)
    return f"the key message of site {SITE} is for round 1 of another"


def of_another_plan(fed: Federation, study: str) -> str:
    resigned(plan_sha256="0" * 64)(fed, study)
    return f"the key message of site {SITE} is for another plan of round 1"


def easily_combined(fed: Federation, study: str) -> str:
    resigned(threshold=2)(fed, study)
    return "2 of 4 shares make no secure sum"


def no_message(fed: Federation, study: str) -> str:
    put(fed, layout.key_message(study, 1, SITE), b"{}")
    return f"the key message of site {SITE} cannot be read"


KEY_MESSAGES: tuple[Forgery, ...] = (
    of_another_site,
    signed_by_another,
    certified_for_another,
    of_another_round,
    of_another_study,
    of_another_plan,
    easily_combined,
    no_message,
)


def test_forged_key_messages_keep_their_site_off_the_roster(fed: Federation, seen: Seen) -> None:
    study = trained(fed)
    before = of(fed, study)
    tried = 0
    for forge in KEY_MESSAGES:
        fed.restore(study, before)
        expected = forge(fed, study)
        roster = freeze_roster(fed.hub(study), 1)
        assert set(roster.members) == {"713", "715", "718"}
        assert roster.missing[SITE].startswith(f"rejected: {expected}")
        tried += 1
    assert tried == 8
    failed = fed.run_sites(study, 1, names=UPLOAD)
    assert list(failed) == [SITE]
    assert isinstance(failed[SITE], RoundRefused)
    wrote_nothing(fed, study, SITE, seen)
    select_updates(fed.hub(study), 1)
    assert fed.run_sites(study, 1, ("713", "715", "718"), names=UNMASK) == {}
    fed.aggregate(study, 1)
    assert np.array_equal(seen.opened[study], seen.total(study, ("713", "715", "718")))
    metrics = fed.close(study, 1)
    assert metrics.status == "partial"
    assert f"{SITE}: rejected:" in metrics.message


def test_too_few_key_messages_make_no_roster(fed: Federation, seen: Seen) -> None:
    study = fed.new_study(sites=FEW, **MASKED)
    fed.open(study)
    assert fed.run_sites(study, 1, ("713", "715"), names=PREPARE) == {}
    fed.set_deadline(study, 1, 0.5, "keys_deadline")
    with pytest.raises(QuorumMissed, match=r"2 sites can be masked, 3 are needed. Missing: 717: no answer .*718: no"):
        freeze_roster(fed.hub(study), 1)
    assert set(map(type, fed.run_sites(study, 1, ("713", "715"), names=UPLOAD).values())) == {RoundRefused}
    wrote_nothing(fed, study, "713", seen)
    assert fed.close(study, 1).status == "failed"


# forged answers


ANSWERS: dict[str, tuple[Callable[[UnmaskAnswer], UnmaskAnswer], str]] = {
    "share": (wrong_share, f"site {SITE} answered with a wrong share of the self seed of site 713"),
    "exchanged": (
        lambda a: a.model_copy(
            update={"self_seed_shares": a.self_seed_shares | {"713": a.self_seed_shares["715"]}},
        ),
        f"site {SITE} answered with a wrong share of the self seed of site 713",
    ),
    "survivors": (
        lambda a: a.model_copy(update={"survivors_sha256": "0" * 64}),
        f"the answer of site {SITE} is about other survivors",
    ),
    "both": (
        lambda a: a.model_copy(update={"mask_key_shares": dict(list(a.self_seed_shares.items())[:1])}),
        f"the answer of site {SITE} has not one share of every member",
    ),
    "site": (lambda a: a.model_copy(update={"site": "715"}), f"the answer of site {SITE} names site 715"),
}


def test_forged_answers_are_named_and_the_others_suffice(
    fed: Federation, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    study = unmasked(fed)
    before = of(fed, study)
    models = set()
    for forge, reason in ANSWERS.values():
        fed.restore(study, before)
        forge_answer(fed, study, SITE, forge)
        capsys.readouterr()
        fed.aggregate(study, 1)
        assert f"the answer of site {SITE} was not used: {reason}" in capsys.readouterr().out
        assert np.array_equal(seen.opened.pop(study), seen.total(study, FEW))
        models.add(model_of(fed, study))
    assert len(models) == 1
    fed.restore(study, before)
    answer = fed.store().get_record(layout.unmask_answer(study, 1, SITE), UnmaskAnswer)
    put(fed, layout.unmask_answer(study, 1, SITE), checks.signed(answer, signing(settings.site_secrets("715"))))
    fed.aggregate(study, 1)
    assert f"the signature of site {SITE} on its unmask answer is wrong" in capsys.readouterr().out
    fed.restore(study, before)
    put(fed, layout.unmask_answer(study, 1, SITE), b"no answer")
    fed.aggregate(study, 1)
    assert f"the answer of site {SITE} cannot be read" in capsys.readouterr().out
    fed.restore(study, before)
    for site in ("715", SITE):
        forge_answer(fed, study, site, wrong_share)
    fed.set_deadline(study, 1, 0.5)
    with pytest.raises(QuorumMissed, match=r"2 answers can be used and it takes 3 .*715: site 715 .*717: site 717"):
        fed.aggregate(study, 1)


def test_a_forged_sealing_key_keeps_its_shares_from_being_made(fed: Federation, seen: Seen) -> None:
    """A hub that puts a key of its own in a site's place would read all shares sealed to that site."""
    study = fed.new_study(sites=FEW, **MASKED)
    fed.open(study)
    honest = fed.store().get(layout.sealing_key("715"))
    record = SealingKey.model_validate_json(honest)
    forged = record.model_copy(update={"public_key": enrolled_stranger(fed, study).mask_public_key})
    fed.run_site(study, 1, SITE, ("validate_data",))
    try:
        put(fed, layout.sealing_key("715"), forged)
        with pytest.raises(PrivacyError, match="the signature of site 715 on its sealing key is wrong"):
            fed.run_site(study, 1, SITE, ("train",))
    finally:
        put(fed, layout.sealing_key("715"), honest)
    assert not fed.store().exists(layout.key_message(study, 1, SITE))
