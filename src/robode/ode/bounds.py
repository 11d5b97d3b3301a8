"""Certified bounds for x' = F grad V(x), F = J - gamma I, m I <= Hess V <= M I, and for its one-step maps.

For two solutions with difference d, the difference of the gradients is c d + r w with ||w|| <= ||d||, c = (M+m)/2
and r = (M-m)/2, and w is otherwise arbitrary. Everything below follows from this ball. rho_F = ||F|| =
sqrt(gamma^2 + ||J||^2). Sources: CH-NODE paper Eq. (9)-(14); docs/theory.md, sections 3 to 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Scalar = Tensor | float


def value(x: Scalar) -> float:
    """The number, without its gradient."""
    return float(x.detach()) if isinstance(x, Tensor) else float(x)


def square(x: Scalar) -> Scalar:
    """x^2; inf where a float overflows, as a tensor does."""
    try:
        return x**2
    except OverflowError:
        return math.inf


def contraction_margin(m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
    """(c gamma)^2 - (r rho_F)^2 = gamma^2 m M - r^2 omega^2, without the cancellation of the left-hand side."""
    return square(gamma) * m * M - square(0.5 * (M - m) * omega)


def lognorm(m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
    """Sharp logarithmic norm -nu = r rho_F - c gamma of the field over the class of potentials (Theorem 1)."""
    c, r, rho = 0.5 * (M + m), 0.5 * (M - m), (square(gamma) + omega**2) ** 0.5
    denominator = c * gamma + r * rho
    return _where(denominator, -contraction_margin(m, M, gamma, omega) / _nonzero(denominator))


def h_star(m: Scalar, M: Scalar, gamma: Scalar, omega: float) -> Scalar:
    """Largest step for which explicit Euler is nonexpansive for every potential of the class, 0 if none.

    h* = 2 (c gamma - r rho_F) / (m M rho_F^2). For m = 0 and J = 0 its limit 2 / (gamma M).
    """
    if omega == 0:
        return _where(gamma * M, 2 / _nonzero(gamma * M))
    nu = -lognorm(m, M, gamma, omega)
    found = 2 * nu / _nonzero(m * M * (square(gamma) + omega**2))
    return _where(nu, _where(m, found))


def _where(positive: Scalar, found: Scalar) -> Scalar:
    """`found` where the first is above 0, else 0; without looking at tensors from the host."""
    if isinstance(positive, Tensor) or isinstance(found, Tensor):
        condition = torch.as_tensor(positive) > 0
        return torch.where(condition, found, torch.zeros_like(torch.as_tensor(found)))
    return found if positive > 0 else 0.0


def _nonzero(x: Scalar) -> Scalar:
    """x, or 1 where x is 0 and nobody looks at the quotient."""
    return torch.where(x == 0, torch.ones_like(x), x) if isinstance(x, Tensor) else x or 1.0


def gamma_min(m: Scalar, M: Scalar, omega: float) -> Scalar:
    """Smallest gamma for which the ODE is nonexpansive for every potential of the class; Eq. (11) with epsilon -> 0."""
    if isinstance(m, Tensor):
        return omega * (M - m) / (2 * (m * M) ** 0.5)  # inf where m = 0
    return math.inf if m <= 0 else omega * (M - m) / (2 * math.sqrt(m * M))


def one_step_lipschitz(m: float, M: float, multipliers: Sequence[complex]) -> float:
    """Certified Lipschitz constant of x -> x + g(F) grad V(x) over all potentials with m I <= Hess V <= M I.

    multipliers: g on each mode of F. On mode k the difference becomes p_k d + q_k w with p = 1 + c g, q = r g. One
    mode: |p| + |q|, attained. Several: ||P d + Q w||^2 <= L^2 ||d||^2 holds by the S-procedure whenever some tau > max
    |q_k|^2 has tau (1 + max_k |p_k|^2 / (tau - |q_k|^2)) <= L^2; any tau gives a bound, the best one is sought
    by golden section between candidates (the function is convex in tau).
    """
    c, r = 0.5 * (M + m), 0.5 * (M - m)
    p = [abs(1 + c * g) for g in multipliers]
    q = [r * abs(g) for g in multipliers]
    if len(p) == 1:
        return p[0] + q[0]

    def squared(tau: float) -> float:
        return tau * (1 + max(pk**2 / (tau - qk**2) if pk > 0 else 0.0 for pk, qk in zip(p, q, strict=True)))

    floor = max(q) ** 2
    if floor == 0:
        return max(p)
    high = floor + max(p) * max(q) + max(q) ** 2 + max(p) ** 2
    low = floor * (1 + 1e-15) + 1e-300
    return math.sqrt(min(_golden_minimum(squared, low, high), (max(p) + max(q)) ** 2))


def _golden_minimum(f: Callable[[float], float], low: float, high: float, iterations: int = 80) -> float:
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa, fb = f(a), f(b)
    for _ in range(iterations):
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = f(a)
        else:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = f(b)
    return min(fa, fb)
