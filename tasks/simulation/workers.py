"""Independent jobs over the cores of one machine, in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from tasks.errors import RoundError, UpdateRejected
from tasks.learning.threads import one_thread

Job = TypeVar("Job")
Shared = TypeVar("Shared")
Returned = TypeVar("Returned")
#: A job calls it with the units that it has done since.
Tick = Callable[[int], None]
Progress = Callable[[int, int], None]
_POLL_SECONDS = 0.1


def in_order(
    work: Callable[[Job, Shared, Tick], Returned],
    jobs: Sequence[Job],
    shared: Shared,
    sizes: Sequence[int],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Returned]:
    """Give `work` every job; the answers come in the order of the jobs, whoever has done them.

    Args:
        work: a function of a module: processes find it by its name.
        shared: what all jobs read; it goes to each process once.
        sizes: units that each job will report done.
        workers: how many processes, by default one for each core that this process may use; 1: no other process.
        progress: called with the units done and the units there are.

    Raises:
        what a job raises; jobs that have not begun are given up then.
    """
    count = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    report = progress or (lambda done, total: None)
    if count <= 1:
        return _here(work, jobs, shared, sum(sizes), report)
    context = multiprocessing.get_context("forkserver")  # forked from a process in which torch has no threads yet
    context.set_forkserver_preload([work.__module__])
    done = context.Value("q", 0)
    pool = ProcessPoolExecutor(count, context, _start, (work, shared, done))
    try:
        futures = [pool.submit(_do, job) for job in jobs]
        _follow(futures, lambda: report(done.value, sum(sizes)))
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _here(
    work: Callable[[Job, Shared, Tick], Returned], jobs: Sequence[Job], shared: Shared, total: int, report: Progress
) -> list[Returned]:
    done = 0

    def tick(units: int) -> None:
        nonlocal done
        done += units
        report(done, total)

    with one_thread():
        return [work(job, shared, tick) for job in jobs]


def _follow(futures: Sequence[Future[Any]], show: Callable[[], None]) -> None:
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
        for future in finished:
            future.result()
        show()


@dataclass(frozen=True)
class _Worker:
    """What a worker process knows beside its jobs."""

    work: Callable[[Any, Any, Tick], Any]
    shared: Any
    done: Any

    def tick(self, units: int) -> None:
        with self.done.get_lock():
            self.done.value += units


_worker: _Worker


def _start(work: Callable[[Any, Any, Tick], Any], shared: Any, done: Any) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(work, shared, done)


def _do(job: Any) -> Any:
    try:
        return _worker.work(job, _worker.shared, _worker.tick)
    except UpdateRejected as error:  # of two arguments, which would be lost on the way to the parent
        raise RoundError(str(error)) from None
