"""A mechanism more is one file, its section and a line in the table: nothing else of the tree is touched.

It is the one of docs/architecture.md, as it is printed there, in a copy of `tasks`: Laplace noise in L1.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.privacy.mechanisms import mechanism_for
from tasks.store.settings import PROJECT
from tasks.study.privacy import PRIVACY_SECTIONS, PrivacySection
from tests import worked_examples
from tests.worked_examples import apply, blocks, run, scratch_copy

HEADING = "## One mechanism more"
FILE = "tasks/privacy/mechanisms/laplace_update.py"
RUN = """
import json, sys
import numpy as np, torch
from pydantic import ValidationError
from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.mechanisms import mechanism_for
from tasks.privacy.noise.source import SeededNoise
from tasks.data.reading.patients import Patients
from tasks.simulation.rounds import simulate
from tasks.store.plans import plan_round
from tasks.privacy.sanitizer import plan_spend, sanitize
from tasks.learning.training import RawUpdate
from tasks.study.sections import Study

content = json.load(sys.stdin)
def read(**changes):
    return Study.model_validate(content | changes)
def said(**changes):
    try:
        read(**changes)
    except ValidationError as error:
        return error.errors()[0]["msg"]
study = read()
generator = torch.Generator().manual_seed(1)
def site():
    x = torch.randn(20, 2, generator=generator)
    return Patients(x, (x[:, 0] > 0).float(), x[:4], (x[:4, 0] > 0).float())
sites = {name: site() for name in study.sites}
noise = SeededNoise(bytes(32))
rounds = list(simulate(study, sites, 2, noise=noise))
base = {"w": torch.zeros(20_000)}
plan = plan_round(study, tuple(sites), base, base, 1)
sent = sanitize(RawUpdate({"w": torch.zeros(20_000)}, 9, 1), base, plan, releases=1, noise=noise).tensors["w"]
long = RawUpdate({"w": torch.full((20_000,), float("nan"))}, 9, 1)
unfit = sanitize(long, base, plan, releases=1, noise=noise)
mechanism = mechanism_for(study.privacy, 2)
class Silence:
    def laplace(self, size, scale):
        return np.zeros(size, dtype=np.int64)
def bound(values):
    raw = RawUpdate({"w": torch.tensor(np.resize(np.array(values, dtype=np.float32), 20_000))}, 9, 1)
    sent = sanitize(raw, base, plan, releases=1, noise=Silence()).tensors["w"].double()
    return float(sent.abs().sum()), float(sent.sum())
huge = float(np.finfo(np.float32).max)
bounds = [bound(v) for v in ([1.0], [-1.0, 1.0], [huge, -huge, 1e-30], [1e-38], [1 / 3, 0.1, -0.7], [2.0**-15, 1e-3])]
def gaps(**changes):
    narrow = read(privacy=content["privacy"] | changes, rounds=content["rounds"] | {"total": 10_000})
    tight = plan_round(narrow, tuple(sites), base, base, 1)
    try:
        return sanitize(RawUpdate(base, 9, 1), base, tight, releases=1, noise=noise).tensors["w"].shape[0]
    except PrivacyError as error:
        return str(error)
def over():
    try:
        return plan_spend(plan, 3).releases
    except BudgetExhausted as error:
        return str(error)
print(json.dumps({
    "moved": [bool((r.weights["linear.weight"] != 0).all()) for r in rounds],
    "spend": plan_spend(plan, 2).model_dump(mode="json"),
    "scale": float(sent.double().abs().mean()) * mechanism.pure_epsilon / 2,
    "finite": bool(torch.isfinite(unfit.tensors["w"]).all()),
    "trace": float(np.abs(mechanism.trace(np.full(7, -3.0), 4)).sum()),
    "words": mechanism.words(),
    "bounds": bounds,
    "gaps": [gaps(), gaps(delta=1e-65)],
    "over": over(),
    "masks": said(channel="masks"),
    "samples": said(training=content["training"] | {"weighting": "samples"}),
    "delta": said(privacy=content["privacy"] | {"delta": 0.05}, sites={str(k): [str(k)] for k in range(30)}),
    "digest": study.digest != read(privacy=content["privacy"] | {"clip_norm": 2}).digest,
}))
"""
STUDY = worked_examples.STUDY | {
    "privacy": {"mechanism": "laplace_update", "epsilon": 4, "delta": 1e-5, "clip_norm": 1.0},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code with the new mechanism in it."""
    root = scratch_copy(tmp_path_factory.mktemp("one_more"))
    apply(HEADING, root)
    return root


