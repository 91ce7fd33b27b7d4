"""Two guards around every step at a site: no patient value in what is raised, and no work past the deadline."""

from __future__ import annotations

import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType

from tasks.errors import DataError, DeadlinePassed, PharmafedError, SiteStepFailed
from tasks.store import clock
from tasks.store.settings import PROJECT

_COUNTS = re.compile(r"\b\d[\d,]* (?=cells|lines|fields?|columns|file\(s\)|column names)")
_LINES = re.compile(r"\bline \d[\d,]*")


class _Stopped(BaseException):
    """What the alarm raises: no Exception, so no library takes the deadline for a fault of its own and goes on."""


@contextmanager
def no_values_in_errors(step: str, site: str) -> Iterator[None]:
    """Let our own errors through, without counts; of any other, raise only its type and the place in our code.

    How many cells are wrong, and in which line, is a figure about patients that no budget pays for: `pharmafed data
    check` tells it at the site.

    An exception of pandas, numpy or Great Expectations may quote a cell. It is neither chained nor logged here, so
    its message reaches no traceback, log or callback; nor does one that led to an error of ours.
    """
    failure: PharmafedError
    try:
        yield
        return
    except DataError as error:
        failure = type(error)(_COUNTS.sub("some ", _LINES.sub("some line", str(error))))
    except PharmafedError as error:
        failure = error
    except Exception as error:
        failure = SiteStepFailed(
            f"{step} at site {site}: {type(error).__name__} at {_place(error)}. The message is withheld because it "
            "may quote a patient's record: run the step at the site to see it"
        )
    try:
        raise failure
    finally:  # the `with` statement is still handling the first error, so Python has just chained it
        failure.__cause__ = failure.__context__ = None


@contextmanager
def before(deadline: datetime, what: str) -> Iterator[None]:
    """Stop the work when the round's deadline passes. An alarm that was set before goes on afterwards.

    Raises:
        DeadlinePassed: at the deadline, or at once if it is over.
    """
    seconds = (deadline - clock.now()).total_seconds()
    if seconds <= 0:
        raise DeadlinePassed(f"{what}: the deadline {deadline.isoformat()} is over")
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _Stopped

    previous = signal.signal(signal.SIGALRM, stop)
    started = time.monotonic()
    # Again each second: Python drops an exception that a handler raises inside a destructor or a weak reference.
    outer, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    except _Stopped:
        raise DeadlinePassed(f"{what}: stopped at the deadline {deadline.isoformat()}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - started), 1e-3), interval)


def _place(error: BaseException) -> str:
    """The innermost line of our own code that the error passed."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(PROJECT / "tasks")) and frame.filename != __file__
    ]
    if not ours:
        return "an unknown place"
    return f"{ours[-1].filename.removeprefix(str(PROJECT) + '/')}:{ours[-1].lineno}"
