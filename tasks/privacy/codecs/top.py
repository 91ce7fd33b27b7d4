"""Selective sharing: the components of largest magnitude. It saves bytes and is never privacy.

Which components are largest tells of the patients too. Without a mechanism each of them is raw, so the study has to
accept in writing that it has no privacy (`i_accept_no_privacy`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.privacy.codecs.codec import Vector
from tasks.privacy.codecs.sparse import ChosenComponents, as_tensors
from tasks.privacy.noise.source import NoiseSource
from tasks.store.weights import Weights


@dataclass(frozen=True)
class TopCodec(ChosenComponents):
    """The largest components of a vector, as many as the study's fraction, with error feedback where it asks for it.

    Source: Aji & Heafield 2017 (arXiv 1704.05021).
    """

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        return as_tensors(flat, largest(flat, self.most))


def largest(flat: Vector, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` components of largest magnitude, ascending; among equal ones those of smallest index."""
    magnitudes = np.abs(flat)
    smallest_sent = np.partition(magnitudes, flat.size - count)[flat.size - count]
    sent = magnitudes > smallest_sent
    ties = np.flatnonzero(magnitudes == smallest_sent)
    sent[ties[: count - int(np.count_nonzero(sent))]] = True
    return np.flatnonzero(sent)
