"""What a site does and refuses to do."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import PrivacyError
from tasks.privacy.secure_sum import protocol, sealing
from tasks.privacy.secure_sum.checks import signed
from tasks.privacy.secure_sum.masks import apply_masks
from tasks.privacy.secure_sum.opening import make_roster
from tasks.privacy.secure_sum.protocol import join_roster, make_round_keys, mask
from tasks.privacy.secure_sum.records import KeyMessage, Roster, RoundKeys, Survivors, record_sha256
from tests.privacy.secure_sum.secure_sum_federation import PLAN, STUDY, Federation, Round

ZEROS = np.zeros(64, dtype=np.int64)


@pytest.fixture(scope="module")
def running(federation: Federation) -> Round:
    return federation.start(3, 2)


def join(running: Round, keys: RoundKeys, roster: Roster, messages: dict[str, KeyMessage]) -> RoundKeys:
    private = running.federation.sites[keys.site].sealing_private
    return join_roster(keys, roster, messages, private, tolerated_dropouts=2)


def roster_of(messages: dict[str, KeyMessage]) -> Roster:
    return make_roster(messages, run_id="run-1", missing={}, tolerated_dropouts=2)


def unbound(keys: RoundKeys) -> RoundKeys:
    return keys.model_copy(update={"roster_sha256": None})


def test_upload_is_the_vector_with_the_masks_of_the_protocol(running: Round) -> None:
    """y = x + PRG(self) + sum of PRG(s_uv) over v > u - sum over v < u, from the primitives alone."""
    values, digest, own = np.arange(64) - 32, record_sha256(running.roster), running.keys["703"]

    def seed(peer: str) -> bytes:
        public, pair = running.messages[peer].mask_public_key, sorted(("703", peer))
        return sealing.agreed_key(own.mask_private_key, public, STUDY, "1", *pair, digest)

    self_mask = sealing.derive(own.self_seed, "pharmafed self mask", STUDY, "1", "703", digest)
    expected = apply_masks(values, [self_mask, seed("704"), seed("705")], [seed("701"), seed("702")])
    np.testing.assert_array_equal(running.upload("703", values), expected)


def test_round_keys_are_fresh(federation: Federation) -> None:
    made = [federation.keys_for("701", 3)[0] for _ in range(20)]
    assert len({keys.self_seed for keys in made} | {keys.mask_private_key for keys in made}) == 40


@pytest.mark.parametrize("threshold", [2, 6])
def test_unsafe_thresholds_are_refused(federation: Federation, threshold: int) -> None:
    with pytest.raises(PrivacyError, match=f"{threshold} of 5 shares make no secure sum"):
        federation.keys_for("701", threshold)


def test_two_sites_make_no_round(federation: Federation) -> None:
    site, keys = federation.sites["701"], federation.sealing_keys()
    two = {s: keys[s] for s in ("701", "702")}
    with pytest.raises(PrivacyError, match="2 of 2 shares make no secure sum: it takes 3 sites"):
        make_round_keys(STUDY, 1, "701", two, 2, site.certificate_pem, site.sign, plan_sha256=PLAN)
    with pytest.raises(PrivacyError, match="site 799 has published no sealing key"):
        make_round_keys(STUDY, 1, "799", keys, 3, site.certificate_pem, site.sign, plan_sha256=PLAN)


def test_one_roster_only(running: Round) -> None:
    """Two sums that differ in one site would give that site's vector away."""
    smaller = {site: running.messages[site] for site in ("701", "702", "703", "704")}
    assert join(running, running.keys["701"], running.roster, running.messages) == running.keys["701"]
    with pytest.raises(PrivacyError, match="site 701 has joined another roster of round 1 already"):
        join(running, running.keys["701"], roster_of(smaller), smaller)
    with pytest.raises(PrivacyError, match="site 701 has not joined this roster"):
        mask(ZEROS, running.keys["701"], roster_of(smaller), smaller)
    with pytest.raises(PrivacyError, match="join_roster comes before mask"):
        mask(ZEROS, unbound(running.keys["701"]), running.roster, running.messages)


