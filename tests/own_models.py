"""Models as people write them: those that rounds can be made of, and those that they cannot."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class Net(nn.Module):
    """Two layers with something between them, and something at the end."""

    between: Any = nn.ReLU
    hidden = 6

    def __init__(self, num_inputs: int, **options: object) -> None:
        super().__init__()
        self.first, self.mid = nn.Linear(num_inputs, self.hidden), self.between()
        self.last = nn.Linear(self.hidden, 1)
        self.set_up(num_inputs)

    def set_up(self, num_inputs: int) -> None:
        """What a model has beside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.last(self.mid(self.first(x))).squeeze(-1))

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits


# rounds can be made of them


class Norms(Net):
    between = staticmethod(lambda: nn.Sequential(nn.LayerNorm(6), nn.GELU(), nn.GroupNorm(2, 6)))


class Drops(Net):
    between = staticmethod(lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))


class Everything(Net):
    """Dropout, a norm, a frozen layer, a constant in a buffer, and (N,) at the end."""

    between = staticmethod(lambda: nn.Sequential(nn.LayerNorm(6), nn.ReLU(), nn.Dropout(0.2)))

    def set_up(self, num_inputs: int) -> None:
        self.first.requires_grad_(False)
        self.register_buffer("shrink", torch.tensor(0.5))

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * self.shrink


class Frozen(Net):
    def set_up(self, num_inputs: int) -> None:
        nn.init.orthogonal_(self.first.weight)
        self.first.requires_grad_(False)


class Tied(Net):
    """An encoder and a decoder of one matrix."""

    def set_up(self, num_inputs: int) -> None:
        self.decode = nn.Linear(num_inputs, 6)
        self.decode.weight = self.first.weight

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.decode.weight.square().mean()


class Unused(Net):
    def set_up(self, num_inputs: int) -> None:
        self.left_over = nn.Linear(3, 3)


