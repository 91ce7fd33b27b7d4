"""A site driven by an arbitrary hub: any plans, models and rosters, in any order of calls.

Whatever the hub does: what leaves the site never exceeds what its ledger says, no mask is used for two vectors, and
nothing that the site says or refuses depends on a patient. For the last, two studies are driven alike whose data differ
in one patient of the site: every answer must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tasks.errors import PharmafedError, PrivacyError
from tasks.privacy.secure_sum import opening, protocol
from tasks.privacy.secure_sum.records import KeyMessage, Roster, Survivors
from tasks.rounds.site import global_models
from tasks.store import layout
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelCard, ModelRef
from tasks.store.records.round import Plan, Refusal
from tasks.store.weights import Weights, parameters, sha256, to_bytes
from tests.rounds.hub.federation import FEW, LOCAL_DP, Federation
from tests.rounds.hub.masked_rounds import MASKED
from tests.rounds.hub.test_site_bad_data import table, write

SITE = "717"
OTHERS = tuple(site for site in FEW if site != SITE)
TOTAL = 4
STEPS = ("validate_data", "train", "privatize_and_upload", "unmask", "validate_global")
PLAIN: dict[str, Any] = {"privacy": LOCAL_DP, "rounds": {"total": TOTAL, "min_sites": 3}}
BEHIND_MASKS: dict[str, Any] = MASKED | {"rounds": {"total": TOTAL, "min_sites": 3}}
AGE = 2

#: Models that a hub may offer: each changes the weight of the patients' age, or what a model is.
MODELS: dict[str, Callable[[Weights], Weights]] = {
    "first": lambda w: w,
    "infinity": lambda w: _aged(w, float("inf")),
    "minus infinity": lambda w: _aged(w, float("-inf")),
    "nan": lambda w: _aged(w, float("nan")),
    "largest": lambda w: _aged(w, -global_models.MAX_WEIGHT),
    "beyond": lambda w: _aged(w, 3e38),
    "shape": lambda w: w | {"linear.bias": torch.zeros(2)},
}
TERMS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "the study's": lambda _: {},
    "longer": lambda p: {"deadline": p.deadline + timedelta(days=1)},
    "fewer": lambda p: {"sites": p.sites[:2]},
    "no noise": lambda p: {"privacy": p.privacy.model_copy(update={"epsilon": 90.0})},
}


def _aged(weights: Weights, value: float) -> Weights:
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    changed["linear.weight"][0, AGE] = value
    return changed


class MaskUse:
    """Which vector each site's own seed has masked; a second one is an error that no step may swallow."""

    def __init__(self) -> None:
        self.vectors: dict[bytes, bytes] = {}
        self.twice = 0

    def __call__(self, values: np.ndarray, keys: Any, *rest: Any) -> np.ndarray:
        masked = MASK(values, keys, *rest)
        self.twice += self.vectors.setdefault(keys.self_seed, values.tobytes()) != values.tobytes()
        return masked


MASK = protocol.mask


