"""A pointer that is lost, damaged or behind: refused when a round opens, and made anew from the hub's signed cards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.cli import app
from tasks.deploy.finish import publish
from tasks.errors import RoundRefused, StoreError
from tasks.rounds.hub import open as hub_open
from tasks.rounds.hub.repair import find_repair, write_repair
from tasks.store import layout, settings
from tasks.store.hub_signature import sign_as_hub
from tasks.store.identity import ensure_authority, ensure_hub_identity
from tasks.store.objects import to_json
from tasks.store.records.model import ModelCard, Pointer
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Settled
from tasks.store.weights import sha256
from tests.rounds.hub.federation import FEW, Federation

ROUNDS = 3
Break = Callable[[Federation, str], None]


@pytest.fixture(scope="module")
def closed(fed: Federation) -> tuple[str, dict[str, bytes]]:
    """A study with three closed rounds, and all its objects."""
    study = fed.new_study()
    for number in range(1, ROUNDS + 1):
        fed.whole_round(study, f"night {number}")
    return study, fed.objects(layout.study_prefix(study) + "/")


@pytest.fixture
def study(fed: Federation, closed: tuple[str, dict[str, bytes]]) -> str:
    name, objects = closed
    fed.restore(name, objects)
    shutil.rmtree(settings.home() / "reports" / name, ignore_errors=True)
    return name


def pointer_of(fed: Federation, study: str) -> Pointer:
    return fed.store().get_record(layout.latest(study), Pointer)


def put(fed: Federation, key: str, body: bytes) -> None:
    fed.store().put(key, body, content_type="application/json")


def card_of(fed: Federation, study: str, number: int) -> ModelCard:
    return fed.store().get_record(layout.card(study, number), ModelCard)


def pointing_to(fed: Federation, study: str, number: int, **changes: object) -> Pointer:
    card = card_of(fed, study, number)
    pointer = Pointer(
        study=study, server_round=number, model=card.model, evaluated_model=card.evaluated_model, averaged_rounds=0
    )
    return pointer.model_copy(update={"averaged_rounds": card.averaged_rounds, **changes})


# what is repaired


def lose(fed: Federation, study: str) -> None:
    fed.delete(layout.latest(study))


def truncate(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), to_json(pointer_of(fed, study))[:60])


def empty(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), b"")


def inflate(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), b"{" + b" " * 3_000_000)


def take_another_study_s(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), to_json(pointer_of(fed, study).model_copy(update={"study": "other"})))


def put_behind(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), to_json(pointing_to(fed, study, 1)))


def put_at_the_first(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), to_json(pointing_to(fed, study, 0)))


BROKEN: dict[Break, tuple[str, str]] = {
    lose: ("is missing", r"had rounds up to 3 .* is gone: run `pharmafed repair"),
    truncate: ("is damaged", r"latest\.json is not a valid Pointer \(ValidationError\): run `pharmafed repair"),
    empty: ("is damaged", r"latest\.json is not a valid Pointer"),
    inflate: ("is damaged", r"latest\.json is not a valid Pointer"),
    take_another_study_s: ("is of study other", r"latest\.json is of another study: run `pharmafed repair"),
    put_behind: ("is at round 1", r"is at round 1, and round 2 has made a model from that one: run `pharmafed repair"),
    put_at_the_first: ("is at round 0", r"is at round 0, and round 1 has made a model"),
}


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda function: function.__name__)
def test_a_broken_pointer_is_refused_and_then_made_anew(fed: Federation, study: str, break_it: Break) -> None:
    right = pointer_of(fed, study)
    break_it(fed, study)
    problem, refusal = BROKEN[break_it]
    before = fed.objects(layout.study_prefix(study) + "/")
    with pytest.raises((RoundRefused, StoreError), match=refusal) as caught:
        fed.open(study, "night 4")
    assert "validation error" not in str(caught.value)
    found = find_repair(fed.hub(study))
    assert found == (problem, right, (0, 1, 2, 3), found.etag)
    assert fed.objects(layout.study_prefix(study) + "/") == before, "looking writes nothing"
    write_repair(fed.hub(study), found)
    assert pointer_of(fed, study) == right
    assert fed.open(study, "night 4").base_model == right.model


def test_the_first_round_needs_no_repair(fed: Federation) -> None:
    """A hub that died between the first model and the pointer goes on by itself."""
    study = fed.new_study()
    fed.open(study)
    for key in (layout.latest(study), layout.plan(study, 1), layout.run(study, "run 1")):
        fed.delete(key)
    assert fed.open(study).server_round == 1
    assert pointer_of(fed, study).server_round == 0


def test_a_study_without_a_round_has_nothing_to_repair(fed: Federation) -> None:
    study = fed.new_study()
    with pytest.raises(StoreError, match="has had no round: the first one makes its model and latest"):
        find_repair(fed.hub(study))
    assert fed.objects(layout.study_prefix(study) + "/") == {}


def test_a_pointer_damaged_in_the_middle_of_a_round_stops_the_close_and_not_the_round(
    fed: Federation, study: str
) -> None:
    plan = fed.open(study, "night 4")
    assert fed.run_sites(study, plan.server_round) == {}
    fed.aggregate(study, plan.server_round)
    truncate(fed, study)
    with pytest.raises(StoreError, match=rf"not a valid Pointer .*: run `pharmafed repair {study}`"):
        fed.close(study, 4)
    assert not fed.store().exists(layout.round_metrics(study, 4))
    for break_it in (truncate_again, lose):
        break_it(fed, study)
        found = find_repair(fed.hub(study))
        assert found.pointer.server_round == 3, "the round is not closed"
        write_repair(fed.hub(study), found)
    assert fed.close(study, 4).status == "complete"
    assert pointer_of(fed, study).server_round == 4


def truncate_again(fed: Federation, study: str) -> None:
    put(fed, layout.latest(study), b"{")


def test_without_the_check_a_lost_pointer_starts_from_nothing(
    fed: Federation, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    lose(fed, study)
    monkeypatch.setattr(hub_open, "require_first", lambda _: None)
    assert fed.open(study, "night 4").base_model.server_round == 0


def test_a_pointer_whose_round_is_not_yet_closed_is_fine(fed: Federation, study: str) -> None:
    """Killed between the pointer and the record: it is ahead, and stays."""
    fed.delete(layout.round_metrics(study, 3))
    assert find_repair(fed.hub(study))[:2] == ("", pointer_of(fed, study))


def test_a_pointer_that_is_fine_is_never_moved(fed: Federation, study: str) -> None:
    before = fed.store().get_with_etag(layout.latest(study))
    for newest in (None, 0, 1, 2, 3):
        found = find_repair(fed.hub(study), newest)
        assert (found.problem, found.pointer.server_round) == ("", 3)
    assert CliRunner().invoke(app, ["repair", study, "--write"]).exit_code == 0
    assert fed.store().get_with_etag(layout.latest(study)) == before


def test_a_pointer_moved_meanwhile_is_left_alone(fed: Federation, study: str) -> None:
    put_behind(fed, study)
    found = find_repair(fed.hub(study))
    put(fed, layout.latest(study), to_json(pointing_to(fed, study, 2)))
    with pytest.raises(StoreError, match="was moved meanwhile: run `pharmafed repair"):
        write_repair(fed.hub(study), found)
    assert pointer_of(fed, study).server_round == 2


def test_a_round_that_failed_is_no_model(fed: Federation, study: str) -> None:
    plan = fed.open(study, "night 4")
    fed.set_deadline(study, plan.server_round, -1)
    assert fed.close(study, 4).status == "failed"
    lose(fed, study)
    assert find_repair(fed.hub(study)).chain == (0, 1, 2, 3)


def test_records_that_cannot_be_read_stop_no_repair(fed: Federation, study: str) -> None:
    for number in (1, 3):
        put(fed, layout.round_metrics(study, number), b'{"study": ')
    lose(fed, study)
    assert find_repair(fed.hub(study)).chain == (0, 1, 2, 3)


# what is refused


def forge(fed: Federation, study: str) -> None:
    """The card of a store that chooses its own model: all fits, but for the signature."""
    card = card_of(fed, study, 3).model_copy(update={"title": "mine"})
    put(fed, layout.card(study, 3), to_json(card))


def unsign(fed: Federation, study: str) -> None:
    card = card_of(fed, study, 2).model_copy(update={"signature": "", "certificate_pem": ""})
    put(fed, layout.card(study, 2), to_json(card))


def swap_cards(fed: Federation, study: str) -> None:
    put(fed, layout.card(study, 3), to_json(card_of(fed, study, 2)))


def cut_card(fed: Federation, study: str) -> None:
    put(fed, layout.card(study, 1), to_json(card_of(fed, study, 1))[:200])


def hide_card(fed: Federation, study: str) -> None:
    fed.delete(layout.card(study, 2))


def relink(fed: Federation, study: str) -> None:
    fed.put_card(card_of(fed, study, 3).model_copy(update={"previous_sha256": "0" * 64}))


def loop(fed: Federation, study: str) -> None:
    card = card_of(fed, study, 3)
    fed.put_card(card.model_copy(update={"base_model": card.model}))


def cut_off(fed: Federation, study: str) -> None:
    fed.put_card(card_of(fed, study, 3).model_copy(update={"base_model": None, "previous_sha256": None}))


def spoil_model(fed: Federation, study: str) -> None:
    body = bytearray(fed.store().get(layout.model(study, 3)))
    body[-1] ^= 1
    put(fed, layout.model(study, 3), bytes(body))


def hide_model(fed: Federation, study: str) -> None:
    fed.delete(layout.model(study, 3))


def hide_newest(fed: Federation, study: str) -> None:
    """A store that takes back the newest model, and forgets to take back its record."""
    for key in (layout.card(study, 3), layout.model(study, 3)):
        fed.delete(key)


def hide_newest_and_spoil_its_record(fed: Federation, study: str) -> None:
    hide_newest(fed, study)
    put(fed, layout.round_metrics(study, 3), b"")
    fed.delete(layout.closed(study, 3))


def set_back(fed: Federation, study: str) -> None:
    """Every object of round 3 at the hub is gone: only the sites' ledgers know."""
    for key in fed.objects(layout.study_prefix(study) + "/"):
        if "/0003/" in key and "/sites/" not in key:
            fed.delete(key)


