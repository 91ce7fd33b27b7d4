"""What a study may combine: an allow-list, so that what nobody has thought of is refused by its key."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pytest

from tasks.store.settings import PROJECT
from tasks.study.channels import CHANNELS, CKKS, MASKS, PLAIN
from tasks.study.codec import CODEC_SECTIONS, Dense
from tasks.study.fits import Combination, require_fit
from tasks.study.privacy import PRIVACY_SECTIONS, GaussianUpdate, LocalDP, Needs, PrivacySection, Protected, promises
from tasks.study.strategy import FED_AVG

WEIGHTINGS = {"plain", "iterations", "samples"}


class Invented(PrivacySection):
    """A mechanism that says nothing of what it may be combined with."""

    unit: ClassVar[Protected] = "site"
    mechanism: Literal["invented"] = "invented"


class Further(Invented):
    """One that says it, and forgets weightings but one."""

    needs: ClassVar[Needs] = Needs(channels=frozenset({"plain"}), weightings=frozenset({"plain"}))


class Uncounted(Further):
    """One that protects patients, with a delta and without a number of them."""

    unit: ClassVar[Protected] = "patient"
    delta: float = 1e-9


def asked(privacy: Any, **changes: Any) -> Combination:
    fields: dict[str, Any] = {
        "privacy": privacy,
        "task": "binary",
        "sums_over_patients": True,
        "channel": PLAIN,
        "strategy": FED_AVG,
        "codec": Dense(),
        "weighting": "plain",
        "optimizer": "sgd",
        "batch_size": "full",
        "local_iterations": 1,
        "local_epochs": None,
        "score_bins": None,
        "num_sites": 5,
        "min_sites": 4,
    }
    return Combination(**(fields | changes))


@pytest.mark.parametrize("channel", sorted(CHANNELS))
@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS))
def test_a_mechanism_that_allows_nothing_goes_with_nothing(channel: str, weighting: str) -> None:
    with pytest.raises(ValueError, match=r"^training\.weighting must be none of those that there are"):
        require_fit(asked(Invented(), channel=CHANNELS[channel], weighting=weighting))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"channel": MASKS}, r"^channel must be plain with privacy\.mechanism invented$"),
        ({"channel": CKKS}, r"^channel must be plain with privacy\.mechanism invented$"),
        ({"channel": replace(PLAIN, name="pigeons")}, r"^channel must be plain with privacy\.mechanism invented$"),
        ({"weighting": "samples"}, r"^training\.weighting must be plain with privacy\.mechanism invented$"),
        ({"weighting": "new"}, r"^training\.weighting must be plain with privacy\.mechanism invented$"),
        ({"score_bins": 5}, r"^evaluation\.score_bins needs privacy\.mechanism distributed_dp"),
    ],
)
def test_what_a_mechanism_does_not_name_is_refused_and_the_key_is_named(changes: dict[str, Any], says: str) -> None:
    require_fit(asked(Further()))
    with pytest.raises(ValueError, match=says):
        require_fit(asked(Further(), **changes))


@pytest.mark.parametrize("mechanism", PRIVACY_SECTIONS)
def test_every_mechanism_says_what_it_goes_with_in_values_that_a_study_has(mechanism: str) -> None:
    section = PRIVACY_SECTIONS[mechanism]
    assert section.needs.channels
    assert section.needs.channels <= set(CHANNELS)
    assert section.needs.weightings
    assert section.needs.weightings <= WEIGHTINGS
    assert section.needs.per_patient == (section.unit == "patient")
    assert promises(mechanism) == (mechanism != "none")
    assert "samples" not in section.needs.weightings or not promises(mechanism), "counts of patients scale no noise"


CODECS = {
    name: section.model_validate({"name": name} | ({"fraction": 0.4} if "fraction" in section.model_fields else {}))
    for name, section in CODEC_SECTIONS.items()
}


@pytest.mark.parametrize("name", CODECS)
def test_what_looks_at_values_needs_a_mechanism_that_says_they_may_be_seen(name: str) -> None:
    codec = CODECS[name]
    if not codec.looks:
        require_fit(asked(Further(), codec=codec))
        return
    says = rf"^codec\.name must be dense or float16 or random with privacy\.mechanism invented: what {name} sends"
    with pytest.raises(ValueError, match=says):
        require_fit(asked(Further(), codec=codec))


@pytest.mark.parametrize("mechanism", PRIVACY_SECTIONS)
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_in_the_open_and_only_one_that_adds_where_the_hub_learns_a_sum(
    mechanism: str, channel: str, name: str
) -> None:
    section = PRIVACY_SECTIONS[mechanism]
    if channel not in section.needs.channels:
        return
    given = {"epsilon": 3, "delta": 1e-5, "clip_norm": 1, "public_num_examples": 60, "i_accept_no_privacy": True}
    given |= {"fraction": 0.4, "gamma": 0.1, "tau": 0.01}
    own = {key: value for key, value in given.items() if key in section.model_fields}
    privacy = section.model_validate({"mechanism": mechanism} | own)
    combination = asked(privacy, channel=CHANNELS[channel], codec=CODECS[name])
    if channel == "plain" or name == "dense":
        require_fit(combination)
        return
    says = rf"^codec\.name must be dense with channel {channel}: encodings of {name} do not add"
    with pytest.raises(ValueError, match=says):
        require_fit(combination)


def test_a_delta_for_nobody_knows_how_many_patients_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^privacy\.mechanism invented protects patients and does not say how many"):
        require_fit(asked(Uncounted()))


def test_an_unknown_mechanism_promises_nothing() -> None:
    assert not promises("invented")


@pytest.mark.parametrize(
    ("privacy", "largest"),
    [
        (LocalDP(mechanism="local_dp", epsilon=3, delta=0.02, clip_norm=1, public_num_examples=50), "0.02"),
        (GaussianUpdate(mechanism="gaussian_update", epsilon=3, delta=0.09, clip_norm=1), "0.0833"),
    ],
    ids=["patients", "sites"],
)
def test_a_delta_of_one_over_the_protected_units_is_refused(privacy: Any, largest: str) -> None:
    with pytest.raises(ValueError, match=rf"^privacy\.delta is .* must be below {largest}"):
        require_fit(asked(privacy, num_sites=12))
    require_fit(asked(privacy.model_copy(update={"delta": 1e-5}), num_sites=12))


def test_the_table_of_the_docs_is_what_the_mechanisms_say() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (PROJECT / "docs/privacy.md").read_text().splitlines()
        if re.match(r"\| `\w+` \| `(plain|masks)`", line)
    ]
    assert [row[0].strip("`") for row in rows] == list(PRIVACY_SECTIONS)
    for name, channels, weightings, training, counts, codecs in rows:
        needs = PRIVACY_SECTIONS[name.strip("`")].needs
        assert set(re.findall(r"\w+", channels)) == needs.channels, name
        assert set(re.findall(r"\w+", weightings)) == needs.weightings, name
        assert training == ("one full-batch step of `sgd`" if needs.per_patient else "any"), name
        assert counts == ("yes" if needs.counts else "no"), name
        assert codecs == ("any" if needs.codecs_that_look else ""), name
        assert "plain" not in needs.channels or needs.codecs_that_look, "it would have to be said which"
