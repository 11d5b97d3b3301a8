"""The logarithmic norm of fields with one hidden layer, from both sides: max over slopes lo <= D <= hi of
lambda_max(sym(C + B D K)) (docs/theory.md, section 20); and what it says of a network of Euler steps.

delta(A), the rate of sigma(A y + b) with slopes in [alpha, 1], is the case C = 0, B = I, K = A, lo = alpha, hi = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.definite import UNIT
from robode.ode.jacobians import JacobianSet, jacobian_set
from robode.ode.lognorm_exact import Maximum, maximum
from robode.ode.lognorm_lower import SAMPLES, alternate, attained, lower_bound
from robode.ode.lognorm_upper import QUICK, balanced, density, upper_bound

FEW = 4  # random vectors to begin with, where time is short


@dataclass(frozen=True)
class LogNormBounds:
    """lower <= largest log-norm <= upper, both certified. vector (n,), with its worst slopes, attains lower; theta (k,)
    proves upper: where the search for slightly other weights begins. None where no search was needed."""

    lower: float
    upper: float
    vector: Tensor | None = None
    theta: Tensor | None = None


def lognorm(
    C: Tensor,
    B: Tensor,
    K: Tensor,
    lo: Tensor | float,
    hi: Tensor | float,
    seconds: float = 0.0,
    theta: Tensor | None = None,
) -> list[Maximum]:
    """For each layer certified bounds of the maximum, the slopes and the vector that attain the lower one, and the
    theta that proves the upper one.

    C: (..., n, n), B: (..., n, k), K: (..., k, n), at most one batch dimension, the layers; lo, hi: numbers or
    (..., k). seconds: of branch and bound for each layer; the bounds meet if it is enough. theta: (layers, k), of an
    earlier call, to begin with. Raises `BadInput` for weights that are not finite.
    """
    J = jacobian_set(C, B, K, lo, hi)
    if seconds > 0:
        return [
            maximum(J[j : j + 1], seconds, theta=None if theta is None else theta[j : j + 1]) for j in range(len(J))
        ]
    above = upper_bound(J, theta)
    below = lower_bound(J, density(J, above.theta).samples(SAMPLES))
    return [
        Maximum(low.value, float(high), low.slopes, low.vector, proof, 0, closed=False)
        for low, high, proof in zip(below, above.value, above.theta, strict=True)
    ]


def both_sides(J: JacobianSet, known: LogNormBounds | None = None, enough: float = -math.inf) -> LogNormBounds:
    """`lognorm` of the only layer of J with less effort: from what was known of slightly other weights on, and none
    beyond that where the maximum is at most `enough`."""
    theta, vector = (None, None) if known is None else (known.theta, known.vector)
    if theta is None:
        above = upper_bound(J, balanced(J), QUICK, enough)
    else:
        above = upper_bound(J, theta[None], QUICK[-1:], enough)
    if vector is not None and bool(above.value <= enough):
        found = attained(J, J.steepest(vector[None])[0], vector)
    else:
        X = density(J, above.theta)
        more = X.samples(FEW)[0] if vector is None else vector[None]
        D, values, Q = alternate(J, J.steepest(torch.cat([X.top, more])))
        best = int(values[:, -1].argmax())
        found = attained(J, D[best], Q[best, :, -1])
    return LogNormBounds(found.value, float(above.value), found.vector, above.theta[0])


def euler_lipschitz(lognorm: float, norm: float, h: float, steps: int = 1) -> float:
    """Certified Lipschitz constant of N explicit Euler steps of length h through fields whose Jacobians have
    logarithmic norms <= lognorm and norms <= norm: (1 + 2 h lognorm + h^2 norm^2)^(N/2), rounded up; inf on overflow.

    For D A with slopes D <= 1 the norm is ||A||. Raises `BadInput` for h < 0, where the sign of lognorm turns.
    """
    if h < 0:
        raise BadInput(f"step: expected h >= 0, got {h}")
    try:
        square = (h * norm) ** 2
        base = max(0.0, 1 + 2 * h * lognorm + square) + 16 * UNIT * (1 + 2 * h * abs(lognorm) + square)
        return base ** (0.5 * steps) * (1 + 8 * UNIT)
    except OverflowError:
        return math.inf
