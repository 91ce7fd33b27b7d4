"""Every component in half precision: half the bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tasks.errors import PrivacyError, UpdateRejected
from tasks.privacy.codecs.codec import Codec, Vector, spec
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.round import TensorSpec
from tasks.store.weights import Weights
from tasks.study.codec import Float16


@dataclass(frozen=True)
class Float16Codec(Codec):
    """Each component x rounded to IEEE 754 binary16: off by at most max(|x| 2^-11, 2^-25).

    Below 3e-8 a component is sent as zero; with error feedback it is sent when enough rounds of it have come together.
    Beyond 65504 it cannot be sent, and the update stays at the site.
    """

    settings: Float16

    @property
    def feeds_back(self) -> bool:
        return self.settings.error_feedback

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return (spec("values", self.shape.num_values, "F16"),)

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        with np.errstate(over="ignore"):
            halves = flat.astype(np.float16)
        if not np.isfinite(halves).all():
            raise PrivacyError("a value does not fit float16: the update stays at the site; set codec.name: dense")
        return {"values": torch.from_numpy(halves)}

    def unpack(self, tensors: Weights, site: str) -> Vector:
        values: Vector = tensors["values"].float().numpy()
        if not np.isfinite(values).all():
            raise UpdateRejected(site, "it holds NaN or infinity")
        return values
