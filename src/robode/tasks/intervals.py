"""Intervals of a mean score: of shares, and of numbers. Needs no torch."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, both ends in [0, 1].

    Unlike the normal interval it stays inside [0, 1] and keeps a width at 0 % and 100 % (Wilson 1927).
    `correct` may be fractional: a mean count over repeats.

    Raises:
        ValueError: n < 1, correct outside [0, n] or level outside (0, 1).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, got correct={correct}, n={n}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # the ends 0 and 1 are exact in theory; rounding must not push p outside its own interval
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """mean ± t s/√n of independent values (n,); (-∞, ∞) for one value, and where one is not finite."""
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return -math.inf, math.inf
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(ddof=1, dtype=np.float64))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n)
    return mean - half, mean + half
