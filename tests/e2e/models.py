"""Models that misbehave once, at whichever site trains first."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch

from tasks.learning import training
from tasks.models import LogisticRegression


def _is_trained() -> bool:
    """Whether a site's training calls, at whatever depth."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not training.descend.__code__:
        frame = frame.f_back
    return frame is not None


class _Once(LogisticRegression):
    """Does something in the third step of a site's training, in the first process that gets there."""

    def __init__(self, num_inputs: int, mark: str) -> None:
        super().__init__(num_inputs)
        self.mark, self.steps = Path(mark), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if _is_trained():  # a look at the model before a round calls it, too
            self.steps += 1
            if self.steps == 3 and self._first():
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
