"""What all attacks of one audit share."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.effort import Effort
from tasks.privacy.audit.observer import Observers
from tasks.privacy.audit.patients import Audience
from tasks.privacy.audit.promise import Promise
from tasks.store.records.ledger import Spend
from tasks.store.weights import Weights
from tasks.study.sections import Study

#: The hidden layer on which reconstruction of whole batches is proven: as wide as the default MLP's.
HIDDEN = 16


def layered_study(study: Study) -> Study:
    """The same study with a hidden layer of ReLU units: its gradients have enough equations for a whole batch."""
    model = study.model.model_copy(update={"path": "tasks.models:MLP", "options": {"hidden": HIDDEN}})
    return study.model_copy(update={"model": model})


@dataclass(frozen=True)
class AuditSetting:
    """One audit: who is attacked, by whom, on whom, and what was promised."""

    adversary: Adversary
    observers: Observers
    layered: Observers | None
    audience: Audience
    models: tuple[Weights, ...]
    spend: Spend
    promise: Promise | None
    effort: Effort

    @property
    def rounds(self) -> int:
        """Rounds that the attacks watch."""
        return len(self.models)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites that are seen as one."""
        return self.adversary.sites()

    @property
    def transcripts(self) -> int:
        """How many times all rounds are watched."""
        return self.effort.transcripts(self.rounds, len(self.sites))

    def steps(self, what: str) -> int:
        """How often an attack reports progress."""
        return 16 if what.startswith("Reconstruction") else self.transcripts
