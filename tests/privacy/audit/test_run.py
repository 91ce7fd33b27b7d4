"""Whole audits: right noise holds, each fault breaks the promise, and what cannot be proven is said to be so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.learning.arrays import Floats
from tasks.privacy.audit.observer import Observers, PatientGroups
from tasks.privacy.audit.patients import SYNTHETIC, audit_patients
from tasks.privacy.audit.run import run_audit
from tasks.privacy.audit.setting import layered_study
from tasks.privacy.audit.verdict import FALSE_ALARM, Audit, Figure, outcome_of
from tasks.store.records.ledger import Spend
from tasks.store.weights import Weights
from tasks.study.privacy import NoPrivacy
from tests.privacy.audit.audit_samples import (
    FAULTS,
    QUICK,
    ROUNDS,
    sample_patients,
    sample_spend,
    sample_study,
    stand_in,
)


def _audit(observers: Observers, seed: int = 0, spend: Spend | None = None, **options: Any) -> Audit:
    study = options.pop("study", None) or sample_study()
    return run_audit(
        study,
        observers.raw,
        observers.released,
        spend or sample_spend(),
        ROUNDS,
        seed=seed,
        patients=sample_patients(study),
        effort=options.pop("effort", QUICK),
        **options,
    )


@pytest.mark.parametrize("seed", range(3))
def test_right_noise_holds(seed: int) -> None:
    """Three deciding figures, each above its bound twice with probability 5e-4: 0.005 for the three seeds together."""
    audit = _audit(stand_in(sample_study(), seed), seed)
    assert audit.outcome == "holds", audit.findings
    assert audit.passed
    assert audit.false_alarm == pytest.approx(3 * FALSE_ALARM)
    assert audit.false_alarm < 2e-3
    assert all(f.works for finding in audit.findings for f in finding.figures if f.needed is not None)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_the_promise(fault: str) -> None:
    audit = _audit(stand_in(sample_study(), 11, **FAULTS[fault]), 11)
    assert audit.outcome == "broken"
    assert not audit.passed
    canary = {finding.attack: finding for finding in audit.findings}["canary"]
    assert canary.outcome == "broken"
    assert "second run" in canary.words


def test_no_noise_is_broken_by_every_attack() -> None:
    audit = _audit(stand_in(sample_study(), 0, scale=0.0))
    assert {finding.attack: finding.outcome for finding in audit.findings} == {
        "reconstruction": "broken",
        "membership": "broken",
        "canary": "broken",
    }


def test_attacks_that_fail_on_the_raw_update_prove_nothing() -> None:
    silent = np.random.default_rng(0)

    def noise(weights: Weights, groups: PatientGroups, server_round: int) -> Floats:
        return silent.standard_normal(sum(tensor.numel() for tensor in weights.values())) * 100

    audit = _audit(Observers(noise, noise))
    assert audit.outcome == "proves nothing"
    assert not audit.passed


def test_where_nothing_is_promised_there_is_no_bound() -> None:
    privacy = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
    study = sample_study().model_copy(update={"privacy": privacy})
    spend = Spend(mechanism="none", unit="nothing", neighbours="none", releases=1)
    raw = stand_in(study, 0).raw
    audit = _audit(Observers(raw, raw), spend=spend, study=study)
    assert audit.outcome == "nothing promised"
    assert audit.claimed_epsilon is None
    figures = [figure for finding in audit.findings for figure in finding.figures]
    assert not any(figure.decides or figure.bound is not None for figure in figures)


def test_progress_rises_to_the_end_and_the_layered_model_is_attacked() -> None:
    told: list[float] = []
    study = layered_study(sample_study())
    audit = _audit(
        stand_in(sample_study(), 0),
        layered=stand_in(study, 1),
        progress=lambda what, share: told.append(share),
        effort=replace(QUICK, iterations=4, site_rounds=0, min_transcripts=8),
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    exact = [f for f in audit.findings[0].figures if f.unit == "share"]
    assert [f.works for f in exact] == [True] * 5
    assert audit.findings[0].outcome == "holds"


def test_synthetic_patients_where_data_are_not_public() -> None:
    evaluation = sample_study().evaluation.model_copy(update={"data_are_public": False})
    study = sample_study().model_copy(update={"evaluation": evaluation})
    audience = audit_patients(study, None)
    limits = [spec.clip * spec.gain for spec in study.inputs]
    assert not audience.real
    assert audience.inputs.shape == (SYNTHETIC, len(limits))
    assert (audience.inputs.abs().max(dim=0).values.numpy() <= np.array(limits, dtype=np.float32)).all()
    assert 0.2 < float(audience.labels.mean()) < 0.8
    assert "synthetic" in audience.words


def test_one_run_above_the_bound_is_chance_and_two_are_a_fault() -> None:
    once = Figure(name="a", unit="AUC", on="released", value=0.75, standard_error=0.01, bound=0.7, decides=True)
    proof = Figure(name="b", unit="AUC", on="raw", value=0.9, needed=0.8)
    chance = once.model_copy(update={"again": 0.71, "again_standard_error": 0.01})
    fault = once.model_copy(update={"again": 0.73, "again_standard_error": 0.01})
    assert outcome_of([proof, chance], promised=True) == "holds"
    assert outcome_of([proof, fault], promised=True) == "broken"
    weak = proof.model_copy(update={"value": 0.7})
    assert outcome_of([weak, chance], promised=True) == "proves nothing"
    assert outcome_of([weak, fault], promised=True) == "broken"
