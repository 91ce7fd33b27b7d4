"""Uploads tell nothing, as far as statistics can: seen on vectors that are easy to recognise, and on broken masks.

Some 200 tests at a false-alarm rate of 1e-7 each (`upload_statistics.ALARM`): 2e-5 in all. Each has 1.6 million bytes;
a correlation of 0.005, or one byte that is a fifth too common, is beyond the alarm.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tasks.privacy.secure_sum import sealing
from tasks.privacy.secure_sum.checks import seed_commitment
from tasks.privacy.secure_sum.opening import make_roster
from tasks.privacy.secure_sum.protocol import mask
from tasks.privacy.secure_sum.records import KeyMessage, Roster, RoundKeys, SharePair, record_sha256
from tests.privacy.secure_sum.secure_sum_federation import PLAN
from tests.privacy.secure_sum.upload_statistics import ALARM, Upload, cross_p_value, p_values

SITES = ("701", "702", "703", "704", "705")
SIZE = 200_000
VECTORS = {
    "zeros": np.zeros(SIZE, dtype=np.int64),
    "constant": np.full(SIZE, 123_456_789, dtype=np.int64),
    "minus one": np.full(SIZE, -1, dtype=np.int64),
    "ramp": np.arange(SIZE, dtype=np.int64),
    "update": np.random.default_rng(1).normal(0, 2**24, SIZE).astype(np.int64),
}


class FixedRound:
    """A round of fixed secrets, so that its uploads are the same in every run. Its shares are dummies."""

    def __init__(
        self, secrets: int = 0, *, study: str = "cardio", server_round: int = 1, run_id: str = "run-1"
    ) -> None:
        rng, pair = (
            np.random.default_rng(secrets),
            SharePair(sealed=bytes(114), self_seed_share_sha256="0" * 64, mask_key_share_sha256="0" * 64),
        )
        common = {"study": study, "server_round": server_round, "plan_sha256": PLAN}
        made = {s: {"mask_private_key": rng.bytes(32), "self_seed": rng.bytes(32)} for s in SITES}
        self.messages = {
            site: KeyMessage(
                **common,
                site=site,
                certificate_pem="",
                threshold=3,
                mask_public_key=sealing.public_key(own["mask_private_key"]),
                self_seed_commitment=seed_commitment(study, server_round, site, own["self_seed"]),
                shares=dict.fromkeys(SITES, pair),
            )
            for site, own in made.items()
        }
        self.roster: Roster = make_roster(self.messages, run_id=run_id, missing={}, tolerated_dropouts=2)
        digest = record_sha256(self.roster)
        self.keys = {site: RoundKeys(**common, site=site, **own, roster_sha256=digest) for site, own in made.items()}

    def upload(self, site: str, values: npt.NDArray[np.int64]) -> Upload:
        return mask(values, self.keys[site], self.roster, self.messages)


@pytest.fixture(scope="module")
def fixed() -> FixedRound:
    return FixedRound()


def failed(upload: Upload) -> set[str]:
    return {name for name, p in p_values(upload).items() if p < ALARM}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("site", ["701", "703", "705"])
def test_masked_vector_looks_random(fixed: FixedRound, name: str, site: str) -> None:
    """The first site only adds pair masks, the last only subtracts them, the one between does both."""
    assert failed(fixed.upload(site, VECTORS[name])) == set()


def test_the_same_vectors_without_masks_do_not() -> None:
    """Each fails, and each of the tests fails on one of them. (The bits of rounded noise are balanced.)"""
    failures = {name: failed(values.view(np.uint64)) for name, values in VECTORS.items()}
    assert all(found >= {"bytes"} for found in failures.values())
    assert failures["zeros"] == failures["constant"] == {"bytes", "bits", "serial 1", "serial 8"}
    assert failures["update"] >= {"bytes", "serial 1"}


def test_a_used_pad_is_seen(fixed: FixedRound) -> None:
    """Two vectors under the same keys and roster: the difference of the uploads is theirs, in the clear."""
    difference = fixed.upload("701", VECTORS["update"]) - fixed.upload("701", VECTORS["constant"])
    assert {"bytes", "bits", "serial 8"} <= failed(difference)
    np.testing.assert_array_equal(difference.view(np.int64), VECTORS["update"] - VECTORS["constant"])


@pytest.mark.parametrize(
    "other",
    [
        {"server_round": 2},
        {"study": "onco"},
        {"run_id": "run-2"},
        {"secrets": 1},
    ],
    ids=["another round", "another study", "another roster", "other keys"],
)
def test_no_two_rounds_share_a_mask(fixed: FixedRound, other: dict[str, Any]) -> None:
    """The same secrets in another round, study or roster give unrelated masks: differences look random too."""
    elsewhere = FixedRound(**other)
    for site in ("701", "703"):
        one, two = fixed.upload(site, VECTORS["zeros"]), elsewhere.upload(site, VECTORS["zeros"])
        assert failed(one - two) == set()
        assert cross_p_value(one, two) > ALARM


def test_uploads_of_two_sites_are_unrelated(fixed: FixedRound) -> None:
    """Pair masks cancel in the sum of two uploads, but self masks and the other pairs' do not."""
    uploads = {site: fixed.upload(site, VECTORS["constant"]) for site in SITES}
    for one, other in combinations(uploads, 2):
        assert cross_p_value(uploads[one], uploads[other]) > ALARM
        assert failed(uploads[one] + uploads[other]) == set()
        assert failed(uploads[one] - uploads[other]) == set()


def test_relation_of_two_uploads_would_be_seen(fixed: FixedRound) -> None:
    """Two uploads with the same mask, and two with opposite masks."""
    one, other = fixed.upload("701", VECTORS["update"]), fixed.upload("701", VECTORS["constant"])
    assert cross_p_value(one, other) < ALARM
    assert {"bytes", "bits"} <= failed(one - other)
    opposite = np.uint64(0) - other
    assert cross_p_value(one, opposite) < ALARM
    assert {"bytes", "bits"} <= failed(one + opposite)


def test_all_uploads_together_are_still_masked(fixed: FixedRound) -> None:
    """Without answers, the self masks stay on the sum: a late upload is safe even if its site was given up."""
    total = np.sum([fixed.upload(site, VECTORS["zeros"]) for site in SITES], axis=0, dtype=np.uint64)
    assert failed(total) == set()