class Hub(RuleBasedStateMachine):
    """One hub, two studies that differ in one patient of one site."""

    fed: ClassVar[Federation]
    parts: ClassVar[dict[str, Any]]
    use: ClassVar[MaskUse]
    released: ClassVar[int] = 0

    @initialize()
    def make_twins(self) -> None:
        self.studies = [self.fed.new_study(**self.parts | {"data": data}) for data in (EVEN, SHIFTED)]
        self.other = self.fed.new_study()
        self.plans = [self.fed.open(study) for study in self.studies]

    # what the hub does, in both studies alike

    @rule(
        at=st.integers(1, 3),
        name=st.sampled_from((0, 0, 0, 1)),
        other_study=st.sampled_from((False, False, True)),
        terms=st.sampled_from(("the study's", "the study's", *TERMS)),
        model=st.sampled_from(("first", "first", *MODELS)),
        run=st.sampled_from(("run", "another")),
        signed=st.sampled_from((True, True, False)),
    )
    def plan(self, at: int, name: int, other_study: bool, terms: str, model: str, run: str, signed: bool) -> None:
        """Offer a plan: under its own name or another's, on any terms, from any model, signed or not."""
        for study, plan in zip(self.studies, self.plans, strict=True):
            ref = self._offer(study, model)
            called = self.other if other_study else study
            changes = {"study": called, "server_round": at + name, "run_id": run}
            changes |= {"base_model": ref, "evaluated_model": ref} | TERMS[terms](plan)
            forged = plan.model_copy(update=changes)
            if signed:
                self.fed.put_plan(forged, at=at, study=study)
            else:
                self.fed.store().put(layout.plan(study, at), to_json(forged), content_type="application/json")

    def _offer(self, study: str, model: str) -> ModelRef:
        weights = MODELS[model](parameters(self.fed.hub(study).initial_model()))
        body = to_bytes(weights)
        ref = ModelRef(server_round=0, key=layout.model(study, 0), sha256=sha256(body))
        card = self.fed.store().get_record(layout.card(study, 0), ModelCard)
        self.fed.store().put(ref.key, body, content_type="application/octet-stream")
        self.fed.put_card(card.model_copy(update={"model": ref, "evaluated_model": ref}))
        return ref

    @rule(number=st.integers(1, 3), steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=3))
    def ask(self, number: int, steps: list[str]) -> None:
        """Let the site run any steps; of two sites that differ in a patient, both must answer the same."""
        for name in steps:
            said, other = (self._ask(study, number, name) for study in self.studies)
            assert said == other, f"{name} tells a patient: {said} / {other}"

    @rule(number=st.integers(1, 3))
    def whole_round(self, number: int) -> None:
        """What an honest hub would have it do."""
        self.ask(number, ["validate_data", "train"])
        self.freeze(number, "all", 1)
        self.ask(number, ["privatize_and_upload"])

    @precondition(lambda self: "channel" in self.parts)
    @rule(
        number=st.integers(1, 3), members=st.sampled_from(("all", "without one")), tolerated=st.sampled_from((1, 1, 2))
    )
    def freeze(self, number: int, members: str, tolerated: int) -> None:
        """Let the others send keys, then freeze a roster, or another one in its place."""
        for study in self.studies:
            for site in OTHERS:
                _quietly(lambda s=study, o=site: self.fed.run_site(s, number, o, ("train",)))
            _quietly(lambda s=study: self._freeze(s, number, members, tolerated))

    def _freeze(self, study: str, number: int, members: str, tolerated: int) -> None:
        store, messages = self.fed.store(), {}
        for site in FEW if members == "all" else FEW[1:]:
            if store.exists(layout.key_message(study, number, site)):
                messages[site] = store.get_record(layout.key_message(study, number, site), KeyMessage)
        roster = opening.make_roster(messages, run_id="run", missing={}, tolerated_dropouts=tolerated)
        store.put(layout.roster(study, number), to_json(roster), content_type="application/json")

    @precondition(lambda self: "channel" in self.parts)
    @rule(number=st.integers(1, 3), lost=st.sampled_from((None, *OTHERS)))
    def survive(self, number: int, lost: str | None) -> None:
        """Freeze any story about who survived."""
        for study in self.studies:
            _quietly(lambda s=study: self._survive(s, number, lost))

    def _survive(self, study: str, number: int, lost: str | None) -> None:
        roster = self.fed.store().get_record(layout.roster(study, number), Roster)
        alive = [site for site in roster.members if site != lost]
        survivors: Survivors = opening.freeze_survivors(roster, alive)
        self.fed.store().put(layout.survivors(study, number), to_json(survivors), content_type="application/json")

    # what is seen of the site

    def _ask(self, study: str, number: int, name: str) -> tuple[str, str]:
        """What the site's step says in its log, and what it has told the hub."""
        said = _quietly(lambda: self.fed.run_site(study, number, SITE, (name,)))
        key = layout.refusal(study, number, SITE)
        told = self.fed.store().get_record(key, Refusal).reason if self.fed.store().exists(key) else ""
        return self._without_names(study, said), self._without_names(study, told)

    def _without_names(self, study: str, text: str) -> str:
        return re.sub(r"sha256 \w+", "sha256", text.replace(study, "STUDY").replace("shifted/sites", "even/sites"))

    @invariant()
    def ledger_covers_what_has_left(self) -> None:
        for study in getattr(self, "studies", []):
            objects = self.fed.objects(layout.study_prefix(study) + "/")
            updates = [k for k in objects if f"/sites/{SITE}/" in k and k.endswith("update.safetensors")]
            paid = [LedgerEntry.model_validate_json(b) for k, b in objects.items() if f"/ledger/{SITE}/" in k]
            assert {sha256(objects[key]) for key in updates} <= {entry.release_sha256 for entry in paid}
            assert len(updates) <= len(paid) <= TOTAL
            assert len({entry.server_round for entry in paid}) == len(paid)
            assert all(entry.spend.epsilon <= entry.spend.epsilon_budget for entry in paid)
            type(self).released += len(updates)
        stray = list(self.fed.store().keys(layout.study_prefix(self.other) + "/")) if hasattr(self, "other") else []
        assert stray == [], "an update was booked under another study's name"

    @invariant()
    def no_mask_serves_twice(self) -> None:
        assert self.use.twice == 0


