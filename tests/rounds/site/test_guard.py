"""No patient's value in what a step raises, and no work past the deadline."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tasks.errors import DataError, DeadlinePassed, PharmafedError, SiteStepFailed, StoreUnavailable, ValidationFailed
from tasks.privacy.noise.grid import clip_to_grid
from tasks.rounds.site.guard import before, no_values_in_errors

SECRET = "01-701-1015"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and everything that it is chained to, suppressed or not."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__cause__, one.__context__]
            todo += list(one.exceptions) if isinstance(one, BaseExceptionGroup) else []


def leaks(error: BaseException) -> list[str]:
    """Where SECRET shows."""
    found = []
    for number, one in enumerate(chain(error)):
        texts = {
            "str": str(one),
            "repr": repr(one),
            "args": repr(one.args),
            "notes": repr(getattr(one, "__notes__", "")),
        }
        found += [f"{number}.{place}" for place, text in texts.items() if SECRET in text]
    if SECRET in "".join(traceback.format_exception(error)):
        found.append("traceback")
    return found


def caught(raiser: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:
        raiser()
    return info.value


# the helper itself


def chained_by_context() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        raise DataError("a table cannot be read")  # noqa: B904


def chained_by_cause() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        raise DataError("a table cannot be read") from error


def suppressed() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        raise DataError("a table cannot be read") from None


def noted() -> None:
    error = ValueError("x")
    error.add_note(SECRET)
    raise error


def grouped() -> None:
    raise ExceptionGroup("x", [ValueError(SECRET)])


def plain() -> None:
    raise ValueError(f"could not convert {SECRET}")


def by_pandas() -> None:
    pd.Series({SECRET: 1.0})[[SECRET + "x"]]


def by_float() -> None:
    float(SECRET)


def by_key() -> None:
    {}[SECRET]


LEAKS = [plain, by_pandas, by_float, by_key, noted, grouped, chained_by_context, chained_by_cause, suppressed]


@pytest.mark.parametrize("raiser", LEAKS)
def test_the_helper_sees_each_leak(raiser: Callable[[], None]) -> None:
    assert leaks(caught(raiser))


# no values in errors


def guarded(raiser: Callable[[], None]) -> BaseException:
    def run() -> None:
        with no_values_in_errors("train_local", "701"):
            raiser()

    return caught(run)


@pytest.mark.parametrize("raiser", LEAKS)
def test_no_value_gets_out(raiser: Callable[[], None]) -> None:
    error = guarded(raiser)
    assert leaks(error) == []
    assert isinstance(error, PharmafedError)
    assert list(chain(error)) == [error]


def test_a_foreign_error_becomes_its_type_and_place() -> None:
    error = guarded(lambda: clip_to_grid("no array", 1.0))  # type: ignore[arg-type]
    assert isinstance(error, SiteStepFailed)
    assert str(error).startswith("train_local at site 701: TypeError at tasks/privacy/noise/grid.py:")
    assert "run the step at the site" in str(error)


def test_a_place_outside_our_code_is_unknown() -> None:
    error = guarded(plain)
    assert str(error).startswith("train_local at site 701: ValueError at an unknown place. ")


def test_our_own_errors_pass_as_they_are() -> None:
    own = StoreUnavailable("object store http://x does not answer")

    def raiser() -> None:
        raise own

    assert guarded(raiser) is own
    frames = [frame.name for frame in traceback.extract_tb(own.__traceback__)]
    assert "raiser" in frames, "where it was raised is still told"


def test_numbers_do_not_get_out() -> None:
    value = 7391.25

    def raiser() -> None:
        np.testing.assert_array_equal([value], [0.0])

    assert str(value) in str(caught(raiser))
    assert "7391" not in "".join(traceback.format_exception(guarded(raiser)))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_being_stopped_is_no_error(stop: type[BaseException]) -> None:
    def raiser() -> None:
        raise stop

    assert type(guarded(raiser)) is stop


def test_without_an_error_nothing_happens() -> None:
    with no_values_in_errors("train_local", "701"):
        done = True
    assert done


# deadline


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_sleeping_step_is_stopped_at_the_deadline() -> None:
    started = time.monotonic()
    with (
        pytest.raises(DeadlinePassed, match="train_local of round 3: stopped at the deadline 20"),
        before(soon(0.2), "train_local of round 3"),
    ):
        time.sleep(20)
    assert 0.15 < time.monotonic() - started < 5


def test_a_computing_step_is_stopped_at_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlinePassed), before(soon(0.2), "x"):
        sum(1 for _ in iter(lambda: time.monotonic() - started > 20, True))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("seconds", [0.0, -0.001, -3600.0])
def test_a_deadline_that_is_over_refuses_at_once(seconds: float) -> None:
    worked = []
    with pytest.raises(DeadlinePassed, match="is over"), before(soon(seconds), "x"):
        worked.append(True)
    assert worked == []


@pytest.fixture
def outer_alarm() -> Iterator[list[int]]:
    """Somebody else's alarm, such as a task's own time limit; pytest's is put back afterwards."""
    rang: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, _frame: rang.append(number))
    kept = signal.setitimer(signal.ITIMER_REAL, 0)
    yield rang
    signal.signal(signal.SIGALRM, previous)
    signal.setitimer(signal.ITIMER_REAL, *kept)


