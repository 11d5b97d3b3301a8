"""Certified upper bounds of max lambda_max(sym(C + B D K)) over slopes lo <= D <= hi (docs/theory.md, section 20).

With D = c + r e, |e| <= 1, and any theta > 0

    |(B^T x)_i (K x)_i| <= (theta_i (B^T x)_i^2 + (K x)_i^2/theta_i)/2,   hence   max <= lambda_max(M(theta)),
    M(theta) = sym(C + B c K) + (B r theta B^T + K^T (r/theta) K)/2.

Every theta certifies; it is sought by L-BFGS on a smoothed maximum of the eigenvalues, convex in log theta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.definite import UNIT, accumulated, eigenvalue_above, norm_above, row_sum
from robode.linalg.minimise import minimise
from robode.ode.jacobians import JacobianSet

TAU = 500.0
STAGES = ((20.0, 60), (100.0, 60), (500.0, 60), (2500.0, 60))
"""tau of the smoothing, and evaluations with it."""
QUICK = ((100.0, 15), (1000.0, 15))
"""Stages that a log can afford: within 0.1 % of what more of them find."""


@dataclass(frozen=True)
class UpperBound:
    """value: (L,), never below the maximum in spite of rounding; theta: (L, k), which proves it."""

    value: Tensor
    theta: Tensor


@dataclass(frozen=True)
class Density:
    """X = Q p Q^T, p the softmax of tau lambda/scale: what the smoothed maximum sees of M.

    BXB, KXK, BXK: (L, k), the diagonals of B^T X B, K X K^T and B^T X K^T; root: (L, n, n) with X = root root^T;
    top: (L, n), the top eigenvector of M.
    """

    BXB: Tensor
    KXK: Tensor
    BXK: Tensor
    root: Tensor
    top: Tensor

    def samples(self, count: int) -> Tensor:
        """Gaussian vectors with covariance X, the same in every call, (L, count, n)."""
        noise = torch.randn(count, self.root.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        return noise @ self.root.mT


def quadratic(J: JacobianSet, theta: Tensor) -> Tensor:
    """M(theta), exactly symmetric. theta: (L, k) -> (L, n, n)."""
    c, r = J.centre[:, None, :], J.radius
    M = J.C + J.B * c @ J.K
    M = M + 0.5 * (J.B * (r * theta)[:, None, :] @ J.B.mT + J.K.mT * (r / theta)[:, None, :] @ J.K)
    return 0.5 * (M + M.mT)


def certified(J: JacobianSet, theta: Tensor) -> Tensor:
    """What theta proves, whatever rounding did to M(theta). (L, k) -> (L,); inf where theta is unusable."""
    absolute = JacobianSet(J.C.abs(), J.B.abs(), J.K.abs(), J.centre.abs(), J.centre.abs())
    c, r = absolute.centre[:, None, :], J.radius
    size = absolute.C + absolute.B * c @ absolute.K
    size = size + 0.5 * (absolute.B * (r * theta)[:, None, :] @ absolute.B.mT)
    size = size + 0.5 * (absolute.K.mT * (r / theta)[:, None, :] @ absolute.K)
    # no term of an entry takes part in more than k + 8 roundings
    error = row_sum(0.5 * (size + size.mT)) * accumulated(J.K.shape[-2] + 10) + 1e-290
    return torch.where((theta > 0).all(-1), eigenvalue_above(quadratic(J, theta), error), torch.inf)


class _Smoothed:
    """log sum exp(tau lambda_k(M)/scale)/tau as a function of log theta, which remembers the theta with the smallest
    lambda_max. Log theta may have one entry for all, (L, 1)."""

    def __init__(self, J: JacobianSet, theta: Tensor) -> None:
        self.J, self.tau = J, STAGES[0][0]
        self.best = torch.full((len(J),), torch.inf, dtype=torch.float64)
        self.theta = theta.clone()
        self.scale = scale(J)
        self.half_radius = 0.5 * J.radius
        J0 = J.C + J.B * J.centre[:, None, :] @ J.K
        self.constant = 0.5 * (J0 + J0.mT)

    def __call__(self, logs: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        whole = len(which) == len(self.J)
        B, K, half, constant, size = (
            M if whole else M[which] for M in (self.J.B, self.J.K, self.half_radius, self.constant, self.scale)
        )
        theta = logs.clamp(-300, 300).exp().expand(len(which), K.shape[-2])
        M = constant + B * (half * theta)[:, None, :] @ B.mT + K.mT * (half / theta)[:, None, :] @ K
        values, Q = eigh(M)
        self._remember(values[:, -1], theta, which)
        weights = self.tau * (values - values[:, -1:]) / size[:, None]
        smooth = values[:, -1] / size + weights.logsumexp(1) / self.tau
        p = weights.softmax(1)[..., None]
        gradient = half * (theta * ((B.mT @ Q).square() @ p)[..., 0] - ((K @ Q).square() @ p)[..., 0] / theta)
        return smooth, (gradient / size[:, None]).sum_to_size(logs.shape)

    def _remember(self, largest: Tensor, theta: Tensor, which: Tensor) -> None:
        better = largest < (self.best if len(which) == len(self.best) else self.best[which])
        if bool(better.any()):
            self.best[which[better]], self.theta[which[better]] = largest[better], theta[better]


def eigh(M: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, those of 0 for a matrix that is not finite with eigenvalues inf, so that a search
    turns back."""
    finite = M.isfinite().flatten(1).all(1)
    values, Q = torch.linalg.eigh(torch.where(finite[:, None, None], M, 0.0))
    return torch.where(finite[:, None], values, torch.inf), Q


