"""What a figure is called and which way is better: all that a report, a table or a chart needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One figure.

    best: the value to come near, where there is one. largest_error: under
    noise, of a standard error that says anything; None: half of the figure. lowest, highest: what it can be at all.
    """

    name: str
    label: str
    better: Literal["higher", "lower", "nearer"]
    best: float | None = None
    largest_error: float | None = 0.2
    lowest: float = 0.0
    highest: float = 1.0

    def allows(self, value: float) -> bool:
        """Whether any model can have this value."""
        return self.lowest <= value <= self.highest

    def is_told(self, value: float, error: float) -> bool:
        """Whether a figure with this standard error says anything; by default one of 0 to 1 is meant."""
        return error <= (0.5 * abs(value) if self.largest_error is None else self.largest_error)

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        if self.better == "nearer":
            return f"best: {self.best:g}"
        return f"{self.better} is better"


AUC = Metric("auc", "AUC", "higher")
LOG_LOSS = Metric("log_loss", "Log loss", "lower", highest=1e6)
AVERAGE_PRECISION = Metric("average_precision", "Average precision", "higher")
ACCURACY = Metric("accuracy", "Accuracy", "higher")
BALANCED_ACCURACY = Metric("balanced_accuracy", "Balanced accuracy", "higher")
BRIER = Metric("brier", "Brier score", "lower", highest=2.0)
CALIBRATION_SLOPE = Metric("calibration_slope", "Calibration slope", "nearer", best=1.0, lowest=-1e6, highest=1e6)
CALIBRATION_INTERCEPT = Metric(
    "calibration_intercept", "Calibration intercept", "nearer", best=0.0, lowest=-1e6, highest=1e6
)
MACRO_AUC = Metric("macro_auc", "Macro AUC", "higher")
RMSE = Metric("rmse", "Root mean squared error", "lower", largest_error=None, highest=1e12)
MAE = Metric("mae", "Mean absolute error", "lower", largest_error=None, highest=1e12)
R2 = Metric("r2", "R²", "higher", lowest=-1e12)
DEVIANCE = Metric("deviance", "Mean Poisson deviance", "lower", largest_error=None, highest=1e12)
CONCORDANCE = Metric("concordance", "Harrell's C", "higher")
INTEGRATED_BRIER = Metric("integrated_brier", "Integrated Brier score", "lower", highest=1e6)
PARTIAL_LOSS = Metric("partial_loss", "Partial log loss an event", "lower", highest=1e6)

#: Task -> its metrics, its own first.
OF_TASK: dict[str, tuple[Metric, ...]] = {
    "binary": (
        AUC,
        LOG_LOSS,
        AVERAGE_PRECISION,
        ACCURACY,
        BALANCED_ACCURACY,
        BRIER,
        CALIBRATION_SLOPE,
        CALIBRATION_INTERCEPT,
    ),
    "multiclass": (MACRO_AUC, LOG_LOSS, ACCURACY, BALANCED_ACCURACY, BRIER),
    "regression": (RMSE, R2, MAE),
    "count": (DEVIANCE, MAE),
    "survival": (CONCORDANCE, INTEGRATED_BRIER, LOG_LOSS),
    "cox": (CONCORDANCE, PARTIAL_LOSS),
}

#: By name.
METRICS = {metric.name: metric for own in OF_TASK.values() for metric in own}


def metrics_of(task: str) -> tuple[Metric, ...]:
    """What a task of this name is judged by; one that is not known has no metric."""
    return OF_TASK.get(task, ())
