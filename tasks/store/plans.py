"""The plan of a round that no hub opens: what a site's functions read of one, for simulation and audit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tasks.store.records.model import ModelRef
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, sha256, to_bytes
from tasks.study.sections import Study


def plan_round(study: Study, sites: tuple[str, ...], base: Weights, evaluated: Weights, server_round: int) -> Plan:
    """The plan that the hub would write for a round over these sites, as far as a site's functions read it."""
    now = datetime.now(UTC)
    return Plan(
        study=study.study,
        study_digest=study.digest,
        run_id="simulation",
        opened_at=now,
        deadline=now,
        sites=sites,
        min_sites=len(sites),
        strict=True,
        training=study.training,
        privacy=study.privacy,
        channel=study.channel,
        strategy=study.strategy,
        codec=study.codec,
        evaluation=study.evaluation,
        total_rounds=study.rounds.total,
        **of_round(base, evaluated, server_round),
    )


def of_round(base: Weights, evaluated: Weights, server_round: int) -> dict[str, Any]:
    """What of a plan differs from round to round."""
    base_model = _ref(base, server_round - 1)
    return {
        "server_round": server_round,
        "base_model": base_model,
        "evaluated_model": base_model if evaluated is base else _ref(evaluated, server_round - 1),
    }


def _ref(weights: Weights, server_round: int) -> ModelRef:
    return ModelRef(server_round=server_round, key="", sha256=sha256(to_bytes(weights)))
