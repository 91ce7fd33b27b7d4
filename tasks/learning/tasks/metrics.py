"""What a figure is called and which way is better: all that a report, a table or a chart needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One figure. `chance`: what a model that knows nothing has; `best`: the value to come near, where there is one."""

    name: str
    label: str
    better: Literal["higher", "lower", "nearer"]
    chance: float | None = None
    best: float | None = None

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        if self.better == "nearer":
            return f"best: {self.best:g}"
        return f"{self.better} is better"


AUC = Metric("auc", "AUC", "higher", chance=0.5)
LOG_LOSS = Metric("log_loss", "Log loss", "lower")
AVERAGE_PRECISION = Metric("average_precision", "Average precision", "higher")
ACCURACY = Metric("accuracy", "Accuracy", "higher")
BALANCED_ACCURACY = Metric("balanced_accuracy", "Balanced accuracy", "higher")
BRIER = Metric("brier", "Brier score", "lower")
CALIBRATION_SLOPE = Metric("calibration_slope", "Calibration slope", "nearer", best=1.0)
CALIBRATION_INTERCEPT = Metric("calibration_intercept", "Calibration intercept", "nearer", best=0.0)
MACRO_AUC = Metric("macro_auc", "Macro AUC", "higher", chance=0.5)
RMSE = Metric("rmse", "Root mean squared error", "lower")
MAE = Metric("mae", "Mean absolute error", "lower")
R2 = Metric("r2", "R²", "higher", chance=0.0)
DEVIANCE = Metric("deviance", "Mean Poisson deviance", "lower")
CONCORDANCE = Metric("concordance", "Harrell's C", "higher", chance=0.5)
INTEGRATED_BRIER = Metric("integrated_brier", "Integrated Brier score", "lower")
PARTIAL_LOSS = Metric("partial_loss", "Partial log loss an event", "lower")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        AUC,
        LOG_LOSS,
        AVERAGE_PRECISION,
        ACCURACY,
        BALANCED_ACCURACY,
        BRIER,
        CALIBRATION_SLOPE,
        CALIBRATION_INTERCEPT,
        MACRO_AUC,
        RMSE,
        MAE,
        R2,
        DEVIANCE,
        CONCORDANCE,
        INTEGRATED_BRIER,
        PARTIAL_LOSS,
    )
}
