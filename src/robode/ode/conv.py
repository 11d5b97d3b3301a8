"""Convolutions of images as linear maps: the map, its adjoint, and upper bounds of its norm.

A zero-padded "same" convolution is a compression of the circular one on a torus that is larger by the kernel's reach
p, and that one is a small matrix for each frequency. So its norm is at most the largest norm of these matrices
(`linalg.convolution.conv_norm`, in float64, is the certificate). Source: Sedghi, Gupta, Long, "The singular values of
convolutional layers", 2019; docs/theory.md, section 14.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robode.errors import BadInput
from robode.linalg.activations import Activation
from robode.linalg.convolution import conv_norm
from robode.linalg.norms import host_may_look, largest_eigenvalue
from robode.ode.bounds import Scalar
from robode.ode.field import VectorField
from robode.ode.step import Step

PROOF = 5e-4  # by how much `norms_squared` may exceed the largest of the matrices: a thousand times float32's rounding
ITERATIONS, GUESSES = 10, 4
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Convolution:
    """W: images (B, c, H, W) -> (B, c', H, W), stride 1, zero padding. kernel: (c', c, 2p + 1, 2q + 1)."""

    kernel: Tensor

    @property
    def padding(self) -> tuple[int, int]:
        return self.kernel.shape[2] // 2, self.kernel.shape[3] // 2

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """W x + b. x: (B, c, H, W); bias: (c')."""
        return F.conv2d(x, self.kernel, bias, padding=self.padding)

    def adjoint(self, z: Tensor) -> Tensor:
        """W^T z. z: (B, c', H, W) -> (B, c, H, W)."""
        return F.conv_transpose2d(z, self.kernel, padding=self.padding)

    def norm(self, height: int, width: int) -> float:
        """Certified upper bound of ||W|| on height x width images, in float64."""
        return float(conv_norm(self.kernel, height, width))


@dataclass(frozen=True)
class ConvGradientField(VectorField):
    """f(x) = -W^T sigma(W x + b) = -grad sum_i Sigma(W x + b)_i, Sigma' = sigma, on images x (B, c, H, W).

    b: (c'); size: (H, W), for which the constants are certified.
    """

    W: Convolution
    b: Tensor
    activation: Activation
    size: tuple[int, int]

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return -self.W.adjoint(self.activation(self.W(y, self.b)))

    def jacobian(self, t: Scalar, y: Tensor) -> Tensor:
        raise BadInput("expected a flow whose pixels do not mix: the Jacobian of a convolution is no small matrix")

    def lognorm(self) -> float:
        return 0.0  # -W^T D W is negative semidefinite, and zero where D is

    def lipschitz(self) -> float:
        return self.activation.slope_bound * self.W.norm(*self.size) ** 2

    def euler_lipschitz(self, h: float) -> float:
        """Sharp over the slopes: max(1, h S ||W||^2 - 1)."""
        return max(1.0, h * self.lipschitz() - 1)


@torch.no_grad()
def norms_squared(kernels: Tensor, height: int, width: int) -> Tensor:
    """Upper bounds of ||W||^2 that are cheap enough for every optimiser step: in float32, at most 0.05 % above the
    largest of the squared norms of the symbol. kernels: (L, c', c, 2p + 1, 2q + 1) -> (L) float32.

    A guess by power iteration, a proof by Cholesky factorisation: where guess I - G(f) has none, and there alone, the
    largest eigenvalue of the Gram matrix G(f) is computed. A function of the weights alone; nan where a kernel, or a
    square of its norm, is not finite.
    """
    fine = kernels.flatten(1).isfinite().all(1)
    G = gram_symbols(torch.where(fine[:, None, None, None, None], kernels, 0.0).float(), height, width)
    frobenius = torch.view_as_real(G).square().sum((-3, -2, -1)).sqrt()
    scale = frobenius.amax(1).clamp_min(TINY)  # no power of G overflows, and the largest does not vanish
    G = G / scale[:, None, None, None]
    v = G.sum(-1, keepdim=True)
    for _ in range(ITERATIONS):
        v, before = G @ v, v
    growth = v.abs().square().sum((-2, -1)) / before.abs().square().sum((-2, -1)).clamp_min(TINY)
    likely = growth.topk(min(GUESSES, G.shape[1]), 1).indices
    guess = _largest_eigenvalues(torch.take_along_dim(G, likely[..., None, None], 1)).amax(1)
    difference = -G
    difference.diagonal(dim1=-2, dim2=-1).add_((1 + PROOF / 2) * guess[:, None, None])
    unproved = torch.linalg.cholesky_ex(difference).info > 0
    found = torch.zeros_like(unproved, dtype=guess.dtype)
    if not host_may_look(kernels):
        found = torch.where(unproved, _largest_eigenvalues(G), found)
    elif bool(unproved.any()):
        found[unproved] = _largest_eigenvalues(G[unproved])
    bound = torch.maximum(guess, found.amax(1)) * scale * (1 + PROOF)
    return torch.where(fine & bound.isfinite(), bound, torch.nan)


def gram_symbols(kernels: Tensor, height: int, width: int) -> Tensor:
    """W^(f)* W^(f), or W^(f) W^(f)* where that is smaller, of circular convolutions on the (height + p) x (width + q)
    torus at one frequency f of each conjugate pair: (L, c', c, k, l) -> (L, frequencies, n, n), n = min(c', c).

    W^T W is itself a convolution. Its kernel R is the correlation of W's kernel with itself, and as R(-d) = R(d)^T,
    half of it and real arithmetic give the Hermitian matrices. complex64.
    """
    K = kernels if kernels.shape[1] <= kernels.shape[2] else kernels.transpose(1, 2)
    k, m = K.shape[-2:]
    with torch.backends.cudnn.flags(enabled=False):  # which would round to TF32
        R = F.conv2d(K.transpose(0, 1).flatten(1, 2), K.flatten(0, 1), padding=(k - 1, m - 1), groups=len(K))
    R = R.flatten(2).permute(2, 1, 0).reshape(-1, *K.shape[:2], K.shape[1]).transpose(0, 1)  # (L, shifts, n, n)
    middle = R.shape[1] // 2
    later, zero = R[:, middle + 1 :], torch.zeros_like(R[:, : middle + 1])
    real = torch.cat([R[:, middle, None], later + later.mT, zero[:, 1:]], 1)
    imaginary = torch.cat([zero, later.mT - later], 1)
    turns = _turns(max(height + k // 2, k), max(width + m // 2, m), k, m)[:, middle:]
    waves = torch.cat([turns.cos(), turns[:, 1:].sin()], 1).to(R)
    parts = torch.stack([real, imaginary], -1).flatten(2)
    return torch.view_as_complex((waves @ parts).view(len(K), -1, *R.shape[-2:], 2))


def _turns(height: int, width: int, rows: int, columns: int) -> Tensor:
    """Phases of the shifts -(rows - 1) ... rows - 1 by -(columns - 1) ... columns - 1 of a height x width torus at the
    frequencies that `torch.fft.rfft2` keeps: (frequencies, shifts) float64."""
    down, along = (
        2 * math.pi / size * torch.arange(frequencies, dtype=torch.float64)[:, None] * torch.arange(1 - taps, taps)
        for size, frequencies, taps in ((height, height, rows), (width, width // 2 + 1, columns))
    )
    return (down[:, None, :, None] + along[None, :, None, :]).flatten(2).flatten(0, 1)


def _largest_eigenvalues(G: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(G)[..., -1].clamp_min(0)


@dataclass(frozen=True)
class Halving:
    """A map (B, c, H, W) -> (B, factor c, H/2, W/2) of norm (Lipschitz constant) 1, for even H and W."""

    function: Callable[[Tensor], Tensor]
    factor: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


# Each output of the mean is the inner product with (1/2, 1/2, 1/2, 1/2); windows of the maximum do not overlap.
HALVINGS = {
    "space_to_depth": Halving(lambda x: F.pixel_unshuffle(x, 2), factor=4),
    "mean_pool": Halving(lambda x: 2 * F.avg_pool2d(x, 2)),
    "max_pool": Halving(lambda x: F.max_pool2d(x, 2)),
}


@dataclass(frozen=True)
class StageChange(Step):
    """Half the resolution, then V, a 1x1 convolution to the next channels. V: (c_next, factor c), orthonormal."""

    halve: Callable[[Tensor], Tensor]
    V: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(self.halve(x), self.V[:, :, None, None])

    def lipschitz(self) -> float:
        """Certified: the norm of V, as halving has the constant 1."""
        return float(largest_eigenvalue(self.V).sqrt())


class PixelMean(Step):
    """sqrt(H W) times the mean over the pixels, a map of norm 1: (B, c, H, W) -> (B, c, 1, 1)."""

    def __call__(self, y: Tensor) -> Tensor:
        return y.mean((2, 3), keepdim=True) * (y.shape[2] * y.shape[3]) ** 0.5

    def lipschitz(self) -> float:
        return 1.0
