"""Asking, killing, scoring: what the engine costs beside a bare asyncio loop, and what a kill costs in calls.

The scripted server is a process of its own on loopback; what it answers takes no time, or half a second. `ask` includes
the start of its process, which is also shown by itself: inspect-ai alone takes two seconds to import.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from tasks.exam.asking.ask import ask
from tasks.exam.asking.prompts import load_prompt
from tasks.exam.asking.questions import Patience, make_job
from tasks.exam.bank.records import Exam, ExamItem, ExamRun, ItemText, RunSettings
from tasks.exam.comparing.compare import compare
from tasks.exam.runs.run_files import load_run, responses_sha256
from tasks.exam.scoring.score import scored_run
from tasks.store.settings import PROJECT

ITEMS, RUNS = 345, 100
#: One call after the other at half a second takes three minutes for all items: fewer, then, as the table says.
CASES = ((0.0, 1, ITEMS), (0.0, 10, ITEMS), (0.0, 50, ITEMS), (0.5, 1, 40), (0.5, 10, ITEMS), (0.5, 50, ITEMS))
KILL_AT, KILL_CONNECTIONS, KILL_LATENCY_S = ITEMS // 2, 10, 0.1
GOAL_SCORING_S = 2.0
_SERVER = PROJECT / "tests" / "exam" / "scripted_server.py"
_REPLY = {"text": "答え: 1"}


@dataclass(frozen=True)
class Asked:
    """One latency and concurrency. `overhead_ms` is per item over the bare loop, without the start of the process."""

    latency_s: float
    connections: int
    items: int
    bare_s: float
    ask_s: float
    start_s: float
    overhead_ms: float


@dataclass(frozen=True)
class Killed:
    """A run that was killed (-9) half way and asked again. `repeated`: answers kept before, asked again after."""

    answered_before: int
    kept: int
    calls: int
    repeated: int


@dataclass(frozen=True)
class Results:
    """All of it. `scoring_s`: `RUNS` runs scored, each compared with the one before."""

    asked: list[Asked]
    killed: Killed
    scoring_s: float
    scoring_met: bool


def run(console: Console) -> Results:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="exam-bench-") as scratch:
        home = Path(scratch)
        asked = [_asked(home / f"case-{number}", *case) for number, case in enumerate(CASES)]
        killed = _killed(home / "killed")
        scoring_s = _scoring(home / "case-1" / "run")
    results = Results(asked, killed, scoring_s, scoring_s < GOAL_SCORING_S)
    _print(console, results)
    return results


def synthetic(items: int) -> Exam:
    """So many items, each with a stem of its own."""
    return Exam(
        id="synthetic",
        title="synthetic",
        languages=("ja",),
        items=tuple(_item(number) for number in range(1, items + 1)),
        source="made for this benchmark",
        licence="none",
    )


def _item(number: int) -> ExamItem:
    return ExamItem(
        id=f"s{number:03}",
        exam="synthetic",
        number=number,
        section="essential" if number <= 90 else "general",
        subject="practice",
        text={
            "ja": ItemText(
                stem=f"item-{number}; " + "記述のうち正しいのはどれか。" * 12, choices=("甲", "乙", "丙", "丁", "戊")
            )
        },
        num_choices=5,
        labels=("1", "2", "3", "4", "5"),
        n_select=1,
        answers=((str(number % 5 + 1),),),
        diagram=False,
        diagram_source="none",
        text_length=180,
        source="synthetic",
    )


def _settings(exam: Exam) -> RunSettings:
    return RunSettings(
        exam=exam.id,
        exam_digest=exam.digest,
        model="openai-api/scripted/echo",
        language="ja",
        prompt="ja/v1",
        prompt_digest=load_prompt("ja/v1")[1],
        temperature=0.0,
        epochs=1,
        max_tokens=256,
        images=False,
    )


def _asked(folder: Path, latency_s: float, connections: int, items: int) -> Asked:
    exam = synthetic(items)
    with _server(folder, latency_s) as url:
        bodies = _bodies(exam)
        began = time.perf_counter()
        asyncio.run(_bare(url, bodies, connections))
        bare_s = time.perf_counter() - began
        began = time.perf_counter()
        ask(exam, folder, _settings(exam), folder / "run", max_connections=connections)
        ask_s = time.perf_counter() - began
    run, responses = load_run(folder / "run")
    first = min(response.asked_at for response in responses)
    asking = max(response.asked_at + timedelta(seconds=response.seconds) for response in responses) - first
    overhead_ms = (asking.total_seconds() - bare_s) / items * 1e3
    start_s = (first - run.started_at).total_seconds()
    return Asked(latency_s, connections, items, bare_s, ask_s, start_s, overhead_ms)


def _bodies(exam: Exam) -> list[dict[str, Any]]:
    """The same requests as the engine's."""
    job = make_job(exam, Path(), _settings(exam), 1, Patience())
    messages = [
        [{"role": "system", "content": job.system}, {"role": "user", "content": question.text}]
        for question in job.questions
    ]
    return [{"model": "echo", "messages": message, "temperature": 0.0, "max_tokens": 256} for message in messages]