REFUSED: dict[Break, str] = {
    forge: r"card of round 3, .*/0003/card\.json, has no signature of a hub that the authority here certifies: put it",
    unsign: r"card of round 2, .* has no signature of a hub",
    swap_cards: r"card of round 3, .* is of another study, round or model",
    cut_card: r"0001/card\.json is not a valid ModelCard \(ValidationError\): put it back",
    hide_card: r"card of round 2, .* is missing: put it back",
    relink: r"card of round 3, .* does not name that of round 2 as the one before",
    loop: r"card of round 3, .* names itself or a later card as the one before",
    cut_off: r"card of round 3, .* names none before it, and is not the first",
    spoil_model: r"0003/model\.safetensors is not the model that was promised: its sha256 differs; put it back",
    hide_model: r"the model .*0003/model\.safetensors is missing: put it back",
    hide_newest: r"newest card of .* is of round 2, but round 3 is closed with a model: put what is lost back",
    hide_newest_and_spoil_its_record: r"is of round 2, but round 3 is closed with a model",
    set_back: r"is of round 2, but site 713 has paid for round 3, of which there is no plan; site 715 has",
}


@pytest.mark.parametrize("lie", REFUSED, ids=lambda function: function.__name__)
def test_cards_that_do_not_hold_together_are_named_and_nothing_is_written(
    fed: Federation, study: str, lie: Break
) -> None:
    lie(fed, study)
    lose(fed, study)
    before = fed.objects(layout.study_prefix(study) + "/")
    with pytest.raises(StoreError, match=REFUSED[lie]):
        find_repair(fed.hub(study))
    told = CliRunner().invoke(app, ["repair", study, "--write"])
    assert told.exit_code == 2
    assert "StoreError" in told.stderr
    assert fed.objects(layout.study_prefix(study) + "/") == before


