"""`conv_stabilise`: the kernel near A for which one theta a channel proves a log-norm of at most delta, as its type
holds it (docs/theory.md, section 21).

    minimise ||K - A||_F^2/2   subject to   max_f lambda_max(M(f, theta; K)) <= target

is convex jointly in (K, theta). L-BFGS over (K, log theta) on the augmented Lagrangian (Hestenes 1969; Powell 1969),
with a smoothed maximum over the frequencies that mattered so far. What it leaves above the target, and what rounding
adds, is repaired: theta proves a K, so t theta proves t K, and theta + s proves K - s I to be lower by alpha s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.minimise import minimise
from robode.ode.conv_lognorm import ACTIVE, ConvBound, ConvJacobians, conv_upper_bound, smooth_maximum

FAR = ((100.0, 20), (300.0, 20), *((1000.0, 20),) * 5)
NEAR = ((1000.0, 20),) * 3
"""tau of the smoothing, and evaluations between two updates of the multiplier: from anywhere, and from weights that
exceed the target by little."""
LITTLE = 0.05  # of the size of A and the target
CLOSE = 1e-3  # of the size of A and the target: how near to the target the search ends
STIFF = 8.0  # penalty over 1/||gradient||^2, the curvature of the dual
THIN = 3  # one in so many frequencies that exceed the target: their neighbours follow
REPAIRS, PULLS = 60, 4


@dataclass(frozen=True)
class ConvStabilised:
    """kernel: type and device of A; bound: certified by theta (C,), at most the target; distance: ||kernel - A||_F."""

    kernel: Tensor
    bound: float
    theta: Tensor
    distance: float


def conv_stabilise(J: ConvJacobians, target: float, theta: Tensor | None = None) -> ConvStabilised:
    """For the kernel A of J. One that is certified already comes back bit by bit. theta: (C,), which certified earlier
    weights.

    Raises `BadInput` for a target that the type of the kernel does not reach.
    """
    first = conv_upper_bound(J, theta, target)
    if first.value <= target:
        return ConvStabilised(J.kernel.detach(), first.value, first.theta, 0.0)
    solved = _repaired(J, *_pulled_back(J, *_nearest(J, first.theta, target), first, target), target)
    scale, shift = _remedies(J, first.value - target, target)
    if min((1 - scale) * float(J.exact.norm()), shift * len(J.kernel) ** 0.5) >= solved.distance:
        return solved
    return min(solved, _repaired(J, J.exact, first.theta, target), key=lambda found: found.distance)


class _Lagrangian:
    """||K - A||^2/2 + (max(0, nu + rho (f - level))^2 - nu^2)/(2 rho), f the smoothed maximum over the active
    frequencies. Points are (K, log theta/unit) in one row; A and the target are at most about 1. The level is the
    target with what the smoothing adds."""

    def __init__(self, J: ConvJacobians, target: float) -> None:
        self.J, self.A, self.target, self.symbol = J, J.exact, target, J.symbol
        self.active = torch.zeros(len(self.symbol.waves), dtype=torch.bool)
        self.nu, self.rho, self.level, self.unit, self.tau = 0.0, 0.0, target, 1.0, 1.0

    def join(self, K: Tensor, theta: Tensor) -> Tensor:
        return torch.cat([K.flatten(), theta.log() / self.unit])[None]

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(K, theta)."""
        n = self.A.numel()
        return x[0, :n].view_as(self.A), (x[0, n:] * self.unit).clamp(-300, 300).exp()

    def balanced(self, x: Tensor) -> Tensor:
        """The same point, in a unit with which both parts have curvatures of one size."""
        K, theta = self.parts(x)
        stiffness = max(0.5 * (1 - self.J.alpha) * self.nu, 1e-12)
        self.unit = min(max(math.sqrt(len(K) / stiffness), 1e-3), 1e3)
        return self.join(K, theta)

    def excess(self, x: Tensor) -> Tensor:
        """By how much lambda_max exceeds the target, (F,)."""
        K, theta = self.parts(x)
        return self.J.largest(self.symbol(K), theta) - self.target

    def smooth(self, x: Tensor) -> Tensor:
        K, theta = self.parts(x)
        return smooth_maximum(self.J.matrices(self.symbol(K, self.active), theta), 1 / self.tau)

    def prepare(self, x: Tensor, tau: float) -> None:
        """The multiplier's step at x, Newton's for the dual at first; and what mattered there becomes active."""
        at = self.excess(x)
        if self.rho:
            self.nu = max(0.0, self.nu + self.rho * (float(self.smooth(x)) - self.level))
        self.tau = tau
        self.active[at.topk(min(ACTIVE, len(at))).indices] = True
        self.active[::THIN] |= at[::THIN] > 0
        with torch.enable_grad():
            point = x.clone().requires_grad_()
            value = self.smooth(point)
            (gradient,) = torch.autograd.grad(value, point)
        slope = max(float(gradient[0, : self.A.numel()].square().sum()), 1e-12)
        if not self.rho:
            self.nu = max(0.0, float(at.max())) / slope
        self.rho = STIFF / slope
        self.level = self.target + float(value.detach()) - (float(at.max()) + self.target)

    def __call__(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            push = (self.nu + self.rho * (self.smooth(x) - self.level)).clamp_min(0)
            change = self.parts(x)[0] - self.A
            value = 0.5 * change.square().sum() + (push.square() - self.nu**2) / (2 * self.rho)
            (gradient,) = torch.autograd.grad(value, x)
        return value.detach()[None], gradient


def _nearest(J: ConvJacobians, theta: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """K near the solution, and theta there. All is homogeneous, so searched at size 1."""
    size = max(float(torch.linalg.matrix_norm(J.symbol(J.exact), 2).max()), abs(target)) or 1.0
    problem = _Lagrangian(replace(J, kernel=J.exact / size), target / size)
    x = problem.join(problem.A, theta / size)
    stages = NEAR if float(problem.excess(x).max()) <= LITTLE else FAR
    for stage, (tau, evaluations) in enumerate(stages):
        problem.prepare(x, tau)
        x = minimise(problem, x if stage else problem.balanced(x), evaluations)
        if tau == stages[-1][0] and abs(float(problem.excess(x).max())) <= CLOSE:
            break
    K, found = problem.parts(x)
    return size * K, size * found


def _pulled_back(J: ConvJacobians, K: Tensor, theta: Tensor, first: ConvBound, target: float) -> tuple[Tensor, Tensor]:
    """From (K, theta) back towards A and its theta, as far as secants of a convex function prove that it may go."""
    for _ in range(PULLS):
        below = float(J.largest(J.symbol(K), theta).max()) - target
        if below >= 0:
            break
        share = -below / (first.value - target - below)
        K, theta = K + share * (J.exact - K), theta + share * (first.theta - theta)
    return K, theta


def _remedies(J: ConvJacobians, excess: float, target: float) -> tuple[float, float]:
    """The factor and the shift that take a bound by so much down to the target; -inf for a factor that does not."""
    return (target / (target + excess) if target > 0 else -math.inf), excess / J.alpha


def _repaired(J: ConvJacobians, K: Tensor, theta: Tensor, target: float) -> ConvStabilised:
    """K in the type of A, scaled or shifted (K - s I) by what it takes, whichever changes it less."""
    A, centre = J.kernel.detach(), identity_kernel(K)
    size = max(float(torch.linalg.matrix_norm(J.symbol(K), 2).max()), abs(target))  # of the outcome
    unit = torch.finfo(A.dtype).eps * size
    bound = math.inf
    for turn in range(REPAIRS):
        rounded = K.to(A.dtype)
        if not bool(rounded.isfinite().all()):
            break
        bound = replace(J, kernel=rounded).certified(theta)
        if bound <= target:
            return ConvStabilised(rounded.to(A.device), bound, theta, float((rounded.double() - J.exact).norm()))
        excess = bound - target + 2.0**turn / 8 * unit
        scale, shift = _remedies(J, excess, target)
        if (1 - scale) * float(K.norm()) <= shift * math.sqrt(len(K)):
            K, theta = scale * K, scale * theta
        else:
            K, theta = K - shift * centre, theta + shift
    raise BadInput(f"delta: {A.dtype} weights reach {bound:.6g} for certain, expected {target:.6g}")


def identity_kernel(K: Tensor) -> Tensor:
    """The kernel (C, C, 2p + 1, 2q + 1) of the identity, of the type of K."""
    found = torch.zeros_like(K)
    found[:, :, K.shape[2] // 2, K.shape[3] // 2] = torch.eye(len(K), dtype=K.dtype)
    return found