async def _bare(url: str, bodies: list[dict[str, Any]], connections: int) -> None:
    """The least that asks all questions: a client, a semaphore, and the answers in a list."""
    slots = asyncio.Semaphore(connections)

    async def one(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
        async with slots:
            reply = await client.post(f"{url}/chat/completions", json=body)
        return str(reply.raise_for_status().json()["choices"][0]["message"]["content"])

    async with httpx.AsyncClient(timeout=60) as client:
        answers = await asyncio.gather(*(one(client, body) for body in bodies))
    assert len(answers) == len(bodies)


@contextmanager
def _server(folder: Path, latency_s: float, parts: tuple[str, ...] = ()) -> Iterator[str]:
    """The scripted server's address. It counts calls by `parts` of the prompt."""
    folder.mkdir(parents=True)
    script = {
        "replies": {part: [_REPLY] for part in parts},
        "default": _REPLY,
        "latency_s": latency_s,
        "key": None,
        "model": "scripted",
    }
    (folder / "script.json").write_text(json.dumps(script))
    command = [sys.executable, str(_SERVER), str(folder / "script.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        os.environ.update(SCRIPTED_BASE_URL=url, SCRIPTED_API_KEY="none")
        try:
            yield url
        finally:
            process.kill()


def _killed(folder: Path) -> Killed:
    """Kill the process that asks when half is answered; ask again; count calls at the server."""
    exam = synthetic(ITEMS)
    parts = tuple(f"item-{item.number};" for item in exam.items)
    with _server(folder, KILL_LATENCY_S, parts) as url:
        command = [sys.executable, "-c", f"from benchmarks import exam; exam.ask_synthetic({str(folder / 'run')!r})"]
        process = subprocess.Popen(command, cwd=PROJECT)
        while sum(_calls(url)["answered"].values()) < KILL_AT:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        answered = sum(_calls(url)["answered"].values())
        path = folder / "run" / "answers.jsonl"
        time.sleep(2 * KILL_LATENCY_S)
        kept = [json.loads(line)["item"] for line in path.read_bytes().split(b"\n")[:-1]]
        ask_synthetic(str(folder / "run"))
        asked = _calls(url)["asked"]
    repeated = sum(asked[f"item-{int(item[1:])};"] - 1 for item in kept)
    return Killed(answered, len(kept), sum(asked.values()), repeated)


def ask_synthetic(folder: str) -> ExamRun:
    """All items, of the server in the environment."""
    exam = synthetic(ITEMS)
    return ask(exam, Path(folder), _settings(exam), Path(folder), max_connections=KILL_CONNECTIONS)


def _calls(url: str) -> dict[str, dict[str, int]]:
    calls: dict[str, dict[str, int]] = httpx.get(f"{url}/calls").json()
    return calls


def _scoring(folder: Path) -> float:
    """Seconds to score `RUNS` runs, each with some replies of its own, and compare each with the one before."""
    exam = synthetic(ITEMS)
    template, replies = load_run(folder)
    runs = []
    for number in range(RUNS):
        responses = tuple(
            reply.model_copy(update={"raw": f"答え: {(index * (number + 1)) % 5 + 1}"})
            for index, reply in enumerate(replies)
        )
        changed = {"id": f"run-{number}", "responses_sha256": responses_sha256(responses)}
        runs.append((template.model_copy(update=changed), responses))
    began = time.perf_counter()
    scored = [scored_run(exam, run, responses) for run, responses in runs]
    for before, after in pairwise(scored):
        compare(exam, before, after)
    return time.perf_counter() - began


def _print(console: Console, results: Results) -> None:
    table = Table(title="asking: inspect-ai in a process of its own, over a bare asyncio loop")
    for heading in ("latency", "concurrency", "items", "bare loop", "ask, all", "of it start", "overhead per item"):
        table.add_column(heading, justify="right")
    for case in results.asked:
        table.add_row(
            f"{case.latency_s * 1e3:.0f} ms",
            str(case.connections),
            str(case.items),
            f"{case.bare_s:.2f} s",
            f"{case.ask_s:.2f} s",
            f"{case.start_s:.1f} s",
            f"{case.overhead_ms:.1f} ms",
        )
    console.print(table)
    killed = results.killed
    console.print(
        f"kill -9 at {killed.answered_before} of {ITEMS}: {killed.kept} answers kept, {killed.calls} calls in all, "
        f"{killed.repeated} kept answers asked again (goal: 0)"
    )
    console.print(
        f"{RUNS} runs of {ITEMS} items scored, each compared with the one before: {results.scoring_s:.2f} s "
        f"(goal: under {GOAL_SCORING_S:.0f} s, {'met' if results.scoring_met else 'not met'})"
    )