def test_the_hub_s_own_report_speaks_of_a_round_that_the_store_hides(fed: Federation, study: str) -> None:
    publish(fed.hub(study), fed.hub(study).closed_rounds()[-1])
    set_back(fed, study)
    for key in list(fed.store().keys(layout.ledger_prefix(study))):
        fed.delete(key)
    lose(fed, study)
    with pytest.raises(StoreError, match="but this machine has the report of round 3: put what is lost back"):
        find_repair(fed.hub(study))
    assert find_repair(fed.hub(study), 2).pointer.server_round == 2, "a person may say that nothing is lost"


# two branches


def branch(fed: Federation, study: str) -> None:
    """What came of a lost pointer before it was refused: round 4 is trained from the first model, and is closed."""
    fed.open(study, "night 4")
    plan = fed.hub(study).plan(4)
    first, third = card_of(fed, study, 0), card_of(fed, study, 3)
    base = {"base_model": first.model, "evaluated_model": first.model}
    fed.put_plan(plan.model_copy(update=base))
    digest = sha256(fed.store().get(layout.card(study, 0)))
    put(fed, layout.model(study, 4), fed.store().get(layout.model(study, 3)))
    model = third.model.model_copy(update={"server_round": 4, "key": layout.model(study, 4)})
    links = {"server_round": 4, "model": model, "evaluated_model": model, "base_model": first.model}
    fed.put_card(third.model_copy(update={**links, "previous_sha256": digest}))
    metrics = fed.store().get_record(layout.round_metrics(study, 3), RoundMetrics)
    put(fed, layout.round_metrics(study, 4), to_json(metrics.model_copy(update={"server_round": 4})))
    settled = Settled(study=study, server_round=4, status="complete", sites=FEW)
    put(fed, layout.closed(study, 4), to_json(settled))
    put(fed, layout.latest(study), to_json(pointing_to(fed, study, 4)))


