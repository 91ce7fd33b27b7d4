"""One case of the aggregation benchmark, in a process of its own; prints one JSON line.

Imports nothing of pharmafed unless the case needs it: the "flower" case runs in another environment.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WEIGHT = 3


def _memory(field: str) -> int:
    """Bytes: VmRSS is what this process holds now, VmHWM the most it ever held.

    Not `ru_maxrss` of getrusage: a child starts with its parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _read(path: Path) -> bytearray:
    body = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        file.readinto(body)
    return body


def _paths(folder: Path, sites: int) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    return [files[site % len(files)] for site in range(sites)]


def ours(paths: list[Path], num_values: int, *, in_memory: bool, as_hub: bool) -> Callable[[], None]:
    """Prepare our average of these files; the returned function is what is timed."""
    import torch

    from tasks.learning.averaging import StreamingMean, add_to
    from tasks.learning.flat import Shape, norm
    from tasks.privacy.codecs.dense import flat_update
    from tasks.store.records.round import TensorSpec

    shape = Shape((TensorSpec(name="weight", shape=(num_values,), dtype="F32"),))
    torch.ones(100_000).add_(torch.ones(100_000), alpha=2.0)  # starts torch's threads
    bodies = [_read(path) for path in paths] if in_memory else []

    def updates() -> Iterator[bytearray]:
        yield from bodies if in_memory else map(_read, paths)

    def average() -> None:
        base = {"weight": torch.ones(num_values)} if as_hub else {}
        mean = StreamingMean(shape)
        for body in updates():
            if as_hub:
                hashlib.sha256(body).hexdigest()
            update = flat_update(body, shape, "701")
            if as_hub and not norm(update) < 1e6:
                raise ValueError("too long")
            mean.add(update, WEIGHT)
            del body, update
        add_to(base, mean.mean())

    return average


def flower(paths: list[Path]) -> Callable[[], None]:
    """Prepare Flower's average of these files."""
    import warnings

    warnings.simplefilter("ignore")
    from flwr.server.strategy.aggregate import aggregate
    from safetensors.numpy import load

    results = [(list(load(bytes(_read(path))).values()), WEIGHT) for path in paths]
    return lambda: aggregate(results) and None


def _prepare(case: str, paths: list[Path], num_values: int) -> Callable[[], None]:
    if case == "flower":
        return flower(paths)
    return ours(paths, num_values, in_memory=case == "memory", as_hub=case == "hub")


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main(case: str, sites: int, folder: Path, num_values: int) -> None:
    """Measure: the first average, whose peak is the process's own; then reading alone."""
    paths = _paths(folder, sites)
    action = _prepare(case, paths, num_values)
    _forget_peak()
    before = _memory("VmRSS")
    seconds = _seconds(action)
    peak = _memory("VmHWM") - before
    reading = _seconds(lambda: [len(_read(path)) for path in paths] and None)
    print(json.dumps({"seconds": seconds, "reading_s": reading, "peak_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
