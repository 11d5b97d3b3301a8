"""The smallest change of A for which one theta certifies max over alpha <= D <= 1 of mu_2(D A) <= target.

    minimise ||W - A||_F^2/2   subject to   lambda_max(M(W, theta)) <= target,   W (d, d) and theta > 0 (d,)

is convex jointly in (W, theta), and a linear matrix inequality (docs/theory.md, section 21). The solver is first order:
L-BFGS over (W, log theta) on the augmented Lagrangian (Hestenes 1969; Powell 1969; Rockafellar 1973) with a smoothed
lambda_max. Its level is moved by what smoothing adds, so that the limit meets the target and not the smoothed one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robode.linalg.minimise import minimise
from robode.ode.lognorm_upper import eigh

FAR = ((20.0, 60), (100.0, 60), (500.0, 60), (500.0, 60), (2500.0, 60), (2500.0, 60), (2500.0, 60), (2500.0, 60))
NEAR = ((2500.0, 30), (2500.0, 30), (2500.0, 30), (2500.0, 30), (2500.0, 60))
"""tau of the smoothing, and evaluations between two updates of the multiplier: from anywhere, and from weights that
exceed the target by little."""
LITTLE = 0.05  # of the size of A and the target
CLOSE = 1e-4  # of the size of A and the target: how near to the target the search ends
STIFF = 8.0  # penalty over 1/||gradient||^2, the curvature of the dual


class _Lagrangian:
    """||W - A||^2/2 + (max(0, nu + rho (f - level))^2 - nu^2)/(2 rho), f the smoothed lambda_max of M(W, theta).

    Points are (W, log theta/unit) in one row, unit (L, 1) such that both have curvatures of one size. A and the target
    are at most about 1.
    """

    def __init__(self, A: Tensor, target: Tensor, alpha: float) -> None:
        self.A, self.target, self.level = A, target, target.clone()
        self.c, self.r = 0.5 * (1 + alpha), 0.5 * (1 - alpha)
        self.tau, self.unit = FAR[0][0], torch.ones_like(target)[:, None]
        self.nu, self.rho = torch.zeros_like(target), torch.ones_like(target)
        self.largest, self.smooth, self.slope = (torch.zeros_like(target) for _ in range(3))

    def join(self, W: Tensor, logs: Tensor) -> Tensor:
        return torch.cat([W.flatten(1), logs / self.unit], 1)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(W, log theta)."""
        d = self.A.shape[-1]
        return x[:, : d * d].reshape(-1, d, d), x[:, d * d :] * self.unit

    def __call__(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        rows = slice(None) if len(which) == len(self.A) else which  # of all of them nothing is copied
        d, unit = self.A.shape[-1], self.unit[rows]
        W, theta = x[:, : d * d].reshape(-1, d, d), (x[:, d * d :] * unit).clamp(-300, 300).exp()
        rho, nu = self.rho[rows], self.nu[rows]
        M = 0.5 * self.c * (W + W.mT) + 0.5 * self.r * (torch.diag_embed(theta) + W.mT / theta[:, None, :] @ W)
        values, Q = eigh(M)
        weights = self.tau * (values - values[:, -1:])
        smooth = values[:, -1] + weights.logsumexp(1) / self.tau
        root = Q * weights.softmax(1).sqrt()[:, None, :]  # X = root root^T
        X, WQ = root @ root.mT, W @ root
        by_W = self.c * X + self.r / theta[..., None] * (WQ @ root.mT)
        by_logs = 0.5 * self.r * (theta * X.diagonal(dim1=1, dim2=2) - WQ.square().sum(2) / theta)
        self.largest[rows], self.smooth[rows] = values[:, -1], smooth
        self.slope[rows] = by_W.flatten(1).square().sum(1)
        push = (nu + rho * (smooth - self.level[rows])).clamp_min(0)
        change = W - self.A[rows]
        value = 0.5 * change.flatten(1).square().sum(1) + (push.square() - nu.square()) / (2 * rho)
        gradient = torch.cat([(change + push[:, None, None] * by_W).flatten(1), push[:, None] * by_logs * unit], 1)
        return value, gradient

    def prepare(self, x: Tensor) -> None:
        """Looks at x: the penalty fits the gradient there, and the first multiplier is Newton's step for the dual."""
        self(x, torch.arange(len(x)))
        gradient = self.slope.clamp_min(1e-12)
        self.rho = STIFF / gradient
        self.nu = (self.largest - self.target).clamp_min(0) / gradient
        d = self.A.shape[-1]
        self.unit = (d / (self.nu * self.r).clamp_min(1e-12))[:, None].sqrt().clamp(1e-3, 1e3)

    def update(self, x: Tensor) -> Tensor:
        """The multiplier's step at x; by how much lambda_max exceeds the target there, (L,)."""
        self(x, torch.arange(len(x)))
        self.nu = (self.nu + self.rho * (self.smooth - self.level)).clamp_min(0)
        self.rho = STIFF / self.slope.clamp_min(1e-12)
        return self.largest - self.target

    def smoothen(self, x: Tensor, tau: float) -> None:
        """Goes on with this tau; the level is the target with what the smoothing adds at x."""
        self.tau = tau
        self(x, torch.arange(len(x)))
        self.level = self.target + (self.smooth - self.largest)


def nearest(A: Tensor, target: Tensor, alpha: float, theta: Tensor) -> tuple[Tensor, Tensor]:
    """W (L, d, d) near the solution, which meets the target up to `CLOSE`, and theta (L, d) there.

    A: (L, d, d) float64; target: (L,); theta: (L, d), the best that is known for A.
    """
    size = torch.maximum(torch.linalg.matrix_norm(A, 2), target.abs())  # all is homogeneous, so searched at size 1
    size = torch.where(size > 0, size, 1.0)
    A, theta = A / size[:, None, None], theta / size[:, None]
    problem = _Lagrangian(A, target / size, alpha)
    problem.prepare(problem.join(A, theta.log()))
    x = problem.join(A, theta.log())
    near = bool((problem.largest - problem.target <= LITTLE).all())
    stages = NEAR if near else FAR
    last = stages[-1][0]
    for tau, evaluations in stages:
        problem.smoothen(x, tau)
        x = minimise(problem, x, evaluations)
        excess = problem.update(x)
        if tau == last and bool((excess.abs() <= CLOSE).all()):
            break
    W, logs = problem.parts(x)
    return size[:, None, None] * W, size[:, None] * logs.clamp(-300, 300).exp()
