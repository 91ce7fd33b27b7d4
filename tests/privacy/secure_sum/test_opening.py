"""What the hub can open, and what it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import pytest

from tasks.errors import PrivacyError, QuorumMissed
from tasks.privacy.secure_sum import protocol, shamir
from tasks.privacy.secure_sum.checks import share_numbers, signed
from tasks.privacy.secure_sum.masks import apply_masks
from tasks.privacy.secure_sum.opening import open_sum
from tasks.privacy.secure_sum.records import KeyMessage, Survivors, UnmaskAnswer, record_sha256
from tasks.privacy.secure_sum.shamir import SHARE_BYTES, threshold_for
from tests.privacy.secure_sum.secure_sum_federation import Federation, Round, sum_uploads

LIMIT = (2**63 - 1) // 5


def vectors(sites: Iterable[str], seed: int, size: int = 300) -> dict[str, npt.NDArray[np.int64]]:
    """Values over the whole range that five sites may send, the extremes in front."""
    rng, made = np.random.default_rng(seed), {}
    for site in sites:
        made[site] = rng.integers(-LIMIT, LIMIT, size, endpoint=True)
        made[site][:5] = [LIMIT, -LIMIT, 0, 1, -1]
    return made


def plain_sum(values: Mapping[str, npt.NDArray[np.int64]], sites: Iterable[str]) -> list[int]:
    """In Python's integers, which do not overflow."""
    return [sum(int(values[site][i]) for site in sites) for i in range(len(next(iter(values.values()))))]


@pytest.fixture(scope="module")
def running(federation: Federation) -> Round:
    return federation.start(3, 2)


def test_every_subset_of_dropouts_opens_to_the_last_bit(running: Round) -> None:
    names, opened = tuple(running.roster.members), 0
    values = vectors(names, seed=1)
    for lost in (set(sites) for size in (0, 1, 2) for sites in combinations(names, size)):
        survivors = running.survivors(set(names) - lost)
        result = running.open(values, survivors)
        assert result.values.tolist() == plain_sum(values, survivors.sites)
        assert result.rejected == {}
        opened += 1
    assert opened == 16


def test_any_threshold_of_answers_is_enough_and_fewer_are_not(running: Round) -> None:
    names = tuple(running.roster.members)
    values, survivors = vectors(names, seed=2), running.survivors(names[1:])
    answers = {site: running.answer(site, survivors) for site in survivors.sites}
    expected = plain_sum(values, survivors.sites)
    for chosen in combinations(survivors.sites, 3):
        assert running.open(values, survivors, {s: answers[s] for s in chosen}).values.tolist() == expected
    for chosen in combinations(survivors.sites, 2):
        with pytest.raises(QuorumMissed, match="2 answers can be used and it takes 3"):
            running.open(values, survivors, {s: answers[s] for s in chosen})


def test_site_that_never_sent_keys_still_holds_no_one_up(federation: Federation) -> None:
    """Four of five planned sites are live, and one of them drops out after the roster."""
    running = federation.start(3, 1, live=("701", "702", "704", "705"))
    values = vectors(running.roster.members, seed=3)
    survivors = running.survivors(("701", "702", "705"))
    assert running.roster.missing == {"703": "no key message"}
    assert running.open(values, survivors).values.tolist() == plain_sum(values, survivors.sites)


def with_wrong_share(answer: UnmaskAnswer, member: str, running: Round) -> UnmaskAnswer:
    """What a site sends that wants the sum to come out wrong."""
    kind = "self_seed_shares" if member in answer.self_seed_shares else "mask_key_shares"
    wrong = getattr(answer, kind) | {member: bytes(SHARE_BYTES)}
    return signed(answer.model_copy(update={kind: wrong}), running.federation.sites[answer.site].sign)


