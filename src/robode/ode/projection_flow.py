"""Our re-implementation of a two-level method for the smallest change of A with max_D mu_2(D A) <= target, after the
abstract of De Marinis, Guglielmi, Sicilia, Tudisco, arXiv 2501.10740; their code and settings were not at hand.

Inner level, at a norm eps of the change eps E, ||E||_F = 1: the gradient flow E' = -G + <G, E> E of

    F(E) = sum over D and i of max(0, lambda_i(sym(D (A + eps E))) - target)^2/2

over the worst slopes D that were found so far; with those of the moment alone the flow stalls where several are worst.
Outer level: Newton's method for F = 0 in eps, from below. Slopes are found by climbing, so neither that the target is
met nor that the change is smallest is guaranteed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_lower import alternate, lower_bound

OUTER, INNER, POOL = 60, 40, 64
CLOSE, STATIONARY = 1e-4, 1e-2  # of ||A||: excess that ends the outer level; tangent over G that ends the inner one


class _Excess:
    """F and its gradient G with respect to the change, for the slopes (P, d) found so far."""

    def __init__(self, A: Tensor, target: float, alpha: float) -> None:
        self.A, self.target, self.alpha = A, target, alpha
        self.slopes = torch.ones_like(A[:1])
        self.look(torch.zeros_like(A))

    def __call__(self, change: Tensor) -> tuple[float, Tensor]:
        """change: (d, d)."""
        values, Q = torch.linalg.eigh(scaled_rows(self.A + change, self.alpha).symmetric(self.slopes))
        above = (values - self.target).clamp_min(0)
        G = (self.slopes[..., None] * (Q * above[:, None, :] @ Q.mT)).sum(0)
        return 0.5 * float(above.square().sum()), G

    def look(self, change: Tensor, thorough: bool = True) -> None:
        """Adds slopes that are worst for the change, found from the ones that are there, or from everywhere."""
        J = scaled_rows(self.A + change, self.alpha)
        found = alternate(J, self.slopes)[0]
        if thorough:
            found = torch.cat([found, lower_bound(J)[0].slopes[None]])
        pool = torch.unique(torch.cat([self.slopes, found]), dim=0)
        worst = torch.linalg.eigvalsh(J.symmetric(pool))[:, -1].argsort(descending=True)
        self.slopes = pool[worst[:POOL]]


def two_level(A: Tensor, target: float, alpha: float) -> Tensor:
    """W (d, d), which meets the target nearly or not at all. A: (d, d) float64."""
    excess, size = _Excess(A, target, alpha), float(torch.linalg.matrix_norm(A, 2))
    F, G = excess(torch.zeros_like(A))
    eps, E = 0.0, -G / G.norm().clamp_min(1e-300)
    for _ in range(OUTER):
        if (2 * F) ** 0.5 <= CLOSE * size:
            break
        eps += 2 * F / float(G.norm())
        E = _inner(excess, eps, E)
        excess.look(eps * E)
        F, G = excess(eps * E)
    return A + eps * E


def _inner(excess: _Excess, eps: float, E: Tensor) -> Tensor:
    """Follows the flow on the unit sphere by Euler steps that are halved until F falls."""
    step = 1.0
    excess.look(eps * E)
    F, G = excess(eps * E)
    for _ in range(INNER):
        tangent, size = (G * E).sum() * E - G, float(G.norm())
        if F == 0 or float(tangent.norm()) <= STATIONARY * size or step < 1e-6:
            break
        trial = E + step / size * tangent
        trial = trial / trial.norm()
        new, _ = excess(eps * trial)
        if new < F:
            E, step = trial, 1.5 * step
            excess.look(eps * E, thorough=False)
            F, G = excess(eps * E)
        else:
            step *= 0.5
    return E
