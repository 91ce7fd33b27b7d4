"""Offline verification: a whole ledger passes, and each way to change one is found and names the entry."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.privacy.accounting import compose, gdp_epsilon, pure_epsilon_total
from tasks.privacy.ledger.chain import FIRST, Link
from tasks.privacy.ledger.verification import MAX_RELEASES, TOLERANCE, ChainReport, total_epsilon, verify_chain
from tasks.store.records.ledger import Spend
from tests.privacy.ledger.ledger_samples import (
    OTHER,
    RECORDED,
    SITE,
    certificate,
    entry,
    gaussian_spend,
    make_chain,
    make_identities,
)


@dataclass(frozen=True)
class Sample:
    """Five entries of site 701, as they were and as the hub pinned two of them."""

    identities: Path
    links: tuple[Link, ...]

    @property
    def bodies(self) -> list[bytes]:
        return [link.body for link in self.links]

    @property
    def anchors(self) -> dict[int, str]:
        return {sequence: self.links[sequence - 1].sha256 for sequence in (2, 4)}

    def reseal(self, start: int, *, signer: str = SITE, **changes: Any) -> list[bytes]:
        """The chain made anew from entry `start` on, with valid links and signatures, `changes` in that entry."""
        links = list(self.links[: start - 1])
        for old in self.links[start - 1 :]:
            previous = links[-1].sha256 if links else FIRST
            update = {"previous": previous} | (changes if old.entry.sequence == start else {})
            links.append(Link.seal(old.entry.model_copy(update=update), self.identities / signer))
        return [link.body for link in links]

    def verify(self, bodies: list[bytes], anchors: dict[int, str] | None = None) -> ChainReport:
        return verify_chain(bodies, certificate(self.identities), self.anchors if anchors is None else anchors)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    identities = make_identities(tmp_path_factory.mktemp("identities"))
    return Sample(identities, tuple(make_chain(identities, 5)))


def test_a_whole_ledger(sample: Sample) -> None:
    report = sample.verify(sample.bodies)
    head = sample.links[-1]
    assert report == ChainReport(
        study="study",
        site=SITE,
        entries=5,
        releases=5,
        first_at=RECORDED,
        last_at=RECORDED.replace(day=5),
        head_sha256=head.sha256,
        spend=head.entry.spend,
        epsilon=report.epsilon,
        signature="valid",
        anchors=2,
        problems=(),
    )
    assert report.ok
    assert report.epsilon == pytest.approx(head.entry.spend.epsilon, rel=1e-8)


def test_no_entries_are_a_whole_ledger_unless_the_hub_pinned_one(sample: Sample) -> None:
    report = sample.verify([], {})
    assert (report.entries, report.releases, report.epsilon, report.problems) == (0, 0, None, ())
    report = sample.verify([])
    assert (report.entries, report.releases) == (0, 4)
    assert report.problems == tuple(
        f"entry {number} is missing, but the hub accepted an update that it paid for" for number in (2, 4)
    )


def test_without_a_certificate_the_report_says_that_no_signature_was_checked(sample: Sample) -> None:
    report = verify_chain(sample.bodies, None, {})
    assert (report.signature, report.ok) == ("not checked", True)


MIDDLE = "is not the one that the hub pinned when it accepted the update"
PAID = "is missing, but the hub accepted an update that it paid for"
BREAK = "was made after another entry {} than the one here, which is {}signed by the site"


def _without(*sequences: int) -> Callable[[Sample], list[bytes]]:
    return lambda sample: [link.body for link in sample.links if link.entry.sequence not in sequences]


def _edited(sequence: int, old: bytes, new: bytes) -> Callable[[Sample], list[bytes]]:
    def change(sample: Sample) -> list[bytes]:
        bodies = sample.bodies
        assert bodies[sequence - 1].count(old) == 1
        bodies[sequence - 1] = bodies[sequence - 1].replace(old, new)
        return bodies

    return change


def _replaced(sequence: int, **changes: Any) -> Callable[[Sample], list[bytes]]:
    """One entry is signed anew, and those after it are left."""
    return lambda sample: [*sample.reseal(sequence, **changes)[:sequence], *sample.bodies[sequence:]]


def _swapped(sample: Sample) -> list[bytes]:
    one, two, three, four, five = sample.bodies
    return [one, two, four, three, five]


TAMPERED: dict[str, tuple[Callable[[Sample], list[bytes]], set[str]]] = {
    "the newest was removed": (_without(5), set()),  # no anchor pins it, so nobody but the store's listing knows
    "the newest two were removed": (_without(4, 5), {f"entry 4 {PAID}"}),
    "the first was removed": (_without(1), {"entry 1 is missing"}),
    "one in the middle was removed": (_without(3), {"entry 3 is missing"}),
    "two in the middle were removed": (
        _without(3, 4),
        {"entry 3 is missing, and so are all up to 4", f"entry 4 {PAID}"},
    ),
    "two were swapped": (
        _swapped,
        {"entry 3 is missing", "entry 3 stands where entry 5 should"},
    ),
    "one stands twice": (
        lambda s: [*s.bodies[:3], s.bodies[2], *s.bodies[3:]],
        {"entry 3 stands where entry 4 should"},
    ),
    "bytes changed": (
        _edited(3, b"2026-03-03", b"2026-03-04"),
        {"entry 4 " + BREAK.format(3, "not ")},
    ),
    "bytes changed that mean the same": (
        _edited(3, b'"sequence": 3', b'"sequence":  3'),
        {"entry 4 " + BREAK.format(3, "not ")},
    ),
    "bytes of the newest changed": (
        _edited(5, b"2026-03-05", b"2026-03-06"),
        {"entry 5 is not signed with the site's key"},
    ),
    "the newest signature was cut": (
        lambda s: [*s.bodies[:4], re.sub(rb'"signature": ".*"', b'"signature": ""', s.bodies[4])],
        {"entry 5 is not signed with the site's key"},
    ),
    "the newest signature is too long": (
        lambda s: [*s.bodies[:4], s.bodies[4].replace(b'"signature": "', b'"signature": "A')],
        {"entry 5 cannot be read"},
    ),
    "bytes after the newest signature": (
        lambda s: [*s.bodies[:4], s.bodies[4] + b" "],
        {"entry 5 is not signed with the site's key"},
    ),
    "unreadable": (
        _edited(3, b'"sequence": 3', b'"sequence": x'),
        {"entry 3 cannot be read", "entry 4 does not name what stands before it"},
    ),
    "the site signed one anew": (
        _replaced(3, release_sha256="e" * 64),
        {"entry 4 " + BREAK.format(3, "")},
    ),
    "the site made all anew": (
        lambda s: s.reseal(1, release_sha256="e" * 64),
        {f"entry 2 {MIDDLE}", f"entry 4 {MIDDLE}"},
    ),
    "the site made the end anew": (lambda s: s.reseal(3, release_sha256="e" * 64), {f"entry 4 {MIDDLE}"}),
    "another site signed it all": (
        lambda s: s.reseal(1, signer=OTHER),
        {"entry 5 is not signed with the site's key", f"entry 2 {MIDDLE}", f"entry 4 {MIDDLE}"},
    ),
    "an entry of another site": (
        lambda s: s.reseal(5, site=OTHER),
        {"entry 5 is of site 702 in study, not of site 701 in study"},
    ),
    "an entry of another study": (
        lambda s: s.reseal(5, study="theirs"),
        {"entry 5 is of site 701 in theirs, not of site 701 in study"},
    ),
    "a round paid for twice": (
        lambda s: s.reseal(5, server_round=3),
        {"entry 5 is for round 3, which entry 3 has paid for"},
    ),
    "a release not counted": (
        lambda s: s.reseal(5, spend=gaussian_spend(4)),
        {"entry 5 counts 4 releases"},
    ),
    "a total too small": (
        lambda s: s.reseal(5, spend=gaussian_spend(5).model_copy(update={"epsilon": 1.0})),
        {"entry 5 says epsilon 1.0, which is not what its settings come to"},
    ),
    "no total": (
        lambda s: s.reseal(5, spend=gaussian_spend(5).model_copy(update={"epsilon": None})),
        {
            "entry 5 says epsilon None, which is not what its settings come to",
            "entry 5 says epsilon None, above the budget of 3.0",
        },
    ),
    "other settings from one entry on": (
        lambda s: s.reseal(5, spend=gaussian_spend(5, epsilon=8.0)),
        {"entry 5 has other privacy settings than the entry before it"},
    ),
    "privacy turned off": (
        lambda s: s.reseal(5, spend=Spend(mechanism="none", unit="nothing", neighbours="none", releases=5)),
        {"entry 5 has other privacy settings than the entry before it"},
    ),
}


@pytest.mark.parametrize(("tamper", "problems"), TAMPERED.values(), ids=TAMPERED)
def test_what_was_changed_is_found_and_named(
    sample: Sample, tamper: Callable[[Sample], list[bytes]], problems: set[str]
) -> None:
    bodies = tamper(sample)
    assert bodies != sample.bodies
    assert set(sample.verify(bodies).problems) == problems


@pytest.mark.parametrize(
    "name", ["the site made all anew", "the site made the end anew", "the newest two were removed"]
)
def test_only_anchors_find_what_the_site_itself_rewrote(sample: Sample, name: str) -> None:
    bodies = TAMPERED[name][0](sample)
    assert sample.verify(bodies, {}).ok
    assert not sample.verify(bodies).ok


def test_a_ledger_that_was_cut_short_is_not_cheaper(sample: Sample) -> None:
    report = sample.verify(sample.bodies[:2])
    assert (report.entries, report.releases) == (2, 4)
    assert report.epsilon == pytest.approx(gaussian_spend(4).epsilon, rel=1e-8)


def test_a_whole_ledger_of_another_site_or_study_is_a_replay(sample: Sample) -> None:
    theirs = [link.body for link in make_chain(sample.identities, 2, site=OTHER)]
    assert verify_chain(theirs, certificate(sample.identities, OTHER), {}).ok
    replayed = sample.verify(theirs, {}).problems
    assert "entry 1 is of site 702 in study, not of site 701 in study" in replayed
    assert "entry 2 is not signed with the site's key" in replayed
    report = verify_chain(sample.bodies, certificate(sample.identities), {}, study="theirs", site=SITE)
    assert len(report.problems) == 5
    assert report.problems[0] == "entry 1 is of site 701 in study, not of site 701 in theirs"


def test_a_total_above_the_budget(sample: Sample) -> None:
    """Right by its settings: 21 releases where the budget pays for 20."""
    links = make_chain(sample.identities, 21)
    report = sample.verify([link.body for link in links], {})
    assert len(report.problems) == 1
    assert report.problems[0].startswith("entry 21 says epsilon 3.0")
    assert report.problems[0].endswith("above the budget of 3.0")


def test_pure_releases_are_recomputed_too(sample: Sample) -> None:
    def spend(releases: int, epsilon: float) -> Spend:
        return Spend(
            mechanism="svt",
            unit="site",
            neighbours="sites",
            pure_epsilon=0.3,
            releases=releases,
            epsilon=epsilon,
            delta=1e-5,
            epsilon_budget=9.0,
        )

    def chain(factor: float) -> list[bytes]:
        links: list[Link] = []
        for number in (1, 2, 3):
            right = pure_epsilon_total(0.3, number, 1e-5)
            made = entry(number, links[-1].sha256 if links else FIRST, spend=spend(number, right * factor))
            links.append(Link.seal(made, sample.identities / SITE))
        return [link.body for link in links]

    report = sample.verify(chain(1), {})
    assert report.ok
    assert report.epsilon == pure_epsilon_total(0.3, 3, 1e-5)
    for factor in (0.999, 1.001):
        assert len(sample.verify(chain(factor), {}).problems) == 3


def test_what_promises_nothing_has_no_epsilon(sample: Sample) -> None:
    open_ = Spend(mechanism="none", unit="nothing", neighbours="none", releases=1)
    report = sample.verify([Link.seal(entry(1, FIRST, spend=open_), sample.identities / SITE).body], {})
    assert (report.ok, report.epsilon) == (True, None)
    claims = open_.model_copy(update={"epsilon": 0.5})
    report = sample.verify([Link.seal(entry(1, FIRST, spend=claims), sample.identities / SITE).body], {})
    assert report.problems == ("entry 1 has an epsilon, but its mechanism promises nothing",)


@pytest.mark.parametrize("releases", [1, 2, 7, 20, 365, 10_000])
@pytest.mark.parametrize("multiplier", [2.0, 6.2, 300.0])
def test_a_recorded_epsilon_is_right_to_the_tolerance_and_no_further(
    sample: Sample, releases: int, multiplier: float
) -> None:
    """Checked by two values of delta rather than by searching again, so it must agree with the search."""
    right = gdp_epsilon(compose(multiplier, releases), 1e-5)
    spend = gaussian_spend(1).model_copy(
        update={"mu": 1 / multiplier, "releases": releases, "epsilon": right, "epsilon_budget": 1e6}
    )
    assert total_epsilon(spend, releases) == pytest.approx(right, rel=1e-8)
    for factor, wrong in ((1, 0), (1 - 10 * TOLERANCE, 1), (1 + 10 * TOLERANCE, 1)):
        made = entry(1, FIRST, spend=spend.model_copy(update={"epsilon": right * factor}))
        problems = sample.verify([Link.seal(made, sample.identities / SITE).body], {}).problems
        assert sum("which is not what its settings come to" in problem for problem in problems) == wrong


HOSTILE: list[dict[str, Any]] = [
    {"mu": 0.0},
    {"mu": 1e-300},
    {"mu": 1e12},
    {"delta": 0.0},
    {"delta": 2.0},
    {"delta": None},
    {"epsilon": 1e12},
    {"epsilon": 5e-324},
    {"mu": None},
    {"mu": None, "pure_epsilon": 1e12},
    {"releases": MAX_RELEASES + 1},
]
#: No such number, time or text stands in an entry.
UNREADABLE: list[dict[str, Any]] = [
    {"spend": {"mu": -1.0}},
    {"spend": {"mu": 1e300}},
    {"spend": {"epsilon": 1e308}},
    {"spend": {"epsilon": -1.0}},
    {"spend": {"pure_epsilon": 1e300}},
    {"spend": {"releases": 10**400}},
    {"spend": {"neighbours": "\x1b[2J"}},
    {"spend": {"trust": "x" * 1001}},
    {"sequence": 1 << 60},
    {"recorded_at": "2026-03-01T02:05:00"},
    {"recorded_at": "9999-12-31T23:59:59-23:59"},
    {"recorded_at": "0001-01-01T00:00:00+23:59"},
    {"site": "701\u202e"},
    {"signature": "B" * 86 + "=="},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
def test_no_figure_of_a_site_breaks_the_verification(sample: Sample, changes: dict[str, Any]) -> None:
    made = entry(1, FIRST, spend=gaussian_spend(1).model_copy(update=changes))
    report = sample.verify([Link.seal(made, sample.identities / SITE).body], {})
    assert any("which is not what its settings come to" in problem for problem in report.problems)


@pytest.mark.parametrize("changes", UNREADABLE, ids=str)
def test_what_no_entry_says_is_not_read(sample: Sample, changes: dict[str, Any]) -> None:
    """Not one of them reaches the arithmetic: a time without a zone cannot be compared, one of 9999 has no UTC."""
    content = json.loads(sample.bodies[0])
    same, changed = content, content | changes | {"spend": content["spend"] | changes.get("spend", {})}
    for made, is_read in ((same, True), (changed, False)):
        report = sample.verify([json.dumps(made, indent=2).encode() + b"\n", *sample.bodies[1:]])
        assert ("entry 1 cannot be read" in report.problems) is not is_read


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"{" * 5000, b"null", b'{"study": "study"}'])
def test_no_bytes_of_a_site_break_the_verification(sample: Sample, body: bytes) -> None:
    report = sample.verify([*sample.bodies[:2], body, *sample.bodies[3:]])
    assert report.problems == (
        "entry 3 cannot be read",
        "entry 4 does not name what stands before it",
    )
    assert sample.verify([*sample.bodies[:4], body]).signature == "not checked"
