"""The logarithmic norm of fields sigma(A * u + b) on images, from both sides: delta = max over slopes alpha <= D <= 1,
one for each channel and pixel, of lambda_max(sym(D A)), A a convolution with zero padding.

A is a compression of the circular convolution on a torus (linalg/convolution.py), and so is every D A. For one
theta > 0 a channel

    delta <= max over the frequencies f of the torus of lambda_max(M(f, theta)),
    M(f, theta) = c sym(A^(f)) + (r diag(theta) + A^(f)* diag(r/theta) A^(f))/2,   c = (1 + alpha)/2, r = (1 - alpha)/2,

small Hermitian matrices. On the torus no theta with an entry for each pixel proves more (docs/theory.md, section 20).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.linalg.convolution import Convolution, Symbol
from robode.linalg.definite import UNIT, accumulated, eigenvalue_above, row_sum
from robode.linalg.minimise import minimise

STAGES = ((100.0, 15), (1000.0, 15))  # tau of the smoothing, and evaluations with it
WARM = STAGES[1:]  # from a theta that was found for other weights
ACTIVE = 48  # frequencies with the largest eigenvalues, at which theta is sought
CHUNK = 2**22  # entries of matrices that are factorised at once
WAVES, NOISE, ROUNDS = 3, 1, 30  # starts of the lower bound: worst waves, Gaussian images; its alternations
KRYLOV = 24  # dimension of the spaces in which eigenvectors are sought


@dataclass(frozen=True)
class ConvJacobians:
    """All D A with alpha <= D <= 1. kernel: (C, C, 2p + 1, 2q + 1) of any float type, finite; size: (H, W)."""

    kernel: Tensor
    size: tuple[int, int]
    alpha: float

    @property
    def exact(self) -> Tensor:
        """The kernel in float64, converted exactly."""
        return self.kernel.detach().double().cpu()

    @property
    def symbol(self) -> Symbol:
        """The frequencies of the picture, at which kernels become matrices."""
        return Symbol.of(self.kernel.shape[2:], self.size)

    def matrices(self, A: Tensor, theta: Tensor) -> Tensor:
        """M(f, theta), Hermitian up to rounding, for A^ (F, C, C) complex128. theta: (C,) -> (F, C, C)."""
        c, r = 0.5 * (1 + self.alpha), 0.5 * (1 - self.alpha)
        return 0.5 * c * (A + A.mH) + 0.5 * r * (torch.diag_embed(theta) + A.mH @ (A / theta[:, None]))

    def largest(self, A: Tensor, theta: Tensor) -> Tensor:
        """lambda_max of them, up to rounding, (F,)."""
        return torch.linalg.eigvalsh(self.matrices(A, theta))[:, -1]

    def certified(self, theta: Tensor) -> float:
        """What theta (C,) float64 proves of delta, in spite of rounding; inf where it is unusable."""
        if not bool(self.kernel.any()):
            return 0.0  # exactly, whatever theta
        if not bool((theta > 0).all()):
            return math.inf
        A = self.symbol(self.exact)
        count = max(1, CHUNK // self.kernel.shape[0] ** 2)
        found = max(float(self._above(part, theta).max()) for part in torch.split(A, count))
        off = self.symbol.error(self.exact)  # delta changes by at most the norm of a change
        return found + off + 4 * UNIT * (abs(found) + off)

    def _above(self, A: Tensor, theta: Tensor) -> Tensor:
        """Upper bounds of lambda_max of the exact M(f, theta) of these A^. (F,)"""
        M = self.matrices(A, theta)
        size = self.matrices(A.abs(), theta)
        # no term takes part in more than 2 C + 12 roundings, which complex numbers multiply by at most sqrt 2
        error = row_sum(size) * accumulated(3 * len(theta) + 20) + 1e-290
        return eigenvalue_above(0.5 * (M + M.mH), error)

    def balanced(self) -> Tensor:
        """The scalar theta = ||A^||, in each entry: it proves c mu_2 + r ||A||, or less. (C,)"""
        norm = torch.linalg.matrix_norm(self.symbol(self.exact), 2).max()
        return torch.where(norm > 0, norm, 1.0).expand(self.kernel.shape[0]).clone()


@dataclass(frozen=True)
class ConvBound:
    """value: certified, never below delta; theta: (C,), which proves it."""

    value: float
    theta: Tensor


def conv_upper_bound(J: ConvJacobians, theta: Tensor | None = None, target: float = -torch.inf) -> ConvBound:
    """The best theta found, from a given one or from that of norms on, so never above what that proves. The search is
    left out where it proves the target."""
    start = J.balanced() if theta is None else theta
    known = J.certified(start)
    if known <= target or not bool(J.kernel.any()):
        return ConvBound(known, start)
    found = searched(J, start, STAGES if theta is None else WARM)
    better = J.certified(found)
    return ConvBound(better, found) if better < known else ConvBound(known, start)


def searched(J: ConvJacobians, theta: Tensor, stages: Sequence[tuple[float, int]]) -> Tensor:
    """A theta for which the largest eigenvalue over all frequencies is small: L-BFGS on a smoothed maximum over those
    frequencies that mattered so far, convex in log theta. (C,)"""
    A = J.symbol(J.exact)
    active = torch.zeros(len(A), dtype=torch.bool)
    at = J.largest(A, theta)
    best, found = float(at.max()), theta
    size = torch.linalg.matrix_norm(A, 2).max().clamp_min(torch.finfo(torch.float64).tiny)
    for tau, evaluations in stages:
        active[at.topk(min(ACTIVE, len(A))).indices] = True
        seen = A[active]

        def smooth(logs: Tensor, which: Tensor, seen: Tensor = seen, tau: float = tau) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                logs = logs.detach().requires_grad_()
                values = smooth_maximum(J.matrices(seen, logs[0].clamp(-300, 300).exp()), size / tau)
                (gradient,) = torch.autograd.grad(values / size, logs)
            return (values / size).detach()[None], gradient

        theta = minimise(smooth, found.log()[None], evaluations)[0].exp()
        at = J.largest(A, theta)
        if float(at.max()) < best:
            best, found = float(at.max()), theta
    return found


def smooth_maximum(M: Tensor, width: Tensor | float) -> Tensor:
    """width log sum exp(lambda/width) over all eigenvalues of Hermitian matrices (F, n, n): at least the largest of
    them. 0-d, differentiable."""
    return width * (torch.linalg.eigvalsh(M) / width).flatten().logsumexp(0)


# ---- from below -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvAttained:
    """value <= x^T D A x/x^T x for the slopes D (C, H, W) and the image x (C, H, W): delta is at least that."""

    value: float
    slopes: Tensor
    vector: Tensor


@torch.no_grad()
def conv_lower_bound(J: ConvJacobians, theta: Tensor) -> ConvAttained:
    """The worst slopes found by alternation between the worst D for an image x and the top eigenvector x of sym(D A),
    from the waves at the worst frequencies of M(f, theta) and Gaussian images on."""
    begin = torch.cat([_waves(J, theta), _gaussian(J)])
    return max((_climb(J, x) for x in begin), key=lambda found: found.value)


def _waves(J: ConvJacobians, theta: Tensor) -> Tensor:
    """Real parts of the top eigenvectors' waves on the image, (WAVES, C, H, W)."""
    M = J.matrices(J.symbol(J.exact), theta)
    values, Q = torch.linalg.eigh(M)
    worst = values[:, -1].topk(min(WAVES, len(M))).indices
    phases = J.symbol.phases(J.size)[worst]  # (P, H, W)
    waves = torch.polar(torch.ones_like(phases), phases)[:, None] * Q[worst, :, -1, None, None]
    return torch.view_as_real(waves).sum(-1)  # in no worse phase than its real part: never 0