def test_roster_without_the_site_or_with_its_older_message_is_refused(running: Round, federation: Federation) -> None:
    others = {site: message for site, message in running.messages.items() if site != "701"}
    with pytest.raises(PrivacyError, match="site 701 is not in the roster"):
        join(running, unbound(running.keys["701"]), roster_of(others), others)
    newer, _ = federation.keys_for("701", 3)
    with pytest.raises(PrivacyError, match="a key message of site 701 that these round keys did not make"):
        join(running, newer, running.roster, running.messages)


def test_roster_with_another_tolerance_is_refused(running: Round) -> None:
    tolerant = make_roster(running.messages, run_id="run-1", missing={}, tolerated_dropouts=3)
    with pytest.raises(PrivacyError, match="the roster tolerates 3 drop-outs, the study 2"):
        join(running, unbound(running.keys["701"]), tolerant, running.messages)


def test_messages_that_are_not_the_roster_s_are_refused_everywhere(running: Round, federation: Federation) -> None:
    swapped = running.messages | {"702": federation.keys_for("702", 3)[1]}
    without = {site: message for site, message in running.messages.items() if site != "702"}
    survivors = running.survivors(running.roster.members)
    own, keys = federation.sites["701"], running.keys["701"]
    for messages, reason in (
        (swapped, "key message of site 702 is not the one that the roster names"),
        (without, "do not make the roster"),
    ):
        with pytest.raises(PrivacyError, match=reason):
            join(running, keys, running.roster, messages)
        with pytest.raises(PrivacyError, match=reason):
            mask(ZEROS, keys, running.roster, messages)
        with pytest.raises(PrivacyError, match=reason):
            protocol.answer(running.roster, survivors, messages, keys, own.sealing_private, own.sign, earlier=None)


def test_values_that_could_overflow_the_sum_are_refused(running: Round) -> None:
    limit = (2**63 - 1) // 5
    running.upload("701", np.array([limit, -limit]))
    for value in (limit + 1, -limit - 1):
        with pytest.raises(PrivacyError, match="the sum of 5 sites may overflow"):
            running.upload("701", np.array([0, value]))


def test_weak_mask_key_is_refused(running: Round, federation: Federation) -> None:
    weak = running.messages["702"].model_copy(update={"mask_public_key": bytes(32)})
    messages = running.messages | {"702": signed(weak, federation.sites["702"].sign)}
    roster = roster_of(messages)
    keys = join(running, unbound(running.keys["701"]), roster, messages)
    with pytest.raises(PrivacyError, match="a mask key is weak"):
        mask(ZEROS, keys, roster, messages)


def test_shares_that_do_not_open_are_noticed_before_masking_and_before_answering(
    running: Round, federation: Federation
) -> None:
    """Site 702 seals what is meant for 701 to another key; or seals other shares than it announced."""
    site, genuine = federation.sites["702"], running.messages["702"]
    crossed = genuine.shares | {"701": genuine.shares["703"]}
    pair = genuine.shares["701"].model_copy(update={"self_seed_share_sha256": "0" * 64})
    for shares, reason in (
        (crossed, "the shares from site 702 to site 701: a sealed message does not open"),
        (genuine.shares | {"701": pair}, "the shares from site 702 to site 701 are not the ones it announced"),
    ):
        odd = signed(genuine.model_copy(update={"shares": shares}), site.sign)
        messages = running.messages | {"702": odd}
        roster = roster_of(messages)
        with pytest.raises(PrivacyError, match=reason):
            join(running, unbound(running.keys["701"]), roster, messages)
        keys = running.keys | {"701": running.keys["701"].model_copy(update={"roster_sha256": record_sha256(roster)})}
        later = Round(federation, roster, messages, keys)
        with pytest.raises(PrivacyError, match=reason):
            later.answer("701", later.survivors(roster.members))


