"""What lies in the store and cannot be read: named with its remedy, and in the way of nothing that does not need it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.cli import app
from tasks.deploy import finish
from tasks.deploy.finish import finish_round, publish
from tasks.errors import PharmafedError, RoundRefused, StoreError
from tasks.privacy.ledger import evidence
from tasks.rounds.hub.aggregate import aggregate
from tasks.rounds.hub.close import close_round
from tasks.rounds.hub.open import open_round
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.rounds.hub.repair import find_repair
from tasks.rounds.page import plots
from tasks.rounds.page.store import fetch_rounds
from tasks.rounds.site import steps
from tasks.store import layout, settings
from tasks.store.objects import to_json
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import RunRecord
from tasks.store.version import require_layout
from tests.rounds.hub.federation import FEW, Federation
from tests.rounds.hub.masked_rounds import MASKED

#: Words of libraries, of which no person can do anything.
RAW = re.compile(r"validation error|pydantic|errors\.pydantic|Traceback|Expecting value|char \d|column \d|input_value")
Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda body: body[: len(body) // 2],
    "empty": lambda body: b"",
    "no text": lambda body: b"\xff\xfe" + body,
    "another's": lambda body: b'{"server_round": "701-1015 is 63 years old"}',
    "nested": lambda body: b"[" * 100_000,
    "of a page": lambda body: b"<html><title>502 Bad Gateway</title></html>",
}


@pytest.fixture(scope="module")
def two_rounds(fed: Federation) -> tuple[str, dict[str, bytes]]:
    study = fed.new_study()
    for number in (1, 2):
        fed.whole_round(study, f"night {number}")
    return study, fed.objects(layout.study_prefix(study) + "/")


@pytest.fixture
def study(fed: Federation, two_rounds: tuple[str, dict[str, bytes]]) -> str:
    name, objects = two_rounds
    fed.restore(name, objects)
    return name


def spoil(fed: Federation, key: str, damage: Damage) -> None:
    fed.store().put(key, damage(fed.store().get(key)), content_type="application/json")


def report_of(fed: Federation, study: str, number: int) -> str:
    return fed.store().get(layout.report(study, number, "report.html")).decode()


# the record of an earlier round


def test_an_old_record_that_cannot_be_read_is_named_in_the_report(
    fed: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    """Night after night with another damage: each round closes, has its report, and lets the next one begin."""
    study = fed.new_study()
    for name in ("night 1", "night 2"):
        fed.whole_round(study, name)
    key = layout.round_metrics(study, 1)
    whole = fed.store().get(key)
    for night, damage in enumerate(DAMAGES.values(), 3):
        caplog.clear()
        fed.store().put(key, damage(whole), content_type="application/json")
        assert fed.open(study, f"night {night}").server_round == night
        assert fed.run_sites(study, night) == {}
        fed.aggregate(study, night)
        assert finish_round(study, night, f"night {night}").startswith(f"round {night} of ")
        page = report_of(fed, study, night)
        assert "1 record of this study cannot be read" in page
        assert key in page
        assert "put it back from a copy of the object store" in page
        assert not RAW.search(page)
        assert "63 years" not in page + caplog.text
        assert "could not be made" not in caplog.text
        assert any(key in record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
        assert [metrics.server_round for metrics in fed.hub(study).closed_rounds()] == list(range(2, night + 1))
        assert fed.hub(study).closed_by(f"night {night}") == fed.hub(study).closed_rounds()[-1]


def test_a_record_of_another_round_or_study_is_none_of_this_one(fed: Federation, study: str) -> None:
    second = fed.store().get_record(layout.round_metrics(study, 2), RoundMetrics)
    for wrong in (second, second.model_copy(update={"study": "other", "server_round": 1})):
        fed.store().put(layout.round_metrics(study, 1), to_json(wrong), content_type="application/json")
        found = fed.hub(study).records()
        assert [metrics.server_round for metrics in found.rounds] == [2]
        assert [text.partition(layout.round_metrics(study, 1))[2] for text in found.damaged] == [
            " is of another round or study: put it back from a copy of the object store"
        ]
        publish(fed.hub(study), second)


def test_what_somebody_put_beside_the_rounds_is_none(fed: Federation, study: str) -> None:
    """A copy that an operator made in the store before a repair."""
    prefix = layout.study_prefix(study)
    for number, place in ((1, "records/0001.bak"), (1, "records/old/0001"), (2, "rounds/0009-copy"), (2, "rounds/x")):
        name = "metrics.json" if place.startswith("records") else "plan.json"
        source = layout.round_metrics(study, number) if name == "metrics.json" else layout.plan(study, number)
        fed.store().put(f"{prefix}/{place}/{name}", fed.store().get(source), content_type="application/json")
    assert fed.hub(study).last_opened() == 2
    assert [metrics.server_round for metrics in fed.hub(study).closed_rounds()] == [1, 2]
    assert fed.hub(study).records().damaged == []
    assert fed.open(study, "night 3").server_round == 3


def test_a_round_is_found_by_its_run_whatever_the_other_records_are(fed: Federation, study: str) -> None:
    spoil(fed, layout.round_metrics(study, 2), DAMAGES["truncated"])
    fed.open(study, "night 3")
    hub = fed.hub(study)
    first = hub.closed_by("night 1")
    assert first is None or first.server_round == 1
    assert hub.closed_by("night 3") is None
    assert hub.closed_by("a run that opened nothing") is None
    run = RunRecord(study=study, run_id="night 2", server_round=2)
    fed.store().put(layout.run(study, "night 2"), to_json(run), content_type="application/json")
    with pytest.raises(StoreError, match=r"records/0002/metrics\.json is not a valid RoundMetrics"):
        hub.closed_by("night 2")


def test_a_damaged_cache_of_reference_figures_is_made_anew(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.simulation import reference
    from tasks.store.records.report import Baselines

    study = fed.hub(fed.new_study()).study
    made = Baselines(study=study.study, pooled={"auc": 0.7}, local_only={"auc": 0.6}, note="n")
    monkeypatch.setattr(reference, "public_patients", lambda _: {})
    monkeypatch.setattr(reference, "compute_baselines", lambda *_: made)
    assert reference.baselines(study) == made
    (kept,) = (settings.home() / "reference").glob(f"{study.study}-*.json")
    kept.write_bytes(kept.read_bytes()[:30])
    assert reference.baselines(study) == made
    assert Baselines.model_validate_json(kept.read_bytes()) == made


def test_a_site_s_damaged_memory_of_its_checks_is_made_anew(fed: Federation) -> None:
    study = fed.new_study()
    fed.open(study)
    (kept,) = (settings.home() / "sites" / "713" / "validated").glob(f"{study}-*.json")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:40])
    fed.run_site(study, 1, "713")
    assert kept.read_bytes() == whole


# what the hub has pinned of the ledgers


@pytest.mark.parametrize("damage", ["truncated", "nested", "another's"])
def test_a_damaged_selection_is_named_and_every_ledger_is_still_shown(
    fed: Federation, study: str, damage: str, tmp_path: Path
) -> None:
    key = layout.selection(study, 1)
    spoil(fed, key, DAMAGES[damage])
    runner = CliRunner()
    folder = str(tmp_path / "evidence")
    for arguments in (["spend", study], ["export", study, "--to", folder], ["verify", folder]):
        told = runner.invoke(app, ["privacy", *arguments], env={"COLUMNS": "200"})
        assert told.exit_code == 1
        assert key in told.stderr
        assert "put it back from a copy of the object store" in told.stderr
        assert not RAW.search(told.output)
        assert "BROKEN" not in told.stdout
    assert (tmp_path / "evidence" / "ledger" / "713" / "000002.json").exists()
    found = evidence.collect(fed.store(), study)
    assert {anchor.server_round for one in found.values() for anchor in one.anchors} == {2}
    assert len(evidence.read_chain(fed.store(), study, "713")) == 2


# what belongs to one site


@pytest.fixture
def put_back(fed: Federation) -> object:
    keys = [layout.enrolment("717"), layout.sealing_key("717")]
    kept = {key: fed.store().get(key) for key in keys}
    yield
    for key, body in kept.items():
        fed.store().put(key, body, content_type="application/json")


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("place", [layout.enrolment, layout.sealing_key])
@pytest.mark.parametrize("damage", ["truncated", "empty", "another's"])
def test_one_site_s_damaged_key_leaves_out_that_site_and_says_why(
    fed: Federation, place: Callable[[str], str], damage: str
) -> None:
    study = fed.new_study(**MASKED)
    spoil(fed, place("717"), DAMAGES[damage])
    plan = fed.open(study)
    assert plan.sites == tuple(site for site in FEW if site != "717")
    assert set(plan.left_out) == {"717"}
    assert place("717") in plan.left_out["717"]
    assert "put it back" in plan.left_out["717"]
    assert fed.run_sites(study, 1, plan.sites, ("validate_data", "train")) == {}


# every reader, every object


def readers(fed: Federation, study: str) -> dict[str, Callable[[], object]]:
    hub, site, number = fed.hub(study), fed.site(study, "713"), 1
    closed = RoundMetrics.model_validate_json(fed.whole)
    return {
        "open_round": lambda: open_round(hub, "next"),
        "freeze_roster": lambda: freeze_roster(hub, number),
        "select": lambda: select_updates(hub, number),
        "aggregate": lambda: aggregate(hub, number),
        "close_round": lambda: close_round(hub, number),
        "publish": lambda: publish(hub, closed),
        "repair": lambda: find_repair(hub),
        "spend": lambda: evidence.collect(hub.store, study, FEW),
        "reports": lambda: fetch_rounds(hub.store, study),
        "follow": lambda: hub.closed_by("run 1"),
        "layout": lambda: require_layout(hub.store),
        **{
            name: (lambda name=name: getattr(steps, name)(site, number))
            for name in ("train", "privatize_and_upload", "unmask", "validate_global")
        },
    }


@pytest.mark.parametrize("damage", ["truncated", "another's"])
def test_no_reader_of_the_store_passes_on_a_library_s_words(
    fed: Federation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """Every object of a closed masked round is spoilt, one after the other, and everything that reads is run on it.

    Of the sites' objects those of the site that reads, and of one other. The page's charts are drawn once.
    """
    monkeypatch.setattr(finish, "baselines", lambda _: None)
    study = fed.new_study(**MASKED)
    fed.open(study)
    assert fed.masked_round(study, 1) == {}
    fed.aggregate(study, 1)
    fed.validate_global(study, 1, FEW)
    closed = fed.close(study, 1)
    publish(fed.hub(study), closed)
    charts = plots.draw([closed], None)
    monkeypatch.setattr(plots, "draw", lambda *_: charts)
    fed.whole = to_json(closed)  # type: ignore[attr-defined]
    shared = (layout.layout_version(), layout.enrolment("713"), layout.sealing_key("713"))
    before = fed.objects(layout.study_prefix(study) + "/")
    kept = {key: fed.store().get(key) for key in shared}
    told: dict[tuple[str, str], str] = {}
    alike = [key for key in before if re.search("/(715|718)[/.]", key)]
    assert len(alike) > 10
    for key in [*(before.keys() - alike), *shared]:
        spoil(fed, key, DAMAGES[damage])
        for name, read in readers(fed, study).items():
            try:
                read()
            except PharmafedError as error:
                told[key, name] = str(error)
        fed.restore(study, before)
        for other, body in kept.items():
            fed.store().put(other, body, content_type="application/json")
    assert len(told) > len(before) - len(alike)
    assert {where: text for where, text in told.items() if RAW.search(text) or "63 years" in text} == {}
    assert not RAW.search(capsys.readouterr().out)


def test_damage_is_told_with_its_remedy(fed: Federation, study: str) -> None:
    """Where a step cannot do without: the object, and how it comes back."""
    hub = fed.hub(study)
    needed: dict[str, Callable[[], object]] = {
        layout.latest(study): lambda: open_round(hub, "night 3"),
        layout.plan(study, 2): lambda: hub.open_plan(2),
        layout.round_metrics(study, 2): lambda: hub.open_plan(2),
        layout.selection(study, 2): lambda: aggregate(hub, 2),
        layout.card(study, 1): lambda: aggregate(hub, 2),
        layout.model(study, 1): lambda: aggregate(hub, 2),
    }
    for key, read in needed.items():
        body = fed.store().get(key)
        spoil(fed, key, DAMAGES["truncated"])
        with pytest.raises((StoreError, RoundRefused)) as caught:
            read()
        assert key in str(caught.value)
        assert layout.remedy(key) in str(caught.value)
        fed.store().put(key, body, content_type="application/json")
    assert layout.remedy(layout.latest(study)) == f"run `pharmafed repair {study}`"
    theirs = layout.remedy(layout.update_manifest(study, 1, "717"))
    assert theirs == "only site 717 and the hub can write it; put it back from a copy of the object store"
