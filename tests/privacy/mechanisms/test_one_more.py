"""A mechanism more is one file, its section and a line in the table: nothing else of the tree is touched.

In a copy of `tasks`: a whole update, clipped in L1, with Laplace noise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.privacy.mechanisms import mechanism_for
from tasks.store.settings import PROJECT
from tasks.study.privacy import PRIVACY_SECTIONS, PrivacySection

SECTION = '''
class LaplaceUpdate(PrivacySection):
    """Site-level, pure epsilon a round: the update clipped in L1 to `clip_norm`, with Laplace noise."""

    unit: ClassVar[Protected] = "site"
    needs: ClassVar[Needs] = Needs(channels=frozenset({"plain", "ckks"}), weightings=frozenset({"plain"}))

    mechanism: Literal["laplace_update"]
    epsilon: Epsilon
    delta: Delta
    clip_norm: float = Field(gt=0, description="S: largest L1 norm of a site's update")


'''
MECHANISM = '''"""Site-level: an update clipped in L1, with Laplace noise. Guarantee: any other update in its place."""

from dataclasses import dataclass

import numpy as np

from tasks.privacy.accounting import pure_epsilon_for, pure_epsilon_total
from tasks.privacy.mechanisms.gaussian import NOBODY, check_release
from tasks.privacy.mechanisms.mechanism import Mechanism, Sent
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import STEPS_PER_CLIP, to_float32
from tasks.privacy.noise.keystream import Floats
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.ledger import Spend
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import LaplaceUpdate


@dataclass(frozen=True)
class LaplaceUpdateMechanism(Mechanism):
    settings: LaplaceUpdate
    total_rounds: int

    @property
    def pure_epsilon(self) -> float:
        return pure_epsilon_for(self.settings.epsilon, self.settings.delta, self.total_rounds)

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        check_release(releases, self.total_rounds, self.settings.epsilon)
        each, delta = self.pure_epsilon, self.settings.delta
        total = pure_epsilon_total(each, releases, delta)
        return Spend(mechanism="laplace_update", unit="site", neighbours="any other update in its place", trust=NOBODY,
                     pure_epsilon=each, releases=releases, epsilon=total, delta=delta,
                     epsilon_budget=self.settings.epsilon)

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        grid = STEPS_PER_CLIP / self.settings.clip_norm
        steps = np.trunc(self.trace(part.update.astype(np.float64), 1) * (1 - 1e-12) * grid).astype(np.int64)
        noisy = steps + noise.laplace(steps.size, 2 * STEPS_PER_CLIP / self.pure_epsilon)  # replaced: twice the clip
        return Sent(to_float32(noisy / grid))

    def trace(self, update: Floats, local_iterations: int) -> Floats:
        return update * min(1.0, self.settings.clip_norm / max(float(np.abs(update).sum()), 1e-300))

    def words(self) -> str:
        return f"laplace_update: a site clips its update to {self.settings.clip_norm:g} in L1 and adds Laplace noise"
'''
#: Each edit of a file that is there: what is found, and what is put before it.
EDITS = {
    "tasks/study/privacy.py": [
        ("Privacy = Annotated[", SECTION.lstrip("\n")),
        ("NoPrivacy | Compression", "LaplaceUpdate | "),
    ],
    "tasks/privacy/mechanisms/__init__.py": [
        ("local_dp         ", "laplace_update   site-level, of an update clipped in L1\n"),
        ("\n\ndef mechanism_of(", "from tasks.privacy.mechanisms.laplace_update import LaplaceUpdateMechanism\n"),
        (
            "        case LocalDP():",
            "        case LaplaceUpdate():\n            return LaplaceUpdateMechanism(settings, total_rounds)\n",
        ),
        ("    LocalDP,\n", "    LaplaceUpdate,\n"),
    ],
}
RUN = """
import json, sys
import numpy as np, torch
from pydantic import ValidationError
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
print(json.dumps({
    "moved": [bool((r.weights["linear.weight"] != 0).all()) for r in rounds],
    "spend": plan_spend(plan, 2).model_dump(mode="json"),
    "scale": float(sent.double().abs().mean()) * mechanism.pure_epsilon / 2,
    "finite": bool(torch.isfinite(unfit.tensors["w"]).all()),
    "trace": float(np.abs(mechanism.trace(np.full(7, -3.0), 4)).sum()),
    "words": mechanism.words(),
    "masks": said(channel="masks"),
    "samples": said(training=content["training"] | {"weighting": "samples"}),
    "delta": said(privacy=content["privacy"] | {"delta": 0.05}, sites={str(k): [str(k)] for k in range(30)}),
    "digest": study.digest != read(privacy=content["privacy"] | {"clip_norm": 2}).digest,
}))
"""
STUDY: dict[str, Any] = {
    "study": "one_more",
    "title": "t",
    "description": "d",
    "owner": "o",
    "data": {"tables": ["adsl"]},
    "sites": {"a": ["a"], "b": ["b"], "c": ["c"]},
    "label": {"name": "y", "table": "adsl", "positive_when": [{"column": "Y", "is": 1}]},
    "inputs": [{"name": name, "table": "adsl", "column": name.upper(), "centre": 0, "scale": 1} for name in ("u", "v")],
    "model": {"path": "tasks.models:LogisticRegression"},
    "training": {"lr": 0.3, "weighting": "plain", "local_epochs": 2, "batch_size": 4},
    "privacy": {"mechanism": "laplace_update", "epsilon": 4, "delta": 1e-5, "clip_norm": 1.0},
    "rounds": {"total": 2, "min_sites": 3, "deadline_seconds": 60},
    "evaluation": {"holdout_fraction": 0.2},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code with the new mechanism in it."""
    root = tmp_path_factory.mktemp("one_more")
    shutil.copytree(PROJECT / "tasks", root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tasks/privacy/mechanisms/laplace_update.py").write_text(MECHANISM)
    for name, edits in EDITS.items():
        text = (root / name).read_text()
        for found, before in edits:
            assert text.count(found) == 1, (name, found)
            text = text.replace(found, before + found)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def done(tree: Path) -> dict[str, Any]:
    """What came of two rounds with it."""
    run = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        input=json.dumps(STUDY),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_it_fits_in_forty_lines_and_touches_two_files() -> None:
    body = MECHANISM.split("\n\n\n", 1)[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 40
    assert len(EDITS) == 2


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
