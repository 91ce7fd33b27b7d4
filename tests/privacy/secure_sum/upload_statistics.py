"""Statistical tests that a masked vector must pass: nothing in it tells it from random bits.

Each gives a two-sided p-value, and `ALARM` is its false-alarm rate: the chance that good masks and an unlucky choice of
keys would have made it fail from the start. Keys are fixed in the tests, so a run never flickers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

ALARM = 1e-7
Upload = npt.NDArray[np.uint64]


def byte_p_value(upload: Upload) -> float:
    """Chi-square test that all 256 bytes are equally common, 255 degrees."""
    counts = np.bincount(_bytes(upload), minlength=256)
    expected = counts.sum() / 256
    return _two_sided(float(np.square(counts - expected).sum() / expected), 255)


def bit_p_value(upload: Upload) -> float:
    """Chi-square test that each of the 64 bits is set in half of the values, 64 degrees."""
    ones = np.array([int(((upload >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)])
    z = (ones - upload.size / 2) / np.sqrt(upload.size / 4)
    return _two_sided(float(np.square(z).sum()), 64)


def serial_p_value(upload: Upload, lag: int) -> float:
    """Test that each byte is uncorrelated with the one `lag` bytes on. Lag 8 goes from value to value."""
    stream = _bytes(upload)
    return _correlation_p_value(stream[:-lag], stream[lag:])


def cross_p_value(one: Upload, other: Upload) -> float:
    """Test that the bytes of two uploads are uncorrelated, place by place."""
    return _correlation_p_value(_bytes(one), _bytes(other))


def p_values(upload: Upload) -> dict[str, float]:
    """All tests of one vector."""
    return {
        "bytes": byte_p_value(upload),
        "bits": bit_p_value(upload),
        "serial 1": serial_p_value(upload, 1),
        "serial 8": serial_p_value(upload, 8),
    }


def _bytes(upload: Upload) -> npt.NDArray[np.uint8]:
    return upload.astype("<u8").view(np.uint8)


def _correlation_p_value(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """r * sqrt(n) is nearly standard normal; what does not vary at all fails."""
    if one.std() == 0 or other.std() == 0:
        return 0.0
    r = np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1]
    return float(2 * norm.sf(abs(r) * np.sqrt(one.size)))


def _two_sided(statistic: float, degrees: int) -> float:
    return float(2 * min(chi2.cdf(statistic, degrees), chi2.sf(statistic, degrees)))
