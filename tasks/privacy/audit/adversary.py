"""What the adversary can compute by himself: he knows the study, the code, every model, and his candidates' records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tasks.errors import ConfigError
from tasks.learning.arrays import Floats
from tasks.learning.building import checked_model
from tasks.learning.flat import unflatten
from tasks.learning.tasks import task_of
from tasks.learning.training import gradient_rows, num_iterations
from tasks.privacy.audit.observer import PatientGroup, PatientRows
from tasks.store.weights import Weights, parameters
from tasks.study.sections import Study

MASKED_SITES = 6


@dataclass(frozen=True)
class Adversary:
    """The study as the adversary has it. He computes in float64, from the study file alone.

    Raises:
        ConfigError: the model has no gradient of one patient that he could compute.
    """

    study: Study
    model: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", checked_model(self.study).eval())
        nobody = torch.zeros(1, len(self.study.inputs), dtype=torch.float64)
        made_up = task_of(self.study.label).made_up(1)
        try:
            self._gradients(parameters(self.model), nobody, made_up.double())
        except RuntimeError:
            raise ConfigError(
                f"model.path {self.study.model.path!r} cannot be audited: torch.func has no gradient of one patient"
            ) from None

    @property
    def clip_norm(self) -> float | None:
        """C of a patient-level mechanism; None where no patient's gradient is clipped."""
        return self.study.privacy.patient_clip

    def sites(self) -> tuple[str, ...]:
        """The sites that are seen as one: up to `MASKED_SITES` of them behind masks, else one by itself.

        Each site of a masked sum brings its share of the noise for so many sites; fewer sites, less time.
        """
        privacy = self.study.privacy
        masked = privacy.promises and "masks" in privacy.needs.channels
        return tuple(self.study.sites)[: MASKED_SITES if masked else 1]

    def contributions(self, weights: Weights, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What each of (n, d) patients adds to what is seen, (n, parameters) float64, differentiable in the inputs.

        Patient-level mechanisms: the clipped gradient, exactly. Others: one patient's part in the update to first
        order, as if all n were one site: -lr * iterations * gradient / n.
        """
        rows = self._gradients(weights, inputs.double(), labels.double())
        if self.clip_norm is None:
            return -self.study.training.lr * num_iterations(self.study.training, len(inputs)) / len(inputs) * rows
        factors: torch.Tensor = (self.clip_norm / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)).clamp(max=1.0)
        return rows * factors

    def lengths(self, weights: Weights, inputs: torch.Tensor, labels: torch.Tensor) -> Floats:
        """L2 norm of each patient's gradient before any clipping, (n,)."""
        found: Floats = self._gradients(weights, inputs.double(), labels.double()).norm(dim=1).numpy()
        return found

    def _gradients(self, weights: Weights, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        doubles = {name: tensor.double() for name, tensor in weights.items()}
        return gradient_rows(task_of(self.study.label), self.model, doubles, inputs, labels)

    def models(self, patients: PatientGroup, rounds: int) -> list[Weights]:
        """`rounds` public models: the study's first one, and gradient descent from it on `patients`.

        The promise holds for every sequence of models that is chosen without looking at who takes part, so the attacks
        may use one that is fixed beforehand.
        """
        training, found = self.study.training, [parameters(self.model)]
        for _ in range(rounds - 1):
            last = found[-1]
            rows = self._gradients(last, patients[0].double(), patients[1].double())
            gradient = unflatten(rows.mean(dim=0), last)
            found.append(
                {
                    name: (tensor - training.lr * (gradient[name] + training.l2 * tensor)).to(tensor.dtype)
                    for name, tensor in last.items()
                }
            )
        return found


def deal_out(sites: Sequence[str], patients: PatientGroup, rows: PatientRows) -> dict[str, PatientGroup]:
    """Share the patients `rows` out among the sites, in turn."""
    return {
        site: (patients[0][rows[place :: len(sites)]], patients[1][rows[place :: len(sites)]])
        for place, site in enumerate(sites)
    }
