"""The page of a round in which sites sent the most and the least that their records may hold."""

from __future__ import annotations

import time

import pytest

from tasks.rounds.page.build import build_report
from tasks.store.objects import to_json
from tasks.store.records.report import RoundMetrics, SiteMetrics
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tests.rounds.page.report_samples import PATIENTS, round_metrics, site_row

WIDE = "\U0001f600" * 300
FIGURES = {
    "most": (1 << 48, 1e6, 1.0, 1e6),
    "least": (1, 5e-324, 5e-324, 0.0),
    "none": (0, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("figures", FIGURES)
def test_a_page_of_extremes_is_drawn(figures: str) -> None:
    """Charts take a second or so; with figures that overflow or legends without end they would take minutes."""
    count, log_loss, auc, seconds = FIGURES[figures]
    metrics = SiteMetrics(
        study="xanomeline_derm56",
        server_round=1,
        site="701",
        model_sha256="b" * 64,
        min_cell=5,
        num_examples=count,
        figures={"log_loss": log_loss, "auc": auc, "calibration_slope": -1e12},
        suppressed=(WIDE,) * 17,
        seconds=seconds,
    )
    row = site_row("701", 1)
    steps = dict.fromkeys(row.seconds, seconds)
    changes = {"num_examples": count, "weight": float(count), "num_bytes": count, "seconds": steps, "metrics": metrics}
    names = {"failed_expectations": (WIDE,) * 100, "waived_expectations": (WIDE,) * 100}
    rows = [site_row(site, 1).model_copy(update=changes | names) for site in PATIENTS]
    rows[-1] = rows[-1].model_copy(update={"contributed": False, "reason": WIDE * 13})
    made = round_metrics(1, sites=tuple(rows), figures=metrics.figures, message=WIDE * 60, num_bytes=13 * count)
    made = made.model_copy(update={"idle_expectations": (WIDE,) * 100})
    record = RoundMetrics.model_validate_json(to_json(made))
    started = time.perf_counter()
    files = build_report(load_study(PROJECT / "studies" / "xanomeline_derm56.yaml"), [record], None)
    assert time.perf_counter() - started < 60
    assert b"not a number" not in files["report.html"]
    assert b"nan" not in files["metrics.json"]
    assert len(files["report.html"]) < 16 << 20
