"""A synthetic study of three closed rounds, made without training anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.store.records.ledger import Spend
from tasks.store.records.report import RoundMetrics, SiteMetrics, SiteRow

PATIENTS = {"701": 34, "703": 15, "704": 21, "705": 13, "708": 21, "709": 17, "710": 26, "713": 7}
PATIENTS |= {"715": 7, "716": 20, "717": 11, "718": 6, "pool": 13}
EPSILON = (0.61, 0.88, 1.09)
REASON = "adlbh: expect_column_values_to_not_be_null(AVAL) failed, no waiver"

Rounds = Callable[..., list[RoundMetrics]]


def site_row(site: str, server_round: int, /, **changes: Any) -> SiteRow:
    """A site that took part; `metrics` are suppressed, as they are in small sites."""
    metrics = SiteMetrics(
        study="xanomeline_derm56",
        server_round=server_round,
        site=site,
        model_sha256="b" * 64,
        min_cell=5,
        suppressed=("num_examples", "auc", "log_loss"),
        seconds=0.2,
    )
    seconds = {"validate_data": 0.36, "train_local": 0.02 + PATIENTS[site] / 500, "privatize_and_upload": 0.11}
    row = SiteRow(
        site=site,
        contributed=True,
        num_examples=PATIENTS[site],
        weight=1.0,
        num_bytes=1840,
        data_valid=True,
        waived_expectations=("adlbh: AVAL not null, mostly 0.8",) if site == "703" else (),
        releases=server_round,
        epsilon=EPSILON[server_round - 1],
        seconds={**seconds, "validate_global": 0.2},
        metrics=metrics,
    )
    return row.model_copy(update=changes)


def spend(server_round: int, /, **changes: Any) -> Spend:
    """The promise of each release so far, by itself."""
    promise = Spend(
        mechanism="local_dp",
        unit="patient",
        neighbours="training sets that differ in one patient",
        trust="nobody",
        noise_multiplier=6.22,
        clip_norm=1.0,
        mu=0.161,
        releases=server_round,
        epsilon=EPSILON[server_round - 1],
        delta=1e-5,
        epsilon_budget=3.0,
    )
    return promise.model_copy(update=changes)


def round_metrics(server_round: int, /, **changes: Any) -> RoundMetrics:
    """A complete round."""
    opened = datetime(2026, 3, server_round, 1, 0, tzinfo=UTC)
    record = RoundMetrics(
        study="xanomeline_derm56",
        server_round=server_round,
        run_id=f"scheduled__2026-03-0{server_round}T01:00:00+00:00",
        status="complete",
        message="13 of 13 sites contributed",
        mechanism="local_dp",
        promise=spend(server_round),
        opened_at=opened,
        closed_at=opened + timedelta(seconds=9),
        seconds=8.6,
        total_rounds=20,
        sites=tuple(site_row(site, server_round) for site in PATIENTS),
        num_contributors=13,
        num_bytes=13 * 1840,
        epsilon=EPSILON[server_round - 1],
        epsilon_budget=3.0,
        delta=1e-5,
        model_sha256="a" * 64,
        pooled={
            "auc": (0.581, 0.634, 0.662)[server_round - 1],
            "log_loss": (0.689, 0.676, 0.668)[server_round - 1],
        },
        step_seconds={"open_round": 0.4, "sites": 4.1, "aggregate": 0.6, "validate_global": 1.9, "close_round": 0.9},
        slowest="701",
    )
    return record.model_copy(update=changes)