@pytest.mark.parametrize(("member", "kind"), [("702", "self seed"), ("705", "mask key")])
def test_wrong_shares_are_found_and_named(running: Round, member: str, kind: str) -> None:
    values = vectors(running.roster.members, seed=4)
    survivors = running.survivors(("701", "702", "703", "704"))
    answers = {site: running.answer(site, survivors) for site in survivors.sites}
    answers["703"] = with_wrong_share(answers["703"], member, running)
    result = running.open(values, survivors, answers)
    assert result.values.tolist() == plain_sum(values, survivors.sites)
    assert result.rejected == {"703": f"site 703 answered with a wrong share of the {kind} of site {member}"}
    answers["701"] = with_wrong_share(answers["701"], "704", running)
    with pytest.raises(
        QuorumMissed, match=r"2 answers can be used and it takes 3 .*; 701: site 701 .*; 703: site 703 "
    ):
        running.open(values, survivors, answers)


def test_two_of_five_wrong_answers_do_no_harm(running: Round) -> None:
    values, survivors = vectors(running.roster.members, seed=5), running.survivors(running.roster.members)
    genuine = {site: running.answer(site, survivors) for site in survivors.sites}
    for liars in combinations(genuine, 2):
        answers = genuine | {site: with_wrong_share(genuine[site], "701", running) for site in liars}
        result = running.open(values, survivors, answers)
        assert result.values.tolist() == plain_sum(values, survivors.sites)
        assert set(result.rejected) == set(liars)


def test_answers_that_cannot_be_used_are_named_with_the_reason(running: Round, federation: Federation) -> None:
    survivors = running.survivors(("701", "702", "703", "704"))
    values, others = vectors(running.roster.members, seed=6), running.survivors(running.roster.members)
    genuine = {site: running.answer(site, survivors) for site in survivors.sites}
    few = {member: share for member, share in genuine["704"].self_seed_shares.items() if member != "701"}
    for odd, reason in (
        (running.answer("704", others), "the answer of site 704 is about other survivors"),
        (
            genuine["704"].model_copy(update={"signature": ""}),
            "the signature of site 704 on its unmask answer is wrong",
        ),
        (
            signed(genuine["704"].model_copy(update={"self_seed_shares": few}), federation.sites["704"].sign),
            "the answer of site 704 has not one share of every member",
        ),
        (genuine["703"], "the answer of site 704 names site 703"),
    ):
        result = running.open(values, survivors, genuine | {"704": odd})
        assert result.rejected == {"704": reason}
        assert result.values.tolist() == plain_sum(values, survivors.sites)
    lost = running.open(values, survivors, genuine | {"705": running.answer("705", others)})
    assert lost.rejected == {"705": "site 705 is no survivor, so its answer does not count"}


