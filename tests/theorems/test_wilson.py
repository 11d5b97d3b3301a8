"""Wilson's interval holds exactly the shares that the score test does not reject, and covers the truth in 95 of 100
cases on average over the truth, for ten samples and more no fewer than 83 at any (docs/theory.md, section 19)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from robode.tasks.measure import wilson

Z = 1.959963984540054


@settings(max_examples=200, deadline=None, derandomize=True)
@given(n=st.integers(1, 10**5), share=st.floats(0, 1), p=st.floats(0, 1))
def test_it_holds_the_shares_that_the_score_test_does_not_reject(n: int, share: float, p: float) -> None:
    k = round(share * n)
    low, high = wilson(k, n)
    statistic = abs(k / n - p) - Z * math.sqrt(p * (1 - p) / n)
    if abs(statistic) > 1e-9:
        assert (low <= p <= high) == (statistic < 0)
    assert 0 <= low <= k / n <= high <= 1 and low < high


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_coverage(n: int) -> None:
    k = np.arange(n + 1)
    low, high = np.array([wilson(float(each), n) for each in k]).T
    truths = np.linspace(0.0005, 0.9995, 1000)
    coverage = [binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum() for p in truths]
    assert 0.95 <= np.mean(coverage) <= 0.96
    assert min(coverage) > 0.83  # lowest where the truth is almost 0 or 1; no guarantee at every share
