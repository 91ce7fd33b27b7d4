"""Selective sharing: components that a coin has chosen. It saves bytes and is never privacy.

Each site draws a set of its own, so encodings do not add; the coins know nothing of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.privacy.codecs.codec import Vector
from tasks.privacy.codecs.sparse import ChosenComponents, as_tensors
from tasks.privacy.noise.source import NoiseSource
from tasks.store.weights import Weights


@dataclass(frozen=True)
class RandomCodec(ChosenComponents):
    """A uniformly random subset of the components, as many as the study's fraction.

    Source: Konečný et al. 2016 (arXiv 1610.05492, random masks).
    """

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        return as_tensors(flat, noise.subset(flat.size, self.most))
