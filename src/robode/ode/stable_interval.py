"""The largest interval of slopes [alpha, 1] for which delta_alpha(A) = max over alpha <= D <= 1 of mu_2(D A) is at most
a level: how flat an activation may become. (The problem of Guglielmi, De Marinis, Savostianov, Tudisco, arXiv
2402.13092)

delta_alpha is convex and falls with alpha. Slopes D and a vector x that attain it at one alpha give a line in alpha
below the whole function, so Newton's method from the left never passes the solution (docs/theory.md, section 20).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.ode.jacobians import JacobianSet, jacobian_set
from robode.ode.lognorm_exact import maximum
from robode.ode.lognorm_lower import Attained, lower_bound
from robode.ode.lognorm_upper import STAGES, certified, upper_bound

NEWTON, TOLERANCE = 60, 1e-6


@dataclass(frozen=True)
class StableInterval:
    """lower <= alpha* <= upper: delta is at most the level on [upper, 1], certified; and above it for slopes (d,), each
    alpha or 1, at every alpha < lower, up to rounding."""

    lower: float
    upper: float
    slopes: Tensor
    vector: Tensor


def stable_interval(A: Tensor, level: float = 0.0, seconds: float = 0.0) -> StableInterval:
    """A: (d, d). With seconds branch and bound closes what the bounds leave open, as far as they reach. Raises
    `BadInput` for a level below mu_2(A), which no interval reaches."""
    J = jacobian_set(torch.zeros_like(A), torch.eye(len(A)), A, 0.0, 1.0)
    least = float(certified(J.on(J.hi, J.hi), torch.ones_like(J.hi)))
    if not least <= level:
        raise BadInput(
            f"delta: expected a level of at least mu_2(A) = {least:.6g}, which slopes of 1 have, got {level}"
        )
    lower, worst = _newton(J, level)
    upper = _certified(J, level, lower)
    end = time.monotonic() + seconds
    while seconds > 0 and upper - lower > TOLERANCE and time.monotonic() < end:
        # near the left end, where Newton has most likely arrived, then in the middle
        middle = lower + min(0.5, 10 * TOLERANCE / (upper - lower)) * (upper - lower)
        found = maximum(_at(J, middle), end - time.monotonic(), threshold=level)
        if found.upper <= level:
            upper = middle
        elif found.lower > level:
            worst = Attained(found.lower, found.slopes, found.vector)
            lower = max(lower, _root(J, worst, level, middle))
        else:
            break
    return StableInterval(lower, upper, worst.slopes, worst.vector)


def _at(J: JacobianSet, alpha: float) -> JacobianSet:
    return J.on(torch.full_like(J.lo, alpha), J.hi)


def _newton(J: JacobianSet, level: float) -> tuple[float, Attained]:
    """From alpha = 0 on, with the worst slopes found at each alpha. Ends below the solution."""
    alpha, starts = 0.0, None
    worst = lower_bound(J)[0]
    for _ in range(NEWTON):
        found = lower_bound(_at(J, alpha), starts)[0]
        if found.value <= level:
            break
        root = _root(J, found, level, alpha)
        worst, starts = found, found.vector[None, None]
        if root - alpha <= 1e-3 * TOLERANCE:
            break
        alpha = root
    return alpha, worst


def _root(J: JacobianSet, found: Attained, level: float, alpha: float) -> float:
    """Where the line of these slopes, alpha -> sum over D_i = 1 of x_i (A x)_i + alpha times the others, meets the
    level, rounded down."""
    products, steep = J.products(found.vector[None])[0], found.slopes == 1
    constant, slope = float(products[steep].sum()), float(products[~steep].sum())
    if slope >= 0:
        return alpha
    return min(1.0, max(alpha, (level - constant) / slope * (1 - 1e-12)))


def _certified(J: JacobianSet, level: float, left: float) -> float:
    """The smallest alpha found for which a theta certifies the level: left, or by bisection of [left, 1]."""

    first = upper_bound(_at(J, left), target=level)
    if float(first.value) <= level:
        return left
    right, theta = 1.0, first.theta
    while right - left > TOLERANCE:
        middle = 0.5 * (left + right)
        found = upper_bound(_at(J, middle), theta, STAGES[2:], target=level)
        left, right = (left, middle) if float(found.value) <= level else (middle, right)
        theta = found.theta
    return right
