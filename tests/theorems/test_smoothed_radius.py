"""Randomised smoothing: the confidence bound fails with probability alpha at most, and no classifier with that
probability changes its smoothed answer within the radius; a half-space does just beyond (docs/theory.md, section 16).
"""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from robode.certificates.smoothing import certified_radius, lower_confidence_bound


@settings(max_examples=150, deadline=None, derandomize=True)
@given(n=st.integers(1, 500), p=st.floats(1e-6, 1 - 1e-6), alpha=st.floats(1e-4, 0.4))
def test_the_lower_bound_exceeds_the_truth_with_probability_alpha_at_most(n: int, p: float, alpha: float) -> None:
    k = np.arange(n + 1)
    assert binom.pmf(k, n, p)[lower_confidence_bound(k, n, alpha) > p * (1 + 1e-12)].sum() <= alpha * (1 + 1e-6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(n=st.integers(1, 500), share=st.floats(0, 1), alpha=st.floats(1e-4, 0.4))
def test_a_larger_one_would_fail_more_often(n: int, share: float, alpha: float) -> None:
    """At p just below the bound of k, k or more have probability alpha: the bound has no room."""
    k = max(1, round(share * n))
    low = float(lower_confidence_bound(np.array([k]), n, alpha)[0])
    np.testing.assert_allclose(binom.sf(k - 1, n, low), alpha, rtol=1e-5)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    ends=st.lists(st.floats(-6, 6), min_size=2, max_size=8, unique=True),
    sigma=st.floats(0.1, 3),
    way=st.floats(0, 0.999),
    up=st.booleans(),
)
def test_within_the_radius_no_set_loses_its_majority(ends: list[float], sigma: float, way: float, up: bool) -> None:
    """On the line every decision region is a union of intervals, here any; as many votes as its probability says."""
    ends = sorted(ends)[: len(ends) // 2 * 2]

    def probability(x: float) -> float:
        pairs = zip(ends[::2], ends[1::2], strict=True)
        return sum(float(norm.cdf((b - x) / sigma) - norm.cdf((a - x) / sigma)) for a, b in pairs)

    votes, n = math.floor(10**6 * probability(0.0)), 10**6
    radius = float(certified_radius(np.array([votes]), n, sigma, 0.4)[0])
    if radius > 0:
        assert probability(way * radius * (1 if up else -1)) >= 0.5


@settings(max_examples=50, deadline=None, derandomize=True)
@given(distance=st.floats(0.1, 2), sigma=st.floats(0.5, 2))
def test_a_half_space_loses_it_just_beyond(distance: float, sigma: float) -> None:
    """P[x + e on this side] = Phi(distance / sigma): with as many of 10^9 votes the radius is the distance itself."""
    n = 10**9
    votes = math.floor(n * float(norm.cdf(distance / sigma)))
    radius = float(certified_radius(np.array([votes]), n, sigma, 0.4)[0])
    assert 0.99 * distance <= radius <= distance
    assert norm.cdf((distance - 1.011 * radius) / sigma) < 0.5 <= norm.cdf((distance - radius) / sigma)


def test_the_radius_is_that_of_the_bound_and_zero_below_one_half() -> None:
    k = np.array([0, 50, 51, 99, 100])
    low = lower_confidence_bound(k, 100, 0.001)
    found = certified_radius(k, 100, 0.7, 0.001)
    np.testing.assert_allclose(found, np.where(low > 0.5, 0.7 * norm.ppf(np.maximum(low, 0.5)), 0), atol=1e-12)
