"""ROC and its area, and exact binomial bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score

from tasks.privacy.audit.statistics import attack_auc, auc_with_error, largest_rate, roc


def test_auc_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 6, 50).astype(float), rng.integers(0, 5, 40).astype(float)
    expected = roc_auc_score(np.repeat([1, 0], [50, 40]), np.concatenate([inside, outside]))
    assert attack_auc(inside, outside) == pytest.approx(expected)


def test_the_standard_error_covers_draws_that_share_their_noise() -> None:
    """200 repetitions: the mean of the stated errors is within 15% of the spread of the AUC (4 SE of a spread are 20%).

    Errors that ignore the shared noise are far too small, and are seen to be.
    """
    rng = np.random.default_rng(1)
    found, naive = [], []
    for _ in range(200):
        shared = rng.standard_normal((40, 1))
        inside = 0.7 + shared + 0.5 * rng.standard_normal((40, 10))
        outside = -shared + 0.5 * rng.standard_normal((40, 10))
        found.append(auc_with_error(inside, outside))
        naive.append(auc_with_error(inside.reshape(-1, 1), outside.reshape(-1, 1))[1] if len(naive) < 3 else naive[-1])
    spread = np.std([area for area, _ in found])
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.2)
    assert np.mean(naive) < 0.6 * spread


def test_roc_of_two_normals() -> None:
    rng = np.random.default_rng(2)
    fpr, tpr = roc(rng.normal(1, 1, 100_000), rng.normal(0, 1, 100_000))
    np.testing.assert_allclose(tpr[1:-1], norm.cdf(1 + norm.ppf(fpr[1:-1])), atol=0.01)
    assert (tpr[0], tpr[-1]) == (0, pytest.approx(1, abs=1e-4))


@pytest.mark.parametrize(("hits", "trials"), [(0, 50), (3, 50), (49, 50)])
def test_the_largest_rate_is_where_so_few_hits_become_unlikely(hits: int, trials: int) -> None:
    rate = largest_rate(hits, trials, 0.975)
    assert binom.cdf(hits, trials, rate) == pytest.approx(0.025)
    assert largest_rate(trials, trials, 0.975) == 1
