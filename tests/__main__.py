"""`python -m tests`: the tests of whole deployments, which mostly wait, beside all others, which mostly compute."""

from __future__ import annotations

import subprocess
import sys
from threading import Thread

PARTS = {"e2e": ("e2e", "2"), "unit": ("not e2e", "3")}
_COMMAND = (sys.executable, "-m", "pytest", "--dist", "loadfile", "--no-loadscope-reorder")


def main() -> int:
    """Start both, print their lines as they come, and give 1 where a part has failed."""
    running, threads = [], []
    for name, (mark, workers) in PARTS.items():
        command = (*_COMMAND, "-m", mark, "--numprocesses", workers)
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        threads.append(Thread(target=_print, args=(name, running[-1])))
        threads[-1].start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:  # both have heard it too, and stop what they have started
        for thread in threads:
            thread.join()
    return int(any([process.wait() for process in running]))


def _print(name: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{name:4} {line}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
