"""The last step of a round: once the pointer has moved, nothing stops the next round."""

from __future__ import annotations

import pytest

from tasks.deploy import finish
from tasks.errors import StoreUnavailable
from tests.rounds.hub.federation import Federation


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("build_report", "its report could not be made: ValueError"),
        ("notices_of", "its notices could not be made: ValueError"),
    ],
)
def test_what_breaks_after_the_pointer_has_moved_is_told(
    fed: Federation, part: str, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = fed.new_study()
    number = fed.open(study, "night").server_round
    assert fed.run_sites(study, number) == {}
    fed.aggregate(study, number)

    def broken(*_: object) -> None:
        raise ValueError("701-1015 is 63 years old")

    monkeypatch.setattr(finish, part, broken)
    assert "complete" in finish.finish_round(study, number, "night")
    pointer, _ = fed.hub(study).pointer()
    assert pointer is not None
    assert pointer.server_round == number
    notices = [record.getMessage() for record in caplog.records if record.name == "tasks.report.notices"]
    assert len(notices) == 1
    assert words in notices[0]
    assert "63" not in notices[0]
    assert fed.open(study, "next").server_round == number + 1


def test_a_store_that_is_away_is_asked_again(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fed.new_study()
    number = fed.open(study, "night").server_round
    assert fed.run_sites(study, number) == {}
    fed.aggregate(study, number)

    def away(*_: object) -> None:
        raise StoreUnavailable("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(finish, "publish", away)
        with pytest.raises(StoreUnavailable):
            finish.finish_round(study, number, "night")
    assert "complete" in finish.finish_round(study, number, "night")
