"""Everything that a closed round has to say, as files by name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from markupsafe import Markup

from tasks.learning.metrics import metrics_of
from tasks.report import pages
from tasks.report.canvas import Chart
from tasks.rounds.page import plots, privacy_view, view
from tasks.rounds.page.index import RunEntry
from tasks.store.records.report import Baselines, RoundMetrics
from tasks.study.sections import Study


def build_report(
    study: Study, rounds: Sequence[RoundMetrics], baselines: Baselines | None, damaged: Sequence[str] = ()
) -> dict[str, bytes]:
    """The report of the newest round, `rounds[-1]`.

    Args:
        study: the study as its file has it.
        rounds: all closed rounds of the study so far, oldest first; at least one.
        baselines: reference lines, only where patients may be pooled.
        damaged: of each record of an earlier round that cannot be read, which, why and what helps.

    Returns:
        `report.html` (complete in itself), the PNG plots, `metrics.json` (flat numbers) and `run.json` (a `RunEntry`).
        The same input gives the same bytes.

    Raises:
        ValueError: there is no round, or a record belongs to another study.
    """
    if {record.study for record in rounds} != {study.study} or (baselines and baselines.study != study.study):
        raise ValueError(f"a report needs at least one closed round, and only records of study {study.study}")
    charts = plots.draw(rounds, baselines)
    return {
        "report.html": _page(study, rounds, baselines, charts, damaged),
        **{f"{chart.name}.png": chart.png for chart in charts},
        "metrics.json": _json(metrics(rounds)),
        "run.json": _json(run_entry(study, rounds[-1]).model_dump()),
    }


def metrics(rounds: Sequence[RoundMetrics]) -> dict[str, float]:
    """Flat numbers for `dvc metrics show`; a figure that is suppressed or unknown has no key."""
    now = rounds[-1]
    known = now.epsilon is not None and now.epsilon_budget is not None
    numbers = {
        **now.figures,
        **{f"pooled_{name}": value for name, value in now.pooled.items()},
        "epsilon": now.epsilon,
        "epsilon_budget": now.epsilon_budget,
        "epsilon_left": (now.epsilon_budget or 0) - (now.epsilon or 0) if known else None,
        "delta": now.delta,
        "rounds": now.server_round,
        "total_rounds": now.total_rounds,
        "contributors": now.num_contributors,
        "sites": len(now.sites),
        "bytes": now.num_bytes,
        "share_of_dense": now.share_of_dense,
        "seconds": now.seconds,
    }
    return {name: value for name, value in numbers.items() if value is not None}


def run_entry(study: Study, now: RoundMetrics) -> RunEntry:
    """The round's line in the indexes."""
    first = next(iter(metrics_of(now.task)), None)
    return RunEntry(
        study=study.study,
        title=study.title,
        server_round=now.server_round,
        total_rounds=now.total_rounds,
        run_id=now.run_id,
        status=now.status,
        num_contributors=now.num_contributors,
        num_sites=len(now.sites),
        mechanism=now.mechanism,
        closed_at=now.closed_at.isoformat(),
        seconds=now.seconds,
        epsilon=now.epsilon,
        epsilon_budget=now.epsilon_budget,
        metric=first.label if first else "",
        figure=now.pooled.get(first.name, now.figures.get(first.name)) if first else None,
    )


def _page(
    study: Study,
    rounds: Sequence[RoundMetrics],
    baselines: Baselines | None,
    charts: Sequence[Chart],
    damaged: Sequence[str],
) -> bytes:
    now = rounds[-1]
    steps = plots.step_order(now.sites)
    return pages.render(
        "report.html",
        study=study,
        now=now,
        rounds=rounds,
        baselines=baselines,
        banners=view.banners(now, damaged),
        tiles=view.round_tiles(now, baselines),
        metrics=[metric for metric in metrics_of(now.task) if metric.name in {chart.name for chart in charts}],
        figures=view.figure_rows(now),
        metric_note=view.metric_note(study, now),
        demo_only=view.DEMO_ONLY,
        privacy=privacy_view.privacy(study, now),
        steps=steps,
        sites=view.sites(now, steps),
        objects=view.objects(now),
        charts={chart.name: chart for chart in charts},
        svg={chart.name: Markup(chart.svg) for chart in charts},  # drawn here; matplotlib escapes its texts
    )


def _json(content: dict[str, object] | dict[str, float]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
