"""Selective sharing without noise. It saves bytes and is never privacy: what is sent, is sent raw.

Which components are largest tells of the patients too. A study that compresses has to accept in writing that it has
no privacy (`i_accept_no_privacy`); for sparse updates under differential privacy see `tasks.privacy.mechanisms.svt`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.errors import PrivacyError
from tasks.privacy.codecs.sparse import Sparse, num_shared
from tasks.privacy.mechanisms.mechanism import Mechanism, Sent
from tasks.privacy.mechanisms.no_privacy import nothing_spent
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import Update, check_update, to_float32
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.ledger import Spend
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import Compression


@dataclass(frozen=True)
class CompressionMechanism(Mechanism):
    """Some components of an update, each of them raw, with error feedback where the study asks for it.

    Guarantee
        unit: none.

    Edge cases
        NaN, infinity, beyond float32: PrivacyError. what was kept back is of another model: PrivacyError.
    """

    settings: Compression
    total_rounds: int

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        return nothing_spent(self.settings, releases, channel)

    def words(self) -> str:
        return f"{self.settings.mechanism}: compression only"

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        update, settings = part.update, self.settings
        if part.carried is not None:
            if part.carried.shape != update.shape:
                raise PrivacyError("what error feedback kept is of another model: remove the site's residual and go on")
            update = update + part.carried.numpy()
        sent = (
            top(update, settings.fraction) if settings.mechanism == "top" else random(update, settings.fraction, noise)
        )
        return Sent(sent, residual(update, sent) if settings.error_feedback else None)


def top(update: Update, fraction: float) -> Sparse:
    """The components of largest magnitude; among equal ones those of the smallest index. Compression, never privacy.

    Raises:
        PrivacyError: the update is no finite floating-point vector, or a value does not fit float32.

    Source: Aji & Heafield 2017 (arXiv 1704.05021).
    """
    check_update(update)
    magnitudes = np.abs(update)
    count = num_shared(fraction, update.size)
    smallest_sent = np.partition(magnitudes, update.size - count)[update.size - count]
    sent = magnitudes > smallest_sent
    ties = np.flatnonzero(magnitudes == smallest_sent)
    sent[ties[: count - int(np.count_nonzero(sent))]] = True
    return _pick(update, np.flatnonzero(sent))


def random(update: Update, fraction: float, noise: NoiseSource) -> Sparse:
    """A uniformly random subset of the components. Compression, never privacy.

    Raises:
        PrivacyError: the update is no finite floating-point vector, or a value does not fit float32.

    Source: Konečný et al. 2016 (arXiv 1610.05492, random masks).
    """
    check_update(update)
    return _pick(update, noise.subset(update.size, num_shared(fraction, update.size)))


def residual(update: Update, sparse: Sparse) -> npt.NDArray[np.float32]:
    """What was not sent of the update, (parameters,): error feedback adds it to the next round's update.

    It is raw: it stays at the site.

    Raises:
        PrivacyError: the sparse update is of another size, or a value does not fit float32.

    Source: Stich, Cordonnier & Jaggi 2018 (arXiv 1809.07599).
    """
    check_update(update)
    if update.size != sparse.size:
        raise PrivacyError(f"an update of {update.size} components has no residual to one of {sparse.size}")
    left = to_float32(update)
    left[sparse.indices] -= sparse.values
    return left


def _pick(update: Update, indices: npt.NDArray[np.int64]) -> Sparse:
    return Sparse(indices.astype(np.int32), to_float32(update[indices]), update.size)