@pytest.mark.parametrize("fails", [False, True])
def test_no_alarm_is_left_behind(outer_alarm: list[int], fails: bool) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    try:
        with before(soon(0.1), "x"):
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    time.sleep(0.2)
    assert outer_alarm == []


def test_an_alarm_that_was_set_before_still_rings(outer_alarm: list[int]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    with before(soon(20), "x"):
        time.sleep(0.1)
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 0 < left < 0.35
    time.sleep(left + 0.1)
    assert outer_alarm == [signal.SIGALRM]


def test_an_alarm_that_would_have_rung_meanwhile_rings_at_the_end(outer_alarm: list[int]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with before(soon(20), "x"):
        time.sleep(0.2)
        assert outer_alarm == []
    time.sleep(0.1)
    assert outer_alarm == [signal.SIGALRM]


def test_in_another_thread_the_work_goes_on() -> None:
    """Signals reach the main thread only: there the deadline is checked once, at the beginning."""
    outcomes: list[object] = []

    def work(deadline: datetime) -> None:
        try:
            with before(deadline, "x"):
                time.sleep(0.1)
            outcomes.append("done")
        except DeadlinePassed as error:
            outcomes.append(type(error))

    for seconds in (0.05, -1):
        thread = threading.Thread(target=work, args=(soon(seconds),))
        thread.start()
        thread.join()
    assert outcomes == ["done", DeadlinePassed]


def test_the_deadline_passes_through_the_other_guard() -> None:
    def raiser() -> None:
        with before(soon(0.05), "x"):
            try:
                raise ValueError(SECRET)
            except ValueError:
                time.sleep(20)

    error = guarded(raiser)
    assert isinstance(error, DeadlinePassed)
    assert leaks(error) == []


def test_counts_and_line_numbers_of_a_sites_data_stay_there() -> None:
    text = (
        "adsl.csv: column AGE: 31 cells are not whole numbers; line 1,018 has 9 fields, the header has 8, first of "
        "1,204 lines that do not fit; a cell of more (line 7)"
    )
    with pytest.raises(DataError) as raised, no_values_in_errors("validate_data", "701"):
        raise DataError(text)
    assert str(raised.value) == (
        "adsl.csv: column AGE: some cells are not whole numbers; some line has some fields, the header has 8, first of "
        "some lines that do not fit; a cell of more (some line)"
    )
    with pytest.raises(ValidationFailed, match="2 of 88 expectations"), no_values_in_errors("validate_data", "701"):
        raise ValidationFailed("2 of 88 expectations failed")
