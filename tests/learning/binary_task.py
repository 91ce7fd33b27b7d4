"""A task to train on where any label of yes or no will do."""

from __future__ import annotations

from tasks.learning.tasks.binary import Binary
from tasks.study.label import BinaryLabel

BINARY = Binary(
    BinaryLabel.model_validate({"name": "event", "table": "adsl", "positive_when": [{"column": "EVENT", "is": 1}]})
)