def _quietly(work: Callable[[], object]) -> str:
    try:
        work()
    except PharmafedError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


EVEN, SHIFTED = ({"root": f"{name}/sites", "pin": f"{name}.dvc"} for name in ("even", "shifted"))


@pytest.fixture(scope="module")
def twins(fed: Federation) -> Federation:
    """Two copies of the data: at the site everybody is 85, but for one patient in the second, who is 58."""
    for name, first in (("even", "85"), ("shifted", "58")):
        folder = fed.own_data(name, SITE)
        rows = table(folder, "adsl")
        age = rows[0].index("AGE")
        for number, row in enumerate(rows[1:]):
            row[age] = first if number == 0 else "85"
        write(folder, "adsl", rows)
        fed.pin(name)
    return fed


@contextmanager
def driving(fed: Federation, parts: dict[str, Any], patch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    use = MaskUse()
    patch.setattr(protocol, "mask", use)
    yield type("AnyHub", (Hub,), {"fed": fed, "parts": parts, "use": use, "released": 0})


def drive(machine: type[Hub], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("parts", [PLAIN, BEHIND_MASKS], ids=["plain", "masks"])
def test_nothing_leaves_a_site_but_what_its_ledger_says(
    twins: Federation, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any]
) -> None:
    with driving(twins, parts, monkeypatch) as machine:
        drive(machine, 4, 8)
        assert machine.released > 0, "no example came as far as a release"
        assert not machine.use.vectors if parts is PLAIN else machine.use.vectors


def test_a_site_that_takes_any_model_is_found_out(twins: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with a refusal where a gradient is not finite, and no look at the model, answers differ."""

    def refusing(gradients: np.ndarray, clip_norm: float) -> np.ndarray:
        if not np.isfinite(gradients).all():
            raise PrivacyError("a per-patient gradient is not finite, so it cannot be clipped")
        return CLIP(gradients, clip_norm)

    from tasks.privacy import train_local
    from tasks.rounds.site import steps

    CLIP = train_local.clip_to_grid
    monkeypatch.setattr(train_local, "clip_to_grid", refusing)
    monkeypatch.setattr(global_models, "check_weights", lambda *_: None)
    monkeypatch.setattr(steps, "paid_for", _let_through)
    with driving(twins, PLAIN, monkeypatch) as machine:
        hub = machine()
        hub.make_twins()
        with pytest.raises(AssertionError, match="tells a patient"):
            _ask_about(hub, ("infinity", "minus infinity"))


def _ask_about(hub: Hub, models: tuple[str, ...]) -> None:
    """Does a patient lie on one side of the centre, or on the other?"""
    for number, model in enumerate(models, 1):
        hub.plan(number, 0, False, "the study's", model, "run", True)
        hub.ask(number, ["train"])


@contextmanager
def _let_through(*_: Any) -> Iterator[None]:
    yield


def test_masks_that_serve_twice_are_found_out(twins: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the counter itself."""
    use = MaskUse()
    keys = type("Keys", (), {"self_seed": b"seed"})()
    monkeypatch.setitem(globals(), "MASK", lambda values, *_: values)
    for vector in ([1, 2], [1, 2], [1, 3]):
        use(np.array(vector), keys)
    assert use.twice == 1