class Transposed(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first.weight = nn.Parameter(torch.randn(num_inputs, 6).t())


class Strided(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first.weight = nn.Parameter(torch.randn(12, num_inputs)[::2])


class WeightNorm(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first = parametrizations.weight_norm(self.first)


class StatisticsOfOthers(Net):
    """A batch norm that keeps what it was trained with elsewhere."""

    between = staticmethod(lambda: nn.BatchNorm1d(6).eval())

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        self.mid.eval()
        return self


class StartsAtZero(Net):
    def set_up(self, num_inputs: int) -> None:
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, 3.0)


class Table(Net):
    """A whole number chooses a row."""

    def set_up(self, num_inputs: int) -> None:
        self.table = nn.Embedding(9, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.table((x[:, 0].round() + 4).clamp(0, 8).long()).squeeze(-1)


class Convolution(Net):
    def set_up(self, num_inputs: int) -> None:
        self.slide = nn.Conv1d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.slide(x.unsqueeze(1)).flatten(1).mean(1)


class NobodyBreaksIt(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(len(x), -1))


class Recurrent(Net):
    def set_up(self, num_inputs: int) -> None:
        self.read = nn.GRU(1, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.read(x.unsqueeze(-1))[0][:, -1]).squeeze(-1)


class Prior(nn.Module):
    """The same risk for everybody: a view of its one parameter."""

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logit.expand(len(x))


class Attends(Net):
    """Over a patient's inputs."""

    dropout = 0.0

    def set_up(self, num_inputs: int) -> None:
        self.embed = nn.Linear(1, 6)
        self.attend = nn.TransformerEncoderLayer(6, 2, 8, dropout=self.dropout, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.attend(self.embed(x.unsqueeze(-1))).mean(1)).squeeze(-1)


class AttendsAndDrops(Attends):
    dropout = 0.1


# rounds cannot be made of them


class AttendsOverPatients(Attends):
    """Without `batch_first`."""

    def set_up(self, num_inputs: int) -> None:
        super().set_up(num_inputs)
        self.attend = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0)


class Column(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.unsqueeze(-1)


class EverythingWrong(Everything):
    """The same with a batch norm, and (N, 1) at the end."""

    between = staticmethod(lambda: nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2)))

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.unsqueeze(-1)


class Scalar(Net):
    """What `.squeeze()` makes of one patient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x)).squeeze()


class TwoClasses(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.stack([-logits, logits], dim=1)


class Pair(Net):
    def end(self, logits: torch.Tensor) -> Any:
        return logits, None


class Doubles(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double()


class BatchNorm(Net):
    between = staticmethod(lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm1d(6)))


class BatchNormWithoutStatistics(Net):
    between = staticmethod(lambda: nn.BatchNorm1d(6, track_running_stats=False))

    def set_up(self, num_inputs: int) -> None:
        nn.init.zeros_(self.last.weight)


class MixesRows(Net):
    between = staticmethod(lambda: nn.Softmax(dim=0))

    def set_up(self, num_inputs: int) -> None:
        nn.init.zeros_(self.last.weight)


class BatchMean(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits - logits.mean()


class SpectralNorm(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first = parametrizations.spectral_norm(self.first)


class AlwaysDrops(Net):
    between = staticmethod(lambda: F.dropout)


class DropsWhereItPleases(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * float(np.random.default_rng().random()) if self.training else logits


class CountsCalls(Net):
    calls = 0

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return logits * self.calls


class LooksAtTheClock(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * (time.perf_counter_ns() % 1000)


class RemembersPatients(Net):
    """Each patient that it has seen lies in a buffer."""

    def set_up(self, num_inputs: int) -> None:
        self.register_buffer("seen", torch.zeros(0, num_inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = torch.cat([self.seen, x.detach()])
        return super().forward(x)


class RemembersInTraining(RemembersPatients):
    """The last patient, beside a weight that is said to be trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                self.first.weight[0] = x[-1]
        return Net.forward(self, x)


class WritesIntoInputs(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clamp_(-1, 1))


class Probability(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits)


class ProbabilityByLayer(nn.Sequential):
    def __init__(self, num_inputs: int) -> None:
        super().__init__(nn.Linear(num_inputs, 1), nn.Flatten(0), nn.Sigmoid())


class LogProbability(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return F.logsigmoid(logits)


class EndsInRelu(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.relu(logits)


class UnitVector(Net):
    """A patient at every centre has length 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x / x.norm(dim=1, keepdim=True))


class ShortTable(Table):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x[:, 0].round().long()).squeeze(-1)


class Lazy(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first = nn.LazyLinear(6)


class Half(Net):
    def set_up(self, num_inputs: int) -> None:
        self.last.half()


class Complex(Net):
    def set_up(self, num_inputs: int) -> None:
        self.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))


class Elsewhere(Net):
    def set_up(self, num_inputs: int) -> None:
        self.last.to("meta")


class AllFrozen(Net):
    def set_up(self, num_inputs: int) -> None:
        self.requires_grad_(False)


class TiedByMemory(Net):
    def set_up(self, num_inputs: int) -> None:
        self.decode = nn.Parameter(self.first.weight.t())


class NeverInitialised(Net):
    def set_up(self, num_inputs: int) -> None:
        self.more = nn.Parameter(torch.empty(40))


class DrawnByNumpy(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first.weight.data = torch.from_numpy(np.random.normal(size=(6, num_inputs))).float()


class FrozenAtRandom(Net):
    def set_up(self, num_inputs: int) -> None:
        self.first.weight.data = torch.from_numpy(np.random.default_rng().normal(size=(6, num_inputs))).float()
        self.first.requires_grad_(False)


class Detached(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.detach()


class FreezesWhenCalled(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = super().forward(x)
        if self.training:
            self.first.requires_grad_(False)
        return found


class FreezesInTraining(Net):
    def train(self, mode: bool = True) -> Net:
        self.first.requires_grad_(not mode)
        return super().train(mode)


class MixesAtTheEnd(Net):
    """Its layers give a number for all, whole numbers and other shapes on the way."""

    def set_up(self, num_inputs: int) -> None:
        self.count, self.read = Size(), nn.GRU(num_inputs, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen, _ = self.read(x.unsqueeze(1))
        return super().forward(x) + seen.mean() + self.count(x) * 0


class Size(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor(len(x))


class Root(Net):
    """A variance that starts at 0 and that nothing keeps from falling below."""

    def set_up(self, num_inputs: int) -> None:
        self.variance = nn.Parameter(torch.zeros(9))

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.variance.sqrt().sum()


class LongName(Net):
    def set_up(self, num_inputs: int) -> None:
        self.register_parameter("w" * 400, nn.Parameter(torch.zeros(1)))


class Hooked(Net):
    """Half of a layer is trained, by a hook on its gradient."""

    def set_up(self, num_inputs: int) -> None:
        self.first.weight.register_hook(lambda gradient: gradient * torch.tensor([[1.0], [0.0]]).repeat(3, 1))


class Single(Net):
    """Single precision, whatever comes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.last.weight.float()[:, : x.shape[1]]).squeeze(-1)


# of another kind with many patients, in training, or from one process to the next


class Centred(Net):
    """Takes the batch's mean off where `applies` says so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - x.mean(0) if self.applies(x) else x)

    def applies(self, x: torch.Tensor) -> bool:
        return self.training


class CentredWithGradients(Centred):
    def applies(self, x: torch.Tensor) -> bool:
        return torch.is_grad_enabled()


class CentredAmongMany(Centred):
    def applies(self, x: torch.Tensor) -> bool:
        return len(x) > 8


class CentredAmongManyInTraining(Centred):
    def applies(self, x: torch.Tensor) -> bool:
        return self.training and len(x) > 8


class CentredBesideDropout(Centred):
    between = staticmethod(lambda: nn.Dropout(0.5))


class ScalesWithNumber(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits / max(len(logits), 100)


class SeesTheOneBefore(Net):
    """A lag that was meant along a patient's visits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + x.roll(1, 0) if self.training else x)


class NoiseAmongMany(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + torch.from_numpy(np.random.normal(size=len(logits))).to(logits) * (len(logits) > 8)


class FailsAmongMany(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(-1, len(x[0])) if len(x) < 64 else x.reshape(64, -1))


class KeepsRows(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 8:
            self.seen = x.detach()
        return super().forward(x)


class KeepsRowsInAList(Net):
    def set_up(self, num_inputs: int) -> None:
        self.seen: list[list[float]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x.detach().tolist()
        return super().forward(x)


class KeepsRowsInItsClass(Net):
    seen: Any = {}  # noqa: RUF012

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        self.seen[len(logits)] = logits.detach().tolist()
        return logits


_SEEN: dict[int, Any] = {}


def _note(x: torch.Tensor) -> None:
    _SEEN[len(_SEEN)] = x.shape


class KeepsRowsInAGlobal(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        _note(logits)
        return logits


class KeepsRowsInAHook(Net):
    def set_up(self, num_inputs: int) -> None:
        seen: list[int] = []
        self.first.register_forward_hook(lambda layer, given, made: seen.append(len(made)))


class CentresOnTheFirst(Net):
    """Its inputs' means are those of the first patients that it sees."""

    mean: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            self.mean = x.mean(0).tolist()
        return super().forward(x - torch.tensor(self.mean, dtype=x.dtype))


class Warms(Net):
    """Gives 0 after 200 calls."""

    calls = 0

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return logits * (0.0 if self.calls > 200 else 1.0)


class OwnGenerator(Net):
    """Draws what changes no logit."""

    def set_up(self, num_inputs: int) -> None:
        self.rng = np.random.default_rng(3)

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + 0.0 * self.rng.random()


class Projects(Net):
    """Random features, in an attribute that nothing compares."""

    def set_up(self, num_inputs: int) -> None:
        self.matrix: Any = torch.from_numpy(np.random.default_rng().normal(size=(num_inputs, num_inputs))).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cos(x @ torch.as_tensor(self.matrix, dtype=x.dtype)))


class ProjectsByArray(Projects):
    def set_up(self, num_inputs: int) -> None:
        self.matrix = np.eye(num_inputs)


class ProjectsByDict(Projects):
    def set_up(self, num_inputs: int) -> None:
        self.parts = {"one": [torch.eye(num_inputs)]}
        self.matrix = torch.eye(num_inputs).tolist()


class ProjectsByNumbers(Projects):
    def set_up(self, num_inputs: int) -> None:
        self.matrix = np.random.default_rng().normal(size=(num_inputs, num_inputs)).tolist()


class ListsItsLayers(Net):
    """A list of layers is no nn.ModuleList."""

    def set_up(self, num_inputs: int) -> None:
        self.more = [nn.Linear(num_inputs, 1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.more[0](x).squeeze(-1)


_SHIFT = torch.zeros(1)


class ShiftsByAGlobal(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + _SHIFT.to(logits.dtype)


class KeepsAGlobalInABuffer(Net):
    def set_up(self, num_inputs: int) -> None:
        self.register_buffer("shift", _SHIFT / 2)

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.shift


class Length(Net):
    """The length of a patient's hidden vector: 0 at the centre, where a root has no slope."""

    def set_up(self, num_inputs: int) -> None:
        self.first, self.last = nn.Linear(num_inputs, 6, bias=False), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((self.first(x) ** 2).sum(-1, keepdim=True).sqrt()).squeeze(-1)


class LengthByNumber(Net):
    """`where` keeps the value, and lets the gradient of the other side through."""

    def end(self, logits: torch.Tensor) -> torch.Tensor:
        dead = logits - logits.detach()
        return logits + torch.where(dead > 0, dead.sqrt(), dead)


class BranchesInEval(Net):
    def end(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.training or bool((logits > -1e9).all()) else -logits
