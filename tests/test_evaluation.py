"""Figures against scikit-learn, and what of them may leave a site."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from tasks.evaluation import auc, log_loss, suppress, validate_model
from tasks.models import build_model
from tasks.records import ModelRef, Plan, SiteMetrics
from tasks.storage import to_json
from tasks.study import Evaluation, NoPrivacy, Training
from tasks.tensors import set_parameters

MIN_CELL = 5
AUC, LOSS = 0.7654321, 0.6543219


def metrics(total: int) -> SiteMetrics:
    return SiteMetrics(
        study="s",
        server_round=1,
        site="701",
        model_sha256="",
        min_cell=MIN_CELL,
        num_examples=total,
        log_loss=LOSS,
        auc=AUC,
    )


def labels(positive: int, negative: int) -> torch.Tensor:
    return torch.tensor([1.0] * positive + [0.0] * negative)


# figures


@given(
    pairs=st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    )
)
def test_auc_is_sklearns_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 0, 1, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
    ],
)
def test_auc_by_hand(scores: list[float], truth: list[float], expected: float) -> None:
    assert auc(np.array(scores, float), np.array(truth, float)) == expected


@pytest.mark.parametrize("truth", [[], [0, 0], [1, 1, 1]])
def test_auc_needs_both_labels(truth: list[float]) -> None:
    assert auc(np.arange(len(truth), dtype=float), np.array(truth, float)) is None


@given(pairs=st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=40))
def test_log_loss_is_sklearns(pairs: list[tuple[float, bool]]) -> None:
    logits, truth = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    expected = sklearn_log_loss(truth, 1 / (1 + np.exp(-logits)), labels=[0, 1])
    assert log_loss(logits, truth) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_log_loss_at_the_edges() -> None:
    assert log_loss(np.array([]), np.array([])) is None
    assert log_loss(np.zeros(3), np.array([0.0, 1, 1])) == pytest.approx(np.log(2))
    assert log_loss(np.array([1000.0, -1000.0]), np.array([1.0, 0.0])) == 0
    assert log_loss(np.array([1000.0, -1000.0]), np.array([0.0, 1.0])) == 1000


def test_a_model_is_validated_with_the_plans_figures() -> None:
    model = build_model("tasks.models:LogisticRegression", 2, {}, seed=0)
    set_parameters(model, {"linear.weight": torch.tensor([[1.0, -1.0]]), "linear.bias": torch.tensor([0.5])})
    inputs, truth = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([1.0, 0.0, 0.0])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plan = Plan(
        study="derm56",
        study_digest="d",
        server_round=4,
        run_id="r",
        opened_at=now,
        deadline=now,
        sites=("701",),
        min_sites=1,
        strict=True,
        base_model=ModelRef(server_round=3, key="k", sha256="x"),
        training=Training(lr=0.1, local_epochs=1),
        privacy=NoPrivacy(mechanism="none", i_accept_no_privacy=True),
        evaluation=Evaluation(holdout_fraction=0.2, min_cell=7),
        total_rounds=5,
    )
    found = validate_model(model, inputs, truth, plan, "701", "m" * 64)
    assert (found.study, found.server_round, found.site, found.model_sha256) == ("derm56", 4, "701", "m" * 64)
    assert (found.min_cell, found.num_examples, found.suppressed) == (7, 3, ())
    assert found.auc == 1.0
    assert found.log_loss == pytest.approx(np.mean(np.log1p(np.exp([-1.5, -1.5, 0.5]))), rel=1e-6)


# what may leave


@pytest.mark.parametrize(
    ("positive", "negative", "hidden"),
    [
        (0, 0, ("num_examples", "log_loss", "auc")),
        (2, 2, ("num_examples", "log_loss", "auc")),
        (4, 0, ("num_examples", "log_loss", "auc")),
        (5, 0, ("auc",)),
        (0, 5, ("auc",)),
        (4, 5, ("auc",)),
        (5, 4, ("auc",)),
        (1, 40, ("auc",)),
        (5, 5, ()),
        (50, 50, ()),
    ],
)
def test_small_cells_are_suppressed(positive: int, negative: int, hidden: tuple[str, ...]) -> None:
    total = positive + negative
    kept = suppress(metrics(total), labels(positive, negative))
    assert kept.suppressed == hidden
    expected = {"num_examples": total, "log_loss": 0.654, "auc": 0.765}
    for name, value in expected.items():
        assert getattr(kept, name) == (None if name in hidden else value), name


def test_nothing_suppressed_is_anywhere_in_the_json() -> None:
    """The figures' digits, whole or rounded, stand in no field of what is uploaded."""
    full = metrics(4)
    text = to_json(suppress(full, labels(2, 2))).decode()
    for value in (AUC, LOSS):
        assert str(value) in to_json(full).decode()
        assert f"{value:.2f}"[1:] not in text
    fields = json.loads(text)
    assert {name for name, value in fields.items() if value is None} == {"num_examples", "log_loss", "auc"}
    rest = {name: value for name, value in fields.items() if value is not None}
    assert rest == {
        "study": "s",
        "server_round": 1,
        "site": "701",
        "model_sha256": "",
        "min_cell": MIN_CELL,
        "suppressed": ["num_examples", "log_loss", "auc"],
        "seconds": 0.0,
    }


def test_figures_are_rounded_to_three_digits() -> None:
    text = to_json(suppress(metrics(20), labels(10, 10))).decode()
    assert '"auc": 0.765,' in text
    assert '"log_loss": 0.654,' in text
    assert str(AUC)[:6] not in text


def test_a_figure_that_there_is_none_of_stays_none() -> None:
    kept = suppress(metrics(20).model_copy(update={"auc": None, "log_loss": None}), labels(10, 10))
    assert (kept.auc, kept.log_loss, kept.num_examples, kept.suppressed) == (None, None, 20, ())
