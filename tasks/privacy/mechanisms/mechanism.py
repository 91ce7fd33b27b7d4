"""What every mechanism answers. What one does not answer it refuses: nothing leaves, and nothing is read, that way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.errors import PrivacyError, UpdateRejected
from tasks.learning.arrays import Floats
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.source import NoiseSource
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import Privacy

#: What leaves, (parameters,), before it is encoded.
Sent = npt.NDArray[np.float32] | Floats


class Mechanism(ABC):
    """One mechanism with its section of a study, for so many rounds.

    Its section says, in `needs`, how its updates may travel; the door and the hub hold it to that.
    """

    settings: Privacy
    total_rounds: int

    @abstractmethod
    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        """What its unit has spent after the `releases`-th release, by how updates travel.

        Raises:
            BudgetExhausted: the study's budget pays for fewer releases.
        """

    @abstractmethod
    def words(self) -> str:
        """What a site does, for the round's page."""

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        """What may be seen by anybody. Raises PrivacyError: nothing may."""
        raise PrivacyError(f"mechanism {self.settings.mechanism} protects a masked sum only: set channel: masks")

    def share(self, part: Part, sites: int, noise: NoiseSource) -> Maskable:
        """This site's part of a masked sum over `sites`. Raises PrivacyError: its updates have no such sum."""
        raise PrivacyError(f"an update of mechanism {self.settings.mechanism} cannot be summed behind masks")

    def read(self, total: Floats, plan: Plan, base: Weights, weights: Sequence[float]) -> Floats:
        """From an opened sum, (parameters,) grid steps, to the step of the global model: the way back of `share`.

        Args:
            base: the weights that the round started from.
            weights: each contributor's weight; their number is the number of contributors.

        Raises:
            UpdateRejected: its updates have no such sum.
        """
        raise UpdateRejected("all", f"mechanism {self.settings.mechanism} has no masked sum")

    def opened_sd(self, contributors: int) -> float:
        """sd of the noise in one value of an opened sum, in grid steps. Raises PrivacyError: there is no such sum."""
        raise PrivacyError(f"mechanism {self.settings.mechanism} has no masked sum")

    def trace(self, update: Floats, local_iterations: int) -> Floats:
        """The most that a site's update, (parameters,), can add to what is seen: bounded as before noise.

        Raises:
            PrivacyError: it protects whole sites, and does not say how it bounds one.
        """
        if self.settings.unit == "site":
            raise PrivacyError(
                f"mechanism {self.settings.mechanism} does not say what a site can add: nothing audits it"
            )
        return update

    def seen(self, sent: Floats, plan: Plan, base: Weights) -> Floats:
        """What anybody can compute of what was sent, (parameters,): for patient-level mechanisms the gradients.

        Raises:
            PrivacyError: it protects patients, and does not say how their gradients are had from a step.
        """
        if self.settings.unit == "patient":
            raise PrivacyError(f"mechanism {self.settings.mechanism} does not say what a step tells: nothing audits it")
        return sent
