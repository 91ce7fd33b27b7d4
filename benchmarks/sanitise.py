"""One case of the privacy benchmark, in a process of its own; prints one JSON line.

Imports nothing of pharmafed's `tasks` unless the case needs it: "nvflare" and "ckks" run in other environments. Every
case is run on a small sample first, so that no import and no start of threads is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.average import _forget_peak, _memory

#: The update: normal with this sd. gamma and tau are NVFlare's defaults, 1e-5 and 1e-6, on its scale.
UPDATE_SD, GAMMA, TAU = 1e-3, 1e-3, 1e-4
SVT_FRACTION = 0.4
EPSILON, DELTA, ROUNDS = 3.0, 1e-5, 20
SITES = 13
_SAMPLE = 5000

Vector = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """What is timed: steps, each of what the one before it made, the first of `given`.

    `facts` are read off the results of the steps, by name, when the clock has stopped.
    """

    given: Any
    steps: Mapping[str, Callable[[Any], Any]]
    facts: Callable[[Mapping[str, Any]], dict[str, float]]


def _update(size: int) -> Vector:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32) * np.float32(UPDATE_SD)


def _grid_steps(size: int) -> Vector:
    """As a site's summed gradient: some clip norms long, in steps of 2^-24 of one."""
    return (np.random.default_rng(0).standard_normal(size) * 2**24).astype(np.int64)


def ours(name: str, size: int) -> Case:
    """One of our mechanisms, as a site runs it."""
    given = _grid_steps(size) if name in ("local_dp", "distributed_dp") else _update(size)
    return Case(given, {"sanitise": _mechanism(name)}, lambda made: {"released": _released(made["sanitise"], size)})


def _mechanism(name: str) -> Callable[[Vector], Any]:
    from tasks.privacy.mechanisms.distributed_dp import DistributedDPMechanism
    from tasks.privacy.mechanisms.gaussian_update import GaussianUpdateMechanism
    from tasks.privacy.mechanisms.local_dp import LocalDPMechanism
    from tasks.privacy.mechanisms.svt import SparseVectorMechanism
    from tasks.privacy.noise.source import SystemNoise
    from tasks.study.privacy import DistributedDP, GaussianUpdate, LocalDP, SparseVector

    noise, budget = SystemNoise(), {"mechanism": name, "epsilon": EPSILON, "delta": DELTA}
    patients = budget | {"clip_norm": 1.0, "public_num_examples": 211}
    if name == "local_dp":
        local = LocalDPMechanism(LocalDP.model_validate(patients), ROUNDS)
        return lambda total: local.privatize(total, noise).numpy()
    if name == "distributed_dp":
        distributed = DistributedDPMechanism(DistributedDP.model_validate(patients), ROUNDS)
        return lambda total: distributed.privatize(total, SITES, noise).values
    if name == "gaussian_update":
        gaussian = GaussianUpdateMechanism(GaussianUpdate.model_validate(budget | {"clip_norm": 1.0}), ROUNDS)
        return lambda update: gaussian.privatize(update, noise)
    if name == "svt":
        settings = budget | {"fraction": SVT_FRACTION, "gamma": GAMMA, "tau": TAU}
        svt = SparseVectorMechanism(SparseVector.model_validate(settings), ROUNDS)
        return lambda update: svt.privatize(update, 1, noise)
    return np.copy


def _released(made: Any, size: int) -> float:
    """Share of the components that leave the site, of a dense or a sparse update."""
    return (np.count_nonzero(made) if isinstance(made, np.ndarray) else made.indices.size) / size


def nvflare(size: int) -> Case:
    """NVFlare's SVTPrivacy as its client runs it, epsilon and noise_var left at their defaults.

    `epsilon` is what its accountant puts down for the call.
    """
    from nvflare.apis.dxo import DXO, DataKind, from_shareable
    from nvflare.apis.fl_context import FLContext
    from nvflare.app_common.filters.svt_privacy import SVTPrivacy

    svt = SVTPrivacy(fraction=SVT_FRACTION, gamma=GAMMA, tau=TAU)

    def sanitise(update: Vector) -> Any:
        shareable = DXO(DataKind.WEIGHT_DIFF, data={"weight": update}).to_shareable()
        return from_shareable(svt.process(shareable, FLContext()))

    def facts(made: Mapping[str, Any]) -> dict[str, float]:
        dxo = made["sanitise"]
        spent = dxo.meta["svt_privacy_budget"]["epsilon_total"]
        return {"released": _released(dxo.data["weight"], size), "epsilon_setting": svt.epsilon, "epsilon": spent}

    return Case(_update(size), {"sanitise": sanitise}, facts)


