"""What the hub makes of a closed round from what one site has sent: its record, and the words and tables of a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from fuzz.world import SITE, SITES, World
from tasks.data.checks.runner import CheckResult, ValidationResult
from tasks.privacy.ledger.evidence import Evidence
from tasks.privacy.ledger.spend_table import _row, chain_table
from tasks.rounds.hub.answers import Answers, why_silent
from tasks.rounds.hub.cards import LIMITS
from tasks.rounds.hub.close import _summarise
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.selection import chosen_update, largest_spend
from tasks.rounds.page import privacy_view, view
from tasks.rounds.page.build import metrics as numbers
from tasks.rounds.page.build import run_entry
from tasks.store import clock, layout
from tasks.store.hub_signature import sign_as_hub
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.model import ModelCard
from tasks.store.records.report import RoundMetrics, SiteMetrics
from tasks.store.records.round import Manifest, Refusal, Selection

SILENT = SITES[0]


def sent(world: World) -> bytes:
    """What sites send beside an update, in one JSON object: one site's metrics, checks and seconds, a refusal."""
    study, model = world.plan.study, world.plan.base_model.sha256
    check = CheckResult(id="adsl/AGE", success=False, waived_by="somebody", note="a note")
    parts = {
        "metrics": SiteMetrics(
            study=study,
            server_round=1,
            site=SITE,
            model_sha256=model,
            min_cell=5,
            num_examples=9,
            figures={"log_loss": 0.5, "auc": 1},
        ),
        "validation": ValidationResult(site=SITE, success=True, checks=(check, check)),
        "refusal": Refusal(study=study, server_round=1, site=SILENT, step="train_local", reason="a reason"),
    }
    made = {name: json.loads(to_json(record)) for name, record in parts.items()}
    return json.dumps(made | {"seconds": {"train_local": 0.1, "privatize_and_upload": 1e3}}).encode()


def closer(world: World) -> Callable[[bytes], object]:
    """Closes a round on such a body: each part is read from the store as the hub reads it, or counts as not written."""
    hub = _hub(world)

    def close(body: bytes) -> object:
        parts = _parts(body)
        study = world.plan.study
        world.store.bodies |= {
            layout.site_metrics(study, 1, SITE): parts.get("metrics", b""),
            layout.data_validation(study, 1, SITE): parts.get("validation", b""),
            layout.refusal(study, 1, SILENT): parts.get("refusal", b""),
        }
        selection = _selection(world, hub, parts.get("seconds", b"{}"))
        found = _summarise(hub, world.plan, selection, _card(world, selection))
        stored = to_json(found)
        assert len(stored) <= max_bytes(RoundMetrics), "the record is larger than what the hub reads"
        return _shown(hub, RoundMetrics.model_validate_json(stored))

    return close


def spender(world: World) -> Callable[[bytes], object]:
    """Verifies a ledger of this one entry, and of it after a sound one, and prints both in the hub's tables."""

    def verify(body: bytes) -> object:
        shown = []
        for bodies in ({1: body}, {1: world.entry, 2: body}):
            evidence = Evidence(world.plan.study, SITE, bodies, (), world.enrolment.certificate_pem, ())
            report = evidence.verify()
            shown += [to_json(report), to_json(_row(report, world.study)), chain_table([report], "title").row_count]
        return shown

    return verify


def _hub(world: World) -> HubContext:
    """A study whose held-out patients are not pooled: nothing here reads data."""
    evaluation = world.study.evaluation.model_copy(update={"data_are_public": False})
    return replace(world.hub, study=world.study.model_copy(update={"evaluation": evaluation}))


def _parts(body: bytes) -> dict[str, bytes]:
    """The parts as bytes of their own; a body that is no such object stands for all of them."""
    try:
        found = json.loads(body)
        return {name: json.dumps(part).encode() for name, part in found.items()}
    except (ValueError, AttributeError, RecursionError):
        return dict.fromkeys(("metrics", "validation", "refusal"), body)


def _selection(world: World, hub: HubContext, seconds: bytes) -> Selection:
    """One update whose manifest says these seconds, if a manifest may say so, and why another site has sent none."""
    try:
        line = json.loads(to_json(world.manifest)) | {"seconds": json.loads(seconds)}
        manifest = Manifest.model_validate_json(json.dumps(line))
    except ValueError:
        manifest = world.manifest
    answers = Answers(frozenset(SITES), {SITE}, {SILENT})
    return Selection(
        study=world.plan.study,
        server_round=1,
        run_id="run",
        chosen=(chosen_update(manifest, world.plan),),
        missing={SILENT: why_silent(hub, world.plan, SILENT, answers)},
    )


def first_card(world: World) -> ModelCard:
    """The card of the model that the round starts from, signed by the hub."""
    selection = Selection(study=world.plan.study, server_round=1, run_id="run", chosen=(), missing={})
    card = _card(world, selection).model_copy(update={"server_round": world.plan.base_model.server_round})
    return sign_as_hub(card, world.folder / "hub")


def _card(world: World, selection: Selection) -> ModelCard:
    model = world.plan.base_model
    return ModelCard(
        study=world.plan.study,
        title=world.study.title,
        study_digest=world.study.digest,
        server_round=1,
        created_at=clock.now(),
        model=model,
        evaluated_model=model,
        averaged_rounds=0,
        base_model=None,
        architecture="a",
        inputs=(),
        contributors={},
        missing=selection.missing,
        spend=largest_spend(selection),
        code_version="0",
        intended_use="",
        limits=LIMITS,
    )


def _shown(hub: HubContext, now: RoundMetrics) -> object:
    """Everything of the page but the charts, which take a second, and the round after it, a day later."""
    later = now.model_copy(update={"closed_at": now.closed_at + timedelta(days=1)})
    steps = sorted({step for row in now.sites for step in row.seconds})
    words = view.banners(now), view.round_tiles(now, None), view.sites(now, steps), view.metric_note(hub.study, now)
    return words, privacy_view.privacy(hub.study, now), numbers([now, later]), run_entry(hub.study, later)