@pytest.fixture(scope="module")
def done(tree: Path) -> dict[str, Any]:
    """What came of two rounds with it."""
    return run(tree, RUN, given=STUDY)


def test_it_fits_in_forty_lines_and_touches_two_files() -> None:
    found = blocks(HEADING)
    body = found[FILE][1].split("\n\n\n", 1)[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 40
    kinds = {path: kind for path, (kind, _) in found.items()}
    assert kinds.pop(FILE) == "python"
    assert kinds == {"tasks/study/privacy.py": "diff", "tasks/privacy/mechanisms/__init__.py": "diff"}


def test_it_is_written_as_the_rest_is(tree: Path) -> None:
    """By the project's own style, which a docs page is not held to."""
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--config", str(PROJECT / "pyproject.toml"), *blocks(HEADING)]
        done = subprocess.run(ruff, cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_makes_rounds_and_pays_for_them(done: dict[str, Any]) -> None:
    assert done["moved"] == [True, True]
    spend = done["spend"]
    assert (spend["mechanism"], spend["unit"], spend["releases"], spend["epsilon_budget"]) == (
        "laplace_update",
        "site",
        2,
        4,
    )
    assert 3.9 < spend["epsilon"] <= 4
    assert spend["pure_epsilon"] >= 2


def test_its_noise_is_that_of_its_epsilon(done: dict[str, Any]) -> None:
    """Mean of 20 000 magnitudes of Laplace noise over their scale: 1 with a standard error of .007."""
    assert abs(done["scale"] - 1) < 5 * 0.00707


def test_its_bound_is_exact_whatever_the_update_is(done: dict[str, Any]) -> None:
    """Without its noise: the L1 norm of what would be sent, and its sum. The clip norm is 1."""
    assert [norm <= 1 for norm, _ in done["bounds"]] == [True] * 6
    norms = [norm for norm, _ in done["bounds"]]
    assert norms[0] == pytest.approx(1, abs=20_000 / 2**24)
    assert done["bounds"][0][1] == norms[0], "signs are kept"
    assert done["bounds"][1][1] == 0
    assert norms[3] == 0, "below the grid"


def test_a_round_too_many_and_noise_with_gaps_are_refused(done: dict[str, Any]) -> None:
    assert done["over"].startswith("release 3 is refused")
    assert done["gaps"][0] == 20_000
    assert done["gaps"][1].startswith("gaps in the noise add ")
    assert done["gaps"][1].endswith(" more than a hundredth of 1e-65: raise privacy.delta, or lower rounds.total")


def test_the_door_and_the_audit_know_it(done: dict[str, Any]) -> None:
    assert done["finite"], "a whole update that is protected is made total before its mechanism sees it"
    assert done["trace"] == pytest.approx(1.0)
    assert done["words"].startswith("laplace_update: a site clips its update to 1 in L1")
    assert done["digest"]


def test_what_it_does_not_name_is_refused_when_the_study_is_read(done: dict[str, Any]) -> None:
    assert done["masks"] == "Value error, channel must be plain or ckks with privacy.mechanism laplace_update"
    assert done["samples"] == "Value error, training.weighting must be plain with privacy.mechanism laplace_update"
    assert done["delta"].startswith("Value error, privacy.delta is 0.05; with 30 sites it must be below 0.0333")


def test_every_section_has_its_mechanism_and_one_without_runs_nothing() -> None:
    """The type checker refuses a section that no case of the table takes; if it is not asked, nothing runs either."""
    for name, section in PRIVACY_SECTIONS.items():
        settings: Any = section.model_construct(mechanism=name)
        assert mechanism_for(settings, 1).settings is settings
    stranger: Any = PrivacySection()
    with pytest.raises(AssertionError):
        mechanism_for(stranger, 1)
