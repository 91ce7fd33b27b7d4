"""build_report: what the page says, in every state a round can end in."""

from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from tasks.rounds.page import plots
from tasks.rounds.page.build import build_report
from tasks.store.objects import to_json
from tasks.store.records.ledger import Spend
from tasks.store.records.model import NoisedFigures, UsedStrategy
from tasks.store.records.report import Baselines, RoundMetrics, SiteMetrics
from tasks.study.channels import MASKS
from tasks.study.sections import Study
from tests.rounds.page.report_samples import PATIENTS, REASON, Rounds, site_row, spend

PLOTS = ("auc.png", "log_loss.png", "patients_per_client.png", "privacy.png", "seconds.png")


class _Text(HTMLParser):
    """The text that a reader sees, and the tags that carry it."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(files: dict[str, bytes]) -> _Text:
    parsed = _Text()
    parsed.feed(files["report.html"].decode())
    return parsed


def text(files: dict[str, bytes]) -> str:
    return re.sub(r"\s+", " ", " ".join(read(files).words))


def banners(files: dict[str, bytes]) -> list[str | None]:
    return [attrs["class"] for _, attrs in read(files).tags if (attrs.get("class") or "").startswith("banner")]


@pytest.fixture(scope="module")
def complete(study: Study, rounds: Rounds, baselines: Baselines) -> dict[str, bytes]:
    return build_report(study, rounds(), baselines)


def no_privacy(rounds: list[RoundMetrics]) -> list[RoundMetrics]:
    free = {"mechanism": "none", "epsilon": None, "epsilon_budget": None, "delta": None}
    return [record.model_copy(update=free) for record in rounds]


def test_the_strategy_is_said_where_a_study_has_one(study: Study, rounds: Rounds, complete: dict[str, bytes]) -> None:
    used = UsedStrategy(name="fed_adam", since=2)
    records = [record.model_copy(update={"strategy": used}) for record in rounds()]
    says = "It was made by the strategy fed_adam, which began in round 2."
    assert says in text(build_report(study, records, None))
    assert "strategy" not in text(complete)


def test_complete_round(study: Study, rounds: Rounds, baselines: Baselines) -> None:
    files = build_report(study, rounds(), baselines)
    shown = text(files)
    assert banners(files) == ["banner good"]
    assert "Complete: 13 of 13 contributed" in shown
    assert "Round 3 of 20" in shown
    assert study.title in shown
    for figure in ("0.662", "0.668", "0.714", "0.644", "211 training patients", "8.6 s", "23.9 kB"):
        assert figure in shown
    assert "a" * 64 in shown
    assert study.digest in shown
    assert "studies/xanomeline_derm56/models/0003/model.safetensors" in shown
    assert set(files) == {"report.html", "metrics.json", "run.json", *PLOTS}


def test_privacy_is_on_the_first_screen(study: Study, rounds: Rounds) -> None:
    shown = text(build_report(study, rounds(), None))
    first_screen = shown[: shown.index("AUC per round")]
    assert "ε 1.09 spent of 3 · 1.91 left · δ 0.00001" in first_screen
    assert "protects one patient" in first_screen
    assert "right at most 56\u00a0% of the time" in shown.replace("56 %", "56\u00a0%")


def test_partial_round_names_who_is_missing_and_why(study: Study, rounds: Rounds, partial: dict[str, Any]) -> None:
    files = build_report(study, rounds(**partial), None)
    shown = text(files)
    assert banners(files) == ["banner warn"]
    assert "Partial: 12 of 13 contributed" in shown
    assert re.search(rf"703 ?: {re.escape(REASON)}", shown)
    assert "196 training patients" in shown
    assert shown.count(REASON) == 2  # banner and table; not a third time in the same cell


def test_failed_round(study: Study, rounds: Rounds) -> None:
    why = "9 of 13 valid updates arrived; 10 are needed."
    failed = {"status": "failed", "message": why, "model_sha256": None, "pooled": {}}
    files = build_report(study, rounds(**failed, num_contributors=9), None)
    shown = text(files)
    assert banners(files) == ["banner bad"]
    assert why in shown
    assert "no new model" in shown
    assert "model.safetensors" not in shown


def test_no_privacy_is_red_and_first(study: Study, rounds: Rounds) -> None:
    files = build_report(study, no_privacy(rounds()), None)
    shown = text(files)
    assert banners(files) == ["banner bad", "banner good"]
    assert "NO PRIVACY: raw updates leave the sites" in shown
    assert "right at most" not in shown
    assert "epsilon" not in json.loads(files["metrics.json"])


def test_suppressed_metrics_are_said_in_words(study: Study, rounds: Rounds) -> None:
    alone = [record.model_copy(update={"pooled": {}}) for record in rounds()]
    shown = text(build_report(study, alone, None))
    assert "stays at the sites" in shown
    assert "its own figures stay there, outside of what ε covers" in shown
    assert shown.count(" suppressed ") >= len(PATIENTS)
    assert "demo" not in shown.split("All rounds so far")[0]
    free = text(build_report(study, no_privacy(alone), None))
    assert "suppressed: too few patients at each site" in free
    assert "no site has 5 held-out patients in every cell" in free


def test_a_masked_round_says_what_its_promise_rests_on(study: Study, rounds: Rounds) -> None:
    trust = "masks: holds against whoever sees only the sum"
    quality = NoisedFigures(
        figures={"auc": 0.6412, "brier": 0.2345},
        errors={"auc": 0.0834, "brier": 0.0123},
        num_examples=41.3,
        model_sha256="c" * 64,
    )
    masked = {"mechanism": "distributed_dp", "channel": MASKS, "noised": quality}
    records = [
        record.model_copy(update=masked | {"promise": spend(number, mechanism="distributed_dp", trust=trust)})
        for number, record in enumerate(rounds(), 1)
    ]
    shown = text(build_report(study, records, None))
    assert "Someone who reads every opened sum so far" in shown
    assert "protects one patient" in shown
    assert trust in shown
    assert "hides the result behind masks that cancel only in the sum" in shown
    assert "AUC under noise 0.64 ± 0.08" in shown
    assert re.search(r"Brier score lower is better – – 0\.23\d ± 0\.012", shown)
    plain = text(build_report(study, rounds(), None))
    assert "Someone who reads every update so far" in plain
    assert "AUC under noise" not in plain


def test_a_promise_to_sites_is_told_as_one(study: Study, rounds: Rounds) -> None:
    promise = spend(3, mechanism="svt", unit="site", mu=None, pure_epsilon=0.4, epsilon=1.09)
    last = rounds()[-1].model_copy(update={"mechanism": "svt", "promise": promise})
    shown = text(build_report(study, [*rounds()[:-1], last], None))
    assert "protects one site's whole update" in shown
    accuracy = (math.exp(1.09) + 1e-5) / (1 + math.exp(1.09))
    assert f"whether a given site took part is right at most {100 * accuracy:.0f} % of the time" in shown


@pytest.mark.parametrize("mechanism", ["none", "top", "random"])
def test_without_a_promise_the_page_says_nobody(study: Study, rounds: Rounds, mechanism: str) -> None:
    free = [record.model_copy(update={"mechanism": mechanism, "promise": None}) for record in no_privacy(rounds())]
    files = build_report(study, free, None)
    assert banners(files) == ["banner bad", "banner good"]
    assert "protects nobody" in text(files)
    assert "right at most" not in text(files)


def test_a_site_that_may_report_is_shown_with_its_figures(study: Study, rounds: Rounds) -> None:
    metrics = SiteMetrics(
        study=study.study,
        server_round=3,
        site="701",
        model_sha256="b" * 64,
        min_cell=5,
        num_examples=12,
        figures={"auc": 0.7125},
        suppressed=("log_loss",),
    )
    sites = tuple(site_row(site, 3, **({"metrics": metrics} if site == "701" else {})) for site in PATIENTS)
    shown = text(build_report(study, rounds(sites=sites, figures={"auc": 0.7125}), None))
    assert "12 0.713 suppressed" in shown or "12 0.712 suppressed" in shown


def test_baselines_are_drawn_only_where_given(study: Study, rounds: Rounds, baselines: Baselines) -> None:
    with_lines = text(build_report(study, rounds(), baselines))
    without = text(build_report(study, rounds(), None))
    assert "Pooled training 0.714" in with_lines
    assert "a real federation has no such line" in with_lines
    assert "Pooled training" not in without
    assert "Local only" not in without


def test_what_checks_nothing_at_any_site_is_told_only_where_it_is_so(study: Study, rounds: Rounds) -> None:
    assert "heck nothing" not in text(build_report(study, rounds(), None))
    told = text(build_report(study, rounds(idle_expectations=("advs/AVAL[PARAMCD==TMEP]/expect_x",)), None))
    assert "checks nothing: advs/AVAL[PARAMCD==TMEP]/expect_x" in told
    assert f"rows of fewer than {study.evaluation.min_cell} patients, or of none, at every site" in told


def test_everything_from_elsewhere_is_escaped(study: Study, rounds: Rounds) -> None:
    attack = "<script>alert(1)</script>$x^2$"
    row = {"contributed": False, "reason": attack, "failed_expectations": (attack,), "waived_expectations": (attack,)}
    odd = site_row("703", 3, **row, seconds={attack: 1.0})
    sites = tuple(odd if site == "703" else site_row(site, 3) for site in PATIENTS)
    sites += (site_row("pool", 3, site=attack),)
    changed = {"sites": sites, "message": attack, "slowest": attack, "run_id": attack, "step_seconds": {attack: 1.0}}
    changed |= {"idle_expectations": (attack,)}
    titled = study.model_copy(update={"title": attack})
    baselines = Baselines(
        study=study.study,
        pooled={"auc": 0.7, "log_loss": 0.6},
        local_only={"auc": 0.6, "log_loss": 0.7},
        note=attack,
    )
    for status in ("partial", "failed"):
        files = build_report(titled, rounds(status=status, **changed), baselines)
        parsed = read(files)
        assert text(files).count(attack) >= 10
        assert "script" not in {tag for tag, _ in parsed.tags}
        assert b"<script" not in files["report.html"].lower()


def test_the_page_needs_nothing_from_outside(study: Study, rounds: Rounds, baselines: Baselines) -> None:
    files = build_report(study, rounds(), baselines)
    parsed = read(files)
    tags = {tag for tag, _ in parsed.tags}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    addresses = [
        value for _, attrs in parsed.tags for key in ("href", "xlink:href", "src") if (value := attrs.get(key))
    ]
    assert len(addresses) > 5
    own = {*files, "../index.html"}
    assert [address for address in addresses if not address.startswith("#") and address not in own] == []
    assert b"url(http" not in files["report.html"]
    assert b"@import" not in files["report.html"]


def test_same_input_same_bytes(study: Study, rounds: Rounds, baselines: Baselines) -> None:
    first, second = (build_report(study, rounds(), baselines) for _ in range(2))
    assert {name: first[name] == second[name] for name in first} == dict.fromkeys(first, True)


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_pictures(name: str, complete: dict[str, bytes]) -> None:
    picture = Image.open(io.BytesIO(complete[name])).convert("RGB")
    pixels = np.asarray(picture).reshape(-1, 3)
    inked = (pixels < 200).any(axis=1).mean()
    assert picture.size[0] > 600
    assert 0.01 < inked < 0.6
    assert len(np.unique(pixels, axis=0)) > 20


def test_plots_change_with_the_round(study: Study, rounds: Rounds) -> None:
    three, two = build_report(study, rounds(), None), build_report(study, rounds()[:2], None)
    assert {name for name in PLOTS if three[name] == two[name]} <= {"patients_per_client.png", "seconds.png"}


def test_metrics_are_the_records_numbers(study: Study, rounds: Rounds) -> None:
    now = rounds(figures={"auc": 0.71, "log_loss": 0.62})[-1]
    numbers = json.loads(build_report(study, [*rounds()[:2], now], None)["metrics.json"])
    assert numbers == {
        "auc": 0.71,
        "log_loss": 0.62,
        "pooled_auc": 0.662,
        "pooled_log_loss": 0.668,
        "epsilon": now.epsilon,
        "epsilon_budget": now.epsilon_budget,
        "epsilon_left": pytest.approx(1.91),
        "delta": now.delta,
        "rounds": 3,
        "total_rounds": 20,
        "contributors": 13,
        "sites": 13,
        "bytes": now.num_bytes,
        "seconds": now.seconds,
    }


@pytest.mark.parametrize("once", ["top", "random"])
def test_a_round_whose_codec_was_a_mechanism_is_still_told(study: Study, rounds: Rounds, once: str) -> None:
    told = Spend(mechanism=once, unit="nothing", neighbours="none: raw updates are shared", releases=1)
    unprotected = {"mechanism": once, "promise": told, "epsilon": None, "epsilon_budget": None, "delta": None}
    records = [record.model_copy(update=unprotected) for record in rounds()]
    read = [RoundMetrics.model_validate_json(to_json(record)) for record in records]
    assert not any(record.promises for record in read)
    shown = text(build_report(study, read, None))
    assert "NO PRIVACY: raw updates leave the sites" in shown
    assert f"Mechanism {once}" in shown


def test_the_bytes_of_a_round_are_told_beside_dense_float32(study: Study, rounds: Rounds) -> None:
    now = rounds(codec="int8", num_bytes=2600, dense_bytes=10_000)[-1]
    files = build_report(study, [*rounds()[:2], now], None)
    assert "all sites, this round; int8: 26.0 % of dense float32" in text(files)
    assert json.loads(files["metrics.json"])["share_of_dense"] == pytest.approx(0.26)
    before = build_report(study, rounds(), None)
    assert "of dense float32" not in text(before)
    assert "share_of_dense" not in json.loads(before["metrics.json"])


def test_a_suppressed_figure_has_no_key(study: Study, rounds: Rounds) -> None:
    numbers = json.loads(build_report(study, rounds(), None)["metrics.json"])
    assert "auc" not in numbers
    assert "log_loss" not in numbers


@pytest.mark.parametrize("sites", [1, 40])
def test_few_and_many_sites(sites: int, study: Study, rounds: Rounds) -> None:
    rows = tuple(site_row("701", 3, site=f"S{i:03d}") for i in range(sites))
    files = build_report(study, rounds(sites=rows, num_contributors=sites), None)
    assert f"Complete: {sites} of {sites} contributed" in text(files)


def test_long_study_and_first_round(study: Study, rounds: Rounds) -> None:
    first = rounds()[0].model_copy(update={"total_rounds": 10_000})
    assert "Round 1 of 10000" in text(build_report(study, [first], None))


def test_refuses_no_rounds_and_other_studies(study: Study, rounds: Rounds, baselines: Baselines) -> None:
    with pytest.raises(ValueError, match="at least one closed round"):
        build_report(study, [], None)
    with pytest.raises(ValueError, match="only records of study"):
        build_report(study, rounds(study="other"), None)
    with pytest.raises(ValueError, match="only records of study"):
        build_report(study, rounds(), baselines.model_copy(update={"study": "other"}))


def test_what_cannot_be_read_is_named_under_the_status(study: Study, rounds: Rounds) -> None:
    damaged = [f"records/{number:04d}/metrics.json is no <b>record</b>: put it back" for number in range(1, 30)]
    files = build_report(study, rounds(), None, damaged)
    assert banners(files) == ["banner good", "banner warn"]
    shown = text(files)
    assert "29 records of this study cannot be read, and no figure here is of them" in shown
    assert "records/0001/metrics.json is no <b>record</b>: put it back" in shown
    assert shown.count("is no <b>record</b>") == 20
    assert "cannot be read" not in text(build_report(study, rounds(), None))


def test_a_gap_in_the_records_moves_no_round(study: Study, rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """The axis of a long study ends at the newest round, however few records are left."""
    long = [record.model_copy(update={"total_rounds": 5000}) for record in rounds()]
    ends: list[tuple[float, float]] = []
    drawn = plots.round_axis

    def look_at(ax: Axes, total: int, closed: int) -> None:
        drawn(ax, total, closed)
        ends.append(ax.get_xlim())

    monkeypatch.setattr(plots, "round_axis", look_at)
    build_report(study, [long[0], long[-1].model_copy(update={"server_round": 400})], None)
    assert ends == [(0.5, 400.5)] * 3