def scale(J: JacobianSet) -> Tensor:
    """A measure of the size of M, (L,), 1 where all is 0."""
    r = J.radius
    J0 = J.C + J.B * J.centre[:, None, :] @ J.K
    size = torch.linalg.matrix_norm(0.5 * (J0 + J0.mT), 2)
    spread = torch.linalg.matrix_norm(J.B * r.sqrt()[:, None, :], 2) * torch.linalg.matrix_norm(
        r.sqrt()[..., None] * J.K, 2
    )
    total = 0.5 * size + spread
    return torch.where(total > 0, total, 1.0)


def balanced(J: JacobianSet) -> Tensor:
    """The scalar theta = ||r^(1/2) K||/||B r^(1/2)|| in each entry, (L, k): it proves what norms prove, or more."""
    root = J.radius.sqrt()
    B, K = (torch.linalg.matrix_norm(M, 2) for M in (J.B * root[:, None, :], root[..., None] * J.K))
    theta = torch.where((B > 0) & (K > 0), K / B, 1.0)
    return theta[:, None].expand_as(J.lo).clone()


def norm_bound(J: JacobianSet) -> Tensor:
    """UB0 = lambda_max(sym(C + B c K)) + ||B r^(1/2)|| ||r^(1/2) K||, certified. (L,)"""
    root = J.radius.sqrt()
    spread = norm_above(J.B * root[:, None, :]) * norm_above(root[..., None] * J.K)
    spread = spread * (1 + 16 * sum(J.B.shape[1:]) * UNIT)  # rounded entries change a norm by 2 u ||.||_F at most
    centre = certified(JacobianSet(J.C, J.B, J.K, J.centre, J.centre), torch.ones_like(J.lo))
    return centre + spread + 4 * UNIT * (centre.abs() + spread)


def scalar_bound(J: JacobianSet) -> UpperBound:
    """UB1, the best of one theta for all slopes. Never above UB0."""
    start = balanced(J)
    search = _Smoothed(J, start)
    logs = start[:, :1].log()
    for search.tau, evaluations in STAGES:
        logs = minimise(search, logs, evaluations // 2)
    return _best(J, [search.theta, start], norm_bound(J))


def upper_bound(
    J: JacobianSet,
    theta: Tensor | None = None,
    stages: Sequence[tuple[float, int]] = STAGES,
    target: Tensor | float = -torch.inf,
) -> UpperBound:
    """UB2, the best theta (L, k) found. Without a theta to begin with, from that of UB1 on, so never above UB1; with
    one, never above what that proves. The search for a layer ends once it is at most `target`."""
    ceiling = torch.full((len(J),), torch.inf, dtype=torch.float64)
    if theta is None:
        first = scalar_bound(J)
        theta, ceiling = first.theta, first.value
    search = _Smoothed(J, theta)
    logs = theta.log()
    for search.tau, evaluations in stages:
        logs = minimise(search, logs, evaluations, finished=lambda: search.best <= target)
    return _best(J, [search.theta, theta], ceiling)


def _best(J: JacobianSet, thetas: Sequence[Tensor], ceiling: Tensor) -> UpperBound:
    """The better of certified bounds of several theta, layer by layer; values are cut at a bound known otherwise."""
    values = torch.stack([certified(J, theta) for theta in thetas])
    value, place = values.min(0)
    theta = torch.stack(list(thetas))[place, torch.arange(len(J))]
    return UpperBound(torch.minimum(value, ceiling), theta)


def density(J: JacobianSet, theta: Tensor) -> Density:
    """X at theta, smoothed by TAU."""
    values, Q = eigh(quadratic(J, theta))
    p = (TAU * (values - values[:, -1:]) / scale(J)[:, None]).softmax(1)[..., None]
    BQ, KQ = J.B.mT @ Q, J.K @ Q
    BXB, KXK, BXK = ((M @ p)[..., 0] for M in (BQ.square(), KQ.square(), BQ * KQ))
    return Density(BXB, KXK, BXK, Q * p.mT.sqrt(), Q[..., -1])
