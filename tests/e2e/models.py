"""Models that misbehave once, at whichever site trains first."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from tasks.models import LogisticRegression


class _Once(LogisticRegression):
    """Does something in the fifth training step of the first process that gets there; a look at the model has three."""

    def __init__(self, num_inputs: int, mark: str) -> None:
        super().__init__(num_inputs)
        self.mark, self.steps = Path(mark), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.steps += torch.is_grad_enabled()
        if self.steps == 5 and self._first():
            self.misbehave()
        return super().forward(inputs)

    def _first(self) -> bool:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def misbehave(self) -> None:
        raise NotImplementedError


class KilledOnce(_Once):
    """The worker is killed in the middle of training."""

    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class SlowOnce(_Once):
    """The site is far too slow for the round's deadline."""

    def misbehave(self) -> None:
        time.sleep(600)
