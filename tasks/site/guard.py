"""Two guards around every step at a site: no patient value in what is raised, and no work past the deadline."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

from tasks.errors import DeadlinePassed, PharmafedError, SiteStepFailed
from tasks.settings import PROJECT


@contextmanager
def no_values_in_errors(step: str, site: str) -> Iterator[None]:
    """Let our own errors through; of any other, raise only its type and the place in our code.

    An exception of pandas, numpy or Great Expectations may quote a cell. It is neither chained nor logged here, so
    its message reaches no traceback, log or callback.
    """
    place = ""
    try:
        yield
    except PharmafedError:
        raise
    except Exception as error:
        place = f"{type(error).__name__} at {_place(error)}"
    if place:
        raise SiteStepFailed(
            f"{step} at site {site}: {place}. The message is withheld because it may quote a patient's record: "
            f"run the step at the site to see it"
        )


@contextmanager
def before(deadline: datetime, what: str) -> Iterator[None]:
    """Stop the work when the round's deadline passes.

    Raises:
        DeadlinePassed: at the deadline, or at once if it is over.
    """
    seconds = (deadline - datetime.now(UTC)).total_seconds()
    if seconds <= 0:
        raise DeadlinePassed(f"{what}: the deadline {deadline.isoformat()} is over")
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise DeadlinePassed(f"{what}: stopped at the deadline {deadline.isoformat()}")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _place(error: BaseException) -> str:
    """The innermost line of our own code that the error passed."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(PROJECT / "tasks"))
    ]
    if not ours:
        return "an unknown place"
    return f"{ours[-1].filename.removeprefix(str(PROJECT) + '/')}:{ours[-1].lineno}"
