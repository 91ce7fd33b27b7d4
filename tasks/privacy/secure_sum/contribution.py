"""A site's part of a masked sum: it must not be seen by anybody before a mask is on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Maskable:
    """What goes behind a mask, and nowhere else.

    It carries only this site's share of the noise, so by itself it does not have the promised epsilon: the sum over
    `sites` contributions does. It is no array and no tensor, so it cannot be uploaded or averaged by mistake; only the
    masking step opens it.

    Attributes:
        values: (parameters,) grid steps.
        step: size of a grid step, in units of the update.
        sites: contributions that the noise share was made for; a sum of fewer is less private.
    """

    values: npt.NDArray[np.int64] = field(repr=False)
    step: float
    sites: int