def survivors_of(running: Round, sites: tuple[str, ...], **changed: object) -> Survivors:
    """As a lying hub writes them: unchecked."""
    genuine = running.survivors(running.roster.members)
    return genuine.model_copy(update={"sites": sites} | changed)


@pytest.mark.parametrize(
    ("sites", "changed", "reason"),
    [
        (("702", "703", "704"), {}, "site 701 is not among the survivors"),
        (("701", "702", "799"), {}, r"no subset of the roster: \['799'\]"),
        (("701", "702", "702"), {}, "no subset of the roster: a site stands twice"),
        (("701", "702"), {}, "only 2 sites survived; a sum is opened for 3 or more"),
        (("701",), {}, "only 1 sites survived"),
        ((), {}, "only 0 sites survived"),
        (("701", "702", "703"), {"roster_sha256": "0" * 64}, "the survivors are of another roster"),
        (("701", "702", "703"), {"server_round": 2}, "the survivors are of another round"),
        (("701", "702", "703"), {"study": "onco"}, "the survivors are of another round"),
    ],
)
def test_answers_that_would_tell_too_much_are_refused(
    running: Round, sites: tuple[str, ...], changed: dict[str, object], reason: str
) -> None:
    with pytest.raises(PrivacyError, match=reason):
        running.answer("701", survivors_of(running, sites, **changed))


@pytest.mark.parametrize(("threshold", "tolerated", "fewest"), [(3, 0, 5), (3, 1, 4), (3, 2, 3), (3, 5, 3), (4, 2, 4)])
def test_fewest_survivors_follow_threshold_and_tolerance(
    federation: Federation, threshold: int, tolerated: int, fewest: int
) -> None:
    running = federation.start(threshold, tolerated)
    names = tuple(running.roster.members)
    running.answer("701", survivors_of(running, names[:fewest]))
    with pytest.raises(PrivacyError, match=f"a sum is opened for {fewest} or more"):
        running.answer("701", survivors_of(running, names[: fewest - 1]))


def test_three_sites_are_opened_together_or_not_at_all(tmp_path: Path) -> None:
    """Two shares would be enough, but of a sum of two vectors each of the two sites knows the other's."""
    running = Federation(tmp_path, ("701", "702", "703")).start(2, 2)
    running.answer("701", survivors_of(running, ("701", "702", "703")))
    with pytest.raises(PrivacyError, match="only 2 sites survived"):
        running.answer("701", survivors_of(running, ("701", "702")))


def test_answer_has_one_share_of_every_member_never_two(running: Round) -> None:
    names, checked = tuple(running.roster.members), 0
    for lost in (set(sites) for size in (0, 1, 2) for sites in combinations(names[1:], size)):
        given = running.answer("701", running.survivors(set(names) - lost))
        assert set(given.mask_key_shares) == lost
        assert set(given.self_seed_shares) == set(names) - lost
        checked += 1
    assert checked == 11


def test_one_story_only(running: Round) -> None:
    everyone, fewer = running.survivors(running.roster.members), running.survivors(("701", "702", "703"))
    first = running.answer("701", everyone)
    assert running.answer("701", everyone, earlier=first) == first
    with pytest.raises(PrivacyError, match="site 701 has answered about other survivors of round 1: two stories"):
        running.answer("701", fewer, earlier=first)


def test_no_answer_for_a_roster_that_was_not_joined(running: Round, federation: Federation) -> None:
    """The hub shows another roster, with a higher tolerance, once the masks are on."""
    other = make_roster(running.messages, run_id="run-2", missing={}, tolerated_dropouts=2)
    later = Round(federation, other, running.messages, running.keys)
    with pytest.raises(PrivacyError, match="site 701 has not joined this roster: it answers for no other"):
        later.answer("701", later.survivors(other.members))
