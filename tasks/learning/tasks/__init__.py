"""What can be learned: one module for each `label.task` of a study, with its loss, its figures and its sums.

binary      yes or no, by log-loss
multiclass  one of several classes, by log-loss
regression  a number between public bounds, by squared error
count       how many in a time, by Poisson's likelihood
survival    when, in discrete time, by the likelihood of each interval's hazard
cox         when, by Cox's partial likelihood
task        what every task answers
ranking     AUC, average precision, concordance
sums        figures from sums over patients, and their errors under noise

A new one is a module here, its section in `tasks.study.label`, and a line in the table below.
"""

from __future__ import annotations

from typing import assert_never

from tasks.learning.tasks.binary import Binary
from tasks.learning.tasks.count import Counts
from tasks.learning.tasks.cox import Cox
from tasks.learning.tasks.multiclass import Multiclass
from tasks.learning.tasks.regression import Regression
from tasks.learning.tasks.survival import Survival
from tasks.learning.tasks.task import Task
from tasks.study.label import (
    BinaryLabel,
    CountLabel,
    CoxLabel,
    Label,
    MulticlassLabel,
    RegressionLabel,
    SurvivalLabel,
)


def task_of(label: Label) -> Task:
    """The task of a study's label. The type checker refuses a section that has none."""
    match label:
        case BinaryLabel():
            return Binary(label)
        case MulticlassLabel():
            return Multiclass(label)
        case RegressionLabel():
            return Regression(label)
        case CountLabel():
            return Counts(label)
        case SurvivalLabel():
            return Survival(label)
        case CoxLabel():
            return Cox(label)
    assert_never(label)
