"""What `pharmafed privacy spend` says of rows that are made up; reading them from a store is in `test_cli`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.privacy.ledger.spend_table import StudySpend, read_spend
from tasks.store.objects import ObjectStore
from tasks.store.records.ledger import Spend
from tasks.study.sections import Study
from tests.privacy.ledger.ledger_samples import (
    MemoryClient,
    clear,
    enrol,
    gaussian_spend,
    make_chain,
    make_identities,
    put_chain,
    select,
    study_content,
)

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


def study(**changes: Any) -> Study:
    content = study_content("study")
    for section, change in changes.items():
        content[section] = {**content[section], **change} if section == "rounds" else change
    return Study.model_validate(content)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory):
    return make_identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def hub(identities) -> ObjectStore:
    store = MemoryClient().store()
    enrol(store, identities)
    return store


def publish(hub: ObjectStore, identities, **lengths: int) -> None:
    """Ledgers of these lengths: s701=3 gives site 701 three entries."""
    clear(hub, "study")
    for name, length in lengths.items():
        site = name.removeprefix("s")
        put_chain(hub, "study", site, make_chain(identities, length, site=site))


def spend_of(hub: ObjectStore, **changes: Any) -> StudySpend:
    return read_spend(hub, study(**changes), NOW)


@pytest.mark.parametrize(
    ("first", "second", "min_sites", "outlook"),
    [
        (3, 5, 2, "15 more rounds; nightly, the last on 2026-03-25."),
        (3, 5, 1, "17 more rounds; nightly, the last on 2026-03-27."),
        (19, 19, 2, "1 more round; nightly, the last on 2026-03-11."),
        (20, 3, 2, "The budget is spent since 2026-03-20: no more rounds of this study."),
        (20, 3, 1, "17 more rounds; nightly, the last on 2026-03-27."),
        (0, 0, 2, "20 more rounds; nightly, the last on 2026-03-30."),
    ],
)
def test_the_outlook_counts_rounds_that_find_a_quorum(
    hub: ObjectStore, identities, first: int, second: int, min_sites: int, outlook: str
) -> None:
    publish(hub, identities, s701=first, s702=second)
    found = spend_of(hub, rounds={"min_sites": min_sites})
    assert found.outlook == outlook
    assert [(row.releases, row.rounds_left) for row in found.sites] == [(first, 20 - first), (second, 20 - second)]
    assert found.broken == ()


def test_rows_are_of_the_ledger_and_of_the_study_before_there_is_one(hub: ObjectStore, identities) -> None:
    publish(hub, identities, s701=2)
    with_entries, without = spend_of(hub).sites
    assert (with_entries.unit, with_entries.epsilon_budget, with_entries.delta) == ("patient", 3, 1e-5)
    assert with_entries.epsilon == pytest.approx(gaussian_spend(2).epsilon, rel=1e-8)
    assert (without.unit, without.epsilon, without.epsilon_budget, without.delta) == (None, 0, 3, 1e-5)
    assert (without.releases, without.last_recorded, without.problems) == (0, None, ())


def test_the_promise_is_the_newest_entrys(hub: ObjectStore, identities) -> None:
    assert spend_of(hub).promise == "Nothing has been released yet."
    publish(hub, identities, s701=2)
    assert spend_of(hub).promise == (
        "Each epsilon is the total of a site's releases so far, at its delta, and protects one patient: neighbours "
        "are training sets that differ in one patient."
    )
    trusting = make_chain(identities, 1)[0].entry.spend.model_copy(update={"trust": "few sites tell the hub"})
    put_chain(hub, "study", "701", make_chain(identities, 1, spend=trusting))
    hub.client.delete_object(Key="studies/study/ledger/701/000002.json")
    assert spend_of(hub).promise.endswith("in one patient; it rests on this: few sites tell the hub.")


def test_a_study_without_privacy_says_so(hub: ObjectStore, identities) -> None:
    raw = Spend(mechanism="none", unit="nothing", neighbours="none: raw updates are shared", releases=1)
    put_chain(hub, "study", "701", make_chain(identities, 1, spend=raw))
    found = spend_of(hub, privacy={"mechanism": "none", "i_accept_no_privacy": True})
    assert found.promise == "Nothing is promised: none protects nobody (none: raw updates are shared)."
    assert found.outlook == "No budget limits the rounds."
    assert [(row.unit, row.epsilon, row.epsilon_budget) for row in found.sites] == [
        ("nothing", None, None),
        (None, None, None),
    ]
    assert found.broken == ()


def test_a_ledger_that_was_cut_short_still_costs_what_the_hub_saw(hub: ObjectStore, identities) -> None:
    links = make_chain(identities, 4)
    put_chain(hub, "study", "701", links[:2])
    select(hub, "study", 4, {"701": (4, links[3].sha256)})
    row = spend_of(hub).sites[0]
    assert (row.releases, row.rounds_left) == (4, 16)
    assert row.epsilon == pytest.approx(links[3].entry.spend.epsilon)
    assert len(row.problems) == 1
