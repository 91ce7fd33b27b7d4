"""Labels of every task, and made-up patients for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from tasks.learning.arrays import Floats
from tasks.learning.tasks import task_of
from tasks.learning.tasks.task import Task
from tasks.study.label import Label

UNTIL = [10.0, 20.0, 40.0, 60.0]
LABELS: dict[str, dict[str, Any]] = {
    "binary": {"positive_when": [{"column": "EVENT", "is": 1}]},
    "multiclass": {"column": "SEV", "classes": {"none": [], "mild": ["MILD"], "severe": ["SEVERE"]}}
    | {"without_rows": "none"},
    "regression": {"column": "AVAL", "low": -20, "high": 30},
    "count": {"most": 12},
    "survival": {"time": "AVAL", "event_when": [{"column": "CNSR", "is": 0}], "until": UNTIL},
    "cox": {"time": "AVAL", "event_when": [{"column": "CNSR", "is": 0}], "cut_off": 100},
}


def label_of(name: str, **changes: Any) -> Label:
    """A label of this task."""
    content = {"name": "end", "table": "adsl", "task": name, **LABELS[name], **changes}
    found: Label = TypeAdapter(Label).validate_python(content)
    return found


def a_task(name: str, **changes: Any) -> Task:
    """A task of this name."""
    return task_of(label_of(name, **changes))


def outputs_of(task: Task, number: int, seed: int = 0) -> torch.Tensor:
    """Outputs of a model for so many patients, float64."""
    shape = (number,) if task.num_outputs is None else (number, task.num_outputs)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def followed(number: int = 80, seed: int = 7) -> tuple[Floats, Floats, Floats]:
    """Inputs (patients, 2), whole days until event or censoring, and whether it is an event."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, 2))
    failed = np.round(rng.exponential(np.exp(-(x @ [0.8, -0.5]))) * 30 + 1)
    left = np.round(rng.exponential(40, size=number) + 1)
    return x, np.minimum(failed, left), (failed <= left).astype(np.float64)


def minimise(loss: Any, size: int) -> Floats:
    """The parameters (size,) at which `loss(parameters)` is least, by L-BFGS from zero in float64."""
    found = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=500, tolerance_grad=1e-11, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value: torch.Tensor = loss(found)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)
    return found.detach().numpy()