def test_site_that_shares_out_another_secret_is_named(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shares are as announced, so the answers are right, and it alone is to blame."""
    genuine = protocol.split

    def dishonest(site: str, threshold: int) -> tuple[object, KeyMessage]:
        with monkeypatch.context() as patch:
            patch.setattr(protocol, "split", lambda secret, t, n: genuine(bytes(32), t, n))
            return federation.keys_for(site, threshold)

    made = {site: federation.keys_for(site, 3) for site in ("701", "702", "703", "704")}
    keys, message = dishonest("705", 3)
    made["705"] = (keys, message)
    monkeypatch.setattr(Federation, "keys_for", lambda self, name, threshold, server_round: made[name])
    running = federation.start(3, 2)
    values = vectors(running.roster.members, seed=7)
    for sites in (("701", "702", "703", "704"), ("701", "702", "703", "704", "705")):
        with pytest.raises(PrivacyError, match="site 705 shared out another secret than it committed to"):
            running.open(values, running.survivors(sites))


def test_messages_or_survivors_of_another_roster_open_nothing(running: Round, federation: Federation) -> None:
    other = federation.start(3, 2)
    survivors = running.survivors(running.roster.members)
    answers = {site: running.answer(site, survivors) for site in survivors.sites}
    total = np.zeros(8, dtype=np.uint64)
    with pytest.raises(PrivacyError, match="not the one that the roster names"):
        open_sum(total, running.roster, survivors, other.messages, answers)
    with pytest.raises(PrivacyError, match="the survivors are of another roster"):
        open_sum(total, running.roster, other.survivors(other.roster.members), running.messages, answers)


class LyingHub:
    """It tells each site that `victim` survived, or that it dropped out, and collects the shares of both secrets."""

    def __init__(self, running: Round, victim: str) -> None:
        self.running, self.victim = running, victim
        names = tuple(running.roster.members)
        self.survived = running.survivors(names)
        self.lost = running.survivors(site for site in names if site != victim)
        self.told: dict[tuple[str, str], UnmaskAnswer] = {}

    def _ask(self, site: str, survivors: Survivors) -> UnmaskAnswer:
        key = (site, "lost" if survivors is self.lost else "survived")
        if key not in self.told:
            self.told[key] = self.running.answer(site, survivors)
        return self.told[key]

    def unmasks_the_victim(self, believers: set[str], colluding: set[str]) -> bool:
        """Whether it gets the victim's self seed and mask key, if only `believers` are told that it survived.

        Colluding sites answer both stories.
        """
        seeds, keys, numbers = {}, {}, share_numbers(self.running.messages[self.victim])
        for site in self.running.roster.members:
            if site in believers | colluding:
                seeds[numbers[site]] = self._ask(site, self.survived).self_seed_shares[self.victim]
            if (site not in believers or site in colluding) and site != self.victim:
                keys[numbers[site]] = self._ask(site, self.lost).mask_key_shares[self.victim]
        own = self.running.keys[self.victim]
        return _combined(seeds) == own.self_seed and _combined(keys) == own.mask_private_key


def _combined(shares: dict[int, bytes]) -> bytes | None:
    try:
        return shamir.combine(shares)
    except PrivacyError:
        return None


def stories(running: Round) -> list[set[str]]:
    """Every way to split the sites into those that are told the one thing and those that are told the other."""
    names = tuple(running.roster.members)
    return [{s for s, told in zip(names, choice, strict=True) if told} for choice in product((0, 1), repeat=len(names))]


@pytest.mark.parametrize("colluding", [(), ("704",), ("704", "705")])
def test_hub_that_tells_two_stories_cannot_unmask_anyone(federation: Federation, colluding: tuple[str, ...]) -> None:
    threshold = threshold_for(5, len(colluding))
    running = federation.start(threshold, 5 - threshold)
    tried = 0
    for victim in ("701", "702", "703"):
        hub = LyingHub(running, victim)
        for believers in stories(running):
            assert not hub.unmasks_the_victim(believers, set(colluding))
            tried += 1
    assert tried == 3 * 32


def test_the_same_hub_wins_with_one_colluding_site_too_many(federation: Federation) -> None:
    """So the test above can fail: threshold 3 is safe without colluding sites, not with one; nor if a site would
    answer twice, which is the same thing."""
    running = federation.start(3, 2)
    hub = LyingHub(running, "701")
    assert not any(hub.unmasks_the_victim(believers, set()) for believers in stories(running))
    assert any(hub.unmasks_the_victim(believers, {"705"}) for believers in stories(running))


def test_lying_hub_s_shares_do_unmask_when_it_has_both_kinds(federation: Federation) -> None:
    """Both secrets of one site give its vector: what the protocol is there to prevent."""
    running = federation.start(3, 2)
    values = vectors(running.roster.members, seed=8)
    upload = running.upload("701", values["701"])
    assert upload.view(np.int64).tolist() != values["701"].tolist()
    own, digest = running.keys["701"], record_sha256(running.roster)
    later = ("702", "703", "704", "705")
    pairs = [protocol.pair_seed(own.mask_private_key, "701", running.messages[site], digest) for site in later]
    self_mask = protocol.self_seed_key(own.self_seed, running.messages["701"], digest)
    assert apply_masks(upload, [], [self_mask, *pairs]).view(np.int64).tolist() == values["701"].tolist()
    # Either kind alone leaves the other's mask on.
    assert (apply_masks(upload, [], pairs).view(np.int64) != values["701"]).all()
    assert (apply_masks(upload, [], [self_mask]).view(np.int64) != values["701"]).all()


def test_sum_of_uploads_without_answers_is_masked(running: Round) -> None:
    values = vectors(running.roster.members, seed=9)
    total = sum_uploads(running.upload(site, values[site]) for site in values)
    assert (total.view(np.int64) != np.array(plain_sum(values, values))).all()
