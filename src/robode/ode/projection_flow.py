"""Our re-implementation of a two-level method for the smallest change of A with max_D mu_2(D A) <= target, after the
description in De Marinis, Guglielmi, Sicilia, Tudisco, arXiv 2501.10740; their code was not at hand.

Inner level, at a norm eps of the change eps E, ||E||_F = 1: the gradient flow E' = -G + <G, E> E of

    F(E) = sum_i max(0, lambda_i(sym(D (A + eps E))) - target)^2/2,   D the worst slopes found for A + eps E.

Outer level: Newton's method for F = 0 in eps, from below. The slopes are a local maximum and several can be active at
the solution, so neither that the target is met nor that the change is smallest is guaranteed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_lower import alternate, lower_bound

OUTER, INNER = 40, 60
CLOSE, FLAT = 1e-4, 1e-4  # of ||A||: excess that ends the outer level; relative gain that ends the inner one


class _Excess:
    """F and its gradient G with respect to the change, with slopes that follow it."""

    def __init__(self, A: Tensor, target: float, alpha: float) -> None:
        self.A, self.target, self.alpha = A, target, alpha
        self.D = A.new_ones(1, len(A))

    def __call__(self, change: Tensor, thorough: bool = False) -> tuple[float, Tensor]:
        """change: (d, d). thorough: look for worse slopes from everywhere, not from the last ones alone."""
        J = scaled_rows(self.A + change, self.alpha)
        if thorough:
            found = torch.cat([self.D, lower_bound(J)[0].slopes[None]])
            self.D = found[torch.linalg.eigvalsh(J.symmetric(found))[:, -1].argmax()][None]
        self.D, values, Q = alternate(J, self.D)
        above = (values[0] - self.target).clamp_min(0)
        G = self.D[0][:, None] * ((Q[0] * above) @ Q[0].mT)
        return 0.5 * float(above.square().sum()), G


def two_level(A: Tensor, target: float, alpha: float) -> Tensor:
    """W (d, d), which meets the target nearly or not at all. A: (d, d) float64."""
    excess, size = _Excess(A, target, alpha), float(torch.linalg.matrix_norm(A, 2))
    F, G = excess(torch.zeros_like(A), thorough=True)
    eps, E = 0.0, -G / G.norm().clamp_min(1e-300)
    for _ in range(OUTER):
        if (2 * F) ** 0.5 <= CLOSE * size:
            break
        eps += 2 * F / float(G.norm())
        E = _inner(excess, eps, E)
        F, G = excess(eps * E, thorough=True)
    return A + eps * E


def _inner(excess: _Excess, eps: float, E: Tensor) -> Tensor:
    """Follows the flow on the unit sphere by Euler steps that are halved until F falls."""
    F, G = excess(eps * E, thorough=True)
    step = 1.0
    for _ in range(INNER):
        tangent = -G + (G * E).sum() * E
        if F == 0 or float(tangent.norm()) <= 1e-9 * float(G.norm()):
            break
        trial = E + step / float(G.norm()) * tangent
        trial = trial / trial.norm()
        new, new_G = excess(eps * trial)
        if new < F:
            gained, E, F, G, step = F - new, trial, new, new_G, 1.5 * step
            if gained <= FLAT * F:
                break
        else:
            step *= 0.5
            if step < 1e-6:
                break
    return E
