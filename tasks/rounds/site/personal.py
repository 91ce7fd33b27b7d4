"""A site's own model beside the global one: trained after a round, kept in the site's folder, and never sent."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import nn

from tasks.data.reading.patients import Patients
from tasks.errors import StoreError
from tasks.learning.seeding import seeded
from tasks.learning.strategies import strategy_of
from tasks.learning.tasks.task import Task
from tasks.learning.training import Penalty, descend
from tasks.store.files import write_private
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, from_bytes, set_parameters, to_bytes


def personal_model(
    task: Task, model: nn.Module, patients: Patients, plan: Plan, weights: Weights, own: Weights | None
) -> Weights:
    """From a round's new global weights, and the site's own of before, to its own now; without noise, since it stays.

    A site with nobody to train on has the global model.
    """
    if not len(patients.train_labels):
        return weights
    seed = plan.training.seed * 1_000_003 + plan.server_round

    def train(start: Weights, penalty: Penalty | None) -> Weights:
        set_parameters(model, start)
        with seeded(seed):
            model.train()
            inputs, labels = patients.train_inputs, patients.train_labels
            raw = descend(task, model, inputs, labels, plan.training, seed, None, penalty)
        return {name: start[name] + change for name, change in raw.tensors.items()}

    return strategy_of(plan.strategy).personal(weights, own, train)


class PersonalFiles:
    """A site's own models of one study, `personal/<study>/<round>.safetensors` in its folder: the newest two."""

    def __init__(self, work_dir: Path, study: str) -> None:
        self.folder = work_dir / "personal" / study

    def before(self, server_round: int, like: Weights) -> Weights | None:
        """The newest of an earlier round; None before the first, and where it is damaged or of another model."""
        earlier = [path for path in self._all() if path.name < self._name(server_round)]
        with suppress(StoreError, IndexError):
            found = from_bytes(earlier[-1].read_bytes())
            if {n: (t.shape, t.dtype) for n, t in found.items()} == {n: (t.shape, t.dtype) for n, t in like.items()}:
                return found
        return None

    def keep(self, server_round: int, weights: Weights) -> None:
        """Keep one; a rerun of the round's step makes it anew from the one before."""
        write_private(self.folder / self._name(server_round), to_bytes(weights))
        for old in self._all()[:-2]:
            old.unlink()

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _name(self, server_round: int) -> str:
        return f"{server_round:06d}.safetensors"