def _gaussian(J: ConvJacobians) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE, len(J.kernel), *J.size, dtype=torch.float64, generator=generator)


def _climb(J: ConvJacobians, x: Tensor) -> ConvAttained:
    """Alternation from x (C, H, W) on, while it helps."""
    A = Convolution(J.exact)
    best = _attained(J, A, _steepest(J, A, x), x)
    for _ in range(ROUNDS):
        x = _top(A, best.slopes, best.vector)
        found = _attained(J, A, _steepest(J, A, x), x)
        if found.value <= best.value:
            break
        best = found
    return best


def _steepest(J: ConvJacobians, A: Convolution, x: Tensor) -> Tensor:
    """The slopes that are worst for x."""
    return torch.full_like(x, J.alpha).masked_fill(x * A(x[None])[0] > 0, 1.0)


def _top(A: Convolution, D: Tensor, x: Tensor) -> Tensor:
    """The Ritz vector of sym(D A) in the Krylov space of x: near a top eigenvector, and no worse than x."""
    basis, images = x.flatten()[None] / x.norm(), []
    for _ in range(KRYLOV):
        y = basis[-1].view_as(D)[None]
        images.append((0.5 * (D * A(y) + A.adjoint(D * y))).flatten())
        rest = images[-1]
        for _ in range(2):  # orthogonal in spite of rounding
            rest = rest - (basis @ rest) @ basis
        if len(images) == min(KRYLOV, x.numel()) or rest.norm() <= 1e-10 * images[-1].norm():
            break
        basis = torch.cat([basis, rest[None] / rest.norm()])
    return (torch.linalg.eigh(basis @ torch.stack(images).mT).eigenvectors[:, -1] @ basis).view_as(x)


def _attained(J: ConvJacobians, A: Convolution, D: Tensor, x: Tensor) -> ConvAttained:
    """Rayleigh's quotient, rounded down."""
    quotient = float((x * D * A(x[None])[0]).sum() / x.square().sum())
    absolute = Convolution(J.exact.abs())
    size = float((x.abs() * D * absolute(x.abs()[None])[0]).sum() / x.square().sum())
    hidden = accumulated(J.kernel[0].numel() + 2 * x.numel() + 10) * size
    return ConvAttained(quotient - hidden, D, x)
