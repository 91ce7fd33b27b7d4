"""A channel more is a module and its entries: the one of docs/architecture.md, as it is printed, makes a round.

In a copy of `tasks`, through a real object store: three sites that send in the open under another name.
"""

from __future__ import annotations

from typing import Any

import pytest

from tasks.store.settings import PROJECT
from tests.worked_examples import apply, blocks, run, scratch_copy

HEADING = "## One channel more"
FILE = "tasks/rounds/channels/relay.py"
RUN = """
import json, os, sys
from pathlib import Path
import tasks, torch
from pydantic import ValidationError
from tasks.deploy.enrol import enrol_local_sites
from tasks.deploy.preload import HEAVY
from tasks.errors import PrivacyError
from tasks.learning.training import RawUpdate
from tasks.privacy.sanitizer import sanitize
from tasks.study.privacy import GaussianUpdate
from tasks.learning.threads import one_thread
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.channels.channel import hub_side
from tasks.simulation.rounds import simulate
from tasks.simulation.data import read_sites, split_sites
from tasks.store import layout
from tasks.store.records.model import ModelCard
from tasks.store.weights import sha256, to_bytes
from tasks.study.sections import Study
from tests.rounds.hub.federation import NOCOMP, SITES, Federation

assert Path(tasks.__file__).parents[1] == Path.cwd()
few = SITES[3:6]
fed = Federation.create(Path(sys.argv[1]))
os.environ |= {"PHARMAFED_HOME": str(fed.home), "PHARMAFED_PROJECT": str(fed.project)}
try:
    fed.start()
    enrol_local_sites(fed.store(), fed.home, list(few))
    name = fed.new_study(base=NOCOMP, sites=few, channel="relay")
    closed = fed.whole_round(name, "run 1")
    study = fed.hub(name).study
    patients = split_sites(read_sites(study, fed.project), study.evaluation)
    with one_thread():
        simulated = next(simulate(study, patients, 1, noise=SeededNoise(bytes(32))))
    card = fed.store().get_record(layout.card(name, 1), ModelCard)
    plan = fed.hub(name).plan(1)
    update = fed.store().get(layout.update_tensors(name, 1, few[0]))
finally:
    fed.stop()
def said(mechanism, **section):
    content = study.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content["training"] |= {"weighting": "plain"}
    try:
        Study.model_validate(content | {"privacy": {"mechanism": mechanism, **section}})
    except ValidationError as error:
        return error.errors()[0]["msg"]
def at_the_door():
    hidden = plan.model_copy(update={"privacy": GaussianUpdate(
        mechanism="gaussian_update", epsilon=3, delta=1e-5, clip_norm=1)})
    base = {"w": torch.zeros(3)}
    try:
        return list(sanitize(RawUpdate(base, 9, 1), base, hidden, releases=1, noise=SeededNoise(bytes(32))).tensors)
    except PrivacyError as error:
        return str(error)
print(json.dumps({
    "door": at_the_door(),
    "status": closed.status,
    "contributors": closed.num_contributors,
    "channel": plan.channel.name,
    "steps": study.channel.site_steps,
    "side": hub_side(plan.channel).__module__,
    "preloaded": "tasks.rounds.channels.relay" in HEAVY,
    "same": card.model.sha256 == sha256(to_bytes(simulated.weights)),
    "bytes": len(update),
    "refused": said("gaussian_update", epsilon=3, delta=1e-5, clip_norm=1),
}))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of a round of that channel."""
    root = scratch_copy(tmp_path_factory.mktemp("one_more"))
    apply(HEADING, root)
    for name in ("studies", "expectations", "data", "data.dvc"):
        (root / name).symlink_to(PROJECT / name)
    return run(root, RUN, str(root / "federation"), also=(PROJECT,))


def test_it_is_one_module_and_three_files_that_name_it() -> None:
    kinds = {path: kind for path, (kind, _) in blocks(HEADING).items()}
    assert kinds.pop(FILE) == "python"
    assert set(kinds.values()) == {"diff"}
    assert set(kinds) == {
        "tasks/rounds/channels/__init__.py",
        "tasks/study/channels.py",
        "tasks/study/privacy.py",
    }


def test_a_round_of_it_goes_as_one_in_the_open(done: dict[str, Any]) -> None:
    assert (done["status"], done["contributors"], done["channel"]) == ("complete", 3, "relay")
    assert done["steps"] == ["validate_data", "train_local", "privatize_and_upload"]
    assert done["side"] == "tasks.rounds.channels.relay"
    assert done["preloaded"]
    assert done["bytes"] > 0


def test_its_model_is_the_simulation_s_to_the_last_byte(done: dict[str, Any]) -> None:
    assert done["same"]


def test_a_mechanism_that_does_not_name_it_is_refused(done: dict[str, Any]) -> None:
    says = "Value error, channel must be plain or masks or ckks with privacy.mechanism gaussian_update"
    assert done["refused"] == says
    says = "an update of mechanism gaussian_update cannot leave by itself under relay: set channel: "
    assert done["door"] == says + "ckks or masks or plain"
