"""Selective sharing: components that a coin has chosen. It saves bytes and is never privacy.

Each site draws a set of its own, so encodings do not add; the coins know nothing of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.privacy.codecs.codec import Vector
from tasks.privacy.codecs.sparse import SomeComponents, as_tensors, num_shared
from tasks.privacy.noise.source import NoiseSource
from tasks.store.weights import Weights
from tasks.study.codec import Random


@dataclass(frozen=True)
class RandomCodec(SomeComponents):
    """A uniformly random subset of the components, as many as the study's fraction.

    Source: Konečný et al. 2016 (arXiv 1610.05492, random masks).
    """

    settings: Random

    @property
    def feeds_back(self) -> bool:
        return self.settings.error_feedback

    @property
    def most(self) -> int:
        return num_shared(self.settings.fraction, self.shape.num_values)

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        return as_tensors(flat, noise.subset(flat.size, self.most))