def masks(size: int) -> Case:
    """One of 13 sites masks; the hub adds 13 uploads and takes the sites' own masks off the sum.

    The hub adds one upload 13 times: the time does not depend on what the integers are.
    """
    import torch

    from tasks.privacy.secure_sum.masks import apply_masks, require_headroom
    from tasks.store.weights import to_bytes

    own, pairs = [os.urandom(32) for _ in range(SITES)], [os.urandom(32) for _ in range(SITES - 1)]
    middle = len(pairs) // 2

    def hide(values: Vector) -> Vector:
        require_headroom(values, SITES)
        return apply_masks(values, [own[0], *pairs[middle:]], pairs[:middle])

    def add(masked: Vector) -> Vector:
        total = masked.copy()
        for _ in range(SITES - 1):
            total += masked
        return total

    def facts(made: Mapping[str, Any]) -> dict[str, float]:
        return {"bytes_per_value": len(to_bytes({"masked": torch.from_numpy(made["hide"])})) / size}

    return Case(_grid_steps(size), {"hide": hide, "add": add, "open": lambda t: apply_masks(t, [], own)}, facts)


def ckks(size: int) -> Case:
    """The same with TenSEAL's CKKS: polynomials of degree 8192, moduli of 60, 40 and 60 bits, scale 2^40."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
    context.global_scale = 2**40

    def add(encrypted: Any) -> Any:
        total = encrypted.copy()
        for _ in range(SITES - 1):
            total += encrypted
        return total

    def facts(made: Mapping[str, Any]) -> dict[str, float]:
        return {"bytes_per_value": len(made["hide"].serialize()) / size}

    steps = {"hide": lambda values: tenseal.ckks_vector(context, values), "add": add, "open": lambda t: t.decrypt()}
    return Case(_update(size).astype(np.float64), steps, facts)


def ledger(path: Path) -> Case:
    """Verify a site's whole ledger, with its certificate and the hub's digest of every entry."""
    from cryptography import x509

    from tasks.privacy.ledger.verification import verify_chain

    content = json.loads(path.read_text())
    certificate = x509.load_pem_x509_certificate(content["certificate"].encode())
    bodies, digests = [body.encode() for body in content["bodies"]], content["digests"]

    def verify(some: list[bytes]) -> Any:
        return verify_chain(some, certificate, dict(enumerate(digests[: len(some)], start=1)))

    def facts(made: Mapping[str, Any]) -> dict[str, float]:
        report = made["verify"]
        if not report.ok or report.signature != "valid":
            raise ValueError(f"the ledger does not verify: {report.problems[:3]}")
        return {"entries": report.entries}

    return Case(bodies, {"verify": verify}, facts)


def _prepare(name: str, size: int, path: Path) -> tuple[Case, int]:
    """The case, and how much of what it is given is a sample. A ledger's is one entry: totals it has seen are kept."""
    if name == "ledger":
        return ledger(path), 1
    cases = {"nvflare": nvflare, "masks": masks, "ckks": ckks}
    return (cases[name](size) if name in cases else ours(name, size)), _SAMPLE


def _run(case: Case, given: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds and result of every step."""
    seconds: dict[str, float] = {}
    made: dict[str, Any] = {}
    for name, step in case.steps.items():
        began = time.perf_counter()
        made[name] = given = step(given)
        seconds[name] = time.perf_counter() - began
    return seconds, made


def main(name: str, size: int, path: Path) -> None:
    """Measure one case; the peak is beyond what the process held when it had what it is given."""
    case, sample = _prepare(name, size, path)
    _run(case, case.given[:sample])
    _forget_peak()
    before, cpu = _memory("VmRSS"), time.process_time()
    seconds, made = _run(case, case.given)
    measured = {"seconds": seconds, "cpu_s": time.process_time() - cpu, "peak_bytes": _memory("VmHWM") - before}
    print(json.dumps(measured | case.facts(made)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
