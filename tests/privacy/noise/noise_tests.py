"""The statistical tests that noise must pass. Each gives a p-value; `ALARM` is their stated false-alarm rate.

Keys are fixed in the tests, so a run never flickers; the rate is the chance that a good sampler and an unlucky choice
of keys would have made the test fail from the start.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, chisquare, kstest, norm

ALARM = 1e-6
Sample = npt.NDArray[np.integer] | npt.NDArray[np.floating]


def scale_p_value(sample: Sample, sd: float) -> float:
    """Two-sided chi-square test of the standard deviation, for normal values of mean 0.

    The sum of squares over sd^2 is chi-square with n degrees. At n = 250 000 a scale of 0.98 or 1.02 moves it by 14
    of its standard deviations, and `ALARM` is at 4.9: the power is 1 for all practical purposes.
    """
    statistic = float(np.square(sample.astype(np.float64) / sd).sum())
    return float(2 * min(chi2.cdf(statistic, sample.size), chi2.sf(statistic, sample.size)))


def shape_p_value(sample: Sample, sd: float) -> float:
    """Kolmogorov-Smirnov test against N(0, sd^2)."""
    return float(kstest(sample.ravel() / sd, "norm").pvalue)


def tail_p_value(sample: Sample, sd: float, beyond: float = 3.0) -> float:
    """Two-sided test of how many values lie beyond `beyond` standard deviations (normal approximation)."""
    p = 2 * norm.sf(beyond)
    expected, spread = sample.size * p, np.sqrt(sample.size * p * (1 - p))
    return float(2 * norm.sf(abs((np.abs(sample) > beyond * sd).sum() - expected) / spread))


def correlation_p_value(one: Sample, other: Sample) -> float:
    """Two-sided test that two samples are uncorrelated: r sqrt(n) is nearly standard normal."""
    r = np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1]
    return float(2 * norm.sf(abs(r) * np.sqrt(one.size)))


def low_bits_p_value(sample: Sample) -> float:
    """Chi-square test that the residues modulo 8 are equally common: every grid step can be reached."""
    return float(chisquare(np.bincount(sample % 8, minlength=8)).pvalue)