def test_of_two_branches_a_person_chooses(fed: Federation, study: str) -> None:
    branch(fed, study)
    before = pointer_of(fed, study)
    with pytest.raises(StoreError, match=r"two branches: that of round 4 does not come from that of round 3\. Say wh"):
        find_repair(fed.hub(study))
    with pytest.raises(StoreError, match=r"round 2 .* is not the newest: round 3 started from its model"):
        find_repair(fed.hub(study), 2)
    assert find_repair(fed.hub(study), 4).problem == ""
    assert pointer_of(fed, study) == before
    found = find_repair(fed.hub(study), 3)
    assert (found.problem, found.chain) == ("is at round 4", (0, 1, 2, 3))
    write_repair(fed.hub(study), found)
    assert fed.open(study, "night 5").base_model == card_of(fed, study, 3).model


def test_a_branch_that_no_round_closed_is_void(fed: Federation, study: str) -> None:
    """Two runs at once: the one that lost left a card, and no record."""
    branch(fed, study)
    for key in (layout.round_metrics(study, 4), layout.plan(study, 4)):
        fed.delete(key)
    lose(fed, study)
    assert find_repair(fed.hub(study)).pointer.server_round == 3


# the command


def test_the_command_shows_before_it_writes(fed: Federation, study: str) -> None:
    right = pointer_of(fed, study)
    lose(fed, study)
    shown = CliRunner().invoke(app, ["repair", study])
    assert shown.exit_code == 1
    assert "cards of rounds 0 → 1 → 2 → 3" in shown.output
    assert f"The latest.json of {study} is missing. It should be:" in shown.output
    assert to_json(right).decode() in shown.output
    assert "Nothing is written: `--write` does it." in shown.output
    assert not fed.store().exists(layout.latest(study))
    written = CliRunner().invoke(app, ["repair", study, "--write"])
    assert written.exit_code == 0
    assert "Written: the next round of" in written.output
    assert pointer_of(fed, study) == right


@pytest.mark.parametrize("signer", ["a hub of another consortium", "a site of this one"])
def test_a_card_that_another_signed_is_no_card(fed: Federation, study: str, tmp_path: Path, signer: str) -> None:
    folder = settings.site_secrets("713")
    if signer.startswith("a hub"):
        folder = tmp_path / "hub"
        ensure_hub_identity(folder, ensure_authority(tmp_path / "ca"))
    put(fed, layout.card(study, 3), to_json(sign_as_hub(card_of(fed, study, 3), folder)))
    lose(fed, study)
    with pytest.raises(StoreError, match=r"card of round 3, .* has no signature of a hub that the authority here"):
        find_repair(fed.hub(study))
