"""`stabilise`: weights W near A with delta(W) = max over alpha <= D <= 1 of mu_2(D W) <= target, and a proof that
rounding does not spoil (docs/theory.md, section 21).

The set of such W is convex, closed and not empty, so the smallest change in the Frobenius norm is a projection.
Methods: `lmi` (the default: the least change that one theta certifies), `cuts` (the least of all, small d), `scaling`,
`shift`, and `two_level` (our re-implementation of a gradient flow). What a method leaves above the target, and what
rounding to the type of A adds, is repaired by a little scaling or shift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.linalg.definite import UNIT
from robode.ode import projection_cuts, projection_flow, projection_lmi
from robode.ode.jacobians import scaled_rows
from robode.ode.lognorm_exact import maximum
from robode.ode.lognorm_upper import certified, quadratic, upper_bound

METHODS = ("lmi", "cuts", "scaling", "shift", "two_level")
POLISH = ((2500.0, 40),)
REPAIRS, PULLS = 60, 30
BOTH: Sequence[str] = ("scaling", "shift")


@dataclass(frozen=True)
class Certificate:
    """delta(W) <= lambda_max(M(W + s I, theta)) - alpha s. theta: (d,); s: 0 unless a shift was needed."""

    theta: Tensor
    shift: float = 0.0

    def bound(self, W: Tensor, alpha: float) -> float:
        """What it proves for W (d, d), any float type, in spite of rounding; inf where nothing. One factorisation."""
        if not bool(W.any()):
            return 0.0  # exactly, whatever theta
        back = W.detach().double().cpu() + self.shift * torch.eye(len(W), dtype=torch.float64)
        # delta changes by at most the norm of a change, here of the rounded diagonal
        rounded = 2 * UNIT * float(back.diagonal().abs().max()) if self.shift else 0.0
        found = float(certified(scaled_rows(back, alpha), self.theta[None]))
        gain = (alpha if self.shift >= 0 else 1.0) * self.shift  # slopes are at least alpha and at most 1
        return found - gain + rounded + 8 * UNIT * (abs(found) + abs(gain))


@dataclass(frozen=True)
class Stabilised:
    """W: (d, d), type and device of A. bound: certified, delta(W) <= bound <= target. distance: ||W - A||_F.

    certificate: proves the bound; None where branch and bound did (`cuts`, `two_level`). least: no admissible weights
    are nearer to A; 0 where nothing is known.
    """

    W: Tensor
    bound: float
    distance: float
    certificate: Certificate | None
    least: float = 0.0


@dataclass(frozen=True)
class Goal:
    """delta(W) <= target for slopes in [alpha, 1], by W of the type of A."""

    A: Tensor
    target: float
    alpha: float

    @property
    def exact(self) -> Tensor:
        """A in float64, converted exactly."""
        return self.A.detach().double().cpu()

    def result(self, W: Tensor, bound: float, proof: Certificate | None, least: float = 0.0) -> Stabilised:
        """What was found: weights W like A, the proved bound of their log-norm, and ||W - A||_F."""
        distance = float((W.double().cpu() - self.exact).norm())
        return Stabilised(W.to(self.A.device), bound, distance, proof, least)


Prove = Callable[[Tensor, float, float], float]
"""(W (d, d) as rounded, the factor and the shift that made it) -> a certified bound of delta(W)."""


def stabilise(
    A: Tensor,
    target: float,
    alpha: float,
    method: str = "lmi",
    warm: Certificate | None = None,
    seconds: float = 60.0,
) -> Stabilised:
    """A: (d, d), any float type. Weights that are certified already come back bit by bit. warm: the certificate of
    earlier weights, whose theta to begin with. seconds: of cutting planes and of branch and bound.

    Raises `BadInput` for weights that are not finite, alpha outside (0, 1], a target that cannot be reached.
    """
    goal = _goal(A, target, alpha, method)
    if warm is not None and (bound := warm.bound(A, alpha)) <= target:
        return goal.result(A.detach(), bound, warm)
    J = scaled_rows(A, alpha)
    found = upper_bound(J, warm.theta[None], POLISH, target) if warm else upper_bound(J, target=target)
    proof = Certificate(found.theta[0])
    if (bound := proof.bound(A, alpha)) <= target:
        return goal.result(A.detach(), bound, proof)
    if method in BOTH:
        return _by_theta(goal, goal.exact, proof.theta, (method,))
    if method == "lmi":
        return _lmi(goal, proof.theta)
    return _by_search(goal, method, seconds)


def _goal(A: Tensor, target: float, alpha: float, method: str) -> Goal:
    if method not in METHODS:
        raise BadInput(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if A.dim() != 2:
        raise BadInput(f"expected one square matrix (d, d), got {tuple(A.shape)}")
    scaled_rows(A, alpha)
    if not math.isfinite(target):
        raise BadInput(f"delta: expected a finite target, got {target}")
    lowest = -0.5 * alpha * torch.finfo(A.dtype).max  # of W = -s I
    if target < lowest:
        raise BadInput(f"delta: expected a target of at least {lowest:.3g}, which {A.dtype} reaches, got {target:g}")
    if method == "scaling" and target <= 0:
        raise BadInput(f"delta: scaling reaches targets above 0, got {target}; method=shift or lmi reaches all")
    if method == "cuts" and len(A) > projection_cuts.LARGEST:
        raise BadInput(f"method: cuts takes widths up to {projection_cuts.LARGEST}, got {len(A)}; method=lmi takes all")
    return Goal(A, target, alpha)


# ---- what one theta certifies ---------------------------------------------------------------------------------------


def _by_theta(goal: Goal, W: Tensor, theta: Tensor, ways: Sequence[str]) -> Stabilised:
    """W as it is after repair, certified by theta, or by more where the rounding of a large shift is no longer small
    beside it."""
    noise = torch.finfo(goal.A.dtype).eps

    def proof(factor: float, shift: float) -> Certificate:
        return Certificate((factor * theta).clamp_min(noise * abs(shift)), shift)

    def prove(rounded: Tensor, factor: float, shift: float) -> float:
        return proof(factor, shift).bound(rounded, goal.alpha)

    W, bound, factor, shift = _repaired(goal, W, prove, ways)
    return goal.result(W, bound, proof(factor, shift))


def _lmi(goal: Goal, theta: Tensor) -> Stabilised:
    """The solution of the LMI, or what scaling or a shift gives, if that is nearer to A."""
    A, target = goal.exact, torch.tensor([goal.target], dtype=torch.float64)
    solved, found = projection_lmi.nearest(A[None], target, goal.alpha, theta[None])
    better = upper_bound(scaled_rows(solved, goal.alpha), found, POLISH).theta[0]
    W = _pulled_back(goal, solved[0], better)
    ways = BOTH if goal.target > 0 else ("shift",)
    results = [_by_theta(goal, W, better, ways), _by_theta(goal, A, theta, ways)]
    return min(results, key=lambda result: result.distance)


def _pulled_back(goal: Goal, W: Tensor, theta: Tensor) -> Tensor:
    """As far back from W towards A as theta certifies; W itself where it does not certify W."""
    A = goal.exact

    def excess(share: float) -> float:
        M = quadratic(scaled_rows(W + share * (A - W), goal.alpha), theta[None])
        return float(torch.linalg.eigvalsh(M)[0, -1]) - goal.target

    low, high = 0.0, 1.0
    if excess(low) > 0:
        return W
    for _ in range(PULLS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) <= 0 else (low, middle)
    return W + low * (A - W)


# ---- what branch and bound certifies --------------------------------------------------------------------------------


def _by_search(goal: Goal, method: str, seconds: float) -> Stabilised:
    """What cutting planes or the two-level flow give, after repair."""

    def prove(rounded: Tensor, factor: float, shift: float) -> float:
        found = maximum(scaled_rows(rounded, goal.alpha), seconds, threshold=goal.target)
        return found.lower if found.lower > goal.target else found.upper

    A, least = goal.exact, 0.0
    if method == "cuts":
        cut = projection_cuts.nearest(A, goal.target, goal.alpha, seconds)
        W, least = cut.W, cut.least
    else:
        W = projection_flow.two_level(A, goal.target, goal.alpha)
    # near many worst slopes branch and bound ends soon only where something is left between them and the target
    margin = 8 * projection_cuts.TOLERANCE
    W, bound, _, _ = _repaired(goal, W, prove, BOTH if goal.target > 0 else ("shift",), margin)
    return goal.result(W, bound, None, least=least)


# ---- repair ---------------------------------------------------------------------------------------------------------


def _repaired(
    goal: Goal, W: Tensor, prove: Prove, ways: Sequence[str], margin: float = 0.0
) -> tuple[Tensor, float, float, float]:
    """W in the type of A with a bound that is at most the target, scaled or shifted (W - s I) by what that takes, or
    the margin (of ||W||) if that is more. Returns W, its bound, its factor, its shift."""
    A, factor, shift = goal.A, 1.0, 0.0
    size = max(float(torch.linalg.matrix_norm(W, 2)), abs(goal.target))  # of the outcome
    unit = max(torch.finfo(A.dtype).eps, margin) * size
    eye = torch.eye(len(W), dtype=W.dtype)
    bound = math.inf
    for turn in range(REPAIRS):
        rounded = W.to(A.dtype)
        if not bool(rounded.isfinite().all()):
            break
        bound = prove(rounded.double(), factor, shift)
        if bound <= goal.target:
            return rounded, bound, factor, shift
        excess = bound - goal.target + 2.0**turn / 8 * unit
        scale, step = 1.0, excess / goal.alpha
        if "scaling" in ways:
            scale = goal.target / (goal.target + excess)
            if "shift" not in ways or (1 - scale) * float(W.norm()) <= step * math.sqrt(len(W)):
                step = 0.0
            else:
                scale = 1.0
        W = scale * W - step * eye
        factor, shift = scale * factor, scale * shift + step
    raise BadInput(f"delta: {A.dtype} weights reach {bound:.6g} for certain, expected {goal.target:.6g}")
