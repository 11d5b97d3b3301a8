"""Inverse problems y = K x + e with a circular blur K: its exact constants, the naive inverse, total variation.

Images are (B, C, H, W), of any floating-point type, which is kept. K is diagonal under the discrete Fourier transform:
f(x) = ||K x - y||^2/2 is mu-strongly convex with an L-Lipschitz gradient, mu and L the least and the largest
|k^(w)|^2. docs/theory.md, section 30.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robode.errors import BadInput

PRIMAL = 1.0  # step in x of the primal-dual method; the dual one is 1/(8 PRIMAL), as ||grad||^2 <= 8


@dataclass(frozen=True)
class Blur:
    """K x = k * x, the same circular convolution of every channel. spectrum: k^ at the frequencies that
    `torch.fft.rfft2` keeps, (H, W // 2 + 1) complex. size: (H, W)."""

    spectrum: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, kernel: Tensor, size: tuple[int, int]) -> Blur:
        """kernel: (k, l), centred on its middle entry. Raises `BadInput` for a kernel that is larger than the image."""
        if kernel.shape[0] > size[0] or kernel.shape[1] > size[1]:
            shown = " x ".join(map(str, kernel.shape))
            raise BadInput(f"blur: the kernel {shown} is larger than the image {size[0]} x {size[1]}")
        padded = kernel.new_zeros(size)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        middle = tuple(-(side // 2) for side in kernel.shape)
        return cls(torch.fft.rfft2(padded.roll(middle, (0, 1))), size)

    def __call__(self, x: Tensor) -> Tensor:
        """K x."""
        return self._filtered(x, self.spectrum)

    def adjoint(self, z: Tensor) -> Tensor:
        """K^T z."""
        return self._filtered(z, self.spectrum.conj())

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """K^T (K x - y)."""
        return self.adjoint(self(x) - y)

    @property
    def L(self) -> float:
        """max |k^|^2 = ||K||^2."""
        return float(self.spectrum.abs().max()) ** 2

    @property
    def mu(self) -> float:
        """min |k^|^2."""
        return float(self.spectrum.abs().min()) ** 2

    def inverse(self, y: Tensor) -> Tensor:
        """K^-1 y, the naive answer, which multiplies noise by up to mu^(-1/2); not finite where some k^ is 0."""
        return self._filtered(y, 1 / self.spectrum)

    def resolvent(self, z: Tensor, y: Tensor, tau: float) -> Tensor:
        """argmin_x ||x - z||^2/2 + tau ||K x - y||^2/2, exactly."""
        over = 1 / (1 + tau * self.spectrum.abs().square())
        return self._filtered(z + tau * self.adjoint(y), over)

    def _filtered(self, x: Tensor, spectrum: Tensor) -> Tensor:
        waves = torch.fft.rfft2(x)
        return torch.fft.irfft2(waves * spectrum.to(waves), s=self.size)


def motion_kernel(length: int) -> Tensor:
    """A motion along the diagonal at 45 degrees: (length, length) float64, 1/length on the antidiagonal. Raises
    `BadInput` for a length that is no odd number >= 1."""
    if type(length) is not int or length < 1 or length % 2 == 0:
        raise BadInput(f"blur: expected a length that is an odd whole number >= 1, got {length}")
    return torch.eye(length, dtype=torch.float64).flip(1) / length


@torch.no_grad()
def tv_deblurred(blur: Blur, y: Tensor, weight: float, steps: int = 300) -> Tensor:
    """argmin_x ||K x - y||^2/2 + weight TV(x), like y, by the primal-dual method of Chambolle and Pock (J. Math.
    Imaging Vis. 40, 2011, Algorithm 1), which converges for every weight > 0.

    TV(x) = sum over pixels of the 2-norm of the forward differences of all channels, 0 across the edge.
    """
    if not 0 < weight < math.inf or steps < 1:
        raise BadInput(f"total variation: expected a weight > 0 and steps >= 1, got {weight} and {steps}")
    x, ahead, p = y, y, _differences(torch.zeros_like(y))
    for _ in range(steps):
        p = p + _differences(ahead) / (8 * PRIMAL)
        p = p / (p.square().sum((1, 2), keepdim=True).sqrt() / weight).clamp_min(1)
        before, x = x, blur.resolvent(x - PRIMAL * _differences_adjoint(p), y, PRIMAL)
        ahead = 2 * x - before
    return x


def total_variation(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B)."""
    return _differences(x).square().sum((1, 2)).sqrt().flatten(1).sum(1)


def _differences(x: Tensor) -> Tensor:
    """Forward differences, 0 in the last row and column: (B, C, H, W) -> (B, 2, C, H, W)."""
    down, along = torch.zeros_like(x), torch.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    along[..., :-1] = x[..., 1:] - x[..., :-1]
    return torch.stack([down, along], 1)


def _differences_adjoint(p: Tensor) -> Tensor:
    """(B, 2, C, H, W) -> (B, C, H, W)."""
    down, along = p.unbind(1)
    x = torch.zeros_like(down)
    x[..., :-1, :] -= down[..., :-1, :]
    x[..., 1:, :] += down[..., :-1, :]
    x[..., :-1] -= along[..., :-1]
    x[..., 1:] += along[..., :-1]
    return x
