"""Pooled figures of a model that has come apart: its round is closed all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tasks.data.reading.patients import Patients
from tasks.rounds import pooled
from tasks.store.records.model import ModelRef
from tasks.study.sections import Study
from tests.worked_examples import STUDY


@pytest.mark.parametrize(("size", "told"), [(1.0, {"auc", "log_loss"}), (1e8, {"auc"})])
def test_a_figure_that_no_record_holds_is_left_out(
    size: float, told: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-loss of logits of 10^8 is beyond what any model is believed; the order of patients is still one."""
    study = Study.model_validate(STUDY | {"privacy": {"mechanism": "none", "i_accept_no_privacy": True}})
    inputs = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    patients = {"a": Patients(inputs, labels, inputs, labels)}
    weights = {"linear.weight": torch.tensor([[size, 0.0]]), "linear.bias": torch.zeros(1)}
    monkeypatch.setattr(pooled, "public_patients", lambda _: patients)
    monkeypatch.setattr(pooled, "fetch_model", lambda *_: weights)
    store: Any = None
    found = pooled.pooled_figures(study, store, ModelRef(server_round=1, key="k", sha256="a" * 64))
    assert found["auc"] == 0.25
    assert {"auc", "log_loss"} & found.keys() == told
