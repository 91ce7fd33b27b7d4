"""Site-level differential privacy of selective sharing: the sparse vector technique of Li et al. 2019, algorithm 2.

The law, for one release: the noisy threshold is drawn once. In passes, every component that is not yet released is
asked once, one at a time in uniformly random order, whether its magnitude with fresh noise reaches the threshold; a
yes releases it with fresh noise; the release ends with the q-th yes. (Drawing with replacement, a no could be asked
again before the others are. Then large magnitudes would be chosen a little more often; privacy is the same.)

Asking again is sound: the proof of the technique holds for any stream of queries, chosen in view of the answers so far,
and pays for the yeses alone, with one threshold for all of them (Lyu, Su & Li 2017, arXiv 1603.01699, algorithm 7 and
theorem 4). The same query once more is one more query of the stream. The number of passes, and with it the time that a
release takes, is read off the answers, so it costs nothing either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.errors import PrivacyError
from tasks.learning.arrays import Floats
from tasks.privacy.accounting import pure_epsilon_for, pure_epsilon_total
from tasks.privacy.codecs.sparse import Components, num_shared
from tasks.privacy.mechanisms.gaussian import NOBODY, check_release, check_sampler
from tasks.privacy.mechanisms.mechanism import Mechanism, Sent
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import Update, check_update, chunks, to_float32
from tasks.privacy.noise.source import NoiseSource, gaps
from tasks.store.records.ledger import Spend
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import SparseVector

NEIGHBOURS = "federations in which one site's whole update is replaced by any other"
#: A component that passes with a chance of 2% or more is missed that often with probability 2e-9. Lower chances need a
#: threshold of many noise scales: then the update has nothing to send, and a shortfall says so.
MAX_PASSES = 1000
_MAX_STEPS_PER_GAMMA = 1 << 24
_MAX_SCALE = 2.0**44

Steps32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SparseVectorMechanism(Mechanism):
    """The sparse vector technique on a site's update, divided by its local iterations and clipped to [-gamma, gamma].

    With s = 2 gamma, q components to send and epsilon_1, 2, 3 the query, threshold and release parts of one round:
    threshold tau + Lap(s / epsilon_2); a component c is sent if |c| + Lap(2 q s / epsilon_1) reaches it; what is sent
    is c + Lap(q s / epsilon_3), clipped to [-gamma, gamma], times the local iterations.

    Guarantee
        unit: one site, with all its patients. neighbours: the site's whole update is replaced by any other.
        sensitivity: of a magnitude gamma, counted as s = 2 gamma; of the q released values q s in L1; exact on an
            integer grid.
        spend: pure epsilon_1 + epsilon_2 + epsilon_3 a round; the total over T rounds is the optimal composition.
        trust: nobody; it holds against the hub and all other sites.
        epsilon: total over `rounds.total` rounds of the study, at `delta`.
        public: q, gamma, tau, the number of components and of local iterations of each site.

    Edge cases
        zero: noise passes the threshold, and noise is sent. too few components pass: `shortfall` counts them.
        NaN, infinity, empty, not one-dimensional, not floating point: PrivacyError, nothing is drawn.
        so little budget for so many components that the grid would have no step: PrivacyError, nothing is drawn.
        a delta so small that the noise's own gaps are not negligible beside it: PrivacyError, nothing is drawn.
        a round beyond `rounds.total`: BudgetExhausted.

    Source: Li et al. 2019 (arXiv 1910.00962), algorithm 2; Lyu, Su & Li 2017, algorithm 7 and theorem 4; total:
    Kairouz, Oh & Viswanath 2015.
    """

    settings: SparseVector
    total_rounds: int

    @property
    def pure_epsilon(self) -> float:
        """epsilon_1 + epsilon_2 + epsilon_3 of one round."""
        return pure_epsilon_for(self.settings.epsilon, self.settings.delta, self.total_rounds)

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        """What the site has spent after its `releases`-th release.

        Raises:
            BudgetExhausted: the study's budget pays for fewer releases.
        """
        check_release(releases, self.total_rounds, self.settings.epsilon)
        pure_epsilon = self.pure_epsilon
        return Spend(
            mechanism="svt",
            unit="site",
            neighbours=NEIGHBOURS,
            trust=NOBODY,
            pure_epsilon=pure_epsilon,
            releases=releases,
            epsilon=pure_epsilon_total(pure_epsilon, releases, self.settings.delta),
            delta=self.settings.delta,
            epsilon_budget=self.settings.epsilon,
        )

    def privatize(self, update: Update, local_iterations: int, noise: NoiseSource) -> Components:
        """The components to send of an update, (parameters,), made by `local_iterations` steps.

        Raises:
            PrivacyError: the update is no finite floating-point vector, the local iterations are none, no noise can be
                drawn or it has gaps beside delta, or what comes out does not fit float32.
        """
        check_update(update)
        if local_iterations < 1:
            raise PrivacyError(f"an update of {local_iterations} local iterations cannot be divided by them")
        wanted = num_shared(self.settings.fraction, update.size)
        scales = Scales.of(self.settings, self.pure_epsilon, wanted)
        self._check_sampler(update.size, wanted, scales)
        steps = _cut(update, scales.steps_per_gamma / self.settings.gamma / local_iterations, scales.steps_per_gamma)
        chosen = self._choose(np.abs(steps), wanted, scales, noise)
        noisy = self._noisy(steps[chosen], scales, noise)
        np.clip(noisy, -scales.steps_per_gamma, scales.steps_per_gamma, out=noisy)
        values = to_float32(noisy * (self.settings.gamma / scales.steps_per_gamma * local_iterations))
        return Components(chosen.astype(np.int32), values, update.size, wanted - chosen.size)

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        return self.privatize(part.update, part.raw.local_iterations, noise).dense()

    def trace(self, update: Floats, local_iterations: int) -> Floats:
        limit = self.settings.gamma * local_iterations
        return np.clip(update, -limit, limit)

    def words(self) -> str:
        sent = f"{self.settings.fraction:.0%} of its update"
        return f"svt: a site sends {sent}, chosen and noised by the sparse vector technique"

    def _check_sampler(self, size: int, wanted: int, scales: Scales) -> None:
        """For all that a release may draw: the threshold, every component in every pass, and what is sent."""
        drawn = gaps("laplace", 1, scales.threshold)
        drawn += MAX_PASSES * gaps("laplace", size, scales.query)
        drawn += gaps("laplace", wanted, scales.release)
        check_sampler(drawn, self.total_rounds, self.settings.epsilon, self.settings.delta)

    def _choose(
        self, magnitudes: Steps32, wanted: int, scales: Scales, noise: NoiseSource
    ) -> npt.NDArray[np.signedinteger]:
        """Indices of up to `wanted` components that passed the threshold, ascending."""
        threshold = scales.tau + int(noise.laplace(1, scales.threshold)[0])
        waiting = np.arange(magnitudes.size, dtype=np.int32)
        chosen = [waiting[:0]]
        for _ in range(MAX_PASSES):
            passed = self._ask(magnitudes, threshold, scales, noise)
            accepted = waiting[np.flatnonzero(passed)]
            if accepted.size >= wanted:
                chosen.append(self._first(accepted, wanted, noise))
                break
            chosen.append(accepted)
            wanted -= accepted.size
            left = np.flatnonzero(~passed)
            waiting, magnitudes = waiting[left], magnitudes[left]
        return np.sort(np.concatenate(chosen)) if len(chosen) > 2 else chosen[-1]

    def _ask(self, magnitudes: Steps32, threshold: int, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.bool_]:
        """One pass over all components: which of them reach the threshold, each with noise of its own."""
        passed = np.empty(magnitudes.size, dtype=np.bool_)
        for part in chunks(magnitudes.size):
            noisy = noise.laplace(magnitudes[part].size, scales.query)
            noisy += magnitudes[part]
            np.greater_equal(noisy, threshold, out=passed[part])
        return passed

    def _first(self, accepted: Steps32, wanted: int, noise: NoiseSource) -> Steps32:
        """The components of a pass that are asked before the release is complete.

        Asking all and choosing among the accepted has the law of asking in random order until enough are accepted: the
        answers do not depend on the order, so given who is accepted, the order of these is still uniformly random, and
        the first `wanted` of it are a uniformly random subset. Answers after that are thrown away unseen.
        """
        return accepted[noise.subset(accepted.size, wanted)]

    def _noisy(self, steps: Steps32, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.int64]:
        noisy = noise.laplace(steps.size, scales.release)
        noisy += steps
        return noisy


@dataclass(frozen=True)
class Scales:
    """The threshold and the three noise scales in grid steps, and how many of these make up gamma.

    2^24 steps, or fewer when so many components share so little budget that noise on that grid would be too wide to
    draw: a step is then some 2^-43 of the widest noise.
    """

    steps_per_gamma: int
    tau: int
    query: float
    threshold: float
    release: float

    @classmethod
    def of(cls, settings: SparseVector, pure_epsilon: float, wanted: int) -> Scales:
        """For one round's epsilon and the number of components to send.

        Raises:
            PrivacyError: the noise is so wide that gamma would be less than a grid step.
        """
        shares = settings.shares
        unit = pure_epsilon / (shares.query + shares.threshold + shares.release)
        query, threshold = 4 * wanted / (unit * shares.query), 2 / (unit * shares.threshold)
        release = 2 * wanted / (unit * shares.release)
        room = _MAX_SCALE / max(query, threshold, release)
        if room < 1:
            raise PrivacyError(
                f"an epsilon of {pure_epsilon:.3g} a round cannot pay for {wanted} components: "
                "lower privacy.fraction or rounds.total"
            )
        steps = min(_MAX_STEPS_PER_GAMMA, 1 << math.floor(math.log2(room)))
        tau = round(settings.tau / settings.gamma * steps)
        return cls(steps, tau, query * steps, threshold * steps, release * steps)


def _cut(update: Update, factor: float, bound: int) -> Steps32:
    """Every component in grid steps, clipped to [-bound, bound] and cut toward zero."""
    steps = np.empty(update.size, dtype=np.int32)
    for part in chunks(update.size):
        scaled = update[part].astype(np.float64)
        with np.errstate(over="ignore"):
            scaled *= factor
        np.clip(scaled, -bound, bound, out=scaled)
        steps[part] = scaled  # the conversion cuts toward zero
    return steps
